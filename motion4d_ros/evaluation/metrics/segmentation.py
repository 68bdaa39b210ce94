"""Video object segmentation: region similarity J, boundary accuracy F (Perazzi et al., CVPR 2016), identity flips."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from motion4d_ros.types import BoolArray, FloatArray, IntArray

BOUNDARY_TOLERANCE = 0.008  # of the image diagonal
SMALLEST_OBJECT_PX = 20  # fewer true pixels in a frame are not judged


@dataclass(frozen=True)
class MaskScores:
    """Means over all (object, frame) pairs in which the object shows at least `SMALLEST_OBJECT_PX` pixels."""

    J: float
    F: float
    flips: int  # summed over objects
    labels: int  # different object ids in the prediction
    worst: float  # the least J of them

    @property
    def JF(self) -> float:
        """The mean of J and F."""
        return (self.J + self.F) / 2


def region_j(predicted: BoolArray, truth: BoolArray) -> float:
    """Intersection over union of two (H, W) masks; 1 when both are empty."""
    union = int((predicted | truth).sum())
    return 1.0 if union == 0 else float((predicted & truth).sum() / union)


def boundary_map(mask: BoolArray) -> BoolArray:
    """(H, W) thin boundary as DAVIS draws it: pixels that differ from their right, lower or lower right neighbour.

    Outside the image everything continues as at its edge.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    here = padded[:-1, :-1]
    return (here ^ padded[:-1, 1:]) | (here ^ padded[1:, :-1]) | (here ^ padded[1:, 1:])


def boundary_f(predicted: BoolArray, truth: BoolArray, tolerance: float = BOUNDARY_TOLERANCE) -> float:
    """F-measure of the boundaries of two (H, W) masks: precision and recall within a disc.

    Its radius is `tolerance` times the image diagonal, rounded up to whole pixels (a tolerance of 1 or more is in px).
    Both boundaries empty: 1; only one: 0.
    """
    radius = int(np.ceil(tolerance * np.hypot(truth.shape[0], truth.shape[1]))) if tolerance < 1 else int(tolerance)
    a, b = boundary_map(predicted), boundary_map(truth)
    if not a.any() and not b.any():
        return 1.0
    if not a.any() or not b.any():
        return 0.0
    precision = float((a & _dilated(b, radius)).sum() / a.sum())
    recall = float((b & _dilated(a, radius)).sum() / b.sum())
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def _dilated(mask: BoolArray, radius: int) -> BoolArray:
    offset = np.arange(-radius, radius + 1)
    disc = (offset[:, None] ** 2 + offset[None] ** 2 <= radius**2).astype(np.uint8)
    return cv2.dilate(mask.astype(np.uint8), disc) > 0


def match_labels(predicted: IntArray, truth: IntArray) -> dict[int, int]:
    """True id -> predicted id, one to one over the whole run, with the largest sum of IoU; (T, H, W) label images."""
    ids, labels = _objects(truth), _objects(predicted)
    if not len(ids) or not len(labels):
        return {}
    overlap = np.array([[_volume_iou(predicted == p, truth == i) for p in labels] for i in ids])
    rows, columns = linear_sum_assignment(-overlap)
    return {int(ids[r]): int(labels[c]) for r, c in zip(rows, columns, strict=True)}


def _objects(labels: IntArray) -> NDArray[np.int64]:
    found = np.unique(labels)
    return found[found > 0].astype(np.int64)


def _volume_iou(a: BoolArray, b: BoolArray) -> float:
    return float((a & b).sum() / max(1, int((a | b).sum())))


def identity_flips(predicted: IntArray, truth: IntArray, object_id: int) -> int:
    """How often the most frequent predicted id on a true object changes from one frame that has one to the next."""
    flips, last = 0, 0
    for labels, ids in zip(predicted, truth, strict=True):
        where = ids == object_id
        if where.sum() < SMALLEST_OBJECT_PX:
            continue
        seen = labels[where]
        seen = seen[seen > 0]
        if len(seen):
            current = int(np.bincount(seen).argmax())
            flips += int(last not in (0, current))
            last = current
    return flips


def score_masks(predicted: IntArray, truth: IntArray) -> MaskScores:
    """Scores (T, H, W) label images against true ones; ids need not agree, they are matched over the whole run."""
    if predicted.shape != truth.shape:
        raise ValueError(f"masks have shape {predicted.shape}, truth has {truth.shape}")
    predicted = np.asarray(predicted).astype(np.int64)
    matched = match_labels(predicted, truth)
    j_values: list[float] = []
    f_values: list[float] = []
    flips = 0
    for i in _objects(truth):
        for labels, ids in zip(predicted, truth, strict=True):
            region = ids == i
            if region.sum() < SMALLEST_OBJECT_PX:
                continue
            found = labels == matched.get(int(i), -1)
            j_values.append(region_j(found, region))
            f_values.append(boundary_f(found, region))
        flips += identity_flips(predicted, truth, int(i))
    worst = min(j_values, default=float("nan"))
    return MaskScores(_mean(j_values), _mean(f_values), flips, len(_objects(predicted)), worst)


def _mean(values: list[float] | FloatArray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
