"""The cues that tell an object's pixels from those around it: colour, common motion, outline. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from motion4d_ros.geometry.image_warping import length
from motion4d_ros.types import UNKNOWN_LABEL, BoolArray, FloatArray

Soft = NDArray[np.float32]

HISTOGRAM_BINS = 16  # per channel of Lab
RARE = 2e-4  # share of a histogram that says nothing
LEAST_CORE = 40  # px well inside an object, from which its motion can be told
CLIP = 4.0  # largest log-odds any single cue may claim


def to_lab(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(h, w, 3) RGB -> Lab in CIE units (L 0..100), lightly smoothed against compression noise."""
    return np.asarray(cv2.cvtColor(cv2.GaussianBlur(rgb, (3, 3), 0).astype(np.float32) / 255, cv2.COLOR_RGB2Lab))


def logit(p: FloatArray) -> FloatArray:
    """Log-odds, limited to +-CLIP."""
    return np.clip(np.log(np.maximum(p, 1e-6)) - np.log(np.maximum(1 - p, 1e-6)), -CLIP, CLIP)


def sigmoid(x: FloatArray) -> FloatArray:
    """Inverse of :func:`logit`."""
    return 1.0 / (1.0 + np.exp(-x))


def own_flow(flow: FloatArray, soft: Soft, error: FloatArray) -> NDArray[np.float32]:
    """(h, w, 2) the object's motion, continued beyond its outline.

    Dense flow is smooth across outlines and drags the surroundings along, above all where the object uncovers them.
    Here the flow well inside the object (`soft` near 1, small forward-backward `error`) is spread outwards instead.
    """
    return spread_outwards(flow, soft, error)


