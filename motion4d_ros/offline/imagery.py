"""Image messages <-> arrays, strictly checked and with numpy and OpenCV only.

Shared by the readers of recordings and by the ROS node: the functions take the *fields* of `sensor_msgs/Image`,
`CompressedImage` and `CameraInfo`, never a message class, so that they need no ROS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.types import Camera, Motion4DError

_MAX_SIDE = 32768  # anything larger is a corrupt header, not an image

# encoding -> (dtype, channels) of the formats that carry pixels as they are
_LAYOUT: dict[str, tuple[type[np.generic], int]] = {
    "rgb8": (np.uint8, 3),
    "bgr8": (np.uint8, 3),
    "rgba8": (np.uint8, 4),
    "bgra8": (np.uint8, 4),
    "mono8": (np.uint8, 1),
    "8UC1": (np.uint8, 1),
    "8UC3": (np.uint8, 3),
    "8UC4": (np.uint8, 4),
    "rgb16": (np.uint16, 3),
    "bgr16": (np.uint16, 3),
    "mono16": (np.uint16, 1),
    "16UC1": (np.uint16, 1),
    "16SC1": (np.int16, 1),
    "32SC1": (np.int32, 1),
    "32FC1": (np.float32, 1),
    "bayer_rggb8": (np.uint8, 1),
    "bayer_bggr8": (np.uint8, 1),
    "bayer_gbrg8": (np.uint8, 1),
    "bayer_grbg8": (np.uint8, 1),
    "yuv422": (np.uint8, 2),
    "yuv422_yuy2": (np.uint8, 2),
    "uyvy": (np.uint8, 2),
    "yuyv": (np.uint8, 2),
}

_TO_RGB: dict[str, int | None] = {
    "rgb8": None,
    "bgr8": cv2.COLOR_BGR2RGB,
    "8UC3": cv2.COLOR_BGR2RGB,  # OpenCV's habit
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
    "8UC4": cv2.COLOR_BGRA2RGB,
    "mono8": cv2.COLOR_GRAY2RGB,
    "8UC1": cv2.COLOR_GRAY2RGB,
    "bayer_rggb8": cv2.COLOR_BayerRGGB2RGB,
    "bayer_bggr8": cv2.COLOR_BayerBGGR2RGB,
    "bayer_gbrg8": cv2.COLOR_BayerGBRG2RGB,
    "bayer_grbg8": cv2.COLOR_BayerGRBG2RGB,
    "yuv422": cv2.COLOR_YUV2RGB_UYVY,
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUYV,
    "yuyv": cv2.COLOR_YUV2RGB_YUYV,
}


def decode_raw(height: int, width: int, encoding: str, is_bigendian: bool, step: int, data: Any) -> NDArray[Any]:
    """Fields of `sensor_msgs/Image` -> (H, W) or (H, W, C) array in the encoding's own type and channel order.

    `data` is anything with the buffer protocol. Raises `Motion4DError` when the fields contradict each other.
    """
    if encoding not in _LAYOUT:
        raise Motion4DError(f"image encoding {encoding!r} is not supported: use one of {', '.join(sorted(_LAYOUT))}")
    if not (0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE):
        raise Motion4DError(f"image of {width}x{height} px: the message is corrupt")
    dtype_class, channels = _LAYOUT[encoding]
    dtype = np.dtype(dtype_class).newbyteorder(">" if is_bigendian else "<")
    row_bytes = width * channels * dtype.itemsize
    if step < row_bytes:
        raise Motion4DError(f"image rows of {width} px {encoding} need {row_bytes} bytes, step says {step}")
    flat = np.frombuffer(data, np.uint8)
    if flat.size < step * (height - 1) + row_bytes:
        raise Motion4DError(f"image data has {flat.size} bytes, {height} rows of {step} were announced: truncated?")
    if flat.size < step * height:  # the last row may come without its padding
        flat = np.concatenate([flat, np.zeros(step * height - flat.size, np.uint8)])
    rows = flat[: step * height].reshape(height, step)[:, :row_bytes]
    pixels = np.ascontiguousarray(rows).view(dtype)
    pixels = pixels.astype(dtype.newbyteorder("="), copy=False)
    return pixels if channels == 1 else pixels.reshape(height, width, channels)


def to_rgb(pixels: NDArray[Any], encoding: str) -> NDArray[np.uint8]:
    """Pixels from :func:`decode_raw` -> (H, W, 3) uint8 RGB. Raises `Motion4DError` for depth-like encodings."""
    if encoding in ("rgb16", "bgr16", "mono16"):
        pixels = (pixels >> 8).astype(np.uint8)
        encoding = encoding.replace("16", "8")
    if encoding not in _TO_RGB:
        raise Motion4DError(f"a colour image cannot have encoding {encoding!r}: is this a depth topic?")
    code = _TO_RGB[encoding]
    return np.ascontiguousarray(pixels) if code is None else np.asarray(cv2.cvtColor(pixels, code), np.uint8)


def to_depth_m(pixels: NDArray[Any], encoding: str) -> NDArray[np.float32]:
    """Depth pixels -> (H, W) float32 metres; 0 where unknown (REP-118: 16UC1 millimetres, 32FC1 metres).

    NaN, infinite, negative and saturated (65535) values become 0.
    """
    if encoding in ("16UC1", "mono16"):
        depth = pixels.astype(np.float32) * np.float32(1e-3)
        depth[pixels == np.iinfo(np.uint16).max] = 0.0
        return depth
    if encoding == "32FC1":
        depth = np.array(pixels, np.float32)
        with np.errstate(invalid="ignore"):
            depth[~(np.isfinite(depth) & (depth > 0))] = 0.0
        return depth
    raise Motion4DError(f"depth has encoding {encoding!r}: 16UC1 (mm) or 32FC1 (m) is expected")


def to_labels(pixels: NDArray[Any], encoding: str) -> NDArray[np.int32]:
    """Mask pixels -> (H, W) int32 object ids."""
    if encoding not in ("mono8", "8UC1", "mono16", "16UC1", "16SC1", "32SC1"):
        raise Motion4DError(f"masks have encoding {encoding!r}: 16UC1 or mono8 with object ids is expected")
    labels = pixels.astype(np.int32)
    if labels.min(initial=0) < -1:
        raise Motion4DError(
            "masks hold negative ids: only -1 (nobody knows), 0 (background) and ids > 0 mean something"
        )
    return labels


def decode_compressed(data: Any, format_text: str = "") -> NDArray[Any]:
    """`CompressedImage.data` (JPEG, PNG, compressed depth) -> array as stored; colour comes as RGB.

    Raises `Motion4DError` when it cannot be decoded.
    """
    flat = np.frombuffer(data, np.uint8)
    if "compressedDepth" in format_text:
        return _decode_compressed_depth(flat, format_text)
    try:
        pixels = cv2.imdecode(flat, cv2.IMREAD_UNCHANGED) if flat.size else None
    except cv2.error:
        pixels = None
    if pixels is None:
        raise Motion4DError(f"compressed image of {flat.size} bytes cannot be decoded: corrupt or not JPEG/PNG")
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)
    return pixels


def _decode_compressed_depth(flat: NDArray[np.uint8], format_text: str) -> NDArray[Any]:
    """`compressed_depth_image_transport`: a 12-byte header (two quantisation parameters), then a PNG."""
    body = cv2.imdecode(flat[12:], cv2.IMREAD_UNCHANGED) if flat.size > 12 else None
    if body is None:
        raise Motion4DError("compressedDepth image cannot be decoded: only its PNG form is supported")
    if not format_text.strip().startswith("32FC1"):
        return body
    quant_a, quant_b = np.frombuffer(flat[4:12].tobytes(), np.float32)
    with np.errstate(divide="ignore"):
        depth = np.where(body > 0, quant_a / (body.astype(np.float32) - quant_b), 0.0)
    return depth.astype(np.float32)


def compressed_to_rgb(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Result of :func:`decode_compressed` -> (H, W, 3) uint8 RGB."""
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise Motion4DError(f"compressed image holds {pixels.dtype}: not a colour image")
    return np.ascontiguousarray(pixels if pixels.ndim == 3 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB))


