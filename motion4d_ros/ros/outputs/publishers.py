"""All outputs of the contract. What nobody subscribes to is not computed; every stamp is the image's."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from motion4d_ros.msg import PipelineStatus, TrackedObjectArray
from motion4d_ros.ros.diagnostics import Finding
from motion4d_ros.ros.engine import Engine, Wanted
from motion4d_ros.ros.inputs.frames import FrameContext
from motion4d_ros.ros.inputs.transforms import have_tf2
from motion4d_ros.ros.outputs import messages
from motion4d_ros.ros.outputs.label_info import LabelInfoPublisher
from motion4d_ros.ros.outputs.markers import MarkerMaker
from motion4d_ros.ros.outputs.overlay import draw_overlay
from motion4d_ros.ros.outputs.viewer_show import ViewerShow
from motion4d_ros.ros.outputs.vision import VisionPublisher
from motion4d_ros.types import Estimate, Stage

TOPICS: dict[str, type] = {
    "tracked_points": PointCloud2,
    "static_points": PointCloud2,
    "tracked_objects": TrackedObjectArray,
    "camera_pose": PoseStamped,
    "semantic_mask": Image,
    "semantic_overlay": Image,
    "semantic_confidence": Image,
    "render": Image,
    "depth": Image,
    "depth_sigma": Image,
    "confidence": Image,
    "markers": MarkerArray,
    "status": PipelineStatus,
}
"""Every topic under ``~/`` with its type."""

DEPTHS = {"tracked_objects": 200, "camera_pose": 200, "tracked_points": 64, "semantic_mask": 64, "static_points": 1}
"""Messages kept for slow subscribers: a global refinement reports a whole horizon at once."""


def overridable() -> QoSOverridingOptions:
    """QoS that users may override by parameters ``qos_overrides.<topic>.…``."""
    kinds = (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
    return QoSOverridingOptions(kinds)


def unwatched() -> PublisherEventCallbacks:
    """No events of a publisher. `rclpy` goes through all of a node's events for every message that comes, which took a
    tenth of a core at 30 Hz; a listener with an incompatible QoS is told so on its own side.
    """
    return PublisherEventCallbacks(use_default_callbacks=False)


def output_qos(topic: str) -> QoSProfile:
    """Reliable; `static_points` is kept for late joiners."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=DEPTHS.get(topic, 10),
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if topic == "static_points" else DurabilityPolicy.VOLATILE,
    )


