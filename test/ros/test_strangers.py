"""What any peer of the domain can send: nothing is written elsewhere, threads and memory stay bounded, time goes on."""

from __future__ import annotations

import array
import string
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point
from harness import Harness, camera_info, labels, picture
from motion4d_ros.msg import ObjectPrompt
from motion4d_ros.srv import SaveScene
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from motion4d_ros.imagery.validation import PNG_SIGNATURE
from motion4d_ros.ros.diagnostics import assess
from motion4d_ros.ros.inputs import prompt_topics
from motion4d_ros.ros.outputs import messages
from motion4d_ros.ros.pace import Pace
from motion4d_ros.ros.parameters import CHANGES_AT_ONCE
from motion4d_ros.ros.services import CALLS_AT_ONCE, MOST_WAITING

SHORT = {"window.length": 4}


def found(h: Harness) -> dict[str, str]:
    return {finding.rule.code: finding.text for finding in assess(h.node.snapshot())}


def set_remotely(h: Harness, **values: object) -> list[tuple[bool, str]]:
    request = SetParameters.Request()
    names = {name.replace("__", "."): value for name, value in values.items()}
    request.parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in names.items()]
    return [(r.successful, r.reason) for r in h.call(SetParameters, "set_parameters", request).results]


def test_nothing_is_written_unless_it_was_allowed_at_the_start(harness: Callable[..., Harness], tmp_path: Path) -> None:
    h = harness()
    h.connect()
    h.send(10**9)
    h.settled(1)
    for folder in (f"{tmp_path}/scene", "scene"):
        answer = h.call(SaveScene, "save_scene", SaveScene.Request(folder=folder))
        assert not answer.success and "start the node with the parameter save_root" in answer.message
        assert not answer.files and len(answer.message.splitlines()) == 1
    assert h.node.trigger_deactivate().name == h.node.trigger_cleanup().name == "SUCCESS"
    for name in ("save_root", "save_room", "models__folder", "masks__model", "depth__model", "tracks__model", "rerun"):
        ((good, reason),) = set_remotely(h, **{name: 7 if name == "save_room" else str(tmp_path)})
        assert not good and "read-only" in reason, (name, "not even while the node is unconfigured")
    assert not list(tmp_path.iterdir())


def test_names_are_checked_before_anybody_writes(harness: Callable[..., Harness], tmp_path: Path) -> None:
    root = tmp_path / "root"
    h = harness(parameters={"save_root": str(root)})
    h.connect()
    h.send(10**9)
    h.settled(1)
    (tmp_path / "elsewhere").mkdir()
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    for folder in (
        "../elsewhere",
        str(tmp_path / "elsewhere"),
        "link",
        "link/x",
        "",
        " ",
        "a/../../elsewhere",
        "x" * 5000,
    ):
        answer = h.call(SaveScene, "save_scene", SaveScene.Request(folder=folder))
        assert not answer.success and len(answer.message) < 300, folder
    assert h.call(SaveScene, "save_scene", SaveScene.Request(folder="kitchen")).files == [f"{root}/kitchen/scene.txt"]
    assert not list((tmp_path / "elsewhere").iterdir())


def test_callers_cannot_take_the_threads_that_images_arrive_by(harness: Callable[..., Harness]) -> None:
    h = harness(parameters=SHORT)
    h.connect()
    h.send(10**8)
    h.settled(1)
    h.engine.window_s, h.engine.deaf = 60.0, True
    h.stream(4)
    assert h.until(lambda: "process_window" in h.engine.calls)
    client = h.tester.create_client(Trigger, h.topic("refine"))
    assert client.wait_for_service(10.0)
    futures = [client.call_async(Trigger.Request()) for _ in range(8)]  # more would push each other out on the way
    assert h.until(lambda: sum(future.done() for future in futures) == len(futures) - MOST_WAITING)
    assert all("busy" in future.result().message for future in futures if future.done())
    before = h.counts().received
    h.stream(5, start_ns=10**10)
    assert h.until(lambda: h.counts().received == before + 5), "images go on arriving"
    h.engine.window_s = 0.0
    assert h.until(lambda: all(future.done() for future in futures))


def test_resets_are_few(harness: Callable[..., Harness]) -> None:
    h = harness()
    h.connect()
    h.send(10**8)
    h.settled(1)
    answers = [h.call(Trigger, "reset", Trigger.Request()) for _ in range(CALLS_AT_ONCE + 20)]
    done = sum(answer.success for answer in answers)
    assert "too many calls" in answers[-1].message or done > CALLS_AT_ONCE, "a slow machine gives time for some more"
    assert CALLS_AT_ONCE <= done == h.engine.calls.count("reset") < len(answers)


