"""Is there a still ground? Whether one rigid motion explains most of what the picture does, over several frames.

Everything here that is found from images alone takes for still what most of the picture agrees on. In a crowd there is
no such agreement: whichever epipolar geometry is chosen, much of the picture contradicts it. That shows after a few
frames and by the absolute size of the contradiction; relative to what the best motion leaves over anyway, it vanishes.

What cannot be told: one thing that fills the picture and moves as a camera before a still world might.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.image_warping import pixel_grid, remap
from motion4d_ros.geometry.robust import estimated
from motion4d_ros.priors.flow.optical_flow import chain
from motion4d_ros.priors.masks.discovery.motion_evidence import (
    homography_flow,
    nearest_on_epipolar_line,
    photometric_gain,
)
from motion4d_ros.types import BoolArray

REACH = 8  # frames that are compared at most; slow motion needs many
FAR = 14.0  # px of median flow, beyond which chains go astray
FOLLOWED = 0.4  # share of the picture that must have been followed
EVERY = 3  # frames from one comparison to the next
GRID = 5  # px between the samples that geometry is fitted to
LEAST = 100  # of them
TOLERANCE = 1.0  # px that a followed pixel may lie off its epipolar line, in an image `WIDTH` wide
WIDTH = 320
SEEN = 0.15  # of `photometric_gain`, from which the pictures confirm that it does
MOVES, MOVES_BEFORE_STILL = 0.25, 0.5  # share that contradicts the rest, from which there is doubt; of a fixed camera
AT_REST = 0.5  # px of flow under which a pixel stands still in the picture, and the share of them that fixes the camera
MEMORY, TOLD = 5, 3  # comparisons that are remembered, and the least for an opinion
SETTLED = 0.7  # of the limit, under which doubt ends


@dataclass
class _Link:
    """A frame and the way back to the one before."""

    gray: NDArray[np.uint8]  # (h, w)
    flow: NDArray[np.float32]  # (h, w, 2) px
    trusted: BoolArray  # (h, w)


class StillGround:
    """Watches the flow between neighbouring frames; frames of one size, in order."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._links: deque[_Link] = deque(maxlen=REACH)
        self._before: NDArray[np.uint8] | None = None  # (h, w) the frame that the oldest link leads to
        self._told: deque[float] = deque(maxlen=MEMORY)  # contradiction, in units of its limit
        self._wait = EVERY
        self.share = 0.0  # of the picture, that contradicted the rest when last compared
        self.missing = False  # whether most of the picture seems to lack a common ground

    def start(self, gray: NDArray[np.uint8]) -> None:
        """The first frame (h, w), or the first after a gap."""
        self._links.clear()
        self._before, self._wait = gray, EVERY

    def push(self, gray: NDArray[np.uint8], flow: NDArray[np.float32], trusted: BoolArray) -> bool:
        """The next frame (h, w), with its flow (h, w, 2) to the one before and where to trust that (h, w).

        Whether there is doubt about the ground: :attr:`missing`.
        """
        if len(self._links) == REACH:
            self._before = self._links[0].gray
        self._links.append(_Link(gray, flow, trusted))
        self._wait -= 1
        if self._wait <= 0:
            self._wait = EVERY
            found = self._compare()
            if found is None:
                self._wait = 1
            else:
                self.share, limit = found
                self._told.append(self.share / limit)
        if len(self._told) >= TOLD:
            self.missing = float(np.median(self._told)) > (SETTLED if self.missing else 1.0)
        return self.missing

    def _compare(self) -> tuple[float, float] | None:
        """The share of the picture that contradicts the rest, and from which it is too much; None: no telling."""
        height, width = self._links[-1].gray.shape
        grid = pixel_grid(height, width)
        flows: list[NDArray[np.float32]] = []
        closed: BoolArray = np.ones((height, width), bool)
        for link in reversed(self._links):
            there = link.trusted if not flows else remap(link.trusted, grid + flows[-1], nearest=True, border=0.0)
            if (closed & there).mean() < FOLLOWED:
                break
            closed = closed & there
            flows.append(link.flow if not flows else chain(flows[-1], link.flow))
            if np.median(np.linalg.norm(flows[-1], axis=-1)[closed]) > FAR:
                break
        if not flows:
            return None
        ys, xs = np.mgrid[GRID // 2 : height : GRID, GRID // 2 : width : GRID]
        ys, xs = ys[closed[ys, xs]], xs[closed[ys, xs]]
        if len(ys) < LEAST:
            return None
        oldest = self._before if len(flows) == len(self._links) else self._links[-len(flows) - 1].gray
        assert oldest is not None
        tolerance = TOLERANCE * max(1.0, width / WIDTH)
        half = (len(flows) - 1) // 2
        best: tuple[float, float] | None = None
        for explained in (_on_epipolar_lines, _as_a_plane):
            whole, part = explained(flows[-1], ys, xs), explained(flows[half], ys, xs)
            if whole is None or part is None:
                return None  # the other one alone would be held against the picture
            longer = len(flows) / (half + 1)  # twice as long a way shows twice as much
            off = np.linalg.norm(flows[-1] - whole, axis=-1)
            off = np.maximum(off, longer * np.linalg.norm(flows[half] - part, axis=-1))
            gain = photometric_gain(self._links[-1].gray, oldest, whole, flows[-1])
            still = closed & (off <= tolerance)
            moves = closed & (off > tolerance) & (gain > SEEN)
            share = float(moves.sum()) / max(1, int(moves.sum() + still.sum()))
            resting = np.linalg.norm(flows[-1], axis=-1)[still] < AT_REST
            limit = MOVES_BEFORE_STILL if len(resting) and float(resting.mean()) > AT_REST else MOVES
            if best is None or share / limit < best[0] / best[1]:
                best = share, limit
        return best


def _samples(
    flow: NDArray[np.float32], ys: NDArray[np.int64], xs: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(N, 2) pixels, and where `flow` (h, w, 2) leads from them; the same at every call."""
    cv2.setRNGSeed(0)
    a = np.stack([xs, ys], -1).astype(np.float32)
    return a, a + flow[ys, xs]


def _on_epipolar_lines(
    flow: NDArray[np.float32], ys: NDArray[np.int64], xs: NDArray[np.int64]
) -> NDArray[np.float32] | None:
    """(h, w, 2) what of `flow` a moving camera before still things explains; fitted to N pixels."""
    a, b = _samples(flow, ys, xs)
    for method in (cv2.USAC_MAGSAC, cv2.FM_LMEDS):  # the better one finds nothing now and then
        F = estimated(partial(cv2.findFundamentalMat, a, b, method, 0.5, 0.999, 2000))
        if F is not None:
            return nearest_on_epipolar_line(F, flow)
    return None


def _as_a_plane(flow: NDArray[np.float32], ys: NDArray[np.int64], xs: NDArray[np.int64]) -> NDArray[np.float32] | None:
    """(h, w, 2) the flow of a turning camera, or before a plane, nearest to `flow`; fitted to N pixels."""
    a, b = _samples(flow, ys, xs)
    H = estimated(lambda: cv2.findHomography(a, b, cv2.USAC_MAGSAC, 0.8, maxIters=1000, confidence=0.999))
    return None if H is None else homography_flow(H, flow.shape[0], flow.shape[1])
