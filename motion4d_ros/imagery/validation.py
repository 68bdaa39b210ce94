"""Strict checks of incoming messages, before any of their bytes are believed.

Every check ends in silence or in a :class:`Rejection`, which carries a short `reason` (a counter's name, of which there
are few) beside the sentence for the log. Messages are duck-typed: `rclpy`'s, `rosbags`' and hand-made ones all do.
"""

from __future__ import annotations

import io
import math
import zlib
from typing import Any

from PIL import Image, UnidentifiedImageError

from motion4d_ros.imagery.encodings import (
    ENCODINGS,
    Encoding,
    find_encoding,
    is_picture_file,
    remedy,
    stream_codec,
    video_codec,
    video_remedy,
)
from motion4d_ros.types import Motion4DError

__all__ = ["ENCODINGS", "Encoding", "Rejection"]

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RARER_SIGNATURES = (b"RIFF", b"BM", b"II*\0", b"MM\0*")
MIN_SIDE_PX = 16
"""Smaller pictures hold nothing to track."""
MAX_SIDE_PX = 16384
MAX_PIXELS = 64_000_000
"""A header that claims more is taken for garbage rather than for a reason to allocate gigabytes."""


MAX_NAME = 255
"""Letters of the name of a frame, or of what a driver says of its compression."""
MAX_PIXEL_BYTES, MAX_PICTURE_HEADER = 16, 2**20
"""A compressed picture is no larger than its pixels as they are (32 bits, four channels) and what is said of them."""


class Rejection(Motion4DError):
    """A message that cannot be used. `reason` names the counter, the text says what is wrong and what to do."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def nanoseconds(stamp: Any) -> int:
    """A message's stamp, ns, as it is."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def check_stamp(stamp: Any, what: str) -> int:
    """The stamp in ns, if it is a possible time; zero means the driver never set it."""
    sec, nanosec = int(stamp.sec), int(stamp.nanosec)
    if sec < 0 or not 0 <= nanosec < 1_000_000_000:
        raise Rejection("stamp", f"{what}: impossible stamp sec={sec} nanosec={nanosec}: check the driver's clock")
    stamp_ns = nanoseconds(stamp)
    if stamp_ns == 0:
        raise Rejection("stamp", f"{what}: stamp is zero: the driver must stamp its messages")
    return stamp_ns


def check_name(name: str, what: str) -> None:
    """Refuses names of frames that nobody means: they are kept with every frame, and repeated in every output."""
    if len(name) > MAX_NAME:
        raise Rejection("name", f"{what}: a name of {len(name)} letters, at most {MAX_NAME}: {name[:20]!r}...")


def check_header(header: Any, what: str) -> int:
    """The stamp in ns of a message's header, if that and the name of its frame are possible."""
    check_name(header.frame_id, what)
    return check_stamp(header.stamp, what)


def check_size(width: int, height: int, what: str) -> None:
    """Refuses pictures too small to use or too large to be meant."""
    if width < MIN_SIDE_PX or height < MIN_SIDE_PX:
        raise Rejection("size", f"{what}: {width}x{height} px is too small (at least {MIN_SIDE_PX} px a side)")
    if width > MAX_SIDE_PX or height > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise Rejection("size", f"{what}: {width}x{height} px is absurd (at most {MAX_PIXELS // 1_000_000} Mpx)")


def check_image(message: Any, what: str = "image") -> Encoding:
    """Checks size x step x encoding against the data; the image's `Encoding`. Cheap: no pixel is read."""
    width, height, step = int(message.width), int(message.height), int(message.step)
    check_size(width, height, what)
    name = str(message.encoding)[:40]
    encoding = find_encoding(name)
    if encoding is None:
        raise Rejection("encoding", f"{what}: unknown encoding {name!r}: {remedy(name)}")
    if (encoding.even_width and width % 2) or (encoding.even_height and height % 2):
        raise Rejection("size", f"{what}: {name} needs even sides, got {width}x{height}")
    row = width * encoding.pixel_bytes
    if step < row:
        raise Rejection("step", f"{what}: step {step} is shorter than a row of {width} px {name} ({row} B)")
    expected = step * int(height * encoding.rows)
    if len(message.data) not in (expected, expected - (step - row)):  # the last row may come without its padding
        text = f"{what}: {len(message.data)} B of data, {width}x{height} px {name} in rows of {step} B need {expected}"
        raise Rejection("data", f"{text}: truncated, or not {name}: set the driver's encoding to what it sends")
    if message.is_bigendian not in (0, 1):
        raise Rejection("encoding", f"{what}: is_bigendian is {message.is_bigendian}, must be 0 or 1")
    return encoding


