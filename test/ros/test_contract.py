"""The contract with users, over real DDS: every topic, type, QoS, frame and stamp; nothing unwanted is computed."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from harness import HEIGHT, WIDTH, Harness, camera_info, labels, odometry, picture
from motion4d_ros.msg import TrackedObject, TrackedObjectArray
from motion4d_ros.srv import SaveScene
from nav_msgs.msg import Odometry
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointField
from std_srvs.srv import Trigger

from motion4d_ros.ros.outputs.markers import NAMESPACES
from motion4d_ros.ros.outputs.publishers import TOPICS

IN_MAP = ("tracked_objects", "camera_pose", "tracked_points", "static_points", "status")
IN_CAMERA = ("semantic_mask", "semantic_overlay", "semantic_confidence", "render", "depth", "depth_sigma", "confidence")
WITH_MASKS = {"masks.source": "topic", "pose.source": "odometry", "window.length": 4}


def run_with_everything(
    make: Callable[..., Harness], *topics: str, frames: int = 8, **parameters: object
) -> tuple[Harness, list[int]]:
    h = make(parameters={**WITH_MASKS, **parameters})
    if topics:
        h.listen(*topics)
    h.connect()
    masks, poses = h.publisher("masks", Image), h.publisher("odometry", Odometry)
    stamps = [10**9 + 10**8 * k for k in range(frames)]
    for stamp in stamps:
        masks.publish(labels(stamp))
        poses.publish(odometry(stamp, x=stamp * 1e-9))
        h.send(stamp)
        time.sleep(0.02)
    counts = h.settled(frames)
    assert counts.processed == frames, counts
    assert h.until(lambda: h.engine.windows == frames // 4 and h.engine.refinements >= 1)
    time.sleep(0.3)
    return h, stamps


def test_every_output_has_its_type_stamp_and_frame(harness: Callable[..., Harness]) -> None:
    h, stamps = run_with_everything(harness, *TOPICS)
    assert h.until(lambda: h.heard["static_points"] and h.heard["status"], 5.0)
    for name, kind in TOPICS.items():
        assert h.heard[name], f"nothing on {name}"
        assert all(isinstance(message, kind) for message in h.heard[name])
    for name in IN_MAP:
        assert {message.header.frame_id for message in h.heard[name][-3:]} == {"odom"}, name
    for name in IN_CAMERA:
        assert {message.header.frame_id for message in h.heard[name]} == {"camera"}, name
    for name in (*IN_CAMERA, "tracked_objects", "tracked_points"):
        heard = {m.header.stamp.sec * 10**9 + m.header.stamp.nanosec for m in h.heard[name]}
        assert heard <= set(stamps), name
        assert stamps[0] in heard, name
    marker = h.heard["markers"][-1].markers[0]
    assert marker.header.frame_id == "odom"
    assert {m.ns for m in h.heard["markers"][-1].markers} == set(NAMESPACES)


def test_stages_follow_one_another_for_the_same_stamp(harness: Callable[..., Harness]) -> None:
    h, stamps = run_with_everything(harness, "tracked_objects")
    stages: dict[int, list[str]] = {stamp: [] for stamp in stamps}
    for message in h.heard["tracked_objects"]:
        stages[message.header.stamp.sec * 10**9 + message.header.stamp.nanosec].append(message.stage)
    for stamp, seen in stages.items():
        order = [stage for number, stage in enumerate(seen) if number == 0 or seen[number - 1] != stage]
        assert order[:2] == [TrackedObjectArray.STAGE_LIVE, TrackedObjectArray.STAGE_WINDOW], (stamp, seen)
        assert set(seen) <= {"live", "window", "global"}
    assert stages[stamps[0]][-1] == "global"
    first = h.heard["tracked_objects"][0]
    assert [state.id for state in first.objects] == [1, 2]
    assert first.objects[0].state == TrackedObject.STATE_TRACKED
    assert first.scale == TrackedObjectArray.SCALE_METRIC
    assert first.objects[0].pose.pose.position.x == pytest.approx(1.0)  # the odometry's x, one metre behind the plane z
    assert first.objects[0].pose.covariance[0] == pytest.approx(1e-4)
    assert first.objects[0].twist.twist.angular.z == pytest.approx(0.2)


def test_pictures_and_clouds_hold_what_they_promise(harness: Callable[..., Harness]) -> None:
    h, _ = run_with_everything(harness, *IN_CAMERA, "tracked_points")
    encodings = dict(zip(IN_CAMERA, ("16UC1", "rgb8", "32FC1", "rgb8", "32FC1", "32FC1", "32FC1"), strict=True))
    for name, encoding in encodings.items():
        message = h.heard[name][0]
        assert (message.encoding, message.width, message.height) == (encoding, WIDTH, HEIGHT), name
        assert message.step * message.height == len(message.data)
    mask = np.frombuffer(h.heard["semantic_mask"][0].data, np.uint16).reshape(HEIGHT, WIDTH)
    assert set(np.unique(mask)) == {0, 1, 2}
    sure = np.frombuffer(h.heard["semantic_confidence"][0].data, np.float32)
    assert sure == pytest.approx(0.8)
    depth, sigma = (np.frombuffer(h.heard[name][0].data, np.float32) for name in ("depth", "depth_sigma"))
    assert depth == pytest.approx(1.0) and sigma == pytest.approx(0.1)
    cloud = h.heard["tracked_points"][0]
    fields = {field.name: field.datatype for field in cloud.fields}
    real, whole = PointField.FLOAT32, PointField.UINT32
    assert fields == {
        "x": real, "y": real, "z": real, "rgb": real, "point_id": whole, "object_id": whole,
        "vx": real, "vy": real, "vz": real, "confidence": real,
    }  # fmt: skip
    assert cloud.point_step * cloud.width == cloud.row_step == len(cloud.data)
    point = np.frombuffer(cloud.data, np.uint32).reshape(cloud.width, -1)[0]
    assert point[3] == 0xFF8000  # rgb, as RViz unpacks it


def test_nothing_is_computed_for_nobody(harness: Callable[..., Harness]) -> None:
    h, _ = run_with_everything(harness)
    assert h.engine.rendered == 0
    h.listen("render")
    for k in range(4):
        h.publisher("masks").publish(labels(5 * 10**9 + k * 10**8))
        h.publisher("odometry").publish(odometry(5 * 10**9 + k * 10**8))
        h.send(5 * 10**9 + k * 10**8)
    assert h.until(lambda: h.engine.rendered == 4)


def test_qos_in_and_out(harness: Callable[..., Harness]) -> None:
    h = harness(parameters=WITH_MASKS, sensor_qos=True)
    for name in ("camera/image_raw", "camera/camera_info", "masks", "odometry"):
        infos = h.tester.get_subscriptions_info_by_topic(f"{h.ns}/{name}")
        assert len(infos) == 1, name
        assert infos[0].qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        assert infos[0].qos_profile.durability == DurabilityPolicy.VOLATILE
    for name in TOPICS:
        assert h.until(lambda name=name: h.tester.get_publishers_info_by_topic(h.topic(name)))
        qos = h.tester.get_publishers_info_by_topic(h.topic(name))[0].qos_profile
        assert qos.reliability == ReliabilityPolicy.RELIABLE, name
        late = DurabilityPolicy.TRANSIENT_LOCAL if name == "static_points" else DurabilityPolicy.VOLATILE
        assert qos.durability == late, name


def test_qos_can_be_overridden(harness: Callable[..., Harness]) -> None:
    ns = f"/q{time.monotonic_ns()}"
    h = harness(
        namespace=ns,
        sensor_qos=True,
        parameters={
            f"qos_overrides.{ns}/camera/image_raw.subscription.reliability": "reliable",
            f"qos_overrides.{ns}/motion4d/markers.publisher.reliability": "best_effort",
        },
    )
    subscription = h.tester.get_subscriptions_info_by_topic(f"{ns}/camera/image_raw")[0]
    assert subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    other = h.tester.get_subscriptions_info_by_topic(f"{ns}/camera/camera_info")[0]
    assert other.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT, "an override holds for its topic alone"
    publisher = h.tester.get_publishers_info_by_topic(f"{ns}/motion4d/markers")[0]
    assert publisher.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT


def test_static_points_wait_for_late_joiners(harness: Callable[..., Harness]) -> None:
    h, _ = run_with_everything(harness, "static_points")
    assert h.until(lambda: h.heard["static_points"], 5.0)
    h.heard["static_points"].clear()
    h.listen("static_points")
    assert h.until(lambda: h.heard["static_points"], 5.0), "a late joiner hears the last map although no image comes"
    assert [field.name for field in h.heard["static_points"][0].fields] == ["x", "y", "z", "rgb", "confidence"]


def test_status_publishes_books_that_balance(harness: Callable[..., Harness]) -> None:
    h, _ = run_with_everything(harness, "status")
    assert h.until(lambda: h.heard["status"] and h.heard["status"][-1].windows == 2, 5.0)
    for message in h.heard["status"]:
        assert message.received == message.processed + message.dropped + message.rejected + message.queued
        assert sum(message.drop_counts) == message.dropped and sum(message.reject_counts) == message.rejected
    last = h.heard["status"][-1]
    assert last.processed == 8 and last.memory_rss > 10**6 and last.latency_live > 0 and last.latency_window > 0
    assert last.stage_names == ["window"]


@pytest.mark.parametrize("name", ["image_raw", "image_rect"])
def test_a_rectified_topic_is_not_rectified_again(harness: Callable[..., Harness], name: str) -> None:
    h = harness(remap={"image": f"camera/{name}"})
    info = camera_info(10**9)
    info.d = [-0.3, 0.1, 0.0, 0.0, 0.0]  # as `image_proc` leaves it beside the rectified images
    h.publisher("camera/camera_info", CameraInfo).publish(info)
    h.publisher(f"camera/{name}", Image).publish(picture(10**9))
    assert h.settled(1).processed == 1
    sent = np.frombuffer(bytes(picture(10**9).data), np.uint8).reshape(HEIGHT, WIDTH, 3)
    assert np.array_equal(h.engine.frames[0].image, sent) == (name == "image_rect")


def test_services(harness: Callable[..., Harness], tmp_path: object) -> None:
    h, _ = run_with_everything(harness, "tracked_objects", save_root=str(tmp_path))
    h.heard["tracked_objects"].clear()
    answer = h.call(Trigger, "refine", Trigger.Request())
    assert answer.success and "8 frames" in answer.message
    assert h.until(lambda: sum(m.stage == "global" for m in h.heard["tracked_objects"]) == 8)
    saved = h.call(SaveScene, "save_scene", SaveScene.Request(folder="monday/scene"))
    assert saved.success and saved.files == [f"{tmp_path}/monday/scene/scene.txt"]
    refused = h.call(SaveScene, "save_scene", SaveScene.Request(folder=" "))
    assert not refused.success and "empty" in refused.message
    assert h.call(Trigger, "reset", Trigger.Request()).success
    assert "reset" in h.engine.calls
    h.node.trigger_deactivate()
    inactive = h.call(Trigger, "refine", Trigger.Request())
    assert not inactive.success and "activate" in inactive.message


def test_diagnostics_come_once_a_second_and_tell_what_is_wrong(harness: Callable[..., Harness]) -> None:
    h = harness(parameters={"silence": 0.3})
    heard: list[DiagnosticArray] = []
    h.tester.create_subscription(DiagnosticArray, f"{h.ns}/diagnostics", heard.append, 10)
    assert h.until(lambda: any(s.level == b"\x02" and "no image" in s.message for m in heard for s in m.status), 5.0)
    assert {status.name for status in heard[-1].status} == {"motion4d: input", "motion4d: pipeline", "motion4d: scene"}
    heard.clear()
    h.connect()
    stamps = count(10**9, 10**8)

    def fine_while_images_come() -> bool:
        h.send(next(stamps))
        time.sleep(0.05)
        return bool(heard) and all(s.level == b"\x00" for s in heard[-1].status)

    assert h.until(fine_while_images_come, 20.0), heard[-1]
    assert h.until(lambda: any("stopped coming" in s.message for m in heard for s in m.status), 5.0)
