"""Names of image encodings, as the standard has them and as drivers really write them, and how their bytes lie.

`sensor_msgs/image_encodings` holds the standard's names. Drivers also write GenICam's (`BayerRG12`), libcamera's
(`SRGGB10`, `NV12`), V4L2's (`YUYV`), names in other case (`BGR8`), and names without bits (`rgb`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Encoding:
    """How the bytes of an uncompressed image are laid out."""

    dtype: str  # NumPy name of one sample
    channels: int  # samples per pixel as stored
    colour: str  # name of the layout for colour conversion, "" where it is no colour (depth, labels)
    rows: float = 1.0  # stored rows per image row: 1.5 for planar 4:2:0

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one pixel within a row."""
        return np.dtype(self.dtype).itemsize * self.channels

    @property
    def even_width(self) -> bool:
        """Whether two pixels beside each other share their colour."""
        return self.colour in (*_SHARED_BY_TWO, *_SHARED_BY_FOUR)

    @property
    def even_height(self) -> bool:
        """Whether two pixels above each other share their colour."""
        return self.colour in _SHARED_BY_FOUR


_SHARED_BY_TWO = ("uyvy", "yuyv", "yvyu", "vyuy", "nv16", "nv61")
_SHARED_BY_FOUR = ("nv12", "nv21", "i420", "yv12")


def _table() -> dict[str, Encoding]:
    table: dict[str, Encoding] = {}
    for bits, dtype in ((8, "uint8"), (16, "uint16")):
        for order in ("rgb", "bgr"):
            table[f"{order}{bits}"] = Encoding(dtype, 3, f"{order}{bits}")
            table[f"{order}a{bits}"] = Encoding(dtype, 4, f"{order}a{bits}")
        table[f"mono{bits}"] = Encoding(dtype, 1, f"mono{bits}")
        for pattern in ("rggb", "bggr", "gbrg", "grbg"):
            table[f"bayer_{pattern}{bits}"] = Encoding(dtype, 1, f"bayer_{pattern}{bits}")
    for name in ("yuv422", "uyvy"):
        table[name] = Encoding("uint8", 2, "uyvy")
    for name in ("yuv422_yuy2", "yuyv"):
        table[name] = Encoding("uint8", 2, "yuyv")
    for name in ("yvyu", "vyuy"):
        table[name] = Encoding("uint8", 2, name)
    for names, rows in ((_SHARED_BY_FOUR, 1.5), (("nv16", "nv61"), 2.0), (("nv24", "nv42"), 3.0)):
        for name in names:
            table[name] = Encoding("uint8", 1, name, rows)
    # OpenCV's generic names say nothing of colour; pictures in them are BGR by OpenCV's own convention.
    for channels, colour in ((1, "mono"), (3, "bgr"), (4, "bgra")):
        table[f"8UC{channels}"] = Encoding("uint8", channels, f"{colour}8")
        table[f"16UC{channels}"] = Encoding("uint16", channels, f"{colour}16")
    table["8UC2"] = Encoding("uint8", 2, "")
    for name, dtype in (("8SC1", "int8"), ("16SC1", "int16"), ("32SC1", "int32"), ("32FC1", "float32")):
        table[name] = Encoding(dtype, 1, "")
    table["64FC1"] = Encoding("float64", 1, "")
    return table


ENCODINGS = _table()
"""Every layout we read, by its name in `sensor_msgs/image_encodings` (or V4L2's, where that has none)."""

