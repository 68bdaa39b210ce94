"""The messages of a bag, by topic: unpacked, deserialised, and never a traceback for one that is damaged."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from rosbags.typesys import get_types_from_msg

from motion4d_ros.offline.sources.bags.bag_files import OpenBag, one_line, open_bag
from motion4d_ros.offline.sources.bags.unpacking import bound_readers, unpack_zstd
from motion4d_ros.offline.sources.interfaces import SourceReport
from motion4d_ros.types import Motion4DError

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
"""Begins a message that `ros2 bag record --compression-mode message` packed; no other begins so."""
VISION_MESSAGES = """\
std_msgs/Header header
vision_msgs/Detection2D[] detections
================================================================================
MSG: vision_msgs/Detection2D
std_msgs/Header header
vision_msgs/ObjectHypothesisWithPose[] results
vision_msgs/BoundingBox2D bbox
string id
================================================================================
MSG: vision_msgs/ObjectHypothesisWithPose
vision_msgs/ObjectHypothesis hypothesis
geometry_msgs/PoseWithCovariance pose
================================================================================
MSG: vision_msgs/ObjectHypothesis
string class_id
float64 score
================================================================================
MSG: vision_msgs/BoundingBox2D
vision_msgs/Pose2D center
float64 size_x
float64 size_y
================================================================================
MSG: vision_msgs/Pose2D
vision_msgs/Point2D position
float64 theta
================================================================================
MSG: vision_msgs/Point2D
float64 x
float64 y
"""
_HEADER_TYPES = {
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": (
        "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\n"
        "bool is_bigendian\nuint8[] data\n"
    ),
    "vision_msgs/msg/Detection2DArray": VISION_MESSAGES,
    "foxglove_msgs/msg/CompressedVideo": (
        "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
    ),
}
"""Messages whose packages a bag of the old kind does not describe: pictures, and detections as of vision_msgs 4."""


class BagReader:
    """A bag that is open for reading, any number of times."""

    def __init__(self, path: Path, report: SourceReport) -> None:
        """Raises `Motion4DError` with one line for whatever cannot be opened."""
        bound_readers()
        self._report = report
        self._bag: OpenBag = open_bag(path, report)
        self._reader = self._bag.reader
        self.types = {c.topic: c.msgtype for c in self._reader.connections if c.msgcount or not c.topic}
        """Topic -> type, of topics with messages."""
        self._know_types()

    def close(self) -> None:
        """Closes the bag."""
        self._bag.close()

    def count(self, topic: str) -> int:
        """How many messages a topic has."""
        return sum(c.msgcount for c in self._reader.connections if c.topic == topic)

    @property
    def span_ns(self) -> tuple[int, int]:
        """Times of recording of the first message and after the last, ns."""
        return self._reader.start_time, self._reader.end_time

    def messages(self, topics: Collection[str], start_ns: int | None = None) -> Iterator[tuple[str, int, Any]]:
        """(topic, time of recording in ns, message) in the order of recording, from `start_ns` on.

        A bag that breaks off ends the stream with a warning, a message that cannot be read is left out with one.
        """
        connections = [c for c in self._reader.connections if c.topic in topics and c.msgcount]
        if not connections:
            return
        raw_messages = self._reader.messages(connections, start=start_ns)
        while True:
            try:
                connection, recorded_ns, raw = next(raw_messages)
            except StopIteration:
                return
            except (GeneratorExit, KeyboardInterrupt, Motion4DError, MemoryError):
                raise
            except Exception as error:  # readers raise sqlite3, struct, zstd, … errors for damaged files
                self._report.warn(f"the bag breaks off: {one_line(error)}; what came before was used")
                return
            try:
                message = self._reader.deserialize(self._unpacked(raw), connection.msgtype)
            except (KeyboardInterrupt, Motion4DError, MemoryError):
                raise
            except Exception as error:  # deserialisers raise struct, index, … errors for damaged messages
                self._report.warn(f"a message on {connection.topic} cannot be read ({one_line(error)}): left out")
                continue
            yield connection.topic, recorded_ns, message

    def first(self, topic: str, start_ns: int | None = None) -> Any:
        """The first message of a topic from `start_ns` on, None where there is none."""
        for _, _, message in self.messages([topic], start_ns):
            return message
        return None

    def _unpacked(self, raw: bytes) -> bytes:
        if not self._reader.is2 or bytes(raw[:4]) != _ZSTD_MAGIC:
            return raw
        return unpack_zstd(raw)

    def _know_types(self) -> None:
        store = self._reader.typestore
        for name, text in _HEADER_TYPES.items():
            if name in self.types.values() and name not in store.fielddefs:
                store.register(get_types_from_msg(text, name))
