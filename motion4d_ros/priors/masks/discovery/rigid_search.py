"""Divides what moves into rigid bodies by trying patches (RANSAC; Fischler and Bolles, CACM 1981)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.priors.masks.discovery.regions import grown, opened, parts
from motion4d_ros.priors.masks.discovery.rigid_motion import CAP, Trajectories, fit_body, misfit
from motion4d_ros.types import BoolArray

LEAST_PART = 50  # px of a body
FITS = 1.0  # misfit up to which a pixel may belong to a body that is being looked for
TRIALS = 12  # patches tried for a body
RATHER = 0.7  # standard deviations of flow by which one body has to explain a pixel better than another
LEAST_SHARED = 12  # px that are worth asking about


def bodies_among(tracks: Trajectories, region: BoolArray) -> list[BoolArray]:
    """Divides a region (h, w) into rigid bodies: the one that most of it follows, then that of the rest, and so on."""
    rng = np.random.default_rng(tracks.index)
    found: list[BoolArray] = []
    left = region.copy()
    for _ in range(4):
        ys, xs = np.nonzero(left)
        best = np.zeros_like(left)
        radius = max(6.0, 0.25 * np.sqrt(len(ys)))
        for trial in range(TRIALS + 1 if len(ys) >= LEAST_PART else 0):
            k = rng.integers(len(ys))
            patch = left
            if trial:
                near = (xs - xs[k]) ** 2 + (ys - ys[k]) ** 2 < radius**2
                patch = np.zeros_like(left)
                patch[ys[near], xs[near]] = True
            inliers = _inliers(tracks, patch, left, 16 if trial == 0 else 8) if patch.sum() >= 40 else best
            best = inliers if inliers.sum() > best.sum() else best
        for _ in range(2):
            best = _inliers(tracks, best, left) if best.sum() >= LEAST_PART else best
        whole = parts(opened(best, 3), LEAST_PART)
        if not whole:
            break
        found.append(np.any(whole, axis=0))
        left &= ~grown(best, 2)
    return found


def better_explained(tracks: Trajectories | None, mine: BoolArray, said: NDArray[np.int32], key: int) -> BoolArray:
    """(h, w) pixels of `mine`, where `key` is, that are `said` (h, w) to be others and move as it does, not as they."""
    out = np.zeros_like(mine)
    if tracks is None or (own := fit_body(tracks, mine)) is None:
        return out
    for other in np.unique(said[mine & (said > 0) & (said != key)]).tolist():
        shared = mine & (said == other)
        theirs = fit_body(tracks, (said == other) & ~mine) if shared.sum() >= LEAST_SHARED else None
        if theirs is not None:
            by_me, by_them = (cv2.blur(misfit(tracks, body, mine), (3, 3)) for body in (own, theirs))
            out |= shared & (by_them - by_me > RATHER)
    return out


def _inliers(tracks: Trajectories, patch: BoolArray, region: BoolArray, rounds: int = 8) -> BoolArray:
    """(h, w) pixels of the region that follow the body of a patch."""
    body = fit_body(tracks, patch, rounds=rounds)
    if body is None:
        return np.zeros_like(region)
    return np.asarray(region & (cv2.blur(np.minimum(misfit(tracks, body, region), CAP), (3, 3)) < FITS))
