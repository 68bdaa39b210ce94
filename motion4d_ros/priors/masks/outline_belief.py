"""Where an object is believed to be before a network is asked: where its mask was carried, less the background.

A network that knows single images is prompted with its own last answer. Once that has taken in a piece of the
background, nothing in the image says so; earlier frames do, in which the same place was free and looked the same. Where
homographies explain the camera's motion, they are laid over the newest frame (`discovery.background`).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.image_warping import length
from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.priors.masks.discovery.background import MOST_CUT, StaticBackground
from motion4d_ros.priors.masks.discovery.motion_evidence import explain
from motion4d_ros.types import BoolArray, FloatArray

ASKED = 4  # earlier frames that are laid over a new one
NEAREST = 2  # frames; nearer ones show the same things covered
STOOD = (2, 5, 8)  # frames ago, in which something that stands still was seen
OFF_PX, OFF_SHARE = 2.0, 0.2  # by which a carried outline is off, px at the flow's size, and of its motion in a frame
FREE = 4.0  # log-odds against the object, where a place looks as it did when it was free, and for it where it doesn't
STANDS = 2.0  # and against it, where something stands while the object as a whole moves on
MOST = 4.0  # log-odds


class OutlineBelief:
    """Works at the size of a shared `FlowCache`."""

    def __init__(self, flow: FlowCache) -> None:
        self._flow = flow
        self._background = StaticBackground(flow)
        self._static: dict[int, NDArray[np.float32]] = {}  # (h, w, 2) flow of the static scene to the frame before
        self._told: dict[tuple[int, int], tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]] = {}

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
        off = OFF_PX
        if previous is not None and index in self._static and mask.any():
            moves = length(self._flow.between(index, previous) - self._static[index])[mask]
            off += OFF_SHARE * float(np.median(moves))
        belief = np.clip((inside - outside) / off, -MOST, MOST)
        told, stands = self._compared(index, since)
        if told is not None and (mask & (told < -0.5)).sum() <= MOST_CUT * mask.sum():  # else it stood there unnoticed
            belief = belief + FREE * told
        if stands is not None and (mask & (stands > 0.5)).sum() <= MOST_CUT * mask.sum():
            belief = belief - STANDS * stands
        return np.asarray(belief, np.float32)

    def reset(self) -> None:
        """Forgets everything."""
        self._background.reset()
        self._static.clear()
        self._told.clear()

    def _compared(self, index: int, since: int) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
        key = (index, since)
        if key not in self._told:
            frames = [i for i in self._flow.indices if since <= i <= index - NEAREST]
            chosen = {frames[round(k)] for k in np.linspace(0, len(frames) - 1, ASKED)} if frames else set()
            before = self._flow.indices[: self._flow.indices.index(index)][::-1]
            stood = [before[k - 1] for k in STOOD if k <= len(before)]
            standing = self._background.standing(index, stood) if len(stood) == len(STOOD) else None
            self._told[key] = self._background.beside(index, sorted(chosen)), standing
        return self._told[key]

    def _small(self, mask: BoolArray) -> BoolArray:
        height, width = self._flow.size
        return np.asarray(cv2.resize(mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0)
