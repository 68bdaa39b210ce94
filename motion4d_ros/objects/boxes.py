"""Oriented boxes around point sets."""

from __future__ import annotations

from itertools import permutations, product

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.types import BoolArray, FloatArray

MIN_VOLUME_POINTS = 12
"""With fewer points the smallest box says more about noise than about the object: principal axes are kept."""


def oriented_box(
    points: FloatArray, weights: FloatArray | None = None, previous: FloatArray | None = None, tail: float = 0.01
) -> tuple[FloatArray, FloatArray]:
    """Box around (N, 3) points, m: its pose (4, 4), origin at its centre, and its extents (3,) along its axes, m.

    Among the principal axes and the smallest rectangles seen along each of them the smallest volume wins. Extents
    reach from the `tail` to the 1 - `tail` weighted percentile, so that stray points don't stretch the box. Axes keep
    the order and signs nearest to those of `previous` (4, 4); without it the first is the longest, the last the
    shortest. No direction of gravity is assumed. Points that are not finite are ignored; raises `ValueError` when
    none is left.
    """
    usable = np.isfinite(points).all(1)
    weights = np.ones(len(points)) if weights is None else np.asarray(weights, float)
    usable &= np.isfinite(weights) & (weights > 0)
    if not usable.any():
        raise ValueError("a box needs at least one finite point of positive weight")
    points, weights = np.asarray(points, float)[usable], weights[usable]

    axes = _principal_axes(points, weights)
    core = _within(points @ axes, weights, tail)
    if core.sum() >= MIN_VOLUME_POINTS:
        axes = _smallest_volume(points[core], axes)
    low, high = extents(points @ axes, weights, tail)
    axes, low, high = _ordered(axes, low, high, None if previous is None else previous[:3, :3])
    pose = np.eye(4)
    pose[:3, :3] = axes
    pose[:3, 3] = axes @ ((low + high) / 2)
    return pose, high - low


def extents(values: FloatArray, weights: FloatArray, tail: float) -> tuple[FloatArray, FloatArray]:
    """Weighted `tail` and 1 - `tail` percentiles of (N, D) values per column: low (D,), high (D,)."""
    low, high = np.empty(values.shape[1]), np.empty(values.shape[1])
    for column in range(values.shape[1]):
        low[column], high[column] = weighted_percentiles(values[:, column], weights, (tail, 1 - tail))
    return low, high


def weighted_percentiles(values: FloatArray, weights: FloatArray, shares: tuple[float, ...]) -> FloatArray:
    """The values below which the given shares of the total weight lie, interpolated; values and weights (N,)."""
    order = np.argsort(values)
    ordered, mass = values[order], weights[order]
    centers = (np.cumsum(mass) - mass / 2) / mass.sum()  # each value stands in the middle of its own mass
    return np.interp(shares, centers, ordered)


def _principal_axes(points: FloatArray, weights: FloatArray) -> FloatArray:
    """(3, 3) right-handed axes in columns, by falling variance."""
    centered = points - np.average(points, axis=0, weights=weights)
    _, axes = np.linalg.eigh((centered * weights[:, None]).T @ centered)
    axes = axes[:, ::-1]
    return axes * np.array([1.0, 1.0, np.linalg.det(axes)])


def _within(values: FloatArray, weights: FloatArray, tail: float) -> BoolArray:
    """(N,) which points lie within the percentiles along all axes."""
    low, high = extents(values, weights, tail)
    return np.asarray(((values >= low) & (values <= high)).all(1))


def _smallest_volume(points: FloatArray, start: FloatArray, rounds: int = 3) -> FloatArray:
    """Axes (3, 3) of a box of locally smallest volume: turns about one axis at a time, each turn exact in 2D."""
    best, volume = start, float(np.prod(np.ptp(points @ start, axis=0)))
    for _ in range(rounds):
        before = volume
        for fixed in range(3):
            first, second = best[:, (fixed + 1) % 3], best[:, (fixed + 2) % 3]
            flat = np.stack([points @ first, points @ second], 1).astype(np.float32)
            angle = np.radians(cv2.minAreaRect(flat)[2])
            turned = best.copy()
            turned[:, (fixed + 1) % 3] = np.cos(angle) * first + np.sin(angle) * second
            turned[:, (fixed + 2) % 3] = np.cos(angle) * second - np.sin(angle) * first
            candidate = float(np.prod(np.ptp(points @ turned, axis=0)))
            if candidate < volume * (1 - 1e-3):
                best, volume = turned, candidate
        if volume > before * (1 - 1e-3):
            break
    return best


def _ordered(
    axes: FloatArray, low: FloatArray, high: FloatArray, previous: FloatArray | None
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The same box with its axes renamed: nearest to `previous`, or by falling extent with a fixed choice of signs."""
    if previous is None:
        order = np.argsort(low - high, kind="stable")
        renamed = np.eye(3)[:, order]
        chosen = axes[:, order]
        strongest = np.abs(chosen).argmax(0)
        signs = np.where(chosen[strongest, np.arange(3)] < 0, -1.0, 1.0)
        signs[2] *= np.linalg.det(chosen) * np.prod(signs)  # right-handed
        renamed = renamed * signs
    else:
        renamed = max(_RENAMINGS, key=lambda change: float(np.trace(previous.T @ axes @ change)))
    ends = np.stack([low @ renamed, high @ renamed])
    return axes @ renamed, ends.min(0), ends.max(0)


def _renamings() -> list[NDArray[np.float64]]:
    """The 24 rotations that map axes onto axes."""
    found = []
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        change = np.eye(3)[:, order] * np.array(signs)
        if np.linalg.det(change) > 0:
            found.append(change)
    return found


_RENAMINGS = tuple(_renamings())
