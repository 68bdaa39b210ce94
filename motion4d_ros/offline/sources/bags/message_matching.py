"""Which messages belong to which image: recent ones are kept, the nearest in time is taken."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from motion4d_ros.imagery.camera import Rectifier
from motion4d_ros.imagery.registration import Registration
from motion4d_ros.offline.sources.interfaces import SourceOptions, SourceReport
from motion4d_ros.offline.trajectory import PoseBuffer, TransformTree, pose_matrix
from motion4d_ros.types import FloatArray, Motion4DError

MAX_WAITING = 32
"""Images held back until their depth, masks and pose have come."""


def as_picture(message: Any) -> Any:
    """An image message of any type, with the fields of `Image` or of `CompressedImage`."""
    if hasattr(message, "timestamp"):  # foxglove's CompressedVideo
        header = SimpleNamespace(stamp=message.timestamp, frame_id=message.frame_id)
        return SimpleNamespace(header=header, format=message.format, data=message.data)
    if hasattr(message, "pts"):  # FFMPEGPacket
        return SimpleNamespace(header=message.header, format=message.encoding, data=message.data)
    return message


def stamp_of(message: Any) -> Any:
    """The stamp of a message of any type with one; that of the first transform of several; None for none."""
    if hasattr(message, "transforms"):
        return message.transforms[0].header.stamp if message.transforms else None
    return message.timestamp if hasattr(message, "timestamp") else message.header.stamp


def pose_of(position: Any, rotation: Any, report: SourceReport) -> FloatArray | None:
    """(4, 4) of a position and a quaternion; None, and said, where they are none."""
    try:
        return pose_matrix((position.x, position.y, position.z), (rotation.x, rotation.y, rotation.z, rotation.w))
    except Motion4DError:
        report.warn("a pose holds NaN or a zero quaternion: left out")
        return None


@dataclass
class WaitingImage:
    """An image that waits for what belongs to it."""

    stamp_ns: int
    """On the clock by which other messages are matched."""
    frame_ns: int
    """Of the frame: the same, unless a clock was set midway."""
    recorded_ns: int
    message: Any
    """As `as_picture` gives it, or an (H, W, 3) RGB picture that has been decoded already."""
    frame_id: str
    number: int = 0  # of its message on the topic, counted from 0


@dataclass
class Matcher:
    """Recent messages of the other topics."""

    options: SourceOptions
    report: SourceReport
    constant: frozenset[str]
    """Child frames whose links never change: `transforms` has them from the start."""
    transforms: TransformTree
    rectifier: Rectifier | None = None
    registration: Registration | None = None
    body_frame: str = ""
    images: dict[str, deque[tuple[int, Any]]] = field(default_factory=dict)
    odometry: PoseBuffer = field(init=False)

    def __post_init__(self) -> None:
        self.odometry = PoseBuffer(max_gap_ns=round(self.options.max_pose_gap_s * 1e9))

    def add_image(self, topic: str, stamp_ns: int, message: Any) -> None:
        self.images.setdefault(topic, deque(maxlen=4 * MAX_WAITING)).append((stamp_ns, message))

    def add_odometry(self, stamp_ns: int, message: Any) -> None:
        pose = message.pose.pose if hasattr(message.pose, "pose") else message.pose
        self.body_frame = str(getattr(message, "child_frame_id", "")).lstrip("/")
        if (T := pose_of(pose.position, pose.orientation, self.report)) is not None:
            self.odometry.add(stamp_ns, T)

    def add_transform(self, stamp_ns: int, item: Any) -> None:
        """One moving link of a `TFMessage`."""
        if item.child_frame_id.lstrip("/") in self.constant:
            return
        T = pose_of(item.transform.translation, item.transform.rotation, self.report)
        if T is not None:
            self.transforms.add(item.header.frame_id, item.child_frame_id, stamp_ns, T, static=False)

    def has_reached(self, topic: str, stamp_ns: int) -> bool:
        """Whether a message at or after that stamp has come, so that the nearest one is known."""
        return any(stamp >= stamp_ns for stamp, _ in self.images.get(topic, ()))

    def nearest(self, topic: str | None, stamp_ns: int) -> Any:
        """The message nearest to a stamp within the slop, or None."""
        kept = self.images.get(topic or "")
        if not kept:
            return None
        stamp, message = min(kept, key=lambda item: abs(item[0] - stamp_ns))
        return message if abs(stamp - stamp_ns) <= self.options.slop_s * 1e9 else None

    def forget_before(self, stamp_ns: int) -> None:
        slop_ns = round(self.options.slop_s * 1e9)
        for topic, kept in self.images.items():
            if any(stamp < stamp_ns - slop_ns for stamp, _ in kept):
                recent = [item for item in kept if item[0] >= stamp_ns - slop_ns]
                self.images[topic] = deque(recent, maxlen=kept.maxlen)
        self.odometry.forget_before(stamp_ns)
        self.transforms.forget_before(stamp_ns)
