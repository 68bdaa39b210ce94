"""Labels of the newest frame, before anything was fitted: called by their history, outlined by the 2D source.

Flow remembers who is who but wears outlines down frame by frame; a source draws outlines anew in every frame but swaps
names, leaks and forgets. So names are carried along the flow, and a source's mask takes the name of the carried one
that it covers. Outlines of a source that is known to be unsteady are averaged over the past along each object's own
motion, as signed distances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from motion4d_ros.fit.semantics.consensus import FAR_PX, inner_flow, signed_distance
from motion4d_ros.fit.semantics.mask_selection import MIN_PIXELS, overlap
from motion4d_ros.geometry.image_warping import pixel_grid, remap, warp
from motion4d_ros.priors.masks.propagation.mask_cues import bounding_box
from motion4d_ros.types import UNKNOWN_LABEL, BoolArray, FloatArray, IntArray

SAME_OBJECT = 0.3  # overlap from which a source's mask and one carried to it are the same thing: both may be half wrong
AROUND_PX = 16  # margin about an object within which its own motion is continued
NEWEST = 0.5  # share of the newest frame in an averaged outline; the rest is the past


@dataclass(frozen=True)
class LiveLabels:
    """What is held of a frame: (H, W) labels, and per object its outline averaged over the past."""

    labels: IntArray
    distances: dict[int, NDArray[np.float32]]  # (H, W) px from the outline, positive inside, cut off nearby

    @staticmethod
    def of(labels: IntArray) -> LiveLabels:
        """(H, W) labels without a past; unknown pixels are background."""
        known = np.maximum(labels, 0).astype(np.int32)
        return LiveLabels(known, {label: signed_distance(known == label) for label in _objects(known)})

    def carried(self, raw: IntArray, back: FloatArray, trusted: BoolArray) -> LiveLabels:
        """The next frame: its source says `raw` (H, W), `back` (H, W, 2) is the flow to this frame, `trusted` (H, W)
        says where to believe it.
        """
        back = np.asarray(back, np.float32)
        moved = _fetched(self.labels, back)
        named = called_by_history(raw, moved)
        labels = own_outlines(_with_source(moved, self.labels, trusted, named), named)
        distances = {}
        for label in _objects(labels):
            now, before = signed_distance(labels == label), self.distances.get(label)
            if before is not None and int((before > 0).sum()) >= MIN_PIXELS:
                before = _along_own_motion(before, back, trusted)
                if overlap(before > 0, labels == label) >= SAME_OBJECT:
                    now = NEWEST * now + (1 - NEWEST) * before
            distances[label] = now
        return LiveLabels(labels, distances)

    def without(self, label: int) -> LiveLabels:
        """The same, the object `label` forgotten."""
        rest = {other: distance for other, distance in self.distances.items() if other != label}
        return LiveLabels(np.where(self.labels == label, 0, self.labels), rest)

    def told(self, unsteady: Sequence[int]) -> IntArray:
        """(H, W) labels, with averaged outlines of the objects `unsteady`."""
        averaged = [label for label in unsteady if label in self.distances]
        if not averaged:
            return self.labels
        stack = np.stack([self.distances[label] for label in averaged])
        result = np.where(np.isin(self.labels, averaged), 0, self.labels)
        free = (result == 0) & (stack.max(0) > 0)
        return np.where(free, np.asarray(averaged, np.int32)[stack.argmax(0)], result).astype(np.int32)


def _along_own_motion(
    distance: NDArray[np.float32], back: NDArray[np.float32], trusted: BoolArray
) -> NDArray[np.float32]:
    """(H, W) signed distance to an object's outline in the frame before, carried along the flow of its own inside."""
    inside = warp((distance > 0).astype(np.float32), back)
    box = bounding_box(inside > 0, AROUND_PX)
    moved: NDArray[np.float32] = np.full(distance.shape, -FAR_PX, np.float32)
    if box is not None:  # what lies further away does not matter, and flow is costly to continue
        at = pixel_grid(*distance.shape)[box] + inner_flow(back[box], trusted[box], inside[box])
        moved[box] = remap(distance, at)
    return moved


def called_by_history(raw: IntArray, carried: IntArray) -> IntArray:
    """(H, W) labels of the source, `raw`, under the names that history, `carried` (H, W), has for what they cover.

    A mask that covers its own past keeps its name; the others are matched so that they overlap most in all. A mask
    whose name another one has thereby got back says nothing.
    """
    said, known = _objects(raw), _objects(carried)
    kept = {label for label in said if label in known and overlap(raw == label, carried == label) >= SAME_OBJECT}
    said, known = [label for label in said if label not in kept], [label for label in known if label not in kept]
    if not said or not known:
        return raw
    shared = np.array([[overlap(raw == label, carried == name) for name in known] for label in said])
    pairs = zip(*linear_sum_assignment(-shared), strict=True)
    names = {said[i]: known[j] for i, j in pairs if shared[i, j] >= SAME_OBJECT}
    result = raw.copy()
    for label in said:
        if label in names:
            result[raw == label] = names[label]
        elif label in names.values():
            result[raw == label] = UNKNOWN_LABEL
    return result


def own_outlines(carried: IntArray, raw: IntArray) -> IntArray:
    """(H, W) labels carried into a frame, with the source's outline of every object on which it agrees with them."""
    agreed = [label for label in _objects(raw) if overlap(carried == label, raw == label) >= SAME_OBJECT]
    rest = np.where(np.isin(carried, agreed), 0, carried)
    return np.where(np.isin(raw, agreed), raw, rest).astype(np.int32)


def carry_labels(labels: IntArray, back: FloatArray, trusted: BoolArray, raw: IntArray) -> IntArray:
    """(H, W) labels of the frame before, fetched along the flow `back` (H, W, 2) to it; those of the source, `raw`,
    where the flow is not `trusted` and where the source shows an object that is new.
    """
    return _with_source(_fetched(labels, back), labels, trusted, raw)


def _fetched(labels: IntArray, back: FloatArray) -> IntArray:
    return warp(labels.astype(np.float32), np.asarray(back, np.float32), nearest=True).astype(np.int32)


def _with_source(carried: IntArray, before: IntArray, trusted: BoolArray, raw: IntArray) -> IntArray:
    """(H, W) labels `carried` from those `before` them, completed by the source: see `carry_labels`."""
    known = np.maximum(raw, 0)
    fresh = ~np.isin(known, [0, *np.unique(before)])
    usable: BoolArray = trusted & ~fresh
    return np.where(usable | (raw == UNKNOWN_LABEL), carried, known).astype(np.int32)


def _objects(labels: IntArray) -> list[int]:
    return [int(label) for label in np.unique(labels) if label > 0]
