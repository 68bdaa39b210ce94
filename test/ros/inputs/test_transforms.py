"""TF: a bounded wait, and a diagnosis that names what is missing. With `tf2_ros` where it is, else with its double."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import TransformStamped
from harness import Harness

from motion4d_ros.imagery.validation import Rejection
from motion4d_ros.ros.diagnostics import assess
from motion4d_ros.ros.inputs.transforms import TransformSource, have_tf2


class DoubleBuffer:
    """As much of `tf2_ros.Buffer` as is used."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], TransformStamped] = {}

    def lookup_transform(self, target: str, source: str, when: Any) -> TransformStamped:
        if (target, source) not in self.known:
            raise LookupError(f'"{source}" passed to lookupTransform argument source_frame does not exist.')
        return self.known[target, source]

    def all_frames_as_yaml(self) -> str:
        return "\n".join(f"{source}:\n  parent: '{target}'\n  rate: 10.0" for target, source in self.known) or "[]"

    def clear(self) -> None:
        self.known.clear()


def transform(x: float) -> TransformStamped:
    message = TransformStamped()
    message.transform.translation.x = x
    message.transform.rotation.w = 1.0
    return message


def source(buffer: DoubleBuffer) -> TransformSource:
    return TransformSource(buffer, make_time=lambda stamp_ns: stamp_ns)


def test_found_at_once() -> None:
    buffer = DoubleBuffer()
    buffer.known["map", "camera"] = transform(3.0)
    T = source(buffer).lookup("map", "camera", 1, 0.0)
    assert np.allclose(T[:3, 3], (3, 0, 0)) and np.allclose(T[:3, :3], np.eye(3))


def test_it_waits_for_what_comes_late_and_not_for_ever() -> None:
    buffer = DoubleBuffer()
    threading.Timer(0.1, lambda: buffer.known.update({("map", "camera"): transform(1.0)})).start()
    assert source(buffer).lookup("map", "camera", 1, 5.0)[0, 3] == 1.0
    buffer.clear()
    began = time.monotonic()
    with pytest.raises(Rejection):
        source(buffer).lookup("map", "camera", 1, 0.1)
    assert time.monotonic() - began >= 0.1
    began = time.monotonic()
    with pytest.raises(Rejection):
        source(buffer).lookup("map", "camera", 1, 60.0, lambda: True)


def test_the_diagnosis_names_what_is_missing() -> None:
    buffer = DoubleBuffer()
    with pytest.raises(Rejection, match="nothing is published on /tf"):
        source(buffer).lookup("map", "camera", 1, 0.0)
    buffer.known["odom", "base"] = transform(0.0)
    with pytest.raises(Rejection, match=r"frame 'map' and 'camera' is not published.*known: base, odom.*map_frame"):
        source(buffer).lookup("map", "camera", 1, 0.0)
    buffer.known["map", "camera"] = transform(0.0)
    with pytest.raises(Rejection, match="at the image's stamp"):
        source(buffer).lookup("camera", "map", 1, 0.0)


@pytest.mark.skipif(have_tf2(), reason="tf2_ros is installed")
def test_without_tf2_the_configuration_fails_and_says_why(
    harness: Callable[..., Harness], capfd: pytest.CaptureFixture[str]
) -> None:
    h = harness(parameters={"pose.source": "tf"}, start=False)
    assert not h.node.autostart()
    assert h.until(lambda: "needs tf2_ros" in capfd.readouterr().err, 2.0)
    h = harness(parameters={"publish_tf": True})
    assert "no_tf2" in {finding.rule.code for finding in assess(h.node.snapshot())}


@pytest.mark.skipif(not have_tf2(), reason="tf2_ros is not installed")
def test_with_tf2_poses_come_in_and_objects_go_out(harness: Callable[..., Harness]) -> None:
    from tf2_msgs.msg import TFMessage

    h = harness(parameters={"pose.source": "tf", "publish_tf": True, "masks.source": "topic", "pose_timeout": 1.0})
    heard: list[Any] = []
    h.tester.create_subscription(TFMessage, "/tf", heard.append, 100)
    tf = h.tester.create_publisher(TFMessage, "/tf", 100)
    assert h.until(lambda: tf.get_subscription_count() >= 2)
    from harness import labels

    h.connect()
    masks = h.publisher("masks")
    for k in range(4):
        stamp = 10**9 + k * 10**8
        masks.publish(labels(stamp))
        h.send(stamp)
        message = transform(2.0)
        message.header.frame_id, message.child_frame_id = "map", "camera"
        message.header.stamp.sec, message.header.stamp.nanosec = stamp // 10**9, stamp % 10**9
        time.sleep(0.05)
        tf.publish(TFMessage(transforms=[message]))
    assert h.settled(4).processed >= 3
    assert h.engine.frames[-1].T_map_cam[0, 3] == 2.0
    assert h.until(lambda: any(t.child_frame_id == "object_1" for m in heard for t in m.transforms))
    h.send(10**9 + 9 * 10**9)
    masks.publish(labels(10**9 + 9 * 10**9))
    assert h.until(lambda: "tf_missing" in {finding.rule.code for finding in assess(h.node.snapshot())}, 5.0)