_OTHER_NAMES = {
    "rgb": "rgb8", "bgr": "bgr8", "rgba": "rgba8", "bgra": "bgra8", "rgb888": "rgb8", "bgr888": "bgr8",
    "rgb24": "rgb8", "bgr24": "bgr8", "rgba32": "rgba8", "bgra32": "bgra8",
    "mono": "mono8", "gray": "mono8", "grey": "mono8", "gray8": "mono8", "grey8": "mono8", "y8": "mono8", "l8": "mono8",
    "gray16": "mono16", "grey16": "mono16", "y16": "mono16", "z16": "16UC1",
    "yuyv422": "yuyv", "yuy2": "yuyv", "yuv422_yuyv": "yuyv", "yuv422packed": "uyvy", "uyvy422": "uyvy",
    "yuv422_uyvy": "uyvy", "yuv422_8_uyvy": "uyvy", "yuv422_8": "yuyv",
    "yuv420": "i420", "yuv420p": "i420", "iyuv": "i420", "yu12": "i420", "yv21": "i420", "yvu420": "yv12",
    "yuv420sp": "nv12", "yuv420_nv12": "nv12", "yuv420_nv21": "nv21", "yuv444sp": "nv24",
}  # fmt: skip
_BAYER_SHORT = {"rg": "rggb", "bg": "bggr", "gb": "gbrg", "gr": "grbg"}  # GenICam names the first two pixels
_BAYER = re.compile(r"(?:s|bayer_?)(rggb|bggr|gbrg|grbg|rg|bg|gb|gr)_?(8|10|12|14|16)?")
_MONO_BITS = re.compile(r"(?:mono|gr[ae]y|y)(9|10|12|14|16)")
_PACKED = re.compile(r"\d(p|packed|_?csi2p)$")
_PICTURE_FILES = frozenset({"jpeg", "jpg", "mjpeg", "mjpg", "png", "webp", "bmp", "tiff"})
_CODECS = {
    "h264": "H.264", "x264": "H.264", "avc": "H.264", "h265": "H.265", "x265": "H.265", "hevc": "H.265", "av1": "AV1",
    "vp8": "VP8", "vp9": "VP9", "mpeg4": "MPEG-4", "theora": "Theora",
}  # fmt: skip


def standard_name(name: str) -> str | None:
    """The key of `ENCODINGS` that an encoding's name means; None where it means none of them."""
    plain = str(name).strip()
    if plain in ENCODINGS:
        return plain
    lower = plain.lower()
    if lower in ENCODINGS:
        return lower
    if lower in _OTHER_NAMES:
        return _OTHER_NAMES[lower]
    if lower.upper() in ENCODINGS:  # "16uc1"
        return lower.upper()
    if bayer := _BAYER.fullmatch(lower):
        pattern, bits = _BAYER_SHORT.get(bayer[1], bayer[1]), int(bayer[2] or 8)
        return f"bayer_{pattern}{8 if bits == 8 else 16}"  # 10 to 14 bits lie in two bytes each
    return "mono16" if _MONO_BITS.fullmatch(lower) else None


def find_encoding(name: str) -> Encoding | None:
    """The layout behind a name, None where it is unknown."""
    standard = standard_name(name)
    return None if standard is None else ENCODINGS[standard]


def is_picture_file(name: str) -> bool:
    """Whether the encoding of an uncompressed image says that its data is a picture file after all (`jpeg`)."""
    return str(name).strip().lower() in _PICTURE_FILES


def video_codec(name: str) -> str | None:
    """The codec that an encoding or a compressed image's format names (`h264`, `hevc_nvenc`, `libx265`), or None."""
    words = re.split(r"[^a-z0-9]+", str(name).lower().replace("h.26", "h26"))
    return next((_CODECS[word.removeprefix("lib")] for word in words if word.removeprefix("lib") in _CODECS), None)


def stream_codec(data: bytes) -> str | None:
    """The codec of a stream of network units that begins with its parameters, by its bytes; None for anything else."""
    for mark in (b"\0\0\0\1", b"\0\0\1"):
        if data.startswith(mark) and len(data) > len(mark):
            head = data[len(mark)]
            if (head >> 1) & 0x3F in (32, 33):  # VPS, SPS
                return "H.265"
            if head & 0x1F in (7, 9):  # SPS, access unit delimiter
                return "H.264"
    return None


def remedy(name: str) -> str:
    """What to do about an encoding that is not read."""
    lower = str(name).strip().lower()
    readable = "rgb8, bgr8, mono8, mono16, bayer_*8, bayer_*16, yuyv, uyvy, nv12 or i420"
    if not lower:
        return f"the driver leaves it empty: set it to what the bytes are, {readable}"
    if codec := video_codec(lower):
        return video_remedy(codec)
    if _PACKED.search(lower):
        return f"packed samples are not read: set the driver to whole bytes, {readable}"
    return f"set the driver to {readable} (docs/reference/interface.md has all)"


def video_remedy(codec: str) -> str:
    """What to do about a video stream in messages."""
    return (
        f"{codec} video cannot be read from single messages: republish it as pictures, "
        "ros2 run image_transport republish ffmpeg raw"
    )