class Outputs:
    """The publishers of one configured node."""

    def __init__(self, node: LifecycleNode, *, publish_tf: bool, trail: int, rerun: str = "") -> None:
        self._node = node
        self._show = ViewerShow(rerun, node.get_name(), node.get_logger().warning) if rerun else None
        self._publishers = {
            name: node.create_lifecycle_publisher(
                kind, f"~/{name}", output_qos(name), event_callbacks=unwatched(), qos_overriding_options=overridable()
            )
            for name, kind in TOPICS.items()
        }
        self._label_info = LabelInfoPublisher(node)
        self._vision = VisionPublisher(node)
        self._markers = MarkerMaker(trail)
        self._telling = threading.Lock()
        self._broadcaster: Any = None
        self._static_subscribers = 0
        self._static_windows = -1
        self._static_at = float("-inf")
        self.set_publish_tf(publish_tf)

    @property
    def lacks_tf2(self) -> bool:
        """Whether TF was asked for and cannot be had."""
        return self._publish_tf and self._broadcaster is None

    def set_publish_tf(self, wanted: bool) -> None:
        """Starts or stops broadcasting the objects' frames."""
        self._publish_tf = wanted
        if wanted and self._broadcaster is None and have_tf2():
            from tf2_ros import TransformBroadcaster

            self._broadcaster = TransformBroadcaster(self._node)

    def set_trail(self, trail: int) -> None:
        """Length of the drawn trajectories."""
        self._markers.trail = trail

    def wants(self, name: str) -> bool:
        """Whether anybody subscribes to the topic."""
        return bool(self._publishers[name].get_subscription_count() > 0)

    def wanted(self) -> Wanted:
        """What somebody would read of a live estimate: labels, and points, cost as much as all the rest of it."""
        shown = self._show is not None
        labels = any(map(self.wants, ("semantic_mask", "semantic_overlay", "semantic_confidence")))
        return Wanted(shown or labels or self._vision.wants_masks, shown or self.wants("tracked_points"))

    def clear(self) -> None:
        """After a reset: trajectories begin anew, the static map is stale."""
        self._markers.clear()
        self._label_info.clear()
        if self._show is not None:
            self._show.begin_anew()
        self._static_windows = -1

    def destroy(self) -> None:
        """Takes the publishers away."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()
        self._label_info.destroy()
        self._vision.destroy()
        if self._show is not None:
            self._show.close()

    def publish_estimate(
        self, estimate: Estimate, context: FrameContext | None, map_frame: str, engine: Engine
    ) -> None:
        """Everything there is to say about one frame."""
        in_map = messages.header(estimate.stamp_ns, map_frame)
        with self._telling:  # live estimates come from another thread than the others
            self._label_info.publish(estimate)
        if self._show is not None:
            self._show.estimate(estimate, context, engine.static_points)
        if self.wants("tracked_objects"):
            self._publishers["tracked_objects"].publish(messages.objects_message(estimate, map_frame))
        if self.wants("camera_pose"):
            pose = messages.pose_message(estimate.T_map_cam)
            self._publishers["camera_pose"].publish(PoseStamped(header=in_map, pose=pose))
        if self.wants("tracked_points"):
            self._publishers["tracked_points"].publish(messages.tracked_points_message(estimate.points, in_map))
        if context is not None and estimate.masks.size:
            self._publish_pictures(estimate, context, engine)
        masks = None
        if context is not None and estimate.masks.size and self._vision.wants_masks:
            masks = context.rectifier.unrectify(estimate.masks, nearest=True)
        self._vision.publish(estimate, masks, map_frame)
        if estimate.stage is not Stage.LIVE:
            return
        if context is not None and not self.wants("semantic_overlay"):
            context.image = None  # a horizon of pictures that nobody looks at would fill the memory
        if self.wants("markers"):
            with self._telling:
                markers = self._markers.make(estimate, map_frame)
            self._publishers["markers"].publish(markers)
        if self._publish_tf and self._broadcaster is not None and estimate.objects:
            self._broadcaster.sendTransform(messages.object_transforms(estimate, map_frame))

    def publish_status(self, message: PipelineStatus) -> None:
        """The node's books."""
        self._publishers["status"].publish(message)
        if self._show is not None:
            self._show.status(message)

    def show_findings(self, findings: Sequence[Finding]) -> None:
        """Tells a viewer what is wrong."""
        if self._show is not None:
            self._show.findings(findings)

    def static_is_due(self, windows: int) -> bool:
        """Whether the static map has changed since it was published, or somebody new listens."""
        subscribers = self._publishers["static_points"].get_subscription_count()
        newcomer, self._static_subscribers = subscribers > self._static_subscribers, subscribers
        changed = windows != self._static_windows and time.monotonic() - self._static_at > 1.0
        return subscribers > 0 and windows > 0 and (changed or (newcomer and self._static_windows < 0))

    def publish_static(self, engine: Engine, estimate: Estimate, map_frame: str, windows: int) -> None:
        """The static map as it stands after `estimate`."""
        self._static_windows, self._static_at = windows, time.monotonic()
        head = messages.header(estimate.stamp_ns, map_frame)
        self._publishers["static_points"].publish(messages.static_points_message(engine.static_points(), head))

    def _publish_pictures(self, estimate: Estimate, context: FrameContext, engine: Engine) -> None:
        head = messages.header(estimate.stamp_ns, estimate.frame_id)
        picture = context.image if estimate.stage is not Stage.GLOBAL else None
        overlay = picture is not None and self.wants("semantic_overlay")
        if self.wants("semantic_mask") or overlay:
            masks = context.rectifier.unrectify(estimate.masks, nearest=True)
            if self.wants("semantic_mask"):
                self._publish_image("semantic_mask", masks.astype(np.uint16), "16UC1", head)
            if picture is not None and overlay:
                labels = {state.object_id: state.named for state in estimate.objects}
                self._publish_image("semantic_overlay", draw_overlay(picture, masks, labels), "rgb8", head)
        if estimate.mask_confidence is not None and self.wants("semantic_confidence"):
            sure = context.rectifier.unrectify(estimate.mask_confidence, nearest=True).astype(np.float32) / 255
            self._publish_image("semantic_confidence", sure, "32FC1", head)
        wanted = [name for name in ("render", "depth", "depth_sigma", "confidence") if self.wants(name)]
        if not wanted or estimate.stage is not Stage.WINDOW:  # what has not been fitted yet cannot be rendered
            return
        rendered = engine.render(estimate.index)
        if "render" in wanted:
            self._publish_image("render", context.rectifier.unrectify(rendered.rgb), "rgb8", head)
        for name, image in (("depth", rendered.depth_m), ("depth_sigma", rendered.depth_sigma_m)):
            if name in wanted:
                shown = context.rectifier.unrectify(image, nearest=True, fill=float("nan"))
                self._publish_image(name, shown.astype(np.float32), "32FC1", head)
        if "confidence" in wanted:
            confidence = context.rectifier.unrectify(rendered.confidence)
            self._publish_image("confidence", confidence.astype(np.float32), "32FC1", head)

    def _publish_image(self, name: str, pixels: NDArray[Any], encoding: str, head: Any) -> None:
        self._publishers[name].publish(messages.image_message(pixels, encoding, head))
