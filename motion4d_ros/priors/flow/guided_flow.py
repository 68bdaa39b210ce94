"""Flow for things that are small and fast, guided by their masks.

Coarse-to-fine flow loses an object that moves farther than it is wide: on the coarse levels it isn't there. Where a
mask source names the same object in two frames, its shift is known to a few pixels; flow between the two shifted
crops finds the rest. Each pixel keeps whichever flow explains it better, so a mask that is wrong does no harm.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.image_warping import warp
from motion4d_ros.priors.flow.optical_flow import dis_flow
from motion4d_ros.types import BoolArray, IntArray

MIN_SHIFT_PX = 4.0  # slower things need no help
MIN_AREA_PX = 40
MAX_AREA_RATIO = 3.0  # between the two masks: more is a leak or an occlusion
MARGIN_PX = 10


def guided(
    flow: NDArray[np.float32], a: NDArray[np.uint8], b: NDArray[np.uint8], labels_a: IntArray, labels_b: IntArray
) -> NDArray[np.float32]:
    """`flow` (H, W, 2) from image `a` to image `b` (H, W), mended on fast objects named by both label images (H, W)."""
    result = flow
    for label in np.unique(labels_a[labels_a > 0]).tolist():
        mine, theirs = labels_a == label, labels_b == label
        shift = _shift(mine, theirs)
        if shift is None:
            continue
        candidate = _crop_flow(a, b, mine, shift, flow)
        if candidate is None:
            continue
        better = _misfit(a, b, candidate) < _misfit(a, b, result)
        near = cv2.dilate(mine.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        result = np.where((better & near)[..., None], candidate, result)
    return result


def _shift(mine: BoolArray, theirs: BoolArray) -> NDArray[np.int64] | None:
    """Whole pixels (x, y) from one mask's median to the other's; None if it is small or says nothing."""
    areas = sorted((int(mine.sum()), int(theirs.sum())))
    if areas[0] < MIN_AREA_PX or areas[1] > MAX_AREA_RATIO * areas[0]:
        return None
    here, there = (np.median(np.argwhere(mask)[:, ::-1], axis=0) for mask in (mine, theirs))
    shift = np.rint(there - here)
    return shift.astype(np.int64) if np.linalg.norm(shift) >= MIN_SHIFT_PX else None


def _crop_flow(
    a: NDArray[np.uint8], b: NDArray[np.uint8], mine: BoolArray, shift: NDArray[np.int64], flow: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    """Flow of the box around `mine`, measured against the box shifted by `shift`; elsewhere as `flow`."""
    height, width = a.shape
    rows, columns = np.flatnonzero(mine.any(1)), np.flatnonzero(mine.any(0))
    x0 = max(0, columns[0] - MARGIN_PX, -shift[0])
    y0 = max(0, rows[0] - MARGIN_PX, -shift[1])
    x1 = min(width, columns[-1] + 1 + MARGIN_PX, width - shift[0])
    y1 = min(height, rows[-1] + 1 + MARGIN_PX, height - shift[1])
    if x1 - x0 < 12 or y1 - y0 < 12:
        return None
    there = b[y0 + shift[1] : y1 + shift[1], x0 + shift[0] : x1 + shift[0]]
    result = flow.copy()
    result[y0:y1, x0:x1] = dis_flow(a[y0:y1, x0:x1], there) + shift.astype(np.float32)
    return result


def _misfit(a: NDArray[np.uint8], b: NDArray[np.uint8], flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) how badly `b`, fetched along the flow, resembles `a`, over a few pixels around."""
    difference = np.abs(warp(b, flow).astype(np.float32) - a.astype(np.float32))
    return np.asarray(cv2.GaussianBlur(difference, (0, 0), 2.0), np.float32)