def spread_outwards(values: FloatArray, soft: Soft, error: FloatArray) -> NDArray[np.float32]:
    """(h, w, C) `values` from well inside the object continued beyond its outline; see :func:`own_flow`."""
    sure = (np.clip(2 * soft - 1, 0, 1) ** 2 * np.exp(-np.minimum(error, 20.0))).astype(np.float32)
    if sure.sum() < 20:
        return np.asarray(values, np.float32)
    weighted = np.dstack([values * sure[..., None], sure]).astype(np.float32)
    near = cv2.GaussianBlur(weighted, (0, 0), 5.0)
    small = cv2.resize(weighted, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    far = cv2.resize(cv2.GaussianBlur(small, (0, 0), 6.0), values.shape[1::-1])
    total = near + 0.02 * far
    return np.asarray(total[..., :-1] / (total[..., -1:] + 1e-9), np.float32)


def unlike(gray: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(h, w) grey levels by which the texture of two aligned images differs; brightness may change."""
    now, before = (cv2.GaussianBlur(image, (0, 0), 1.5).astype(np.float32) for image in (gray, other))
    difference = now - before
    return np.asarray(cv2.blur(np.abs(difference - cv2.blur(difference, (15, 15))), (7, 7)), np.float32)


def affine_motion(flow: FloatArray, where: BoolArray, rounds: int = 4) -> NDArray[np.float32]:
    """(h, w, 2) the affine flow that fits `flow` best at `where`, robustly (iteratively re-weighted)."""
    height, width = where.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    basis = np.stack([np.ones_like(x), x / width, y / height], -1)
    a, b = basis[where], flow[where]
    if len(a) > 3000:
        pick = np.linspace(0, len(a) - 1, 3000).astype(int)
        a, b = a[pick], b[pick]
    weight = np.ones(len(a), np.float32)
    coefficients: FloatArray = np.zeros((3, 2))
    for _ in range(rounds):
        weighted = a * weight[:, None]
        coefficients = np.linalg.solve(a.T @ weighted + 1e-3 * np.eye(3), weighted.T @ b)
        residual = length(b - a @ coefficients)
        scale = 1.5 * np.median(residual) + 0.1
        weight = 1.0 / (1.0 + (residual / scale) ** 2) ** 2
    return (basis @ coefficients).astype(np.float32)


def left_standing(flow: FloatArray, static: FloatArray | None, soft: Soft, error: FloatArray) -> NDArray[np.float32]:
    """(h, w) in 0..1 where `flow` says that something stands still, while the object (`soft`) moves on as a whole.

    `static` (h, w, 2) is the flow of the static scene (None: unknown, nobody stands), `error` (h, w) the forward-
    backward disagreement, px. Such flow is not the object's, and must not carry its mask along: it comes from ground
    that has just been uncovered, from surfaces without texture, from the edge of a shadow that slides over the object.
    """
    nowhere = np.zeros(soft.shape, np.float32)
    core = (soft > 0.8) & (error < 1.0)
    if static is None or core.sum() < LEAST_CORE:
        return nowhere
    away = length(flow - static)
    moving = core & (away > 0.5 * float(np.median(away[core])))  # what stands would bend the motion fitted
    if moving.sum() < LEAST_CORE:
        return nowhere
    motion = affine_motion(flow, moving)
    typical = float(np.median(length(flow - motion)[moving]))  # px; limbs make it large
    apart = length(motion - static)
    sure = np.clip(apart - 2 * typical - 1.0, 0, 1)
    still = np.exp(-0.5 * (away / (0.5 + 0.1 * apart)) ** 2)
    return np.asarray(sure * still, np.float32)


def keep_main_parts(soft: Soft, share: float = 0.02) -> Soft:
    """Clears islands smaller than `share` of the largest part, and fills pinholes."""
    mask = (soft > 0.5).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    if count <= 2:
        return soft
    areas = stats[:, cv2.CC_STAT_AREA].astype(float)
    areas[0] = np.inf
    small = areas < share * areas[1:].max()
    out = soft.copy()
    out[small[labels]] = np.minimum(out[small[labels]], 0.3)
    return out


def outline_band(soft: Soft, reach: int) -> BoolArray:
    """(h, w) pixels within `reach` px of the outline of a soft mask."""
    mask = (soft > 0.5).astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    uncertain = (soft > 0.1) & (soft < 0.9)
    return np.asarray((cv2.dilate(mask, kernel) != cv2.erode(mask, kernel)) | uncertain)


def softmax(x: FloatArray) -> FloatArray:
    """(..., N) probabilities from log-odds; for few N, where one by one is faster than numpy's own sums."""
    top, total = x[..., 0], np.zeros(x.shape[:-1], x.dtype)
    for k in range(1, x.shape[-1]):
        top = np.maximum(top, x[..., k])
    e = np.exp(x - top[..., None])
    for k in range(x.shape[-1]):
        total += e[..., k]
    return np.asarray(e / total[..., None])


def similarity(a: FloatArray, b: FloatArray) -> float:
    """Bhattacharyya coefficient of two normalised histograms: 1 = the same colours, 0 = none in common."""
    return float(np.sqrt(a * b).sum()) if a.shape == b.shape else 0.0


def color_bins(lab: FloatArray) -> NDArray[np.int64]:
    """(...) histogram bin of every (..., 3) Lab colour."""
    scaled = np.stack([lab[..., 0] / 100, (lab[..., 1] + 90) / 180, (lab[..., 2] + 90) / 180], -1)
    index = np.clip((scaled * HISTOGRAM_BINS).astype(np.int64), 0, HISTOGRAM_BINS - 1)
    return (index[..., 0] * HISTOGRAM_BINS + index[..., 1]) * HISTOGRAM_BINS + index[..., 2]


def color_histogram(lab: FloatArray, where: BoolArray) -> FloatArray:
    """Smoothed, normalised colour histogram; zeros when `where` is empty."""
    n = HISTOGRAM_BINS
    counts = np.bincount(color_bins(lab[where]).ravel(), minlength=n**3).astype(np.float32).reshape(n, n, n)
    total = counts.sum()
    if total == 0:
        return counts.ravel()
    return (gaussian_filter(counts, 0.7, mode="nearest") / total).ravel()


def relit_colors(histogram: FloatArray, factors: Sequence[float]) -> FloatArray:
    """The colour histogram of the same surfaces in other light: `factors` of its intensity, each as often.

    In CIE units Lab + (16, 0, 0) grows with the cube root of intensity.
    """
    n = HISTOGRAM_BINS
    if not len(histogram):  # nothing has been vouched for
        return np.zeros(n**3, np.float32)
    held = np.flatnonzero(histogram)
    share = histogram[held] / max(1, len(factors))
    steps = np.stack([held // (n * n), held // n % n, held % n], -1) + 0.5
    lab = steps / n * (100.0, 180.0, 180.0) - (0.0, 90.0, 90.0)
    black = np.array([16.0, 0.0, 0.0])
    out = np.zeros(histogram.shape, np.float32)
    for factor in factors:
        scaled = np.cbrt(factor) * (lab + black) - black
        out += np.bincount(color_bins(scaled), share, n**3).astype(np.float32)
    return out


def bounding_box(mask: BoolArray, margin: int) -> tuple[slice, slice] | None:
    """The bounding box of `mask` with a margin, as slices; None when it is empty."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return None
    height, width = mask.shape
    return (
        slice(max(0, rows[0] - margin), min(height, rows[-1] + margin + 1)),
        slice(max(0, cols[0] - margin), min(width, cols[-1] + margin + 1)),
    )


def grow_labels(labels: NDArray[np.int32], size: tuple[int, int]) -> NDArray[np.int32]:
    """Labels (h, w) at the input's `size` (height, width), with smooth outlines."""
    if labels.shape == size:
        return labels
    out = np.zeros(size, np.int32)
    best = np.full(size, 0.5, np.float32)
    for object_id in np.unique(labels[labels > 0]):
        soft = cv2.resize((labels == object_id).astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
        wins = soft > best
        out[wins], best[wins] = object_id, soft[wins]
    out[cv2.resize((labels == UNKNOWN_LABEL).astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0] = -1
    return out


def denial(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """(N,) how surely a memory knows pixels as not the object's, 0..1, from the two sums of `MaskCarrier._ask`."""
    familiar = denominator / (denominator + 2.0)
    return familiar * np.clip(1.0 - 2.0 * numerator / np.maximum(denominator, 1e-6), 0.0, 1.0)
