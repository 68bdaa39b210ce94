"""`~/label_info`: what the ids of `semantic_mask` are, for programs that read `vision_msgs/LabelInfo`. Latched."""

from __future__ import annotations

from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from motion4d_ros.ros.inputs.detections import message_type
from motion4d_ros.ros.outputs import messages
from motion4d_ros.types import Estimate

LARGEST_ID = 65534  # 65535 means "unlabelled" in the message, and ids above fit neither it nor the mask


class LabelInfoPublisher:
    """Publishes the names of the objects when they change. Does nothing where `vision_msgs` is not installed."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._kind, self._class = message_type("LabelInfo"), message_type("VisionClass")
        self._names: dict[int, str] = {}
        self._publisher: Any = None
        if self._kind is None or self._class is None:
            return
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        self._publisher = node.create_lifecycle_publisher(self._kind, "~/label_info", qos)

    def publish(self, estimate: Estimate) -> None:
        """The names of all objects that have one, if they are not those that were told last."""
        if self._publisher is None or self._kind is None or self._class is None:
            return
        names = {state.object_id: state.label for state in estimate.objects if state.label}
        names = {object_id: label for object_id, label in sorted(names.items()) if object_id <= LARGEST_ID}
        if names == self._names:
            return
        self._names = names
        classes = [self._class(class_id=object_id, class_name=label) for object_id, label in names.items()]
        head = messages.header(estimate.stamp_ns, estimate.frame_id)
        self._publisher.publish(self._kind(header=head, class_map=classes))

    def clear(self) -> None:
        """A new scene begins: what is told next is told again."""
        self._names = {}

    def destroy(self) -> None:
        """Takes the publisher away."""
        if self._publisher is not None:
            self._node.destroy_lifecycle_publisher(self._publisher)
            self._publisher = None
