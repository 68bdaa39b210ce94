"""Voting of 2D labels along the flow: what a mask source says in one frame is checked against its neighbours.

Networks drop an object for a frame or two, let it leak or swap two identities. Carried along the flow, the labels of
the frames around vote on every pixel; what is said by few is outvoted before it can bend the scene.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.fit.breath import Breath
from motion4d_ros.fit.horizon import Horizon
from motion4d_ros.priors.base import TrackSource
from motion4d_ros.priors.flow import chain, warp
from motion4d_ros.types import UNKNOWN_LABEL, IntArray

OWN_WEIGHT = 1.0
NEIGHBOUR_DECAY = 0.93  # weight of a neighbour per frame of distance
BLUR_PX = 0.7  # votes are blurred by this: edges of labels are never exact to the pixel


def vote(horizon: Horizon, tracks: TrackSource, reach: int, first: int, breath: Breath | None = None) -> None:
    """Sets `labels` of every frame from position `first` on, from the raw labels of up to `reach` neighbours each
    way.
    """
    for position in range(first, len(horizon)):
        if breath is not None:
            breath()
        state = horizon.frames[position]
        state.labels = state.voted = _vote_one(horizon, tracks, position, reach)


def _vote_one(horizon: Horizon, tracks: TrackSource, position: int, reach: int) -> IntArray:
    own = horizon.frames[position]
    ids = np.unique(own.raw_labels)
    votes: dict[int, NDArray[np.float32]] = {}

    def cast(labels: IntArray, weight: NDArray[np.float32]) -> None:
        for value in np.unique(labels):
            if value == UNKNOWN_LABEL:
                continue
            ballot = votes.setdefault(int(value), np.zeros(labels.shape, np.float32))
            ballot += np.where(labels == value, weight, 0)

    cast(own.raw_labels, np.full(own.raw_labels.shape, OWN_WEIGHT, np.float32))
    for direction in (1, -1):
        flow = np.zeros((*own.raw_labels.shape, 2), np.float32)
        trusted = np.ones(own.raw_labels.shape, bool)
        for step in range(1, reach + 1):
            there = position + direction * step
            if not 0 <= there < len(horizon):
                break
            previous = horizon.frames[there - direction].index
            link, good = tracks.flow(previous, horizon.frames[there].index)
            trusted &= warp(good.astype(np.uint8), flow, nearest=True) > 0
            flow = chain(flow, link)
            labels = warp(horizon.frames[there].raw_labels.astype(np.float32), flow, nearest=True).astype(ids.dtype)
            cast(labels, trusted * np.float32(NEIGHBOUR_DECAY**step))
    if not votes:
        return own.raw_labels
    order = sorted(votes)
    stack = np.stack([cv2.GaussianBlur(votes[value], (0, 0), BLUR_PX) for value in order])
    return np.asarray(order, own.raw_labels.dtype)[stack.argmax(0)]
