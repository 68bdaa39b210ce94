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
from motion4d_ros.imagery.depth_units import DepthUnits
from motion4d_ros.imagery.encodings import Encoding, find_encoding, is_picture_file
from motion4d_ros.imagery.high_bit import Levels
from motion4d_ros.imagery.validation import (
    MAX_PIXELS,
    PNG_SIGNATURE,
    Rejection,
    check_compressed,
    check_image,
    check_picture,
    check_png_chunks,
    check_size,
)
from motion4d_ros.imagery.yuv import YUV_LAYOUTS, yuv_to_rgb

LARGEST_ID = 65535
_UNKNOWN_MM = 65535
"""A depth camera's "too far", not a distance."""
_ID_TYPES = ("uint8", "uint16", "int16", "int32")
_MOSAICS = {
    "rggb": cv2.COLOR_BayerBG2RGB,  # OpenCV names the second row's second and third pixel
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
_ANY = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
"""The camera's own pixels, of whatever depth: `CameraInfo` belongs to them, whatever an EXIF tag says."""
_SAME_GREY = 2
"""A JPEG of three equal channels is grey: its decoder rounds by at most this much."""


def read_rgb(message: Any, backend: ImageBackend, levels: Levels | None = None) -> NDArray[np.uint8]:
    """`sensor_msgs/Image` or `CompressedImage` -> (H, W, 3) RGB. Raises `Rejection`.

    `levels` says what is black and white where samples have more than 8 bits; keep one for each recording or topic.
    """
    if is_compressed(message):
        return rgb_from_compressed(message, levels)
    return rgb_from_image(message, backend, levels)


def read_depth(message: Any, most_pixels: int = MAX_PIXELS, units: DepthUnits | None = None) -> NDArray[np.float32]:
    """`sensor_msgs/Image` or `CompressedImage` -> (H, W) m, 0 where unknown (REP-118). Raises `Rejection`.

    `units` says what a metre counts; keep one for each recording or topic.
    """
    units = units or DepthUnits()
    if is_compressed(message):
        return depth_from_compressed(message, most_pixels, units)
    return depth_from_image(message, units)


def read_labels(message: Any) -> NDArray[np.int32]:
    """`sensor_msgs/Image` or `CompressedImage` -> (H, W) object ids, -1 where nobody knows. Raises `Rejection`."""
    return labels_from_compressed(message) if is_compressed(message) else labels_from_image(message)


def is_compressed(message: Any) -> bool:
    """Whether it is a `CompressedImage`."""
    return hasattr(message, "format")


def samples(message: Any, encoding: Encoding) -> NDArray[Any]:
    """The samples of a checked image in native byte order, without padding: (rows, W) or (rows, W, C)."""
    dtype = np.dtype(encoding.dtype).newbyteorder(">" if message.is_bigendian else "<")
    raw = _stored_rows(message, encoding)
    tight = np.ascontiguousarray(raw[:, : message.width * encoding.pixel_bytes])
    shape = (len(raw), message.width) if encoding.channels == 1 else (len(raw), message.width, encoding.channels)
    return tight.view(dtype).reshape(shape).astype(np.dtype(encoding.dtype), copy=False)


def high_bit_samples(message: Any) -> NDArray[np.uint16] | None:
    """The samples of a picture of more than 8 bits, (H, W[, C]), for `Levels.prime`; None for any other, or no picture.

    Whether they are grey, `is_grey_picture` says.
    """
    try:
        if is_compressed(message):
            if not _is_deep_png(message.data):
                return None
            decoded = _imdecode(np.frombuffer(message.data, np.uint8), message.format, _ANY, "image")
            return np.asarray(decoded, np.uint16) if decoded.dtype == np.uint16 else None
        encoding = find_encoding(message.encoding)
        if encoding is None or encoding.dtype != "uint16" or not encoding.colour:
            return None
        return np.asarray(samples(message, check_image(message)), np.uint16)
    except Rejection:
        return None


def is_grey_picture(message: Any) -> bool:
    """Whether the samples of a picture are grey values, by what its encoding or format says; mosaics are not."""
    name = message.format.partition(";")[0] if is_compressed(message) else message.encoding
    encoding = find_encoding(name)
    return encoding is not None and encoding.colour.startswith("mono")


def rgb_from_image(message: Any, backend: ImageBackend, levels: Levels | None = None) -> NDArray[np.uint8]:
    """`sensor_msgs/Image` of any colour encoding -> (H, W, 3) RGB. Raises `Rejection`."""
    if is_picture_file(message.encoding):
        return _rgb_from_file(message, "", levels)
    encoding = check_image(message)
    if not encoding.colour:
        raise Rejection("encoding", f"image: {message.encoding} is no colour or grey picture: is this a depth topic?")
    if encoding.colour in YUV_LAYOUTS:
        return yuv_to_rgb(_stored_rows(message, encoding), encoding.colour, int(message.height), int(message.width))
    pixels, colour = samples(message, encoding), encoding.colour
    if pixels.dtype == np.uint16:
        if encoding.channels == 4:  # transparency is no brightness
            pixels, colour = pixels[..., :3], colour.replace("a", "")
        pixels = (levels or Levels()).to_8_bits(pixels, grey=colour.startswith("mono"))
        colour = colour.removesuffix("16") + "8"
    if colour == "rgb8":
        return np.array(pixels)
    if colour.startswith("bayer"):
        return demosaic(pixels, colour)
    step = pixels.nbytes // message.height
    tight = TightImage(message.height, message.width, colour, step, pixels.tobytes())
    try:
        rgb = backend.to_rgb8(tight)
    except Exception as error:
        raise Rejection("encoding", f"image: {backend.name} cannot read {message.encoding} ({error})") from None
    if rgb.shape != (message.height, message.width, 3):
        raise Rejection("encoding", f"image: {backend.name} made {rgb.shape} of {message.encoding}")
    return np.ascontiguousarray(rgb)


def rgb_from_compressed(message: Any, levels: Levels | None = None) -> NDArray[np.uint8]:
    """`sensor_msgs/CompressedImage` (JPEG, PNG, …) -> (H, W, 3) RGB. Raises `Rejection`.

    `image_transport` compresses a Bayer mosaic as it is; its format then begins with the mosaic's name.
    """
    return _rgb_from_file(message, message.format, levels)


def _rgb_from_file(message: Any, kind: str, levels: Levels | None) -> NDArray[np.uint8]:
    check_picture(message)
    decoded = _imdecode(np.frombuffer(message.data, np.uint8), kind, _ANY, "image")
    original = find_encoding(kind.partition(";")[0])
    colour = "" if original is None else original.colour
    if decoded.dtype == np.uint16:
        grey = decoded.ndim == 2 and not colour.startswith("bayer")
        decoded = (levels or Levels()).to_8_bits(decoded, grey=grey)
    if decoded.dtype != np.uint8 or (decoded.ndim == 3 and decoded.shape[2] != 3):
        raise Rejection("data", f"image: compressed data decodes to {decoded.dtype}{decoded.shape}, not to a picture")
    if colour.startswith("bayer") and (mosaic := _single_channel(decoded)) is not None:
        return demosaic(mosaic, colour)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_GRAY2RGB if decoded.ndim == 2 else cv2.COLOR_BGR2RGB), np.uint8)


