"""Edge-aware smoothing of values given on an image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.types import FloatArray


def domain_transform(
    values: FloatArray, guide: NDArray[np.uint8], sigma_space: float, sigma_color: float, passes: int = 2
) -> NDArray[np.float32]:
    """Smooths `values` (H, W) or (H, W, C) along, but not across, the edges of `guide` (H, W, 3).

    Recursive filter of Gastal & Oliveira, "Domain Transform for Edge-Aware Image and Video Processing" (SIGGRAPH 2011).
    `sigma_space` is the reach in pixels where the guide is flat, `sigma_color` the grey levels (0..255) that stop it.
    """
    image = guide.astype(np.float32)
    if image.ndim == 2:
        image = image[..., None]
    step_x = 1.0 + sigma_space / sigma_color * np.abs(np.diff(image, axis=1)).sum(-1)  # (H, W-1)
    step_y = 1.0 + sigma_space / sigma_color * np.abs(np.diff(image, axis=0)).sum(-1)  # (H-1, W)
    out = np.asarray(values, np.float32)
    flat = out.ndim == 2
    out = (out[..., None] if flat else out).copy()
    for index in range(passes):
        sigma = sigma_space * np.sqrt(3.0) * 2.0 ** (passes - index - 1) / np.sqrt(4.0**passes - 1.0)
        decay = np.float32(np.exp(-np.sqrt(2.0) / max(sigma, 1e-3)))
        out = _recursive_columns(out.swapaxes(0, 1), (decay**step_x).T).swapaxes(0, 1)
        out = _recursive_columns(out, decay**step_y)
    return out[..., 0] if flat else out


def _recursive_columns(values: FloatArray, decay: FloatArray) -> NDArray[np.float32]:
    """First-order recursion down and up the first axis; `decay` (N-1, M) between neighbouring rows."""
    out = np.array(values, np.float32, order="C")  # rows in one piece, whatever was swapped before
    weight = np.ascontiguousarray(decay, np.float32)[..., None]
    step = np.empty_like(out[0])
    down = [(row, row - 1, row - 1) for row in range(1, len(out))]
    up = [(row, row + 1, row) for row in range(len(out) - 2, -1, -1)]
    for row, neighbour, between in down + up:
        np.subtract(out[neighbour], out[row], out=step)
        step *= weight[between]
        out[row] += step
    return out