def check_compressed(data: Any, what: str = "image") -> tuple[int, int]:
    """(width, height) that compressed `data` (bytes-like) claims to hold; only picture files of a sane size pass."""
    if len(data) < 16:
        raise Rejection("data", f"{what}: only {len(data)} B of compressed data")
    content = bytes(data)
    size = encoded_size(content)
    if size is None:
        if codec := stream_codec(content):
            raise Rejection("encoding", f"{what}: {video_remedy(codec)}")
        raise Rejection("data", f"{what}: no JPEG, PNG, WebP, BMP or TIFF, or its header is damaged")
    check_size(*size, what)
    most = MAX_PIXEL_BYTES * size[0] * size[1] + MAX_PICTURE_HEADER
    if len(data) > most:
        told = f"{len(data)} B of compressed data for {size[0]}x{size[1]} px, at most {most} B"
        raise Rejection("data", f"{what}: {told}")
    return size


def check_picture(message: Any, what: str = "image") -> tuple[int, int]:
    """(width, height) of a checked `Image` or `CompressedImage`. Cheap: no pixel is read."""
    kind = getattr(message, "format", None)
    if kind is not None or is_picture_file(message.encoding):
        check_name(kind or "", what)
        codec = video_codec(str(kind))
        if codec is not None:
            raise Rejection("encoding", f"{what}: {video_remedy(codec)}")
        return check_compressed(message.data, what)
    check_image(message, what)
    return int(message.width), int(message.height)


def encoded_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that a picture file's header claims, before anything is allocated for it; None if it is none."""
    if data[:8] == PNG_SIGNATURE and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    if data[:2] != b"\xff\xd8":
        return _size_of_rarer_file(data) if data.startswith(_RARER_SIGNATURES) else None
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _size_of_rarer_file(data: bytes) -> tuple[int, int] | None:
    """(width, height) by Pillow, which reads the header only; None for what it does not know."""
    try:
        with Image.open(io.BytesIO(data), formats=("WEBP", "BMP", "TIFF")) as opened:
            return opened.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def check_png_chunks(data: bytes, what: str) -> None:
    """Refuses a PNG whose chunks do not add up or fail their checksums; anything else passes.

    OpenCV believes a damaged chunk length and takes gigabytes, for seconds, before it gives up.
    """
    if data[:8] != PNG_SIGNATURE:
        return
    at = 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data) or zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            break
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = end
    raise Rejection("data", f"{what}: damaged PNG")


def check_intrinsics(fx: float, fy: float, cx: float, cy: float, size: tuple[int, int], what: str) -> None:
    """Refuses focal lengths and a principal point, px, that no camera with images of `size` (height, width) has."""
    span = max(size)
    if fx <= 0 or fy <= 0:
        raise Rejection("camera_info", f"{what}: fx={fx:g} fy={fy:g}: the camera is not calibrated")
    if not (span / 1000 < fx < 1000 * span and span / 1000 < fy < 1000 * span):
        raise Rejection("camera_info", f"{what}: fx={fx:g} fy={fy:g} px for {span} px images is absurd")
    if abs(cx) > 10 * span or abs(cy) > 10 * span:
        raise Rejection("camera_info", f"{what}: cx={cx:g} cy={cy:g} lies far off the image")


def check_camera_info(message: Any) -> None:
    """Checks that a `CameraInfo` is finite, calibrated and of a sane size."""
    check_size(int(message.width), int(message.height), "camera_info")
    if len(message.d) > 14:
        raise Rejection("camera_info", f"camera_info: {len(message.d)} distortion coefficients, at most 14 are known")
    for name in ("k", "d", "r", "p"):
        if not all(math.isfinite(value) for value in getattr(message, name)):
            raise Rejection("camera_info", f"camera_info: {name} holds NaN or infinity: calibrate the camera")
    k = message.k
    check_intrinsics(k[0], k[4], k[2], k[5], (int(message.height), int(message.width)), "camera_info")


def check_pose(pose: Any, what: str) -> None:
    """Checks that a `geometry_msgs/Pose` is finite and its quaternion near unit length."""
    p, q = pose.position, pose.orientation
    if not all(math.isfinite(v) for v in (p.x, p.y, p.z, q.x, q.y, q.z, q.w)):
        raise Rejection("pose", f"{what}: the pose holds NaN or infinity: check the odometry source")
    if max(abs(p.x), abs(p.y), abs(p.z)) > 1e7:
        raise Rejection("pose", f"{what}: position ({p.x:g}, {p.y:g}, {p.z:g}) m is absurd")
    norm = math.sqrt(q.x**2 + q.y**2 + q.z**2 + q.w**2)
    if abs(norm - 1.0) > 0.02:
        raise Rejection("pose", f"{what}: quaternion of length {norm:g}: must be 1 (all zeros = never set)")