def test_a_flood_of_prompts_does_not_pile_up(harness: Callable[..., Harness]) -> None:
    h = harness(parameters=SHORT)
    h.connect()
    h.send(10**8)
    h.settled(1)
    h.engine.window_s = 600.0
    h.stream(4)
    assert h.until(lambda: "process_window" in h.engine.calls)
    prompts = h.publisher("prompt", ObjectPrompt)
    for _ in range(200):
        prompts.publish(ObjectPrompt(points=[Point(x=5.0, y=5.0)], mask=labels(1)))
    assert h.until(lambda: "too many prompts" in found(h).get("prompt_refused", ""))
    assert len(h.node.worker._jobs) <= prompt_topics.MOST_WAITING
    h.engine.window_s = 0.0
    assert h.until(lambda: len(h.engine.prompts) >= prompt_topics.MOST_WAITING), "those that waited are heard"


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (ObjectPrompt(name="x" * 100_000), "at most 64"),
        (ObjectPrompt(points=[Point()] * 20_000), "at most 1000"),
        (ObjectPrompt(object_id=2**32 - 1, points=[Point()]), "at most 65535"),
        (ObjectPrompt(mask=Image(width=2**31, height=2**31, encoding="mono8", step=2**31)), "absurd"),
        (ObjectPrompt(mask=Image(data=array.array("B", bytes(10**6)))), "without a size"),
    ],
)
def test_prompts_too_large_are_refused_at_once(
    harness: Callable[..., Harness], prompt: ObjectPrompt, words: str
) -> None:
    h = harness()
    h.connect()
    h.send(10**9)
    h.settled(1)
    h.publisher("prompt", ObjectPrompt).publish(prompt)
    assert h.until(lambda: words in found(h).get("prompt_refused", "")), found(h)
    assert "prompt" not in h.engine.calls and not h.node.worker.report.exceptions


def test_parameters_have_a_size_and_a_rate(harness: Callable[..., Harness]) -> None:
    h = harness()
    ((good, reason),) = set_remotely(h, map_frame="x" * 1_000_000)
    assert not good and len(reason) < 300
    h.node.parameters.pace = Pace(CHANGES_AT_ONCE, 0.0)  # a busy machine may take seconds for what comes now
    results = [set_remotely(h, budget__load=0.5) for _ in range(3)]
    assert all(good for ((good, _),) in results)
    values = [Parameter("budget.load", value=0.5).to_parameter_msg() for _ in range(600)]
    answers = h.call(SetParameters, "set_parameters", SetParameters.Request(parameters=values)).results
    refused = [answer.reason for answer in answers if not answer.successful]
    assert refused and all("too many changes" in reason for reason in refused)


def test_the_clock_of_a_stranger_does_not_stop_the_diagnostics(harness: Callable[..., Harness]) -> None:
    """`use_sim_time` can be set over the network, and /clock published: status and watchdog go by their own clock."""
    h = harness(parameters=SHORT)
    heard: list[DiagnosticArray] = []
    h.tester.create_subscription(DiagnosticArray, f"{h.ns}/diagnostics", heard.append, 10)
    h.listen("status")
    assert set_remotely(h, use_sim_time=True)[0][0]
    time.sleep(0.2)
    heard.clear()
    h.heard["status"].clear()
    assert h.until(lambda: len(heard) >= 2 and len(h.heard["status"]) >= 2), "though no clock ticks"