@dataclass(frozen=True)
class Rectifier:
    """From an image as the lens made it to one of a pinhole `camera`. `maps` is None when there is nothing to do."""

    camera: Camera
    maps: tuple[NDArray[Any], NDArray[Any]] | None

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) rectified image, bilinear."""
        return image if self.maps is None else np.asarray(cv2.remap(image, *self.maps, cv2.INTER_LINEAR), np.uint8)

    def nearest(self, image: NDArray[Any]) -> NDArray[Any]:
        """(H, W) depth or labels, rectified without mixing neighbours."""
        if self.maps is None:
            return image
        source = image if image.dtype in (np.uint8, np.uint16, np.int16, np.float32) else image.astype(np.float32)
        return cv2.remap(source, *self.maps, cv2.INTER_NEAREST).astype(image.dtype)


def rectifier_from_camera_info(
    width: int, height: int, K: Any, D: Any, P: Any = (), R: Any = (), model: str = "", *, rectified: bool = False
) -> Rectifier:
    """Fields of `sensor_msgs/CameraInfo` -> a `Rectifier`.

    `K` 9, `D` 0 or more, `P` 12, `R` 9 numbers. The projection `P` is the rectified camera where it is given; stereo
    rectification rotations `R` are honoured. `rectified` says that the images are rectified already (an `image_rect`
    topic). Raises `Motion4DError` for an uncalibrated camera or an unknown distortion model.
    """
    matrix = np.asarray(K, float).reshape(-1)
    if matrix.size != 9 or not matrix[0] > 0:
        raise Motion4DError("camera_info has no intrinsics (K is zero): calibrate the camera or give --intrinsics")
    K33 = matrix.reshape(3, 3)
    D1 = np.asarray(D, float).reshape(-1)
    P_values = np.asarray(P, float).reshape(-1)
    P33 = P_values.reshape(3, 4)[:, :3] if P_values.size == 12 and P_values[0] > 0 else None
    R_values = np.asarray(R, float).reshape(-1)
    R33 = (
        R_values.reshape(3, 3)
        if R_values.size == 9 and abs(np.linalg.det(R_values.reshape(3, 3)) - 1) < 1e-3
        else np.eye(3)
    )
    if rectified or (not D1.any() and np.allclose(R33, np.eye(3))):
        used = P33 if rectified and P33 is not None else K33
        return Rectifier(_camera(used, width, height), None)
    size = (width, height)
    if model in ("equidistant", "fisheye"):
        D4 = np.resize(D1[:4], 4) if D1.size >= 4 else np.pad(D1, (0, 4 - D1.size))
        new = P33
        if new is None:
            new = cv2.fisheye.estimateNewCameraMatrixForUndistortRectify(K33, D4, size, R33, balance=0.0)
        maps = cv2.fisheye.initUndistortRectifyMap(K33, D4, R33, new, size, cv2.CV_32FC1)
    elif model in ("", "plumb_bob", "rational_polynomial", "thin_prism_fisheye", "radial_tangential"):
        if D1.size not in (0, 4, 5, 8, 12, 14):
            raise Motion4DError(f"camera_info has {D1.size} distortion coefficients: 4, 5, 8, 12 or 14 are expected")
        new = P33 if P33 is not None else cv2.getOptimalNewCameraMatrix(K33, D1, size, 0.0)[0]
        maps = cv2.initUndistortRectifyMap(K33, D1, R33, new, size, cv2.CV_32FC1)
    else:
        raise Motion4DError(
            f"distortion model {model!r} is not supported: rectify with image_proc, or use plumb_bob, "
            "rational_polynomial or equidistant"
        )
    return Rectifier(_camera(np.asarray(new), width, height), (maps[0], maps[1]))


def _camera(K33: NDArray[Any], width: int, height: int) -> Camera:
    return Camera(float(K33[0, 0]), float(K33[1, 1]), float(K33[0, 2]), float(K33[1, 2]), width, height)
