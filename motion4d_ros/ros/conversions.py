"""Messages to arrays. Validate (:mod:`.validation`), tidy the bytes, then let a library turn them into RGB.

The library is `cv_bridge` where it is installed *and* gives right answers, else `rosbags-image`. Both mistreat some
legal messages (padded rows, big-endian samples, grey JPEGs), so what they see is always tight and little-endian.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.ros.validation import (
    MAX_PIXELS,
    Encoding,
    Rejection,
    check_compressed,
    check_image,
    check_png_chunks,
    check_size,
)


@dataclass
class TightImage:
    """An image message without padding, little-endian, with a canonical encoding: what the libraries read reliably."""

    height: int
    width: int
    encoding: str
    step: int
    data: bytes
    is_bigendian: int = 0


class ImageBackend(Protocol):
    """A library that knows colour encodings."""

    name: str

    def to_rgb8(self, image: TightImage) -> NDArray[np.uint8]:
        """(H, W, 3) RGB."""


class CvBridgeBackend:
    """`cv_bridge`, as robots have it."""

    name = "cv_bridge"

    def __init__(self) -> None:
        from cv_bridge import CvBridge

        self._bridge = CvBridge()

    def to_rgb8(self, image: TightImage) -> NDArray[np.uint8]:
        """See `ImageBackend`."""
        return np.asarray(self._bridge.imgmsg_to_cv2(image, "rgb8"), np.uint8)


class RosbagsBackend:
    """`rosbags-image`, pure Python."""

    name = "rosbags-image"

    def to_rgb8(self, image: TightImage) -> NDArray[np.uint8]:
        """See `ImageBackend`."""
        from rosbags.image import image_to_cvimage

        return np.asarray(image_to_cvimage(image, "rgb8"), np.uint8)  # type: ignore[arg-type]


def choose_backend() -> ImageBackend:
    """`cv_bridge` if it imports and converts a known picture rightly, else `rosbags-image`."""
    try:
        backend: ImageBackend = CvBridgeBackend()
        if backend_is_healthy(backend):
            return backend
    except Exception:  # a broken cv_bridge fails in many ways: ABI, OpenCV 5, NumPy 2, an old pure-Python namesake
        pass
    return RosbagsBackend()


def backend_is_healthy(backend: ImageBackend) -> bool:
    """Whether the back end turns known BGR, grey and 16-bit pictures into the right RGB."""
    bgr = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    grey16 = np.full((2, 4), 65535, np.uint16)
    got = backend.to_rgb8(TightImage(2, 4, "bgr8", 12, bgr.tobytes()))
    white = backend.to_rgb8(TightImage(2, 4, "mono16", 8, grey16.tobytes()))
    return np.array_equal(got, bgr[..., ::-1]) and white.shape == (2, 4, 3) and int(white.min()) == 255


def samples(message: Any, encoding: Encoding) -> NDArray[Any]:
    """The samples of a checked image in native byte order, without padding: (rows, W) or (rows, W, C)."""
    rows = int(message.height * encoding.rows)
    dtype = np.dtype(encoding.dtype).newbyteorder(">" if message.is_bigendian else "<")
    raw = np.frombuffer(message.data, np.uint8).reshape(rows, message.step)
    tight = np.ascontiguousarray(raw[:, : message.width * encoding.pixel_bytes])
    shape = (rows, message.width) if encoding.channels == 1 else (rows, message.width, encoding.channels)
    return tight.view(dtype).reshape(shape).astype(np.dtype(encoding.dtype), copy=False)


def rgb_from_image(message: Any, backend: ImageBackend) -> NDArray[np.uint8]:
    """`sensor_msgs/Image` of any colour encoding -> (H, W, 3) RGB. Raises `Rejection`."""
    encoding = check_image(message)
    if not encoding.colour:
        raise Rejection("encoding", f"image: {message.encoding} is no colour or grey picture: is this a depth topic?")
    pixels = samples(message, encoding)
    if encoding.colour == "rgb8":
        return np.array(pixels)
    if encoding.colour in ("nv12", "nv21"):  # neither library knows the taller planar layout
        code = cv2.COLOR_YUV2RGB_NV12 if encoding.colour == "nv12" else cv2.COLOR_YUV2RGB_NV21
        return np.asarray(cv2.cvtColor(pixels, code), np.uint8)
    if encoding.colour in ("uyvy", "yuyv"):
        code = cv2.COLOR_YUV2RGB_UYVY if encoding.colour == "uyvy" else cv2.COLOR_YUV2RGB_YUYV
        return np.asarray(cv2.cvtColor(pixels, code), np.uint8)
    step = message.width * encoding.pixel_bytes
    tight = TightImage(message.height, message.width, encoding.colour, step, pixels.tobytes())
    try:
        rgb = backend.to_rgb8(tight)
    except Exception as error:
        raise Rejection("encoding", f"image: {backend.name} cannot read {message.encoding} ({error})") from None
    if rgb.shape != (message.height, message.width, 3):
        raise Rejection("encoding", f"image: {backend.name} made {rgb.shape} of {message.encoding}")
    return np.ascontiguousarray(rgb)


def rgb_from_compressed(message: Any) -> NDArray[np.uint8]:
    """`sensor_msgs/CompressedImage` (JPEG, PNG, …) -> (H, W, 3) RGB. Raises `Rejection`."""
    decoded = _imdecode(np.frombuffer(message.data, np.uint8), message.format, cv2.IMREAD_COLOR, "image")
    if decoded.ndim != 3 or decoded.shape[2] != 3 or decoded.dtype != np.uint8:
        raise Rejection("data", f"image: compressed data decodes to {decoded.dtype}{decoded.shape}, not to a picture")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def depth_from_image(message: Any) -> NDArray[np.float32]:
    """`sensor_msgs/Image` 16UC1 mm or 32FC1 m -> (H, W) m, 0 where unknown (REP-118). Raises `Rejection`."""
    encoding = check_image(message, "depth")
    if encoding.channels != 1 or encoding.dtype not in ("uint16", "float32", "float64") or "bayer" in encoding.colour:
        raise Rejection("encoding", f"depth: {message.encoding}: must be 16UC1 (mm) or 32FC1 (m)")
    return _metres(samples(message, encoding))


def depth_from_compressed(message: Any, most_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """`compressedDepth` (PNG) or a plain 16-bit PNG -> (H, W) m, 0 where unknown. Raises `Rejection`.

    Pictures that claim more than `most_pixels` are not unpacked at all.
    """
    kind = message.format.lower()
    if "rvl" in kind:
        raise Rejection("encoding", "depth: RVL-compressed depth is not supported: set the publisher's format to png")
    data = np.frombuffer(message.data, np.uint8)
    if "compresseddepth" not in kind:
        decoded = _imdecode(data, message.format, cv2.IMREAD_UNCHANGED, "depth", most_pixels)
        if decoded.dtype != np.uint16 or decoded.ndim != 2:
            raise Rejection("encoding", f"depth: {message.format[:60]!r} decodes to {decoded.dtype}, not to 16-bit mm")
        return _metres(decoded)
    header = 12  # int32 format, float32 quantisation a and b
    if len(data) < header + 16:
        raise Rejection("data", f"depth: only {len(data)} B of compressedDepth")
    _, quant_a, quant_b = struct.unpack("<iff", data[:header].tobytes())
    decoded = _imdecode(data[header:], message.format, cv2.IMREAD_UNCHANGED, "depth", most_pixels)
    if decoded.dtype != np.uint16 or decoded.ndim != 2:
        raise Rejection("encoding", f"depth: compressedDepth decodes to {decoded.dtype}{decoded.shape}")
    if "32fc1" not in kind:
        return _metres(decoded)
    if not np.isfinite([quant_a, quant_b]).all():
        raise Rejection("data", "depth: compressedDepth header holds NaN")
    with np.errstate(divide="ignore", invalid="ignore"):
        metres = np.where(decoded > 0, quant_a / (decoded.astype(np.float32) - quant_b), 0.0)
    return _metres(metres.astype(np.float32))


def labels_from_image(message: Any) -> NDArray[np.int32]:
    """`sensor_msgs/Image` 16UC1/mono16, mono8/8UC1 or 32SC1 -> (H, W) object ids. Raises `Rejection`."""
    encoding = check_image(message, "masks")
    if encoding.channels != 1 or encoding.dtype not in ("uint8", "uint16", "int32") or "bayer" in encoding.colour:
        raise Rejection("encoding", f"masks: {message.encoding}: must be 16UC1 or mono8, value = object id")
    labels = samples(message, encoding).astype(np.int32)
    if encoding.dtype == "int32" and (labels.min() < -1 or labels.max() > 65535):
        raise Rejection("data", "masks: object ids must lie in 0 .. 65535 (-1 = unknown)")
    return labels


def fit_size(array: NDArray[Any], height: int, width: int, what: str) -> NDArray[Any]:
    """`array` (h, w) resized to the colour image by nearest neighbour, if it shows the same view (same aspect)."""
    if array.shape == (height, width):
        return array
    have, want = array.shape[1] / array.shape[0], width / height
    if abs(have / want - 1.0) > 0.02:
        raise Rejection(
            f"{what} size",
            f"{what}: {array.shape[1]}x{array.shape[0]} does not show the view of {width}x{height}: register it",
        )
    return np.asarray(cv2.resize(array, (width, height), interpolation=cv2.INTER_NEAREST))


def _metres(values: NDArray[Any]) -> NDArray[np.float32]:
    metres = values.astype(np.float32) * np.float32(0.001) if values.dtype == np.uint16 else values.astype(np.float32)
    return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0))


def _imdecode(data: NDArray[np.uint8], kind: str, flags: int, what: str, most_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    width, height = check_compressed(data, what)
    if width * height > most_pixels:  # a decoder may need gigabytes to find out that the header lied
        raise Rejection("size", f"{what}: {width}x{height} px is too large beside its image")
    check_png_chunks(data.tobytes(), what)
    try:
        decoded = cv2.imdecode(data, flags)
    except cv2.error as error:
        raise Rejection("data", f"{what}: cannot be decoded ({str(error).splitlines()[0][:80]})") from None
    if decoded is None:
        raise Rejection("data", f"{what}: corrupt or unknown compression {kind[:40]!r}")
    check_size(decoded.shape[1], decoded.shape[0], what)
    return decoded