def png_of(width: int, height: int) -> bytes:
    """A whole, honest PNG of zeros: a few hundred kilobytes that unpack to gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, parts = zlib.compressobj(9), []
    for _ in range(0, height, 64):
        parts.append(packer.compress(bytes((1 + width * 3) * min(64, height))))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"".join(parts) + packer.flush()
    return PNG_SIGNATURE + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    """The head of a JPEG that claims a size, and no pixels."""
    return b"\xff\xd8\xff\xc0\x00\x11\x08" + struct.pack(">HH", height, width) + b"\x03\x01\x22\x00" * 2 + bytes(32)


@pytest.mark.parametrize("claimed", [(30_000, 30_000), (16_000, 4_000)])
def test_pictures_that_unpack_to_gigabytes_are_not_unpacked(
    harness: Callable[..., Harness], claimed: tuple[int, int]
) -> None:
    """Larger than any picture may be; and within that, but not what the camera sends."""
    h = harness(parameters={"image_transport": "compressed"})
    images = h.publisher("camera/image_raw/compressed", CompressedImage)
    h.publisher("camera/camera_info", CameraInfo).publish(camera_info(10**9))
    assert h.until(lambda: h.node._calibrations.ready)
    bomb = png_of(*claimed) if claimed[0] == 16_000 else jpeg_of(*claimed)
    process, most, stop = psutil.Process(), [0], threading.Event()
    before = process.memory_info().rss

    def look() -> None:
        while not stop.wait(0.002):
            most[0] = max(most[0], process.memory_info().rss)

    watcher = threading.Thread(target=look)
    watcher.start()
    for number in range(3):
        message = CompressedImage(format="png", data=array.array("B", bomb))
        message.header.stamp.sec, message.header.frame_id = 2 + number, "camera"
        images.publish(message)
    counts = h.settled(3)
    stop.set()
    watcher.join()
    assert set(counts.rejected) <= {"size", "camera_info size"} and counts.rejected_total == 3
    assert most[0] - before < 100 * 2**20, "unpacked it would be 183 MiB and more"


def test_a_publisher_of_another_type_is_named(harness: Callable[..., Harness]) -> None:
    """In a context of its own: within one, DDS refuses a second type of a topic."""
    h = harness(parameters={"silence": 0.3})
    context = Context()
    rclpy.init(context=context)
    stranger = rclpy.create_node("stranger", context=context)
    publisher = stranger.create_publisher(String, f"{h.ns}/camera/image_raw", 10)
    assert h.until(lambda: "std_msgs/msg/String" in found(h).get("wrong_type", "")), found(h)
    h.connect()
    publisher.publish(String(data="no image"))
    h.send(10**9)
    assert h.settled(1).processed == 1, "good images are used all the same"
    stranger.destroy_node()
    context.try_shutdown()


def test_a_second_node_of_the_same_name_is_named(harness: Callable[..., Harness]) -> None:
    h = harness()
    h.connect()
    h.send(10**9)
    h.settled(1)
    assert "same_name" not in found(h)
    harness(namespace=h.ns, start=False)
    assert h.until(lambda: "same_name" in found(h)), found(h)
    h.send(2 * 10**9)
    assert h.settled(2).processed == 2


def test_large_pictures_that_wait_are_bounded_in_bytes(harness: Callable[..., Harness], monkeypatch) -> None:
    monkeypatch.setattr("motion4d_ros.ros.node.ROOM", 4 * 64 * 48 * 3)
    h = harness()
    h.connect()
    h.send(10**8)
    h.settled(1)
    h.engine.accept_s = 0.5
    h.send(2 * 10**8)
    assert h.until(lambda: h.engine.calls.count("add_frame") == 2)
    for k in range(10):
        h.publisher("camera/image_raw").publish(picture(10**9 + k * 10**8))
    assert h.until(lambda: h.counts().received == 12)
    assert h.until(lambda: h.counts().dropped.get("queue full", 0) == 6), h.counts()
    h.engine.accept_s = 0.0
    h.settled(12)


def test_masks_of_as_many_ids_as_there_are_cost_their_frame_only(harness: Callable[..., Harness]) -> None:
    """The real engine: it would make an object, and a channel of every Gaussian, of each."""
    from motion4d_ros.ros.engine import make_engine

    settings = {"masks.source": "topic", "run.threads": 1, "window.length": 4, "window.horizon": 8}
    h = harness(engine=make_engine, parameters=settings)
    h.connect()
    many = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) + 60_000
    message = labels(10**9)
    message.data = array.array("B", many.tobytes())
    h.publisher("masks").publish(message)
    h.send(10**9)
    assert h.settled(1, 60.0).rejected == {"refused": 1}
    assert "at most 256" in found(h)["rejected"]
    h.publisher("masks").publish(labels(2 * 10**9))
    h.send(2 * 10**9)
    assert h.settled(2, 60.0).processed == 1 and h.engine.intake.known_ids == {1, 2}


def test_what_makes_lengths_metres_cannot_be_changed_over_the_network(harness: Callable[..., Harness]) -> None:
    """Else whoever may deactivate the node makes it call half a metre one, and say so with the scale METRIC."""
    h = harness()
    h.node.trigger_deactivate()
    h.node.trigger_cleanup()
    false = {
        "depth.units_per_metre": 500.0, "pose.known_height": 100.0, "pose.known_distance": 100.0,
        "base_to_camera": "0 0 9 0 0 0 1", "depth.model_output": "metric",
    }  # fmt: skip
    wanted = [Parameter(name, value=value).to_parameter_msg() for name, value in false.items()]
    request = SetParameters.Request(parameters=wanted)
    answer = h.call(SetParameters, "set_parameters", request)
    assert [result.successful for result in answer.results] == [False] * len(false)
    config = h.node.parameters.read()
    assert config.depth.units_per_metre == 0.0 and config.pose.known_height == 0.0 and not config.ros.base_to_camera


def test_activating_again_and_again_leaves_nothing_behind(harness: Callable[..., Harness]) -> None:
    """rclpy keeps a weak reference to every subscription and timer that ever was: seven a time."""
    h = harness()

    def held() -> int:
        return len(h.node.default_callback_group.entities)

    h.node.trigger_deactivate()
    before = held()
    for _ in range(5):
        h.node.trigger_activate()
        h.node.trigger_deactivate()
    assert held() <= before + 3, "each time again"


def test_types_of_publishers_are_looked_at_seldom_while_a_camera_is_off(
    harness: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch
) -> None:
    h = harness()
    looks = []
    ask = h.node.get_publishers_info_by_topic
    monkeypatch.setattr(h.node, "get_publishers_info_by_topic", lambda topic: looks.append(topic) or ask(topic))
    for _ in range(500):
        h.node.inputs.wrong_types()
    assert len(looks) <= 31 * len(h.node.inputs.topics)


def test_the_watchdog_cannot_be_turned_on_the_worker(harness: Callable[..., Harness]) -> None:
    """Set to a millisecond over the network it would end every step of every worker."""
    h = harness()
    wanted = [Parameter("watchdog", value=0.001).to_parameter_msg()]
    answer = h.call(SetParameters, "set_parameters", SetParameters.Request(parameters=wanted))
    assert not answer.results[0].successful and h.node.config.ros.watchdog == 60.0


def test_a_worker_that_waits_is_left_alone(harness: Callable[..., Harness], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a wait of fifty milliseconds may take seconds: nothing hangs then."""
    h = harness()
    h.connect()
    h.send(10**9)
    h.settled(1)
    waits: list[float] = []

    def wait(timeout_s: float) -> None:
        if timeout_s:
            waits.append(timeout_s)
            time.sleep(1.2)

    monkeypatch.setattr(h.node.queue, "wait", wait)
    h.node.config.ros.watchdog = 0.3
    assert h.until(lambda: len(waits) >= 4, 60.0)
    assert h.node.watch.restarts == 0 and h.node.worker.alive


