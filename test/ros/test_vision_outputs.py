"""`~/detections_2d`, `~/detections_3d`: by doubles of the messages, and by the real ones where they are installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from engine_double import DoubleEngine
from geometry_msgs.msg import Pose, PoseWithCovariance, Vector3
from harness import Harness, labels
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from motion4d_ros.ros.inputs.detections import message_type
from motion4d_ros.ros.outputs.vision import VisionPublisher, detections_2d, detections_3d
from motion4d_ros.types import Camera, Estimate, ObjectPhase, ObjectState, PoseStatus, Scale, Stage, TrackedPoints

SECOND = 10**9


# The fields of vision_msgs 4 (Humble and later), in the shapes that the messages have.


@dataclass
class BoundingBox2D:
    center: Any = field(default_factory=lambda: SimpleNamespace(position=SimpleNamespace(x=0.0, y=0.0), theta=0.0))
    size_x: float = 0.0
    size_y: float = 0.0


@dataclass
class BoundingBox3D:
    center: Pose = field(default_factory=Pose)
    size: Vector3 = field(default_factory=Vector3)


@dataclass
class ObjectHypothesis:
    class_id: str = ""
    score: float = 0.0


@dataclass
class ObjectHypothesisWithPose:
    hypothesis: ObjectHypothesis = field(default_factory=ObjectHypothesis)
    pose: PoseWithCovariance = field(default_factory=PoseWithCovariance)


@dataclass
class Detection:
    header: Header = field(default_factory=Header)
    results: list[Any] = field(default_factory=list)
    bbox: Any = None
    id: str = ""


@dataclass
class DetectionArray:
    header: Header = field(default_factory=Header)
    detections: list[Any] = field(default_factory=list)


DOUBLES = SimpleNamespace(
    BoundingBox2D=BoundingBox2D, BoundingBox3D=BoundingBox3D, ObjectHypothesis=ObjectHypothesis,
    ObjectHypothesisWithPose=ObjectHypothesisWithPose, Detection2D=Detection, Detection3D=Detection,
    Detection2DArray=DetectionArray, Detection3DArray=DetectionArray,
)  # fmt: skip


def state(object_id: int, label: str = "", phase: ObjectPhase = ObjectPhase.TRACKED) -> ObjectState:
    T = np.eye(4)
    T[:3, 3] = (1.0, 2.0, object_id)
    covariance = np.arange(36.0).reshape(6, 6)
    size = np.array([0.1, 0.2, 0.3])
    known = ObjectState(object_id, label, phase, 0.75, T, covariance, np.zeros(6), np.eye(6), size, 9, 0, 0)
    return replace(known, label_score=0.5)


def estimate(*states: ObjectState, masks: Any = None) -> Estimate:
    camera = Camera(60.0, 60.0, 31.5, 23.5, 64, 48)
    masks = np.zeros((48, 64), np.uint16) if masks is None else masks
    return Estimate(
        0, SECOND + 5, "camera", Stage.LIVE, camera, np.eye(4), PoseStatus.OK, Scale.METRIC, masks,
        TrackedPoints.empty(), list(states),
    )  # fmt: skip


def test_boxes_hold_the_pixels_that_show() -> None:
    masks = np.zeros((48, 64), np.uint16)
    masks[10:20, 5:15] = 2
    masks[0, 0] = 7
    said = detections_2d(estimate(state(7, "cup"), state(2), state(9), masks=masks), masks, DOUBLES)
    assert (said.header.frame_id, said.header.stamp.sec, said.header.stamp.nanosec) == ("camera", 1, 5)
    two, seven = said.detections  # 9 shows nowhere
    assert (two.id, seven.id) == ("2", "7")
    box = two.bbox
    assert (box.center.position.x, box.center.position.y, box.size_x, box.size_y) == (10.0, 15.0, 10.0, 10.0)
    assert (seven.bbox.center.position.x, seven.bbox.size_x) == (0.5, 1.0)
    named = [(d.results[0].hypothesis.class_id, d.results[0].hypothesis.score) for d in said.detections]
    assert named == [("object", 0.75), ("cup", 0.5)]


def test_boxes_in_space_stand_in_the_map_and_lost_ones_are_left_out() -> None:
    lost = state(3, phase=ObjectPhase.LOST)
    said = detections_3d(estimate(state(4, phase=ObjectPhase.OCCLUDED), lost, state(1)), "odom", DOUBLES)
    assert said.header.frame_id == "odom" and [d.id for d in said.detections] == ["1", "4"]
    one = said.detections[0]
    assert (one.bbox.size.x, one.bbox.size.y, one.bbox.size.z) == (0.1, 0.2, 0.3)
    assert (one.bbox.center.position.x, one.bbox.center.position.z) == (1.0, 1.0)
    assert np.array_equal(one.results[0].pose.covariance, np.arange(36.0))
    assert one.results[0].pose.pose == one.bbox.center and one.header.frame_id == "odom"


@pytest.mark.skipif(message_type() is not None, reason="vision_msgs is installed")
def test_without_the_package_there_are_no_topics(harness: Callable[..., Harness]) -> None:
    h = harness()
    names = {name for name, _ in h.tester.get_topic_names_and_types()}
    assert not [name for name in names if "detections_" in name]
    nothing = VisionPublisher(h.node)
    assert not nothing.wants_masks
    nothing.publish(estimate(state(1)), None, "map")
    nothing.destroy()


@pytest.mark.skipif(message_type() is None, reason="vision_msgs is not installed (apt, or a workspace that holds it)")
def test_the_real_messages_over_dds(harness: Callable[..., Harness]) -> None:
    from vision_msgs.msg import Detection2DArray, Detection3DArray

    class Naming(DoubleEngine):
        def _object(self, object_id: int, *rest: Any) -> Any:  # type: ignore[override]
            return replace(DoubleEngine._object(object_id, *rest), label=f"kind {object_id}", label_score=0.5)

    h = harness(engine=Naming, parameters={"window.length": 4, "masks.source": "topic"})
    h.connect()
    h.publisher("masks", Image)
    flat: list[Any] = []
    solid: list[Any] = []
    h.tester.create_subscription(Detection2DArray, h.topic("detections_2d"), flat.append, 10)
    h.tester.create_subscription(Detection3DArray, h.topic("detections_3d"), solid.append, 10)
    vision = h.node.outputs._vision
    assert h.until(lambda: vision.wants("detections_2d") and vision.wants("detections_3d"))
    for k in range(1, 6):
        h.send(k * SECOND)
        h.publisher("masks", Image).publish(labels(k * SECOND))
    h.settled(5)
    assert h.until(lambda: len(flat) == 5 and len(solid) == 5), (len(flat), len(solid))
    assert [m.header.stamp.sec for m in flat] == [1, 2, 3, 4, 5], "live estimates only: time runs forwards"
    assert flat[0].header.frame_id == "camera" and solid[0].header.frame_id == "map"
    one = flat[0].detections[0]
    assert (one.id, one.bbox.size_x, one.bbox.center.position.x) == ("1", 10.0, 10.0)
    assert solid[0].detections[1].results[0].hypothesis.class_id == "kind 2"
