"""Where an object is believed to be before a network is asked: where its mask was carried, less the background.

A network that knows single images is prompted with its own last answer. Once that has taken in a piece of the
background, nothing in the image says so; earlier frames do, in which the same place was free and looked the same. Where
homographies explain the camera's motion, they are laid over the newest frame (`background`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.image_warping import length
from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.priors.masks.background import MOST_CUT, StaticBackground
from motion4d_ros.priors.masks.discovery.motion_evidence import explain
from motion4d_ros.types import BoolArray, FloatArray

ASKED = 4  # earlier frames that are laid over a new one
NEAREST = 2  # frames; nearer ones show the same things covered
LATELY = (2, 4, 6)  # frames ago: nearer ones, to which the camera's motion is known best
OFF_PX, OFF_SHARE = 2.0, 0.2  # by which a carried outline is off, px at the flow's size, and of its motion in a frame
STILL = 0.5  # px, a pace that is none
MOST = 4.0  # log-odds of one cue


@dataclass(frozen=True)
class _Told:
    """What earlier frames say of a frame; None where they say nothing."""

    unchanged: NDArray[np.float32] | None  # (h, w) in [0, 1] it looks as it did when it was free
    changed: BoolArray | None  # (h, w) it does not
    stands: NDArray[np.float32] | None  # (h, w) in [0, 1] it has looked so for some frames, free or not


class OutlineBelief:
    """Works at the size of a shared `FlowCache`."""

    def __init__(self, flow: FlowCache) -> None:
        self._flow = flow
        self._background = StaticBackground(flow)
        self._static: dict[int, NDArray[np.float32]] = {}  # (h, w, 2) flow of the static scene to the frame before
        self._told: dict[tuple[int, int], _Told] = {}  # by frame and the first that may be asked

    def link(self, index: int, previous: int | None, objects: BoolArray | None) -> None:
        """The next frame, and where objects (H, W) were in the one before."""
        plane = None
        if previous is not None and self._flow.has(previous):
            back, error = self._flow.between(index, previous), self._flow.error(index, previous)
            static = explain(back, error, None if objects is None else self._small(objects), None)
            plane = None if static is None or static.parallax else static.homography
            if static is not None:
                self._static[index] = static.flow
        self._background.link(index, previous, plane)
        self._static = {i: flow for i, flow in self._static.items() if self._flow.has(i)}
        self._told = {key: told for key, told in self._told.items() if self._flow.has(key[0])}

    def occupy(self, index: int, objects: BoolArray) -> None:
        """Says where in a frame objects (H, W) are: the rest of it is free."""
        if self._flow.has(index):
            self._background.occupy(index, self._small(objects))

    def of(self, index: int, carried: FloatArray, since: int, previous: int | None = None) -> NDArray[np.float32]:
        """(h, w) log-odds that a pixel of frame `index` is the object's, whose mask has been `carried` (H, W) there.

        `since`: the frame in which the object was first marked: in earlier ones it may stand unnoticed. `previous`: the
        frame from which it was carried.
        """
        mask = self._small(carried > 0.5)
        inside, outside = (cv2.distanceTransform(side.astype(np.uint8), cv2.DIST_L2, 3) for side in (mask, ~mask))
        off, kin = OFF_PX, np.zeros(mask.shape, np.float32)
        if previous is not None and index in self._static and mask.any():
            moves = length(self._flow.between(index, previous) - self._static[index])
            pace = float(np.median(moves[mask]))
            off += OFF_SHARE * pace
            kin = np.clip(moves / max(pace, STILL), 0, 1)  # what differs, but hardly moves, is badly known background
        belief = np.clip((inside - outside) / off, -MOST, MOST)
        told = self._compared(index, since)
        if told.changed is not None:
            belief = belief + MOST * kin * told.changed
        for against in (told.unchanged, told.stands):  # unless it has stood there unnoticed, or stands still as a whole
            if against is not None and (mask & (against > 0.5)).sum() <= MOST_CUT * mask.sum():
                belief = belief - MOST * against
        return np.asarray(belief, np.float32)

    def reset(self) -> None:
        """Forgets everything."""
        self._background.reset()
        self._static.clear()
        self._told.clear()

    def _compared(self, index: int, since: int) -> _Told:
        key = (index, since)
        if key not in self._told:
            before = [i for i in self._flow.indices if i < index][::-1]
            known = [i for i in before if since <= i <= index - NEAREST]
            spread = sorted({known[round(k)] for k in np.linspace(0, len(known) - 1, ASKED)}) if known else []
            lately = [before[k - 1] for k in LATELY if k <= len(before)]
            self._told[key] = _Told(
                self._background.unchanged(index, spread),
                self._background.changed(index, [i for i in lately if i >= since]),
                self._background.standing(index, lately) if len(lately) == len(LATELY) else None,
            )
        return self._told[key]

    def _small(self, mask: BoolArray) -> BoolArray:
        height, width = self._flow.size
        return np.asarray(cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0)
