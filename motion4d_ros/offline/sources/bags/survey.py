"""What is learnt of a bag before its first frame: what kinds of images there are, whose clocks differ, and what stays
as it is for the whole recording, whenever it was said (camera_info, `/tf_static`, links of `/tf` that never change).

Only the topics in question are read, and of those that never end only the beginning.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from statistics import median
from typing import Any

import numpy as np

from motion4d_ros.imagery.camera import is_calibrated
from motion4d_ros.imagery.conversions import high_bit_samples, is_grey_picture
from motion4d_ros.imagery.encodings import find_encoding, stream_codec, video_codec
from motion4d_ros.imagery.high_bit import Levels
from motion4d_ros.imagery.validation import encoded_size, nanoseconds
from motion4d_ros.offline.sources.bags.bag_reader import BagReader
from motion4d_ros.offline.sources.bags.message_matching import as_picture, pose_of, stamp_of
from motion4d_ros.offline.sources.bags.topic_choice import PICTURE_TYPES, TF_TYPES, Peek
from motion4d_ros.offline.sources.interfaces import SourceReport
from motion4d_ros.offline.trajectory import TransformTree
from motion4d_ros.types import FloatArray

_FIRST_MESSAGES = 12
"""Messages of a topic that tell its clock."""
_FEWEST_AMONG = 3
"""Messages among the first images that tell whether a topic is simultaneous with them."""
_MOST_INFOS = 500
"""Camera infos that are looked through for one with a calibration."""
_MOST_TRANSFORMS = 20_000
"""Messages of `/tf` that tell whether a link moves: minutes of a busy robot."""
OTHER_CLOCK_NS = 10_000_000_000
"""Stamps of two topics that differ by more than this and the length of the recording are of two clocks. Less may be how
long a message took to be made: masks of a slow network bear the stamps of their images.
"""
_PICTURES_FOR_LEVELS = 8
SAME_PLACE_M, SAME_TURN = 1e-6, 1e-6


def peek_images(reader: BagReader) -> dict[str, Peek]:
    """What the first message of every image topic says."""
    return {topic: _peek(reader.first(topic)) for topic, kind in reader.types.items() if kind in PICTURE_TYPES}


def _peek(message: Any) -> Peek:
    if message is None:
        return Peek("none")
    picture = as_picture(message)
    frame_id = str(picture.header.frame_id).lstrip("/")
    if hasattr(picture, "format"):
        kind = str(picture.format)
        if "compressedDepth" in kind or kind.startswith(("16UC1", "32FC1")):
            return Peek("depth", frame_id, _compressed_size(picture.data), may_be_depth=True)
        size = _compressed_size(picture.data)
        original = find_encoding(kind.partition(";")[0])
        grey = original is not None and original.colour.startswith("mono")
        return Peek("grey" if grey else "colour", frame_id, size)
    size = (int(picture.height), int(picture.width))
    encoding = find_encoding(picture.encoding)
    if encoding is None:
        return Peek("colour", frame_id, size)  # what it is, its refusal will say
    name = str(picture.encoding).lower()
    if encoding.channels == 1 and (not encoding.colour or name in ("16uc1", "z16")):
        return Peek("depth", frame_id, size, may_be_depth=encoding.dtype in ("uint16", "float32", "float64"))
    grey = encoding.colour.startswith("mono")
    return Peek("grey" if grey else "colour", frame_id, size, may_be_depth=grey and encoding.dtype == "uint16")


def _compressed_size(data: Any) -> tuple[int, int]:
    content = bytes(data)
    size = encoded_size(content) or encoded_size(content[12:]) or (0, 0)  # compressedDepth begins with 12 bytes
    return size[1], size[0]


def codec_of(message: Any) -> str | None:
    """The codec of a topic whose messages are pieces of a video stream, None for pictures."""
    if message is None:
        return None
    picture = as_picture(message)
    if not hasattr(picture, "format"):
        return video_codec(picture.encoding)
    return video_codec(picture.format) or stream_codec(bytes(picture.data[:16]))


def find_info(reader: BagReader, topic: str) -> Any:
    """The first camera info with a calibration, wherever in the recording; else the first; None where there is none."""
    first = None
    for _, _, message in itertools.islice(reader.messages([topic]), _MOST_INFOS):
        if is_calibrated(message):
            return message
        first = first or message
    return first


Links = dict[str, tuple[str, FloatArray]]
"""Child frame -> parent frame and (4, 4) T_parent_child."""


def constant_links(reader: BagReader, report: SourceReport) -> Links:
    """Everything that `/tf_static` says, and the links of `/tf` that never change: they hold at all times."""
    static = {topic for topic, kind in reader.types.items() if kind in TF_TYPES and topic.endswith("static")}
    links: Links = {}
    for parent, child, T in _transforms(reader, static, report):
        links[child] = (parent, T)
    others: Links = {}
    moving: set[str] = set()
    for parent, child, T in _transforms(reader, tf_topics(reader) - static, report):
        known = others.setdefault(child, (parent, T))
        if known[0] != parent or not same_transform(known[1], T):
            moving.add(child)
    return {child: link for child, link in others.items() if child not in moving} | links


def tree_of(links: Links) -> TransformTree:
    """Constant links as a tree that can be asked."""
    tree = TransformTree()
    for child, (parent, T) in links.items():
        tree.add(parent, child, 0, T, static=True)
    return tree


def tf_topics(reader: BagReader) -> set[str]:
    """Topics with transforms."""
    return {topic for topic, kind in reader.types.items() if kind in TF_TYPES}


def _transforms(
    reader: BagReader, topics: Iterable[str], report: SourceReport
) -> Iterator[tuple[str, str, FloatArray]]:
    for _, _, message in itertools.islice(reader.messages(list(topics)), _MOST_TRANSFORMS):
        for item in message.transforms:
            T = pose_of(item.transform.translation, item.transform.rotation, report)
            if T is not None:
                yield item.header.frame_id.lstrip("/"), item.child_frame_id.lstrip("/"), T


def same_transform(a: FloatArray, b: FloatArray) -> bool:
    """Whether two (4, 4) transforms are one, apart from rounding."""
    moved = float(np.linalg.norm(a[:3, 3] - b[:3, 3]))
    return moved <= SAME_PLACE_M and float(np.abs(a[:3, :3] - b[:3, :3]).max()) <= SAME_TURN


class Clocks:
    """What each topic's stamps count: the time of the image's clock is the time of all.

    A topic without stamps, or whose stamps stand still, goes by its times of recording. A topic of another clock than
    the image's (a device's time since it was switched on, …) is shifted by how far both lie from the recording.
    """

    def __init__(self, reader: BagReader, image_topic: str, others: Iterable[str], report: SourceReport) -> None:
        self._by_recording: set[str] = set()
        self._shift_ns: dict[str, int] = {}
        self._first: dict[str, list[tuple[Any, int]]] = {}  # stamps and times of recording of each topic's beginning
        begin, end = reader.span_ns
        offsets = {topic: self._offset_ns(reader, topic) for topic in (image_topic, *others)}
        for topic in self._by_recording:
            report.warn(f"{topic}: its stamps are zero or stand still: the times of recording were used")
        for topic in others:
            apart = offsets[image_topic] - offsets[topic]
            mixed = (topic in self._by_recording) != (image_topic in self._by_recording)
            if other := not begin - end - OTHER_CLOCK_NS < apart < end - begin + OTHER_CLOCK_NS:
                report.warn(
                    f"{topic}: its stamps are {abs(apart) * 1e-9:.1f} s {'behind' if apart > 0 else 'ahead of'} those "
                    f"of {image_topic}, though both were recorded together (two clocks?): matched by the times of "
                    "recording"
                )
            if other or mixed:
                self._shift_ns[topic] = apart

    def stamp_ns(self, topic: str, header_stamp: Any, recorded_ns: int) -> int:
        """A message's time on the image's clock, ns."""
        stamp = 0 if header_stamp is None else nanoseconds(header_stamp)
        if topic in self._by_recording or stamp == 0:
            stamp = recorded_ns
        return stamp + self._shift_ns.get(topic, 0)

    def apart_ns(self, topic: str, image_topic: str) -> int:
        """How near a topic's first messages come to an image at best, ns; 0 where too few lie among the images."""
        images, others = (
            [self.stamp_ns(name, stamp, recorded_ns) for stamp, recorded_ns in self._first.get(name, [])]
            for name in (image_topic, topic)
        )
        among = [stamp for stamp in others if images and min(images) <= stamp <= max(images)]
        if len(among) < _FEWEST_AMONG:
            return 0
        return min(abs(stamp - image) for stamp in among for image in images)

    def _offset_ns(self, reader: BagReader, topic: str) -> int:
        """How far a topic's stamps lie after its times of recording, ns."""
        stamps, recorded = [], []
        for _, recorded_ns, message in itertools.islice(reader.messages([topic]), _FIRST_MESSAGES):
            stamp = stamp_of(message)
            self._first.setdefault(topic, []).append((stamp, recorded_ns))
            stamps.append(0 if stamp is None else nanoseconds(stamp))
            recorded.append(recorded_ns)
        usable = [stamp for stamp in stamps if stamp]
        still = len(usable) >= 3 and len(set(usable)) == 1 and len(set(recorded)) > 2
        if not usable or still:
            if stamps:
                self._by_recording.add(topic)
            return 0
        return round(median(stamp - at for stamp, at in zip(stamps, recorded, strict=True) if stamp))


def primed_levels(reader: BagReader, image_topic: str) -> Levels:
    """Black and white for a whole recording: measured on pictures from all over it, if they have more than 8 bits."""
    levels = Levels()
    begin, end = reader.span_ns
    first = reader.first(image_topic)
    if first is None or high_bit_samples(first) is None:
        return levels
    for part in range(_PICTURES_FOR_LEVELS):
        message = reader.first(image_topic, begin + (end - begin) * part // _PICTURES_FOR_LEVELS)
        samples = None if message is None else high_bit_samples(message)
        if samples is not None:
            levels.prime([samples], grey=is_grey_picture(message))
    return levels