def test_names_of_a_megabyte_are_refused_and_kept_nowhere(harness: Callable[..., Harness]) -> None:
    """The name of a frame is kept with its frame, for the whole horizon, and repeated in every output."""
    h = harness(parameters={"budget.queue_size": 100})
    h.connect()
    h.send(10**9)
    h.settled(1)
    name = "c" * 1_000_000
    h.publisher("camera/image_raw").publish(picture(2 * 10**9, frame=name))
    assert h.settled(2).rejected == {"name": 1}
    h.publisher("camera/camera_info").publish(camera_info(3 * 10**9, frame=name))
    assert h.until(lambda: "a name of 1000000 letters" in h.node.inputs.camera_problem)
    h.publisher("prompt", ObjectPrompt).publish(ObjectPrompt(header=messages.header(0, name), object_id=1, name="x"))
    assert h.until(lambda: "a name of 1000000 letters" in h.node._prompting.problem)
    assert len(h.node._prompting.problem) + len(h.node.inputs.camera_problem) < 300
    h.send(4 * 10**9)
    assert h.settled(3).processed == 2


def test_ever_new_encodings_do_not_fill_the_log(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"budget.queue_size": 100})
    h.connect()
    lines: list[str] = []
    h.node._log._write = lines.append
    for number in range(300):
        message = picture(10**9 + number)
        message.encoding = "".join(string.ascii_letters[int(digit) + 10 * (number % 3)] for digit in f"{number:05d}")
        h.publisher("camera/image_raw").publish(message)
    assert h.settled(300).rejected_total == 300
    assert len(lines) < 100, len(lines)
