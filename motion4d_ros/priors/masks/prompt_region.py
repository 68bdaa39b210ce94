"""The region of an image that points and a box mean, by graph cuts on colour: no network."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.types import BoolArray

POINT_RADIUS = 3  # px at working size: what a click vouches for
LEAST_BOX_SHARE = 0.1  # of a box, that its colours must leave for the object to be believed
GUESS_SHARE = 0.18  # of the shorter side: the half-size of the region searched around a lone click


def segment(
    rgb: NDArray[np.uint8],
    points: NDArray[np.floating],
    positive: BoolArray,
    box: NDArray[np.floating] | None,
    soft: NDArray[np.float32] | None = None,
) -> BoolArray:
    """(h, w) mask of what points (P, 2), their signs and a box (4,) mean, by graph cuts on colour (GrabCut).

    `soft` (h, w), where given, is the object's present mask that the points correct.
    """
    height, width = rgb.shape[:2]
    state: NDArray[np.uint8] = np.full((height, width), cv2.GC_BGD, np.uint8)
    if box is not None:
        x0, y0, x1, y1 = np.round(box).astype(int)
        state[max(0, y0) : max(0, y1 + 1), max(0, x0) : max(0, x1 + 1)] = cv2.GC_PR_FGD
    elif soft is None:
        reach = GUESS_SHARE * min(height, width)
        for x, y in points[positive]:
            cv2.circle(state, (round(x), round(y)), round(reach), cv2.GC_PR_BGD, -1)
        for x, y in points[positive]:
            cv2.circle(state, (round(x), round(y)), round(reach / 3), cv2.GC_PR_FGD, -1)
    if soft is not None:
        state = np.where(soft > 0.5, cv2.GC_PR_FGD, np.where(soft > 0.03, cv2.GC_PR_BGD, state)).astype(np.uint8)
    for (x, y), sign in zip(points, positive, strict=True):
        label = cv2.GC_FGD if sign else cv2.GC_BGD
        cv2.circle(state, (round(x), round(y)), POINT_RADIUS, int(label), -1)
    inside = (state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)
    if not inside.any() or inside.all():
        return np.asarray(inside)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    cv2.grabCut(np.ascontiguousarray(rgb[..., ::-1]), state, None, *models, 4, cv2.GC_INIT_WITH_MASK)
    mask = (state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)
    if box is not None and mask.sum() < LEAST_BOX_SHARE * inside.sum():  # colours don't tell: what the box says
        mask = inside
    if len(points[positive]) and mask.any():  # only what hangs together with a click
        _, parts = cv2.connectedComponents(mask.astype(np.uint8))
        xy = np.clip(np.round(points[positive]).astype(int), 0, [width - 1, height - 1])
        hit = np.setdiff1d(parts[xy[:, 1], xy[:, 0]], [0])
        mask = np.isin(parts, hit) if len(hit) else mask
    return np.asarray(mask)
