"""How well boxes in an image fit: their overlap, and what it says of their being of one thing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln

from motion4d_ros.types import FloatArray, IntArray

RIGHT = (3.0, 1.5)  # Beta density of the IoU of a detection and the box of its object's mask: 2/3 in the mean
WRONG = (1.0, 6.0)  # the same of two things that overlap


def fit_of(iou: FloatArray) -> FloatArray:
    """Log-likelihood ratio of "the same thing" against "two things that overlap", for IoUs of any shape."""
    inside = np.clip(iou, 1e-3, 1.0 - 1e-3)
    (a, b), (c, d) = RIGHT, WRONG
    return np.asarray((a - c) * np.log(inside) + (b - d) * np.log1p(-inside) - betaln(a, b) + betaln(c, d), float)


def overlaps(first: FloatArray, second: FloatArray) -> NDArray[np.float64]:
    """(N, M) IoU of (N, 4) and (M, 4) boxes x0, y0, x1, y1, inclusive."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = np.prod(np.maximum(high - low + 1.0, 0.0), -1)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2] + 1.0, -1) for boxes in (first, second)]
    return np.asarray(shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9), float)


def boxes_of(labels: IntArray) -> tuple[list[int], FloatArray]:
    """Ids of the objects of an (H, W) label image, ascending, and their (N, 4) boxes."""
    ids, boxes = [], []
    for object_id in np.unique(labels[labels > 0]).tolist():
        mask = labels == object_id
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        ids.append(int(object_id))
        boxes.append((columns[0], rows[0], columns[-1], rows[-1]))
    return ids, np.array(boxes, float).reshape(-1, 4)