def demosaic(mosaic: NDArray[Any], layout: str) -> NDArray[np.uint8]:
    """(H, W) uint8 of a colour filter array -> (H, W, 3) RGB; `layout` as `bayer_rggb8`."""
    return np.asarray(cv2.cvtColor(mosaic, _MOSAICS[layout.split("_")[1][:4]]), np.uint8)


def depth_from_image(message: Any, units: DepthUnits | None = None) -> NDArray[np.float32]:
    """`sensor_msgs/Image` 16UC1 or 32FC1 -> (H, W) m, 0 where unknown (REP-118). Raises `Rejection`."""
    encoding = check_image(message, "depth")
    if encoding.channels != 1 or encoding.dtype not in ("uint16", "float32", "float64") or "bayer" in encoding.colour:
        raise Rejection("encoding", f"depth: {message.encoding}: must be 16UC1 (mm) or 32FC1 (m)")
    return (units or DepthUnits()).metres(samples(message, encoding))


def depth_from_compressed(
    message: Any, most_pixels: int = MAX_PIXELS, units: DepthUnits | None = None
) -> NDArray[np.float32]:
    """`compressedDepth` (PNG) or a plain 16-bit PNG -> (H, W) m, 0 where unknown. Raises `Rejection`.

    Pictures that claim more than `most_pixels` are not unpacked at all.
    """
    kind, units = message.format.lower(), units or DepthUnits()
    if "rvl" in kind:
        raise Rejection("encoding", "depth: RVL-compressed depth is not supported: set the publisher's format to png")
    data = np.frombuffer(message.data, np.uint8)
    if "compresseddepth" not in kind:
        decoded = _imdecode(data, message.format, cv2.IMREAD_UNCHANGED, "depth", most_pixels)
        if decoded.dtype != np.uint16 or decoded.ndim != 2:
            raise Rejection("encoding", f"depth: {message.format[:60]!r} decodes to {decoded.dtype}, not to 16-bit mm")
        return units.metres(decoded)
    header = 12  # int32 format, float32 quantisation a and b
    if data[:8].tobytes() == PNG_SIGNATURE and "32fc1" not in kind:  # some drivers leave it out
        header = 0
    if len(data) < header + 16:
        raise Rejection("data", f"depth: only {len(data)} B of compressedDepth")
    decoded = _imdecode(data[header:], message.format, cv2.IMREAD_UNCHANGED, "depth", most_pixels)
    if decoded.dtype != np.uint16 or decoded.ndim != 2:
        raise Rejection("encoding", f"depth: compressedDepth decodes to {decoded.dtype}{decoded.shape}")
    if "32fc1" not in kind:
        return units.metres(decoded)
    _, quant_a, quant_b = struct.unpack("<iff", data[:header].tobytes())
    if not np.isfinite([quant_a, quant_b]).all():
        raise Rejection("data", "depth: compressedDepth header holds NaN")
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where(decoded > 0, quant_a / (decoded.astype(np.float32) - quant_b), 0.0)
    return units.metres(values.astype(np.float32))


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


def _stored_rows(message: Any, encoding: Encoding) -> NDArray[np.uint8]:
    """(rows, step) bytes of a checked image as they came."""
    rows = int(message.height * encoding.rows)
    flat = np.frombuffer(message.data, np.uint8)
    if flat.size < rows * message.step:  # the last row without its padding
        flat = np.pad(flat, (0, rows * message.step - flat.size))
    return flat.reshape(rows, message.step)


def _single_channel(pixels: NDArray[Any]) -> NDArray[np.uint8] | None:
    """(H, W) of a picture that is grey, however many channels it was stored in; None for a colour picture."""
    if pixels.ndim == 2:
        return np.asarray(pixels, np.uint8)
    widest = pixels.max(-1).astype(np.int16) - pixels.min(-1)
    return np.ascontiguousarray(pixels[..., 1]) if int(widest.max(initial=0)) <= _SAME_GREY else None


def _is_deep_png(data: Any) -> bool:
    head = bytes(data[:25])
    return len(head) == 25 and head[:8] == PNG_SIGNATURE and head[24] == 16


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
