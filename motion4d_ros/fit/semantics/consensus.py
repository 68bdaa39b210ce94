"""What the frames around agree on: outlines of every object, from its own motion through the masks of its neighbours.

Votes (`pixel_votes`) are careful: nobody votes across flow that can't be trusted, so that nothing false reaches the
geometry. But flow can't be trusted at outlines, above all of fast things, and there votes stop. What is *published*
may do better. Two cases:

    unsteady sources   every mask is carried along the motion of the object's own inside, continued beyond its outline,
                       and outlines are averaged as signed distances. Frames in which the source misses the object for
                       a moment have no say in its shape; whether it is there is decided by majority.
    steady sources     only pixels change that the neighbours contradict almost unanimously, at the input's size.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.fit.window.horizon import FrameState, Horizon
from motion4d_ros.geometry.image_warping import warp
from motion4d_ros.geometry.label_images import resize_labels, resize_planes
from motion4d_ros.priors.flow.optical_flow import chain
from motion4d_ros.priors.interfaces import TrackSource
from motion4d_ros.priors.masks.propagation.mask_cues import own_flow
from motion4d_ros.types import UNKNOWN_LABEL, BoolArray, FloatArray, IntArray

REACH = 5  # frames each way
DECAY = 0.93  # weight of a neighbour per frame of distance
FAR_PX = 3.0  # signed distances end here: a leak has no more say than an outline that is off by a little
MIN_PIXELS = 30  # of a mask that counts as present
OWN_WEIGHT = 5.0  # of a steady source's frame, against at most 8.1 of its neighbours
CONTINUITY = 0.7  # how far trusted flow through a frame outweighs a source that sees no object there
FINE = 0.3  # working pixels about a steady source's outline within which flow is too coarse to judge it
DISTRUST = 20.0  # px of forward-backward error that untrusted flow stands for


class Consensus:
    """Outlines agreed upon, for some frames of a horizon."""

    def __init__(self, horizon: Horizon, tracks: TrackSource) -> None:
        self._frames = horizon.frames
        self._tracks = tracks
        self._links: dict[tuple[int, int], tuple[NDArray[np.float32], BoolArray]] = {}
        self._own: dict[tuple[int, int, int], tuple[NDArray[np.float32], float]] = {}
        self._distances: dict[tuple[int, int], NDArray[np.float32]] = {}

    def carried(self, position: int, labels: Sequence[int]) -> NDArray[np.int32]:
        """(h, w) the objects `labels` at working size, in the frame at `position`; for sources that flicker or leak."""
        self._let_go(position - REACH)
        best = np.zeros(self._frames[position].named_labels.shape, np.float32)
        result = np.zeros(best.shape, np.int32)
        for label in labels:
            distance = self._agreed(position, label)
            if distance is not None:
                wins = distance > best
                result[wins], best[wins] = label, distance[wins]
        return result

    def mended(self, position: int) -> NDArray[np.int32]:
        """(H, W) labels at the input's size of the frame at `position`, for sources that are hardly ever wrong."""
        state = self._frames[position]
        size = state.output_camera.size
        own = resize_labels(state.source_labels(), size)
        votes = {int(value): OWN_WEIGHT * (own == value).astype(np.float32) for value in np.unique(own)}
        for step in (1, -1):
            flow: NDArray[np.float32] = np.zeros((*state.frame.camera.size, 2), np.float32)
            trusted = np.ones(state.frame.camera.size, bool)
            for there in self._toward(position, step):
                link, good = self._link(there - step, there)
                trusted &= warp(good.astype(np.uint8), flow, nearest=True) > 0
                flow = chain(flow, link)
                weight = resize_planes(trusted[..., None].astype(np.float32), size)[..., 0]
                weight = weight * np.float32(DECAY ** abs(there - position))
                theirs = resize_labels(self._frames[there].source_labels(), size)
                theirs = warp(theirs.astype(np.float32), _resized_flow(flow, size), nearest=True).astype(np.int32)
                for value in np.unique(theirs):
                    if value != UNKNOWN_LABEL:
                        ballot = votes.setdefault(int(value), np.zeros(size, np.float32))
                        ballot += np.where(theirs == value, weight, 0)
        values = sorted(votes)
        winners = np.asarray(values, np.int32)[np.stack([votes[value] for value in values]).argmax(0)]
        return np.where(_near_outline(own, FINE * size[1] / state.frame.camera.width), own, winners)

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _toward(self, position: int, step: int) -> range:
        """Positions next to `position`, the nearest first, in the direction `step`."""
        stop = min(len(self._frames), position + REACH + 1) if step > 0 else max(-1, position - REACH - 1)
        return range(position + step, stop, step)

    def _link(self, here: int, there: int) -> tuple[NDArray[np.float32], BoolArray]:
        """(h, w, 2) flow between two neighbouring frames, and where it can be trusted."""
        if (here, there) not in self._links:
            self._links[here, there] = self._tracks.flow(self._frames[here].index, self._frames[there].index)
        return self._links[here, there]

    def _says(self, position: int, label: int) -> bool:
        return int((self._frames[position].named_labels == label).sum()) >= MIN_PIXELS

    def _let_go(self, position: int) -> None:
        """Of what was made of frames before `position`: frames are asked about in order, and images add up."""
        self._own = {key: value for key, value in self._own.items() if key[0] >= position}
        self._distances = {key: value for key, value in self._distances.items() if key[0] >= position}

    def _distance(self, position: int, label: int) -> NDArray[np.float32]:
        """(h, w) signed distance to the outline that the source draws in a frame: its neighbours all ask for it."""
        if (position, label) not in self._distances:
            self._distances[position, label] = signed_distance(self._frames[position].named_labels == label)
        return self._distances[position, label]

    def _agreed(self, position: int, label: int) -> NDArray[np.float32] | None:
        """(h, w) mean signed distance to the object's outline, px, positive inside; None where it is not there.

        A source that misses an object whose pixels can be followed all the same is not quite believed.
        """
        total = np.zeros(self._frames[position].named_labels.shape, np.float32)
        present, absent, followed = 0.0, 0.0, 0.0
        for step in (1, -1):
            flow: NDArray[np.float32] = np.zeros((*total.shape, 2), np.float32)
            trust = 1.0
            for there in self._toward(position, step):
                link, share = self._own_link(there - step, step, label)
                flow, trust = chain(flow, link), min(trust, share)
                weight = DECAY ** abs(there - position)
                if self._says(there, label):
                    weight *= trust**0.5
                    total += weight * warp(self._distance(there, label), flow)
                    present += weight
                    followed = max(followed, trust)
                elif _knows(self._frames[there]):
                    absent += weight * (1.0 - CONTINUITY * trust)
        if self._says(position, label):
            total += self._distance(position, label)
            present += 1.0
        elif _knows(self._frames[position]):
            absent += 1.0 - CONTINUITY * followed
        return total / present if present > absent else None

    def _mask(self, position: int, step: int, label: int, most: int = REACH) -> NDArray[np.float32]:
        """(h, w) in [0, 1] the object as its source shows it, or as carried from at most `most` frames further on."""
        beyond = position + step
        if self._says(position, label) or most == 0 or not 0 <= beyond < len(self._frames):
            return (self._frames[position].named_labels == label).astype(np.float32)
        theirs = self._mask(beyond, step, label, most - 1)
        flow, good = self._link(position, beyond)
        return warp(theirs, inner_flow(flow, good, warp(theirs, flow)))

    def _own_link(self, here: int, step: int, label: int) -> tuple[NDArray[np.float32], float]:
        """(h, w, 2) flow of the object's own inside to the next frame in direction `step`, continued beyond it, and the
        share of the object whose flow is to be trusted.
        """
        key = (here, step, label)
        if key not in self._own:
            flow, good = self._link(here, here + step)
            soft = warp(self._mask(here + step, step, label), flow)
            inside = float(soft.sum())
            share = float((soft * good).sum()) / inside if inside > 0 else 0.0
            self._own[key] = inner_flow(flow, good, soft), share
        return self._own[key]


