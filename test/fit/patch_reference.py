"""Alignment of one patch as `raster/src/align_kernels.cpp` does it on one level, in NumPy and double precision."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.types import FloatArray

SIDE = 11  # px
ITERATIONS = 10
SMALL_STEP, LARGEST_STEP = 0.01, 2.0  # px
FEWEST = 0.3 * SIDE**2
_span = np.arange(SIDE) - SIDE // 2
STEPS = np.stack(np.meshgrid(_span, _span), -1).reshape(-1, 2).astype(float)  # (121, 2)


def terms(steps: FloatArray) -> FloatArray:
    """(N, 5) x, y, x², x y, y² of steps (N, 2)."""
    x, y = steps.T
    return np.stack([x, y, x * x, x * y, y * y], 1)


def read(image: FloatArray, uv: FloatArray) -> FloatArray:
    """(N,) bilinear, the border repeated."""
    height, width = image.shape
    x, y = (np.clip(k, 0, last - 1 - 1e-3) for k, last in zip(uv.T, (width, height), strict=True))
    column, row = x.astype(int), y.astype(int)
    a, b = x - column, y - row
    above = (1 - a) * image[row, column] + a * image[row, column + 1]
    below = (1 - a) * image[row + 1, column] + a * image[row + 1, column + 1]
    return (1 - b) * above + b * below


def of_label(labels: NDArray[np.int32], uv: FloatArray, label: int) -> NDArray[np.bool_]:
    """(N,) whether pixels are inside the image and have the label."""
    height, width = labels.shape
    inside = (uv >= 0).all(1) & (uv <= np.array([width - 1, height - 1])).all(1)
    column, row = np.where(inside[:, None], np.floor(uv + 0.5), 0).astype(int).T
    return inside & (labels[row, column] == label)


def align(
    source: FloatArray,
    target: FloatArray,
    labels: tuple[NDArray[np.int32], NDArray[np.int32]],
    label: int,
    uv: FloatArray,
    guess: FloatArray,
    warp: FloatArray,
) -> tuple[FloatArray, float, float] | None:
    """Place (2,) px, correlation and standard deviation px; None where it is not found. `warp` (2, 5)."""
    aside = terms(STEPS) @ warp.T
    weight = (of_label(labels[0], uv + STEPS, label) & of_label(labels[1], guess + aside, label)).astype(float)
    if weight.sum() < FEWEST:
        return None
    value = read(source, uv + STEPS)
    slopes = [0.5 * (read(source, uv + STEPS + e) - read(source, uv + STEPS - e)) for e in np.eye(2)]
    columns = np.stack([*slopes, value, np.ones(len(STEPS)), *STEPS.T], 1)
    root = np.sqrt(weight)[:, None]
    at = guess.astype(float)
    for _ in range(ITERATIONS):
        seen = read(target, at + aside)
        found, *_ = np.linalg.lstsq(columns * root, seen * root[:, 0], rcond=None)
        step = found[:2] / found[2]
        step *= min(1.0, LARGEST_STEP / max(np.linalg.norm(step), 1e-12))
        at = at - warp[:, :2] @ step
        if np.linalg.norm(step) < SMALL_STEP:
            break
    shade = columns[:, 3:]
    plain = [k - shade @ np.linalg.lstsq(shade * root, k * root[:, 0], rcond=None)[0] for k in (value, seen)]
    (tt, ts), (_, ss) = [[float((weight * a * b).sum()) for b in plain] for a in plain]
    left = np.sqrt(max(ss - ts * ts / tt, 0.0) / weight.sum())
    covariance = warp[:, :2] @ np.linalg.inv((columns * root).T @ (columns * root))[:2, :2] @ warp[:, :2].T
    sigma = max(left, 1.0) / found[2] * np.sqrt(np.linalg.eigvalsh(covariance)[-1])
    return at, ts / np.sqrt(ss * tt), float(sigma)
