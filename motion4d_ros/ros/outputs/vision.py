"""`~/detections_2d`, `~/detections_3d`: objects for programs that read `vision_msgs`, where that is installed."""

from __future__ import annotations

import importlib
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import Vector3
from rclpy.lifecycle import LifecycleNode

from motion4d_ros.ros.inputs.detections import message_type
from motion4d_ros.ros.outputs import messages
from motion4d_ros.types import Estimate, IntArray, ObjectPhase, ObjectState, Stage

TOPICS = {"detections_2d": "Detection2DArray", "detections_3d": "Detection3DArray"}
"""Topic under ``~/`` -> type of `vision_msgs`."""
NO_CLASS = "object"  # class of what nobody has named


class VisionPublisher:
    """Publishes live estimates as detections while somebody listens. Does nothing where `vision_msgs` is missing."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._publishers: dict[str, Any] = {}
        for topic, name in TOPICS.items():
            kind = message_type(name)
            if kind is not None:
                self._publishers[topic] = node.create_lifecycle_publisher(kind, f"~/{topic}", 10)

    def wants(self, topic: str) -> bool:
        """Whether anybody subscribes to the topic."""
        return topic in self._publishers and self._publishers[topic].get_subscription_count() > 0

    @property
    def wants_masks(self) -> bool:
        """Whether `publish` needs masks."""
        return self.wants("detections_2d")

    def publish(self, estimate: Estimate, masks: IntArray | None, map_frame: str) -> None:
        """A live estimate; `masks` (H, W): ids in the image as it came, None where nobody has them. Later stages are
        left to `tracked_objects`: these messages have no word for them, and their time is not to run backwards.
        """
        if estimate.stage is not Stage.LIVE:
            return
        if masks is not None and self.wants("detections_2d"):
            self._publishers["detections_2d"].publish(detections_2d(estimate, masks, _module()))
        if self.wants("detections_3d"):
            self._publishers["detections_3d"].publish(detections_3d(estimate, map_frame, _module()))

    def destroy(self) -> None:
        """Takes the publishers away."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()


def detections_2d(estimate: Estimate, masks: IntArray, vision: Any) -> Any:
    """`Detection2DArray` of the objects that show in `masks` (H, W), their boxes in pixel edges as detectors give
    them: one over the top left pixel has its centre at 0.5, 0.5. `vision`: the module `vision_msgs.msg`.
    """
    head = messages.header(estimate.stamp_ns, estimate.frame_id)
    found = []
    for state in _in_order(estimate):
        shown = (masks == state.object_id).astype(np.uint8)
        x, y, width, height = cv2.boundingRect(shown)
        if not width:
            continue
        box = vision.BoundingBox2D(size_x=float(width), size_y=float(height))
        box.center.position.x, box.center.position.y = x + width / 2, y + height / 2
        found.append(
            vision.Detection2D(header=head, results=[_hypothesis(state, vision)], bbox=box, id=str(state.object_id))
        )
    return vision.Detection2DArray(header=head, detections=found)


def detections_3d(estimate: Estimate, map_frame: str, vision: Any) -> Any:
    """`Detection3DArray` of the objects that are not lost, in the map frame: box, and pose with covariance."""
    head = messages.header(estimate.stamp_ns, map_frame)
    found = []
    for state in _in_order(estimate):
        pose = messages.pose_message(state.T_map_object)
        width, depth, height = (float(value) for value in state.size_m)
        hypothesis = _hypothesis(state, vision)
        hypothesis.pose.pose = pose
        hypothesis.pose.covariance = np.asarray(state.pose_covariance, np.float64).reshape(36)
        box = vision.BoundingBox3D(center=pose, size=Vector3(x=width, y=depth, z=height))
        found.append(vision.Detection3D(header=head, results=[hypothesis], bbox=box, id=str(state.object_id)))
    return vision.Detection3DArray(header=head, detections=found)


def _in_order(estimate: Estimate) -> list[ObjectState]:
    known = (state for state in estimate.objects if state.phase is not ObjectPhase.LOST)
    return sorted(known, key=lambda state: state.object_id)


def _hypothesis(state: ObjectState, vision: Any) -> Any:
    """Class and its probability; of what has no class, that it exists."""
    score = state.label_score if state.label else state.existence
    said = vision.ObjectHypothesis(class_id=state.label or NO_CLASS, score=float(score))
    return vision.ObjectHypothesisWithPose(hypothesis=said)


def _module() -> Any:
    return importlib.import_module("vision_msgs.msg")
