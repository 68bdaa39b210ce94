"""Messages to arrays: validate (:mod:`.validation`), tidy the bytes, then let a library turn them into RGB.

Messages are duck-typed: `rclpy`'s and those that `rosbags` reads from ROS 1 and ROS 2 recordings all do.
"""

from __future__ import annotations

import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.imagery.backends import ImageBackend, TightImage
from motion4d_ros.imagery.validation import (
    MAX_PIXELS,
    Encoding,
    Rejection,
    check_compressed,
    check_image,
    check_png_chunks,
    check_size,
)

LARGEST_ID = 65535
_UNKNOWN_MM = 65535
"""A depth camera's "too far", not a distance."""
_ID_TYPES = ("uint8", "uint16", "int16", "int32")


def read_rgb(message: Any, backend: ImageBackend) -> NDArray[np.uint8]:
    """`sensor_msgs/Image` or `CompressedImage` -> (H, W, 3) RGB. Raises `Rejection`."""
    return rgb_from_compressed(message) if is_compressed(message) else rgb_from_image(message, backend)


def read_depth(message: Any, most_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """`sensor_msgs/Image` or `CompressedImage` -> (H, W) m, 0 where unknown (REP-118). Raises `Rejection`."""
    return depth_from_compressed(message, most_pixels) if is_compressed(message) else depth_from_image(message)


def read_labels(message: Any) -> NDArray[np.int32]:
    """`sensor_msgs/Image` or `CompressedImage` -> (H, W) object ids, -1 where nobody knows. Raises `Rejection`."""
    return labels_from_compressed(message) if is_compressed(message) else labels_from_image(message)


def is_compressed(message: Any) -> bool:
    """Whether it is a `CompressedImage`."""
    return hasattr(message, "format")


def samples(message: Any, encoding: Encoding) -> NDArray[Any]:
    """The samples of a checked image in native byte order, without padding: (rows, W) or (rows, W, C)."""
    rows = int(message.height * encoding.rows)
    dtype = np.dtype(encoding.dtype).newbyteorder(">" if message.is_bigendian else "<")
    flat = np.frombuffer(message.data, np.uint8)
    if flat.size < rows * message.step:  # the last row without its padding
        flat = np.pad(flat, (0, rows * message.step - flat.size))
    raw = flat.reshape(rows, message.step)
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
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION  # the camera's pixels, whatever an EXIF tag says
    decoded = _imdecode(np.frombuffer(message.data, np.uint8), message.format, flags, "image")
    if decoded.ndim != 3 or decoded.shape[2] != 3 or decoded.dtype != np.uint8:
        raise Rejection("data", f"image: compressed data decodes to {decoded.dtype}{decoded.shape}, not to a picture")
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


def depth_from_image(message: Any) -> NDArray[np.float32]:
    """`sensor_msgs/Image` 16UC1 mm or 32FC1 m -> (H, W) m, 0 where unknown (REP-118). Raises `Rejection`."""
    encoding = check_image(message, "depth")
    if encoding.channels != 1 or encoding.dtype not in ("uint16", "float32", "float64") or "bayer" in encoding.colour:
        raise Rejection("encoding", f"depth: {message.encoding}: must be 16UC1 (mm) or 32FC1 (m)")
    return metres(samples(message, encoding))


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
        return metres(decoded)
    header = 12  # int32 format, float32 quantisation a and b
    if len(data) < header + 16:
        raise Rejection("data", f"depth: only {len(data)} B of compressedDepth")
    _, quant_a, quant_b = struct.unpack("<iff", data[:header].tobytes())
    decoded = _imdecode(data[header:], message.format, cv2.IMREAD_UNCHANGED, "depth", most_pixels)
    if decoded.dtype != np.uint16 or decoded.ndim != 2:
        raise Rejection("encoding", f"depth: compressedDepth decodes to {decoded.dtype}{decoded.shape}")
    if "32fc1" not in kind:
        return metres(decoded)
    if not np.isfinite([quant_a, quant_b]).all():
        raise Rejection("data", "depth: compressedDepth header holds NaN")
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(decoded > 0, quant_a / (decoded.astype(np.float32) - quant_b), 0.0)
    return metres(values.astype(np.float32))


def labels_from_image(message: Any) -> NDArray[np.int32]:
    """`sensor_msgs/Image` 16UC1/mono16, mono8/8UC1, 16SC1 or 32SC1 -> (H, W) object ids. Raises `Rejection`."""
    encoding = check_image(message, "masks")
    if encoding.channels != 1 or encoding.dtype not in _ID_TYPES or "bayer" in encoding.colour or encoding.rows != 1.0:
        raise Rejection("encoding", f"masks: {message.encoding}: must be 16UC1 or mono8, value = object id")
    return object_ids(samples(message, encoding))


def labels_from_compressed(message: Any) -> NDArray[np.int32]:
    """A grey PNG of 8 or 16 bits -> (H, W) object ids. Raises `Rejection`."""
    data = np.frombuffer(message.data, np.uint8)
    decoded = _imdecode(data, message.format, cv2.IMREAD_UNCHANGED, "masks")
    if decoded.ndim != 2 or decoded.dtype.name not in _ID_TYPES:
        kind = f"{decoded.dtype}{decoded.shape}"
        raise Rejection("encoding", f"masks: {message.format[:60]!r} decodes to {kind}, not to one channel of ids")
    return object_ids(decoded)


def object_ids(values: NDArray[Any]) -> NDArray[np.int32]:
    """(H, W) integers -> object ids: 0 background, -1 nobody knows. Raises `Rejection` for anything below or above."""
    labels = values.astype(np.int32)
    if labels.min(initial=0) < -1 or labels.max(initial=0) > LARGEST_ID:
        text = f"masks: object ids must lie in 0 .. {LARGEST_ID} (-1 = unknown), not negative or larger"
        raise Rejection("data", text)
    return labels


def metres(values: NDArray[Any]) -> NDArray[np.float32]:
    """(H, W) depth as uint16 mm or floating-point m -> m, 0 where unknown (REP-118).

    NaN, infinite, negative and saturated (65535) values become 0.
    """
    if values.dtype == np.uint16:
        return np.where(values == _UNKNOWN_MM, np.float32(0), values.astype(np.float32) * np.float32(0.001))
    with np.errstate(invalid="ignore"):
        depth = values.astype(np.float32)
        return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def fit_size(array: NDArray[Any], height: int, width: int, what: str) -> NDArray[Any]:
    """`array` (h, w) resized to the colour image by nearest neighbour, if it shows the same view (same aspect)."""
    if array.shape == (height, width):
        return array
    have, want = array.shape[1] / array.shape[0], width / height
    if abs(have / want - 1.0) > 0.02:
        text = f"{array.shape[1]}x{array.shape[0]} px does not show the view of {width}x{height}"
        raise Rejection(f"{what} size", f"{what}: {text}: register it to the colour image")
    return np.asarray(cv2.resize(array, (width, height), interpolation=cv2.INTER_NEAREST_EXACT))


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
