"""Pictures of brightness and colour (YUV) in every layout that cameras send, to RGB by OpenCV (BT.601, video range)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_PACKED = {
    "uyvy": cv2.COLOR_YUV2RGB_UYVY,
    "yuyv": cv2.COLOR_YUV2RGB_YUYV,
    "yvyu": cv2.COLOR_YUV2RGB_YVYU,
}
_PLANAR = {
    "nv12": cv2.COLOR_YUV2RGB_NV12,
    "nv21": cv2.COLOR_YUV2RGB_NV21,
    "i420": cv2.COLOR_YUV2RGB_I420,
    "yv12": cv2.COLOR_YUV2RGB_YV12,
}
YUV_LAYOUTS = frozenset({*_PACKED, *_PLANAR, "vyuy", "nv16", "nv61", "nv24", "nv42"})


def yuv_to_rgb(rows: NDArray[np.uint8], layout: str, height: int, width: int) -> NDArray[np.uint8]:
    """Stored rows (R, step) bytes, padding included, of an image `height` x `width` -> (H, W, 3) RGB."""
    if layout in _PACKED:
        pairs = np.ascontiguousarray(rows[:, : 2 * width]).reshape(height, width, 2)
        return _converted(pairs, _PACKED[layout])
    if layout == "vyuy":
        pairs = np.ascontiguousarray(rows[:, : 2 * width]).reshape(height, width // 2, 4)
        return _converted(np.ascontiguousarray(pairs[..., [1, 0, 3, 2]]).reshape(height, width, 2), _PACKED["yvyu"])
    brightness = rows[:height, :width]
    if layout in ("nv12", "nv21"):
        return _converted(np.ascontiguousarray(rows[:, :width]), _PLANAR[layout])
    if layout in ("i420", "yv12"):  # the rows of the two colour planes are half as long, their padding included
        colour = rows[height:].reshape(height, -1)[:, : width // 2]
        whole = np.concatenate([brightness, np.ascontiguousarray(colour).reshape(height // 2, width)])
        return _converted(whole, _PLANAR[layout])
    if layout in ("nv16", "nv61"):
        colour = rows[height:, :width]
        second, first = (1, 0) if layout == "nv16" else (0, 1)
        pairs = np.empty((height, width, 2), np.uint8)
        pairs[..., 0] = brightness
        pairs[:, 0::2, 1], pairs[:, 1::2, 1] = colour[:, first::2], colour[:, second::2]
        return _converted(pairs, _PACKED["yuyv"])
    return _of_full_colour(brightness, rows[height:].reshape(height, -1)[:, : 2 * width], layout)


def _of_full_colour(brightness: NDArray[np.uint8], colour: NDArray[np.uint8], layout: str) -> NDArray[np.uint8]:
    """Each pixel has its own colour: OpenCV reads that as a picture of twice the size, whose pixels come in fours."""
    doubled = np.repeat(np.repeat(brightness, 2, 0), 2, 1)
    code = _PLANAR["nv12" if layout == "nv24" else "nv21"]
    return np.ascontiguousarray(_converted(np.concatenate([doubled, colour]), code)[::2, ::2])


def _converted(pixels: NDArray[Any], code: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(pixels, code), np.uint8)
