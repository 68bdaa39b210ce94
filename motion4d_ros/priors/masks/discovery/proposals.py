"""What finds things, apart from what outlines and follows them: the Protocol of `masks.discovery`, and its currency.

A discovery watches the frames and proposes things: a box, points on it, perhaps the region that it has seen. Whoever
outlines (`discovered_masks`) takes a proposal over, or has another look later; a discovery that turns out to have been
wrong says so, and the object goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from motion4d_ros.priors.interfaces import DepthPrior, PosePrior, SceneHint
from motion4d_ros.priors.masks.prompting import box_of
from motion4d_ros.types import BoolArray, Detection, FloatArray, Frame, IntArray

POINTS = 3  # on the inside of a region, as many as a semantic refinement gives


@dataclass(frozen=True)
class Proposal:
    """One thing in one frame, image pixels of that frame."""

    key: int  # the discovery's own name for it, never reused
    index: int  # frame in which it is to be outlined
    box_px: FloatArray  # (4,) x0, y0, x1, y1, inclusive
    points_px: FloatArray  # (P, 2) x, y, on the thing; may be none
    region: BoolArray | None = None  # (h, w) where it has been seen, at any size; None: the box is all that is known


class Discovery(Protocol):
    """Frames in, proposals out. Called once per frame, in order."""

    def look(self, frame: Frame, pose: PosePrior, depth: DepthPrior | None) -> None:
        """Told before `push` of the same frame: its measured pose and depth."""

    def push(self, frame: Frame, hint: SceneHint | None) -> None:
        """Watches the next frame. The hint's labels are by the discovery's own keys."""

    def hear(self, frame: Frame, detections: Sequence[Detection], outlined: IntArray) -> None:
        """What a detector says of a frame, and the (H, W) objects known there."""

    def revise_poses(self, poses: dict[int, FloatArray]) -> None:
        """Told of poses (4, 4) of earlier frames that have become known, or better known."""

    def finish(self) -> None:
        """The input ends: it says what it can of the last frames."""

    def proposals(self, kept: Sequence[int]) -> list[Proposal]:
        """Everything that is believed in now, at its best in one of the frames `kept`."""

    def gone(self) -> set[int]:
        """Keys that have turned out to be nothing, since it was last asked."""

    def changed(self) -> set[int]:
        """Frames whose regions have changed since it was last asked."""

    def regions(self, index: int) -> IntArray | None:
        """(h, w) keys where things have been seen in a frame, at any size; None where only boxes are known."""

    def reset(self) -> None:
        """Forgets everything; keys go on."""


def inner_points(region: BoolArray, count: int = POINTS) -> FloatArray:
    """(P, 2) x, y of pixels deep inside a region (h, w), far from its outline and from each other; at most `count`."""
    inside = np.pad(region.astype(np.uint8), 1)  # the image's border is an outline too
    points: list[tuple[int, int]] = []
    for _ in range(count):
        distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        y, x = np.unravel_index(int(distance.argmax()), distance.shape)
        depth = float(distance[y, x])
        if depth < 1.0 or (points and depth < 2.0):  # what is left is a rim
            break
        points.append((int(x) - 1, int(y) - 1))
        cv2.circle(inside, (int(x), int(y)), max(1, round(depth)), 0, -1)
    return np.array(points, float).reshape(-1, 2)


def scaled_pixels(points: FloatArray, size: tuple[int, int], to: tuple[int, int]) -> FloatArray:
    """(P, 2) x, y in an image of `size` (height, width) -> the same places in one of size `to` (pixel centres)."""
    return (np.asarray(points, float) + 0.5) * np.array([to[1] / size[1], to[0] / size[0]]) - 0.5


def scaled_box(region: BoolArray, to: tuple[int, int]) -> FloatArray:
    """(4,) box of a region (h, w), not empty, in an image of size `to` (height, width)."""
    box = box_of(region)
    assert box is not None
    edges = box.reshape(2, 2) + np.array([[-0.5, -0.5], [0.5, 0.5]])
    corners = scaled_pixels(edges, (region.shape[0], region.shape[1]), to) + np.array([[0.5, 0.5], [-0.5, -0.5]])
    return np.asarray(np.clip(corners, 0, [to[1] - 1, to[0] - 1]).reshape(4), float)
