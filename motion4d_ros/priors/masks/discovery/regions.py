"""Regions of an image: grown and taken apart, by shape, by motion, by colour. Pure functions."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.image_warping import length
from motion4d_ros.priors.masks.propagation.mask_cues import affine_motion
from motion4d_ros.types import BoolArray


def grown(mask: BoolArray, by: int) -> BoolArray:
    """`mask` (h, w) with all that is within `by` px, in a square."""
    return np.asarray(cv2.dilate(mask.astype(np.uint8), np.ones((2 * by + 1,) * 2, np.uint8)) > 0)


def opened(mask: BoolArray, side: int) -> BoolArray:
    """`mask` (h, w) without what is narrower than `side` px."""
    return np.asarray(cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((side, side), np.uint8)) > 0)


def parts(mask: BoolArray, least: int) -> list[BoolArray]:
    """The connected parts (h, w) of a mask that have so many pixels."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return [labels == k for k in range(1, count) if stats[k, cv2.CC_STAT_AREA] >= least]


def touch(a: BoolArray, b: BoolArray, distance: int) -> bool:
    """Whether two regions lie side by side along a good part of the smaller one."""
    return bool((grown(a, distance) & b).sum() > 2 * np.sqrt(min(a.sum(), b.sum())))


def two_motions(
    flow: NDArray[np.float32], where: BoolArray, apart: float = 2.0
) -> tuple[BoolArray, BoolArray, float] | None:
    """Two parts of the region `where` (h, w) that move by affine motions of their own, at least `apart` px different.

    Third: how clear that is, the difference of the motions over what they leave unexplained. None when one motion
    serves, or when a part is small (below a quarter) or scattered.
    """
    if where.sum() < 120:
        return None
    one = length(flow - affine_motion(flow, where))
    if float(np.percentile(one[where], 75)) < 0.5 * apart:
        return None
    _, labels, _ = cv2.kmeans(
        np.float32(flow[where]), 2, np.zeros(0, np.int32), (cv2.TERM_CRITERIA_EPS, 20, 0.1), 2, cv2.KMEANS_PP_CENTERS
    )
    first = np.zeros(where.shape, bool)
    first[where] = labels.ravel() == 0
    for _ in range(4):
        second = where & ~first
        if min(first.sum(), second.sum()) < 0.25 * where.sum():
            return None
        a, b = affine_motion(flow, first), affine_motion(flow, second)
        difference = length(flow - a) - length(flow - b)
        first = where & (cv2.blur(difference, (7, 7)) < 0)
    second = where & ~first
    if min(first.sum(), second.sum()) < 0.25 * where.sum():
        return None
    gap = np.median(length(a - b)[where])
    left = np.median(np.where(first, length(flow - a), length(flow - b))[where])
    if gap < apart or left > 0.35 * gap:
        return None
    whole = [_largest_share(part) for part in (first, second)]
    return (first, second, float(gap / max(left, 0.05))) if min(whole) > 0.8 else None


def near_each_other(a: BoolArray, b: BoolArray, distance: int) -> bool:
    """Whether two regions (h, w) come within `distance` px of each other; empty ones are said to."""
    if not a.any() or not b.any():
        return True
    return bool((grown(a, distance) & b).any())


def _largest_share(mask: BoolArray) -> float:
    """Share of a mask's pixels that hang together with its largest part."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return float(stats[1:, cv2.CC_STAT_AREA].max() / max(1, mask.sum())) if len(stats) > 1 else 0.0


def fit_outline(rgb: NDArray[np.uint8], group: BoolArray, margin: int = 12) -> BoolArray:
    """(h, w) the outline that colours suggest for a roughly found `group` (GrabCut in a band around its edge)."""
    mask = group.astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    closed = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel, iterations=2))
    wide = cv2.dilate(closed, np.ones((2 * margin + 1,) * 2, np.uint8))
    rows, cols = np.flatnonzero(wide.any(1)), np.flatnonzero(wide.any(0))
    box = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
    depth = cv2.distanceTransform(closed, cv2.DIST_L2, 3)[box]
    state = np.full(depth.shape, cv2.GC_BGD, np.uint8)
    state[cv2.dilate(closed, kernel)[box] > 0] = cv2.GC_PR_BGD
    state[closed[box] > 0] = cv2.GC_PR_FGD
    state[depth > 0.6 * depth.max()] = cv2.GC_FGD
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    try:
        picture = np.ascontiguousarray(rgb[box][..., ::-1])
        cv2.grabCut(picture, state, None, *models, 3, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # one colour only
        return closed > 0
    out = np.zeros(group.shape, bool)
    out[box] = (state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)
    overlap = (out & (closed > 0)).sum() / max(1, int((out | (closed > 0)).sum()))
    return out if overlap > 0.5 else np.asarray(closed > 0)
