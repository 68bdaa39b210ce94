"""The subscriptions of the active node. Their callbacks check a message's header, and enqueue: nothing else."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import wraps
from typing import Any

from nav_msgs.msg import Odometry
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.event_handler import QoSRequestedIncompatibleQoSInfo, SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from motion4d_ros.config import Config
from motion4d_ros.imagery.camera import base_topic, is_rectified_topic
from motion4d_ros.imagery.conversions import is_compressed
from motion4d_ros.imagery.validation import Rejection, check_header, check_image, check_name, check_picture, check_pose
from motion4d_ros.ros.inputs.detection_topic import Active, Detecting
from motion4d_ros.ros.inputs.frames import Calibrations, ImageGroup
from motion4d_ros.ros.inputs.synchroniser import Synchroniser
from motion4d_ros.ros.outputs.publishers import overridable
from motion4d_ros.ros.outputs.status import Meters
from motion4d_ros.ros.work.handover import Handover
from motion4d_ros.ros.work.queue import FrameQueue

LOOKS_AT_TYPES, LATER_LOOK_S = 30, 60.0
"""So often the types of publishers are looked at whenever that is asked, then once in a while: a camera that is off for
days must not cost memory, and `rclpy` may lose a little each time.
"""
LATCHED_PERIOD_S = 1.0
"""Time between two looks for a latched calibration."""


def sensor_qos() -> QoSProfile:
    """The sensor-data QoS (REP-2003). Made anew each time: `rclpy` writes a topic's overrides into what it is given."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=5,
        reliability=ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.VOLATILE,
    )


def image_topics(node: Node, config: Config) -> dict[str, str]:
    """Fully resolved names of the input topics, by input.

    `camera_info` lies beside `image` unless it was remapped. Compressed transports append their name, as
    `image_transport` does.
    """
    image = node.resolve_topic_name("image")
    base = image.removesuffix("/compressed")
    info = node.resolve_topic_name("camera_info")
    if info == node.resolve_topic_name("camera_info", only_expand=True):
        info = base.rsplit("/", 1)[0] + "/camera_info"
    depth = node.resolve_topic_name("depth")
    if config.ros.image_transport == "compressed":
        image = base + "/compressed"
    if config.ros.depth_transport == "compressedDepth":
        depth = depth.removesuffix("/compressedDepth") + "/compressedDepth"
    topics = {"image": image, "camera_info": info}
    if config.depth.source == "topic":
        topics["depth"] = depth
        depth_info = base_topic(depth).rsplit("/", 1)[0] + "/camera_info"
        if depth_info != info:
            topics["depth_info"] = depth_info
    if config.masks.source == "topic":
        topics["masks"] = node.resolve_topic_name("masks")
    if config.pose.source == "odometry":
        topics["odometry"] = node.resolve_topic_name("odometry")
    return topics