def inner_flow(flow: NDArray[np.float32], good: BoolArray, soft: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w, 2) the trusted flow inside the object `soft` (h, w), continued beyond it."""
    return own_flow(flow, soft, np.where(good, 0.0, DISTRUST).astype(np.float32))


def _knows(state: FrameState) -> bool:
    """Whether the source had any opinion on the frame."""
    return bool((state.named_labels != UNKNOWN_LABEL).any())


def signed_distance(mask: BoolArray | IntArray) -> NDArray[np.float32]:
    """(h, w) px from the outline, positive inside, at most `FAR_PX`."""
    inside = mask.astype(np.uint8)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, 5) - cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    return np.clip(np.where(inside > 0, distance - 0.5, distance + 0.5), -FAR_PX, FAR_PX).astype(np.float32)


def _near_outline(labels: IntArray, distance_px: float) -> BoolArray:
    """(H, W) pixels at most so far (rounded) from one with another label."""
    reach = round(distance_px)
    if reach < 1:
        return np.zeros(labels.shape, bool)
    values = labels.astype(np.float32)
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    return np.asarray(cv2.dilate(values, kernel) != cv2.erode(values, kernel))


def _resized_flow(flow: FloatArray, size: tuple[int, int]) -> NDArray[np.float32]:
    """(h, w, 2) flow at `size` (height, width), in its pixels."""
    ratio = np.array([size[1] / flow.shape[1], size[0] / flow.shape[0]], np.float32)
    return resize_planes(np.asarray(flow, np.float32), size) * ratio
