"""Which messages belong to which image: recent ones are kept, the nearest in time is taken."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from motion4d_ros.imagery.camera import Rectifier
from motion4d_ros.imagery.validation import nanoseconds
from motion4d_ros.offline.sources.base import SourceOptions, SourceReport
from motion4d_ros.offline.trajectory import PoseBuffer, TransformTree, pose_matrix
from motion4d_ros.types import Motion4DError

MAX_WAITING = 32
"""Images held back until their depth, masks and pose have come."""


@dataclass
class WaitingImage:
    """An image that waits for what belongs to it."""

    stamp_ns: int
    recorded_ns: int
    message: Any

    @property
    def frame_id(self) -> str:
        return str(self.message.header.frame_id).lstrip("/")


@dataclass
class Matcher:
    """Recent messages of the other topics."""

    options: SourceOptions
    report: SourceReport
    camera_info: Any = None
    rectifier: Rectifier | None = None
    body_frame: str = ""
    images: dict[str, deque[tuple[int, Any]]] = field(default_factory=dict)
    transforms: TransformTree = field(default_factory=TransformTree)
    odometry: PoseBuffer = field(init=False)

    def __post_init__(self) -> None:
        self.odometry = PoseBuffer(max_gap_ns=round(self.options.max_pose_gap_s * 1e9))

    def add_image(self, topic: str, stamp_ns: int, message: Any) -> None:
        self.images.setdefault(topic, deque(maxlen=4 * MAX_WAITING)).append((stamp_ns, message))

    def add_odometry(self, stamp_ns: int, message: Any) -> None:
        pose = message.pose.pose if hasattr(message.pose, "pose") else message.pose
        self.body_frame = str(getattr(message, "child_frame_id", "")).lstrip("/")
        self._keep(lambda T: self.odometry.add(stamp_ns, T), pose.position, pose.orientation)

    def add_transforms(self, message: Any, *, static: bool) -> None:
        for item in message.transforms:
            parent, child, stamp_ns = item.header.frame_id, item.child_frame_id, message_stamp_ns(item, 0)
            self._keep(
                lambda T, p=parent, c=child, s=stamp_ns: self.transforms.add(p, c, s, T, static=static),
                item.transform.translation,
                item.transform.rotation,
            )

    def _keep(self, add: Any, position: Any, rotation: Any) -> None:
        try:
            add(pose_matrix((position.x, position.y, position.z), (rotation.x, rotation.y, rotation.z, rotation.w)))
        except Motion4DError:
            self.report.warn("a pose holds NaN or a zero quaternion: left out")

    def has_reached(self, topic: str, stamp_ns: int) -> bool:
        """Whether a message at or after that stamp has come, so that the nearest one is known."""
        kept = self.images.get(topic)
        return kept is not None and len(kept) > 0 and kept[-1][0] >= stamp_ns

    def nearest(self, topic: str | None, stamp_ns: int) -> Any:
        """The message nearest to a stamp within the slop, or None."""
        kept = self.images.get(topic or "")
        if not kept:
            return None
        stamp, message = min(kept, key=lambda item: abs(item[0] - stamp_ns))
        return message if abs(stamp - stamp_ns) <= self.options.slop_s * 1e9 else None

    def forget_before(self, stamp_ns: int) -> None:
        slop_ns = round(self.options.slop_s * 1e9)
        for kept in self.images.values():
            while kept and kept[0][0] < stamp_ns - slop_ns:
                kept.popleft()
        self.odometry.forget_before(stamp_ns)
        self.transforms.forget_before(stamp_ns)


def message_stamp_ns(message: Any, recorded_ns: int) -> int:
    """The header's stamp; the time of recording where the header has none."""
    return nanoseconds(message.header.stamp) or recorded_ns
