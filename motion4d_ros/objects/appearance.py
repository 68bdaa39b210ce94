"""Is the thing that just appeared one that was lost? Appearance and motion must both say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from motion4d_ros.types import FloatArray

BINS = (6, 12, 12)
"""Histogram cells along L, a and b: few along L, since light changes more than colour."""

SAMPLES = 400
"""Colours that are looked at, about: a histogram of so few cells needs no more."""

_LOW, _HIGH = np.array([0.0, -64.0, -64.0]), np.array([100.0, 64.0, 64.0])
MOTION_GATE = 16.27
"""99.9 % of squared Mahalanobis distances of a position are smaller (chi-square of three)."""

CLEAR_MARGIN = 1.3
"""The runner-up must be worse than the winner by this factor, or nobody is sure enough."""


@dataclass(frozen=True)
class Appearance:
    """How the surface of an object looks."""

    histogram: NDArray[np.float32]  # BINS, sums to 1: smoothed distribution of CIE Lab colours
    pixels: int  # samples it rests on

    @staticmethod
    def of(colors: FloatArray) -> Appearance:
        """From (N, 3) RGB colours in [0, 1]; N may be 0."""
        sample = colors[:: max(1, len(colors) // SAMPLES)]
        rgb = np.clip(np.nan_to_num(np.asarray(sample, np.float32)), 0, 1)[None]  # one row: OpenCV threads over rows
        if rgb.shape[1] == 0:
            return Appearance(np.full(BINS, 1 / np.prod(BINS), np.float32), 0)
        lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab).reshape(-1, 3)
        inside = np.clip(lab, _LOW + 1e-3, _HIGH - 1e-3)
        counts, _ = np.histogramdd(inside, BINS, list(zip(_LOW, _HIGH)))
        counts = gaussian_filter(counts, 0.7, mode="nearest")  # so that a shade more does not count as another colour
        return Appearance((counts / counts.sum()).astype(np.float32), len(lab))

    def distance(self, other: Appearance) -> float:
        """Hellinger distance of the colour distributions, 0 (alike) to 1 (nothing in common)."""
        overlap = float(np.sqrt(self.histogram * other.histogram).sum())
        return float(np.sqrt(max(0.0, 1.0 - overlap)))

    def merged(self, other: Appearance, gain: float = 0.1) -> Appearance:
        """This one with a share `gain` of `other`: follows slow changes of light and of the visible side."""
        if self.pixels == 0 or other.pixels == 0:
            return other if self.pixels == 0 else self
        histogram = (1 - gain) * self.histogram + gain * other.histogram
        return Appearance(histogram.astype(np.float32), max(self.pixels, other.pixels))


@dataclass(frozen=True)
class Candidate:
    """Something that appeared and has no identity yet."""

    appearance: Appearance
    position: FloatArray  # (3,) m, map
    position_covariance: FloatArray  # (3, 3)
    size_m: FloatArray | None = None  # (3,)


@dataclass(frozen=True)
class LostObject:
    """A known object that is not seen, predicted to the candidate's time."""

    object_id: int
    appearance: Appearance
    position: FloatArray  # (3,) m, map
    position_covariance: FloatArray  # (3, 3), grown while it was not seen
    size_m: FloatArray | None = None  # (3,)


def reidentify(candidate: Candidate, lost: Sequence[LostObject], limit: float = 0.45) -> int | None:
    """Id of the lost object that `candidate` is, or None.

    Its colours must be nearer than `limit` (Hellinger), its position within the gate of the prediction, its size (where
    both are known) at most three times larger or smaller; and the second best must be clearly worse.
    """
    costs = sorted((cost, known.object_id) for known in lost if (cost := _cost(candidate, known, limit)) is not None)
    if not costs:
        return None
    if len(costs) > 1 and costs[1][0] < CLEAR_MARGIN * costs[0][0]:
        return None
    return costs[0][1]


def _cost(candidate: Candidate, known: LostObject, limit: float) -> float | None:
    """Dissimilarity, at most 2; None if it can't be the same object."""
    if candidate.appearance.pixels == 0 or known.appearance.pixels == 0:
        return None
    look = candidate.appearance.distance(known.appearance)
    offset = np.asarray(candidate.position) - known.position
    spread = candidate.position_covariance + known.position_covariance
    motion = float(offset @ np.linalg.solve(spread, offset))
    if look > limit or motion > MOTION_GATE or not np.isfinite(motion):
        return None
    if candidate.size_m is not None and known.size_m is not None:
        ratio = np.linalg.norm(candidate.size_m) / max(float(np.linalg.norm(known.size_m)), 1e-6)
        if not 1 / 3 <= ratio <= 3:
            return None
    return (look / limit) ** 2 + motion / MOTION_GATE + 1e-3
