"""Images sampled and warped along flow: pixel grids, remapping, values between pixels."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.types import FloatArray

MOST_SAMPLES = 30_000  # read in one go: OpenCV refuses targets with a side of 2**15 or more


def pixel_grid(height: int, width: int) -> NDArray[np.float32]:
    """(H, W, 2) pixel coordinates (x, y) of every pixel centre."""
    grid = np.empty((height, width, 2), np.float32)
    grid[..., 0] = np.arange(width, dtype=np.float32)
    grid[..., 1] = np.arange(height, dtype=np.float32)[:, None]
    return grid


def length(vectors: FloatArray) -> NDArray[Any]:
    """(...) lengths of vectors (..., 2): the same bits as `np.linalg.norm`, which is several times slower at this."""
    return np.asarray(np.sqrt(vectors[..., 0] * vectors[..., 0] + vectors[..., 1] * vectors[..., 1]))


def remap(image: NDArray[Any], xy: NDArray[Any], nearest: bool = False, border: float | None = None) -> NDArray[Any]:
    """`image` (H, W) or (H, W, C) read at `xy` (h, w, 2) px; booleans too. See :func:`warp` for the border."""
    x, y = np.ascontiguousarray(xy[..., 0], np.float32), np.ascontiguousarray(xy[..., 1], np.float32)
    return _read(image, x, y, nearest, border)


def _read(
    image: NDArray[Any], x: NDArray[np.float32], y: NDArray[np.float32], nearest: bool, border: float | None = None
) -> NDArray[Any]:
    """`image` at pixels `x`, `y`, each (h, w), or (N,) which is a row."""
    method = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    mode = cv2.BORDER_REPLICATE if border is None else cv2.BORDER_CONSTANT
    source = image.astype(np.uint8) if image.dtype == np.bool_ else image  # OpenCV knows no booleans
    out = cv2.remap(
        source, np.atleast_2d(x), np.atleast_2d(y), method, borderMode=mode, borderValue=[border or 0.0] * 4
    )
    return out.astype(bool) if image.dtype == np.bool_ else np.asarray(out)


def warp(
    image: NDArray[Any], flow: NDArray[np.float32], nearest: bool = False, border: float | None = None
) -> NDArray[Any]:
    """`image` (H, W) or (H, W, C) of b seen from a: result[p] = image[p + flow[p]], bilinear or (labels) nearest.

    Outside the image the border is repeated, or `border` is written where given.
    """
    return remap(image, pixel_grid(flow.shape[0], flow.shape[1]) + flow, nearest, border)


def sample(image: NDArray[Any], uv_px: FloatArray, nearest: bool = False) -> NDArray[Any]:
    """Values of `image` (H, W) or (H, W, C) at (N, 2) pixels (x, y): (N,) or (N, C); the border is repeated outside.

    Pixels that are NaN read the top-left corner: mask them yourself.
    """
    channels = image.shape[2:]
    count = len(uv_px)
    if count == 0:
        return np.zeros((0, *channels), image.dtype)
    # one row of points: OpenCV reads a column four times slower
    xy = np.array(np.asarray(uv_px).T, np.float32, order="C")
    np.fmin(np.fmax(xy, -1e4, out=xy), 1e5, out=xy)  # NaN: far outside, too
    parts = [
        _read(image, xy[0, start : start + MOST_SAMPLES], xy[1, start : start + MOST_SAMPLES], nearest)
        for start in range(0, count, MOST_SAMPLES)
    ]
    return (parts[0] if len(parts) == 1 else np.concatenate(parts, 1)).reshape(-1, *channels)