class Inputs:
    """Subscribes on construction, unsubscribes on `close`. `log` writes a line about a message that was refused."""

    def __init__(
        self,
        node: Node,
        config: Config,
        queue: FrameQueue[ImageGroup],
        calibrations: tuple[Calibrations, Calibrations],
        meters: Meters,
        log: Callable[[str], None],
        active: Active,
    ) -> None:
        """`calibrations`: the images', and those of depth."""
        self.topics = image_topics(node, config)
        self.camera_problem = ""
        self.last_rejection = ""
        self.qos_problem = ""
        self._wrong_types: tuple[str, ...] = ()
        self._type_looks, self._types_until = 0, float("-inf")
        self.callback_seconds: deque[float] = deque(maxlen=1000)  # how long the last image callbacks took
        self._heard_at: dict[str, float] = {}  # by input: `time.monotonic()` of the newest usable message
        self._node = node
        self._queue = queue
        self._calibrations, self._depth_calibrations = calibrations
        self._calibrations.rectified = is_rectified_topic(self.topics["image"])
        self._depth_calibrations.rectified = is_rectified_topic(base_topic(self.topics.get("depth", "")))
        self._meters = meters
        self._log = log
        names = [name for name in ("image", "depth", "masks", "odometry") if name in self.topics]
        self._synchroniser = Synchroniser(
            names,
            self._matched,
            self._lost,
            slop_s=config.ros.slop,
            queue_size=config.ros.sync_queue,
            jump_s=config.ros.clock_jump,
        )
        self._handover: Handover[tuple[str, Any]] = Handover(
            lambda item: self._synchroniser.add(*item),
            lambda error: self._note(f"{type(error).__name__} in the synchroniser: {error}"),
        )
        compressed = config.ros.image_transport == "compressed" or self.topics["image"].endswith("/compressed")
        compressed_depth = config.ros.depth_transport == "compressedDepth"
        self._kinds: dict[str, tuple[type, Callable[[Any], None]]] = {
            "camera_info": (CameraInfo, self._on_info),
            "depth_info": (CameraInfo, self._on_depth_info),
            "image": (CompressedImage if compressed else Image, self._on_image),
            "depth": (CompressedImage if compressed_depth else Image, self._on_depth),
            "masks": (Image, self._on_masks),
            "odometry": (Odometry, self._on_odometry),
        }
        self._latched: set[str] = set()
        self._looked_at = float("-inf")
        self._subscriptions: list[Any] = []
        for name, topic in self.topics.items():
            self._subscribe(*self._kinds[name], name, topic)
        self.detecting = Detecting(
            node.resolve_topic_name("detections"),
            active,
            lambda kind, topic, callback: self._subscribe(kind, callback, "detections", topic),
            self._note,
        )

    def _subscribe(self, kind: type, callback: Callable[[Any], None], name: str, topic: str) -> None:
        incompatible = self._on_incompatible(name, topic)
        events = SubscriptionEventCallbacks(incompatible_qos=incompatible, use_default_callbacks=False)
        self._subscriptions.append(
            self._node.create_subscription(
                kind,
                topic,
                self._guarded(callback),
                sensor_qos(),
                callback_group=MutuallyExclusiveCallbackGroup(),  # one for all would let the last topic starve
                event_callbacks=events,
                qos_overriding_options=overridable(),
            )
        )

    def close(self) -> None:
        """Unsubscribes. Images that wait for partners are given up and counted."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self._handover.exclusively(self._synchroniser.rebuild)

    def give_up_waiting(self) -> None:
        """Gives up the images that wait for partners: for when nothing comes any more. They are counted as dropped."""
        self._handover.exclusively(self._synchroniser.give_up)

    @property
    def publishers(self) -> int:
        """How many nodes publish the image topic now."""
        return int(self._node.count_publishers(self.topics["image"]))

    def wrong_types(self) -> tuple[str, ...]:
        """Publishers of another type on the topics of the inputs, as `topic: type`; at most a few of them. Asked for a
        long time, it answers what was so within the last `LATER_LOOK_S`.
        """
        if time.monotonic() < self._types_until:
            return self._wrong_types
        self._type_looks += 1
        self._types_until = time.monotonic() + (LATER_LOOK_S if self._type_looks > LOOKS_AT_TYPES else 0.0)
        found = set()
        for name, topic in self.topics.items():
            parts = self._kinds[name][0].__module__.split(".")[:2]  # sensor_msgs.msg._image
            own = "/".join([*parts, self._kinds[name][0].__name__])
            others = {info.topic_type for info in self._node.get_publishers_info_by_topic(topic)} - {own}
            found |= {f"{topic}: {other[:80]} instead of {own}" for other in others}
        self._wrong_types = tuple(sorted(found)[:3])
        return self._wrong_types

    def missing(self) -> tuple[str, ...]:
        """Topics of inputs that every image waits for, and from which nothing has come."""
        return tuple(self.topics[name] for name in self._synchroniser.missing() if name != "image")

    def silent(self, after_s: float) -> tuple[str, ...]:
        """Topics of inputs that every image waits for, and which stopped at least `after_s` before the newest image."""
        newest = self._heard_at.get("image", 0.0)
        stopped = [name for name, at in self._heard_at.items() if newest - at > after_s]
        return tuple(self.topics[name] for name in self.topics if name in stopped)

    def _pass_on(self, name: str, message: Any) -> None:
        self._heard_at[name] = time.monotonic()
        self._handover.put((name, message))

    def _guarded(self, callback: Callable[[Any], None]) -> Callable[[Any], None]:
        """No message may end the executor: what a callback does not expect is logged."""

        @wraps(callback)
        def run(message: Any) -> None:
            began = time.perf_counter()
            try:
                callback(message)
            except Exception as error:
                self._note(f"{type(error).__name__} in a callback: {error}")
            if callback == self._on_image:
                self.callback_seconds.append(time.perf_counter() - began)

        return run

    def _on_image(self, message: Any) -> None:
        self._queue.arrive()
        self._meters.arrived(time.monotonic())
        try:
            check_header(message.header, "image")
            check_picture(message)
        except Exception as error:
            reason = error.reason if isinstance(error, Rejection) else "malformed"
            self._queue.reject_waiting(reason)
            self._note(f"image rejected: {error}")
            return
        self._pass_on("image", message)
        self._look_for_latched()

    def _look_for_latched(self) -> None:
        """Subscribes to calibrations that were published once, before this node came: where somebody offers to keep
        them for late-comers, and none has come by the sensor-data QoS, which does not get them.
        """
        if time.monotonic() - self._looked_at < LATCHED_PERIOD_S:
            return
        self._looked_at = time.monotonic()
        missing = {"camera_info": self._calibrations, "depth_info": self._depth_calibrations}
        for name, calibrations in missing.items():
            topic = self.topics.get(name)
            if topic is None or calibrations.ready or name in self._latched:
                continue
            offered = self._node.get_publishers_info_by_topic(topic)
            if any(item.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for item in offered):
                self._latched.add(name)
                self._subscriptions.append(self._subscribe_latched(topic, self._kinds[name][1]))

    def _subscribe_latched(self, topic: str, callback: Callable[[Any], None]) -> Any:
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        return self._node.create_subscription(
            CameraInfo,
            topic,
            self._guarded(callback),
            qos,
            callback_group=MutuallyExclusiveCallbackGroup(),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=lambda info: None),  # another publisher's
        )

    def _on_depth(self, message: Any) -> None:
        try:
            check_header(message.header, "depth")
            if is_compressed(message):
                check_name(getattr(message, "format", ""), "depth")
                if len(message.data) < 16:
                    raise Rejection("data", f"depth: only {len(message.data)} B of compressed data")
            else:
                check_image(message, "depth")
        except Rejection as error:
            self._note(f"depth rejected: {error}")
            return
        self._pass_on("depth", message)

    def _on_masks(self, message: Any) -> None:
        try:
            check_header(message.header, "masks")
            check_image(message, "masks")
        except Rejection as error:
            self._note(f"masks rejected: {error}")
            return
        self._pass_on("masks", message)

    def _on_odometry(self, message: Any) -> None:
        try:
            check_header(message.header, "odometry")
            check_name(message.child_frame_id, "odometry")
            check_pose(message.pose.pose, "odometry")
        except Rejection as error:
            self._note(f"odometry rejected: {error}")
            return
        self._pass_on("odometry", message)

    def _on_info(self, message: Any) -> None:
        try:
            check_name(message.header.frame_id, "camera_info")
            self._calibrations.add(message)
            self.camera_problem = ""
        except Rejection as error:
            self.camera_problem = str(error)
            self._note(f"camera_info rejected: {error}")

    def _on_depth_info(self, message: Any) -> None:
        try:
            check_name(message.header.frame_id, "camera_info of depth")
            self._depth_calibrations.add(message)
        except Rejection as error:
            self._note(f"camera_info of depth rejected: {error}")

    def _on_incompatible(self, name: str, topic: str) -> Callable[[QoSRequestedIncompatibleQoSInfo], None]:
        def run(info: QoSRequestedIncompatibleQoSInfo) -> None:
            self.qos_problem = f"{name} on {topic}: {getattr(info.last_policy_kind, 'name', info.last_policy_kind)}"
            self._log(f"incompatible QoS for {self.qos_problem}: set qos_overrides.{topic}.subscription.*")

        return run

    def _matched(self, group: dict[str, Any]) -> None:
        self._queue.put(ImageGroup(**group))

    def _lost(self, count: int, reason: str) -> None:
        self._queue.drop_waiting(reason, count)

    def _note(self, text: str) -> None:
        self.last_rejection = text
        self._log(text)
