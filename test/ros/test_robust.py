"""What a robot does to a node: overload, bad frames, jumping clocks, new cameras, lifecycle at the wrong moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from itertools import count

import numpy as np
import pytest
from harness import Harness, camera_info, labels, odometry, picture
from nav_msgs.msg import Odometry
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger

from motion4d_ros.ros.diagnostics import assess
from motion4d_ros.ros.outputs import messages
from motion4d_ros.types import CAMERA_LOST

OK = TransitionCallbackReturn.SUCCESS
LATER = 100 * 10**9
SHORT = {"window.length": 4}


def codes(h: Harness) -> set[str]:
    return {finding.rule.code for finding in assess(h.node.snapshot())}


def test_an_overloaded_node_drops_the_oldest_and_counts_them(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"budget.queue_size": 3})
    h.connect()
    h.send(10**8)
    h.settled(1)
    h.engine.accept_s = 0.5
    stamps = h.stream(20, pace_s=0.005)
    counts = h.settled(21, 20.0)
    assert counts.dropped == {"queue full": counts.dropped_total} and counts.dropped_total >= 10
    assert h.engine.frames[-1].stamp_ns == stamps[-1], "the newest frame is never the one to go"


def test_lossless_processes_everything(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"budget.mode": "lossless", "budget.queue_size": 100, **SHORT})
    h.connect()
    h.send(10**8)
    h.settled(1)
    h.engine.window_s = 0.2
    h.stream(16, pace_s=0.005)
    assert h.settled(17, 20.0).processed == 17
    assert h.until(lambda: h.engine.windows == 4)
    order = [call for call in h.engine.calls if call in ("add_frame", "process_window")]
    assert order[:10].count("process_window") >= 2, "windows are fitted as soon as they are full, not after all frames"


def test_lossless_results_do_not_depend_on_timing(harness: Callable[..., Harness]) -> None:
    """A global round that is due is neither cut short by frames and jobs that wait, nor added to in idle time."""
    h = harness(parameters={"budget.mode": "lossless", "budget.queue_size": 100, **SHORT})
    h.connect()
    answers: list[bool] = []
    advance = h.engine.process_window

    def spy(should_yield: Callable[[], bool], between: Callable[[], None]) -> list[object]:
        if h.engine.window_is_full:
            h.node.worker._jobs.append((lambda _: None, Future()))
            answers.append(should_yield())
        return advance(should_yield, between)

    h.engine.process_window = spy
    h.engine.accept_s = 0.02
    h.stream(16, pace_s=0.002)
    assert h.settled(16, 20.0).processed == 16 and h.until(lambda: h.engine.windows == 4)
    time.sleep(0.3)
    assert answers == [False] * 4 and "refine" not in h.engine.calls


def test_bad_frames_are_rejected_by_reason_and_good_ones_go_on(harness: Callable[..., Harness]) -> None:
    h = harness()
    h.connect()
    h.send(10**9)
    h.settled(1)
    images = h.publisher("camera/image_raw")
    cut = picture(2 * 10**9)
    cut.data = cut.data[:-7]
    odd = picture(2 * 10**9)
    odd.encoding = "nonsense"
    thin = picture(2 * 10**9)
    thin.step = 10
    for message in (cut, odd, thin, picture(0), picture(2 * 10**9, width=80)):
        images.publish(message)
        time.sleep(0.05)
    h.send(3 * 10**9)
    counts = h.settled(7)
    assert counts.rejected == {"data": 1, "encoding": 1, "step": 1, "stamp": 1, "camera_info size": 1}
    assert counts.processed == 2 and "rejected" in codes(h)


def test_exceptions_are_survived(harness: Callable[..., Harness]) -> None:
    h = harness(parameters=SHORT)
    h.connect()
    h.send(10**8)
    h.settled(1)
    for method in ("add_frame", "process_window", "refine"):
        h.engine.fail[method] = RuntimeError(f"no {method} today")
    h.stream(12, pace_s=0.03)
    counts = h.settled(13)
    assert counts.rejected == {"exception": 1} and counts.processed == 12
    assert h.until(lambda: set(h.node.worker.report.exceptions) == {"frame", "window", "refinement"})
    assert h.until(lambda: h.engine.windows == 2), "a window that fails after a frame did begins a new scene"
    assert "exceptions" in codes(h)


def test_out_of_memory_lowers_the_budgets(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"budget.max_static": 9000, **SHORT})
    h.connect()
    h.send(10**8)
    h.settled(1)
    h.engine.fail["process_window"] = MemoryError()
    h.stream(8, pace_s=0.03)
    assert h.until(lambda: h.node.config.budget.max_static == 6000)
    assert h.settled(9).processed == 9
    assert "out_of_memory" in codes(h) and "reset" in h.engine.calls


def test_a_dead_worker_is_restarted_once(harness: Callable[..., Harness]) -> None:
    h = harness()
    h.connect()
    h.send(10**8)
    h.settled(1)
    h.engine.fail["add_frame"] = SystemExit()
    h.send(2 * 10**8)
    assert h.until(lambda: h.node.watch.restarts == 1 and h.node.worker.alive, 5.0)
    assert "worker_restarted" in codes(h)
    assert len(h.engines) == 1 and "reset" in h.engine.calls, "a new scene of the same engine: ids are not reused"
    h.send(3 * 10**8)
    assert h.settled(3).dropped == {"worker died": 1}
    h.engine.fail["add_frame"] = SystemExit()
    h.send(4 * 10**8)
    assert h.until(lambda: "worker_dead" in codes(h), 5.0)
    time.sleep(1.5)
    assert not h.node.worker.alive, "not a second time"
    h.send(5 * 10**8)
    assert h.until(lambda: h.counts().received == 5), "alive, and keeping its books"
    assert h.node.trigger_deactivate() == OK and h.node.trigger_activate() == OK
    h.stream(3)
    assert h.settled(3).processed == 3, "activating again is the way out"


def test_whoever_waits_for_a_worker_that_dies_is_told(harness: Callable[..., Harness]) -> None:
    h = harness()
    h.connect()
    h.send(10**8)
    h.settled(1)

    def die(_: object) -> None:
        time.sleep(0.2)
        raise SystemExit("killed")

    worker = h.node.worker
    deadly, next_one = worker.submit(die), worker.submit(lambda _: None)
    assert isinstance(deadly.exception(5.0), SystemExit)
    assert h.until(next_one.cancelled, 5.0)
    assert h.until(lambda: h.node.worker is not worker and h.node.worker.alive, 5.0), "and the node goes on"
    assert h.call(Trigger, "reset", Trigger.Request()).success


def test_an_engine_that_cannot_be_reset_is_replaced(harness: Callable[..., Harness]) -> None:
    h = harness()
    h.connect()
    h.send(10**8)
    h.settled(1)
    h.engine.fail = {"add_frame": SystemExit(), "reset": RuntimeError("broken")}
    h.send(2 * 10**8)
    assert h.until(lambda: len(h.engines) == 2 and h.node.worker.alive, 5.0)
    h.send(3 * 10**8)
    assert h.settled(3).processed == 2


def test_a_looped_bag_begins_a_new_scene(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"masks.source": "topic", "pose.source": "odometry", **SHORT})
    h.connect()
    masks, poses = h.publisher("masks"), h.publisher("odometry", Odometry)
    for turn in range(3):
        h.settled(10 * turn)  # on a busy machine the last images of a turn must not meet the next one's masks
        for k in range(10):
            stamp = 10**9 + k * 10**8
            masks.publish(labels(stamp))
            poses.publish(odometry(stamp))
            h.send(stamp)
            time.sleep(0.02)
    counts = h.settled(30)
    assert counts.processed == 30, counts
    assert h.engine.calls.count("reset") == 2 and "clock_jump" in codes(h)


def test_doubles_and_latecomers_are_dropped_without_a_reset(harness: Callable[..., Harness]) -> None:
    h = harness()
    h.connect()
    for stamp in (10**9, 11 * 10**8, 11 * 10**8, 105 * 10**7, 12 * 10**8):
        h.send(stamp)
        time.sleep(0.05)
    assert h.settled(5).dropped == {"duplicate stamp": 1, "out of order": 1}
    assert "reset" not in h.engine.calls


def test_the_camera_changes_in_the_middle(harness: Callable[..., Harness]) -> None:
    h = harness()
    h.connect()
    h.stream(3)
    h.settled(3)
    for k in range(3):
        h.send(2 * 10**9 + k * 10**8, width=96, height=64)
        time.sleep(0.05)
    assert h.settled(6).processed == 6
    assert h.engine.frames[-1].camera.size == (64, 96)
    assert h.engine.calls.count("reset") == 1 and "camera_changed" in codes(h), "it is said"


def test_a_camera_that_is_lost_for_good_begins_a_new_scene(harness: Callable[..., Harness]) -> None:
    h = harness()
    h.connect()
    h.stream(3)
    h.settled(3)
    h.engine.restart = CAMERA_LOST
    h.send(2 * 10**9)
    assert h.settled(4).processed == 4, "the frame is the first of the new scene"
    assert h.engine.calls.count("reset") == 1 and len(h.engine.frames) == 1
    assert "restarted" in codes(h), "it is said"


def test_an_input_that_dies_is_named(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"masks.source": "topic", "sync_queue": 4, "silence": 1.0})
    h.connect()
    masks = h.publisher("masks")
    stamps = count(10**9, 10**8)

    def pair_is_fine() -> bool:
        """Masks and image side by side; on a busy machine the image may be read long after its masks."""
        stamp = next(stamps)
        masks.publish(labels(stamp))
        h.send(stamp)
        return h.until(lambda: h.node.queue.counts().processed > 0 and "no_partner" not in codes(h), 0.1)

    def dead() -> list[str]:
        h.send(next(stamps))
        time.sleep(0.03)
        return [f.detail for f in assess(h.node.snapshot()) if f.rule.code == "no_partner"]

    assert h.until(pair_is_fine), codes(h)
    assert h.until(lambda: dead() == [f"nothing any more on {h.ns}/masks"]), codes(h)


def test_silence_and_return(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"silence": 0.3})
    h.connect()
    h.stream(3)
    assert h.until(lambda: "image_silent" in codes(h), 3.0)
    h.send(9 * 10**9)
    assert h.until(lambda: not codes(h) & {"image_silent", "no_image"}, 3.0)
    assert h.settled(4).processed == 4


def test_images_wait_for_the_calibration(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"silence": 0.2})
    h.connect()
    for k in range(3):
        h.send(10**9 + k * 10**8, info=False)
    assert h.until(lambda: h.counts().queued == 3 and h.node._meters.newest_arrival_s > 0)
    blank = CameraInfo(width=64, height=48)
    h.publisher("camera/camera_info", CameraInfo).publish(blank)
    time.sleep(0.3)
    h.send(10**9 + 3 * 10**8, info=False)
    assert h.until(lambda: "no_camera_info" in codes(h), 2.0)
    h.send(10**9 + 4 * 10**8)
    assert h.settled(5).processed == 5


def test_a_calibration_that_was_latched_before_the_node_came(harness: Callable[..., Harness]) -> None:
    h = harness(start=False)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE)
    publisher = h.tester.create_publisher(CameraInfo, f"{h.ns}/camera/camera_info", latched)
    publisher.publish(camera_info(10**9))
    assert h.node.autostart()
    h.publisher("camera/image_raw", Image)
    for k in range(30):  # looks for it with the first image, which may come before the publisher is discovered
        h.send(10**9 + k * 10**8, info=False)
        if h.until(lambda: h.counts().processed > 0, 0.1):
            break
    assert h.until(lambda: h.counts().processed > 0)


def test_depth_of_another_camera_is_not_used_and_said(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"depth.source": "topic"})
    h.connect()
    depth = messages.image_message(np.full((48, 64), 1500, np.uint16), "16UC1", messages.header(10**9, "depth_camera"))
    h.publisher("depth").publish(depth)
    h.send(10**9)
    assert h.settled(1).processed == 1 and h.engine.frames[-1].depth_m is None
    found = {finding.rule.code: finding.text for finding in assess(h.node.snapshot())}
    assert "depth is not used: its frame is 'depth_camera', the image's is 'camera'" in found["misfit"]


def test_a_missing_partner_is_named(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"depth.source": "topic", "sync_queue": 4, "silence": 0.2})
    h.connect()
    h.stream(10, pace_s=0.03)
    assert h.until(lambda: h.counts().dropped == {"no partner": 6})
    findings = [f for f in assess(h.node.snapshot()) if f.rule.code == "no_partner"]
    assert findings and f"{h.ns}/depth" in findings[0].text
    assert h.settled(10).dropped == {"no partner": 10}, "a camera that stopped leaves nothing queued for ever"
    assert h.node.queue.counts().queued == 0


def test_live_estimates_do_not_wait_for_a_window(harness: Callable[..., Harness]) -> None:
    h = harness(parameters=SHORT)
    h.listen("tracked_objects")
    h.connect()
    h.engine.window_s = 600.0
    h.stream(4)
    assert h.until(lambda: "process_window" in h.engine.calls)
    h.stream(3, start_ns=2 * 10**9)
    assert h.until(lambda: len(h.heard["tracked_objects"]) >= 7)
    assert {message.stage for message in h.heard["tracked_objects"]} == {"live"} and h.engine.windows == 0
    h.engine.window_s = 0.0
    assert h.until(lambda: h.engine.windows == 1)
    assert h.settled(7).processed == 7


def test_the_clock_jumps_in_mid_window(harness: Callable[..., Harness]) -> None:
    h = harness(parameters=SHORT)
    h.connect()
    h.engine.window_s = 60.0
    h.stream(4, start_ns=LATER)
    assert h.until(lambda: "process_window" in h.engine.calls)
    h.send(10**9)
    assert h.settled(5).processed == 5
    assert h.engine.calls[-3:] == ["process_window", "reset", "add_frame"] and "clock_jump" in codes(h)
    h.stream(2, start_ns=11 * 10**8)
    assert h.settled(7).processed == 7 and h.engine.calls.count("reset") == 1


def test_the_camera_changes_in_mid_window(harness: Callable[..., Harness]) -> None:
    h = harness(parameters=SHORT)
    h.connect()
    h.engine.window_s = 60.0
    h.stream(4)
    assert h.until(lambda: "process_window" in h.engine.calls)
    h.send(2 * 10**9, width=96, height=64)
    assert h.settled(5).processed == 5
    assert h.engine.calls[-3:] == ["process_window", "reset", "add_frame"] and "clock_jump" not in codes(h)


def test_memory_runs_out_in_mid_window(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"budget.max_static": 9000, **SHORT})
    h.connect()
    h.engine.window_s = 60.0
    h.stream(4)
    assert h.until(lambda: "process_window" in h.engine.calls)
    h.engine.fail["add_frame"] = MemoryError()
    h.send(2 * 10**9)
    assert h.settled(5).rejected == {"exception": 1} and h.until(lambda: h.node.config.budget.max_static == 6000)
    h.engine.window_s = 0.0
    h.stream(4, start_ns=3 * 10**9)
    assert h.settled(9).processed == 8 and h.until(lambda: h.engine.windows == 1)


@pytest.mark.parametrize("moment", ["add_frame", "window", "deaf window"])
def test_deactivation_in_mid_work_is_quick_and_clean(harness: Callable[..., Harness], moment: str) -> None:
    h = harness(parameters=SHORT)
    h.connect()
    h.send(10**8)
    h.settled(1)
    h.engine.accept_s, h.engine.window_s = (0.5, 0.0) if moment == "add_frame" else (0.0, 60.0)
    h.engine.deaf = moment == "deaf window"
    h.stream(8, pace_s=0.01)
    assert h.until(lambda: h.counts().received == 9), "all have arrived before the node is deactivated"
    began = time.monotonic()
    assert h.node.trigger_deactivate() == OK
    assert time.monotonic() - began < 2.5
    counts = h.counts()
    assert counts.queued == 0 and counts.received == 9
    assert h.until(lambda: h.node.count_subscribers(f"{h.ns}/camera/image_raw") == 0), "nothing is leaked"
    assert h.node.trigger_cleanup() == OK and h.node.trigger_configure() == OK and h.node.trigger_activate() == OK
    h.connect()
    assert h.until(lambda: h.node.count_subscribers(f"{h.ns}/camera/image_raw") == 1)
    h.stream(4, start_ns=LATER)
    assert h.settled(1).processed >= 1


def test_a_worker_that_does_not_even_listen_is_left_behind(harness: Callable[..., Harness]) -> None:
    h = harness()
    h.connect()
    h.send(10**8)
    h.settled(1)
    h.engine.accept_s = 4.0
    h.send(2 * 10**8)
    assert h.until(lambda: h.engine.calls.count("add_frame") == 2), "the worker has it"
    began = time.monotonic()
    assert h.node.trigger_deactivate() == OK
    assert time.monotonic() - began < 3.0
    assert h.counts().queued == 0
    assert h.node.trigger_activate() == OK
    assert len(h.engines) == 2, "the new scene has an engine of its own"


def test_lifecycle_can_be_repeated_without_growth(harness: Callable[..., Harness]) -> None:
    h = harness(start=False)
    entities = []
    for _ in range(4):
        assert h.node.trigger_configure() == OK and h.node.trigger_activate() == OK
        assert h.node.trigger_deactivate() == OK and h.node.trigger_cleanup() == OK
        node = h.node
        entities.append((len(list(node.subscriptions)), len(list(node.publishers)), len(list(node.timers))))
    assert len(set(entities)) == 1, entities


def test_a_failing_engine_fails_the_configuration_and_says_why(
    harness: Callable[..., Harness], capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(config: object) -> object:
        raise RuntimeError("no such device")

    h = harness(engine=broken, start=False)
    assert h.node.trigger_configure() != OK
    assert h.node._state_machine.current_state[1] == "unconfigured"
    assert h.until(lambda: "no such device" in capfd.readouterr().err, 2.0)


def test_parameters_change_only_when_they_may(harness: Callable[..., Harness]) -> None:
    h = harness()

    def set_(name: str, value: object) -> tuple[bool, str]:
        result = h.node.set_parameters([Parameter(name, value=value)])[0]
        return result.successful, result.reason

    good, reason = set_("window.length", 6)
    assert not good and "cleanup" in reason
    assert set_("budget.load", 0.5) == (True, "") and h.node.config.budget.load == 0.5
    good, reason = set_("budget.load", 3.0)
    assert not good and "range" in reason.lower()
    h.node.trigger_deactivate()
    h.node.trigger_cleanup()
    assert set_("window.length", 6)[0]
    good, reason = set_("masks.source", "guessed")
    assert not good and "choose one of propagation" in reason
    good, reason = set_("window.horizon", 5)
    assert not good and "window.length=6" in reason
    good, reason = set_("map_frame", "x" * 5000)
    assert not good and "5000 characters" in reason
    assert set_("map_frame", "world")[0]


def test_odometry_in_another_frame_is_refused_not_mislabelled(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"pose.source": "odometry", "map_frame": "map"})
    h.connect()
    h.publisher("odometry", Odometry).publish(odometry(10**9, frame="odom"))
    h.send(10**9)
    assert h.settled(1).rejected == {"odometry frame": 1}
    assert "map_frame:=odom" in h.node.worker.report.last_rejection


def test_depth_and_extrinsic_reach_the_engine(harness: Callable[..., Harness]) -> None:
    sources = {"pose.source": "odometry", "depth.source": "topic"}
    h = harness(parameters={**sources, "base_to_camera": "0 0 0.5 0 0 0 1", "slop": 0.02})
    h.connect()
    depth = np.full((48, 64), 1500, np.uint16)
    head = messages.header(10**9 + 10**7, "camera")
    h.publisher("depth", Image).publish(messages.image_message(depth, "16UC1", head))
    h.publisher("odometry", Odometry).publish(odometry(10**9 - 5 * 10**6, x=2.0))
    h.send(10**9)
    assert h.settled(1).processed == 1
    frame = h.engine.frames[-1]
    assert np.allclose(frame.depth_m, 1.5) and np.allclose(frame.T_map_cam[:3, 3], (2.0, 0.0, 0.5))


def test_depth_and_masks_of_half_size_are_scaled_and_said_once(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"depth.source": "topic", "masks.source": "topic"})
    h.connect()
    depth = np.arange(1, 769, dtype=np.uint16).reshape(24, 32)
    for stamp in (10**9, 2 * 10**9):
        head = messages.header(stamp, "camera")
        h.publisher("depth").publish(messages.image_message(depth, "16UC1", head))
        h.publisher("masks").publish(labels(stamp, 32, 24, ids=(3,)))
        h.send(stamp)
    assert h.settled(2).processed == 2
    frame = h.engine.frames[-1]
    assert np.array_equal(frame.depth_m, np.kron(depth, np.ones((2, 2))).astype(np.float32) * np.float32(1e-3))
    assert np.array_equal(np.argwhere(frame.masks == 3).min(0), (20, 10)), "labels stay labels"
    found = {finding.rule.code: finding.text for finding in assess(h.node.snapshot())}
    for words in ("depth of 32x24 px scaled to the image's 64x48", "masks of 32x24"):
        assert words in found["misfit"]
    wide = messages.image_message(depth[:18], "16UC1", messages.header(3 * 10**9, "camera"))
    h.publisher("depth").publish(wide)
    h.publisher("masks").publish(labels(3 * 10**9))
    h.send(3 * 10**9)
    assert h.settled(3).rejected == {"depth size": 1}
    assert "32x18 px does not show the view of 64x48" in h.node.worker.report.last_rejection
