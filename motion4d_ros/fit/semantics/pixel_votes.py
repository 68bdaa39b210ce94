"""Voting of 2D labels along the flow: what a mask source says in one frame is checked against its neighbours.

Networks drop an object for a frame or two, let it leak or swap two identities. Carried along the flow, the labels of
the frames around vote on every pixel; what is said by few is outvoted before it can bend the scene. A vote counts where
flow agrees with its reverse and leads to what looks the same: what comes out from behind something has no past. A frame
that misses an object which was and will be seen has no say on whether it is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.fit.semantics.identity_association import associate_identities, shown
from motion4d_ros.fit.window.horizon import Horizon
from motion4d_ros.fit.window.yield_point import YieldPoint
from motion4d_ros.geometry.image_warping import warp
from motion4d_ros.priors.flow.optical_flow import chain
from motion4d_ros.priors.interfaces import TrackSource
from motion4d_ros.types import BACKGROUND, UNKNOWN_LABEL, BoolArray, IntArray

OWN_WEIGHT = 1.0
NEIGHBOUR_DECAY = 0.93  # weight of a neighbour per frame of distance
BLUR_PX = 0.7  # votes are blurred by this: edges of labels are never exact to the pixel
MISSED = 5  # frames: what is seen so shortly before and after a frame that does not show it was missed, and not gone
SMOOTH_PX = 1.0  # pictures are compared at this scale
UNLIKE = 20.0  # grey levels by which pixels differ that do not show the same ...
UNLIKE_SHARE = 3.0  # ... beside so many times the median difference


def vote(horizon: Horizon, tracks: TrackSource, reach: int, first: int, yield_point: YieldPoint | None = None) -> None:
    """Sets `named` of all frames, and `labels` and `voted` of every frame from position `first` on, from the named
    labels of up to `reach` neighbours each way. Earlier frames follow where names have changed.
    """
    first = min(first, max(0, associate_identities(horizon, tracks) - reach))
    missed = _missed([state.named_labels for state in horizon.frames])
    looks = {k: _look(horizon.frames[k].image) for k in range(max(0, first - reach), len(horizon))}
    for position in range(first, len(horizon)):
        if yield_point is not None:
            yield_point()
        state = horizon.frames[position]
        state.labels = state.voted = _vote_one(horizon, tracks, position, reach, missed, looks)


class _Ballots:
    """The votes on every pixel of a frame."""

    def __init__(self) -> None:
        self._votes: dict[int, NDArray[np.float32]] = {}
        self._excused: dict[int, NDArray[np.float32]] = {}  # for the background, in frames that miss the object

    def cast(self, labels: IntArray, weight: NDArray[np.float32], missed: AbstractSet[int]) -> None:
        """(H, W) labels of a frame that misses the objects `missed`, with the (H, W) `weight` of every pixel's vote."""
        for value in np.unique(labels[weight > 0]).tolist():
            if value != UNKNOWN_LABEL:
                self._votes[value] = self._votes.get(value, 0) + np.where(labels == value, weight, 0)
        for value in missed:
            self._excused[value] = self._excused.get(value, 0) + np.where(labels == BACKGROUND, weight, 0)

    def winners(self, otherwise: IntArray) -> IntArray:
        """(H, W) the labels with most votes; `otherwise` if there are no votes at all. Where somebody has seen an
        object, and just beside it, the votes of those who missed it do not count.
        """
        if not self._votes:
            return otherwise
        silent = [
            np.where(_wider(self._votes[k] > 0), self._excused[k], 0) for k in self._excused.keys() & self._votes.keys()
        ]
        if silent and BACKGROUND in self._votes:
            self._votes[BACKGROUND] -= np.max(silent, 0)
        order = sorted(self._votes)
        stack = np.stack([cv2.GaussianBlur(self._votes[value], (0, 0), BLUR_PX) for value in order])
        return np.asarray(order, otherwise.dtype)[stack.argmax(0)]


def _vote_one(
    horizon: Horizon,
    tracks: TrackSource,
    position: int,
    reach: int,
    missed: Sequence[AbstractSet[int]],
    looks: dict[int, NDArray[np.uint8]],
) -> IntArray:
    own = horizon.frames[position].named_labels
    ballots = _Ballots()
    ballots.cast(own, np.full(own.shape, OWN_WEIGHT, np.float32), missed[position])
    for direction in (1, -1):
        flow: NDArray[np.float32] = np.zeros((*own.shape, 2), np.float32)
        trusted = np.ones(own.shape, bool)
        for step in range(1, reach + 1):
            there = position + direction * step
            if not 0 <= there < len(horizon):
                break
            link, good = tracks.flow(horizon.frames[there - direction].index, horizon.frames[there].index)
            trusted &= warp(good, flow, nearest=True)
            flow = chain(flow, link)
            theirs = warp(horizon.frames[there].named_labels.astype(np.float32), flow, nearest=True).astype(own.dtype)
            counts = trusted & _alike(looks[position], warp(looks[there], flow))
            ballots.cast(theirs, counts * np.float32(NEIGHBOUR_DECAY**step), missed[there])
    return ballots.winners(own)


def _missed(labels: Sequence[IntArray]) -> list[AbstractSet[int]]:
    """Objects that a frame does not show, but frames shortly before and shortly after do, for the (H, W) labels of
    consecutive frames.
    """
    seen = [shown(image) for image in labels]
    missed: list[AbstractSet[int]] = []
    for position, here in enumerate(seen):
        before = set[int]().union(*seen[max(0, position - MISSED) : position])
        after = set[int]().union(*seen[position + 1 : position + 1 + MISSED])
        missed.append((before & after) - here)
    return missed


def _wider(mask: BoolArray) -> BoolArray:
    """(H, W) what votes are blurred with belongs to it."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0


def _look(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) a picture without what is finer than flow is exact."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), SMOOTH_PX), np.uint8)


def _alike(look: NDArray[np.uint8], carried: NDArray[np.uint8]) -> BoolArray:
    """(H, W) where a neighbour's picture, `carried` (H, W, 3) along the flow, shows what `look` does."""
    difference = cv2.transform(cv2.absdiff(look, carried), np.full((1, 3), 1 / 3, np.float32))
    return np.asarray(difference < UNLIKE + UNLIKE_SHARE * float(np.median(difference)))
