"""One posterior of the labels of every frame, from its source's masks and those of its neighbours.

Each mask is carried along the flow to the frame that is judged. How far each of them is believed is estimated, not set
(`label_posterior`). The posterior is then smoothed along the edges of the picture; its mode is the answer.

This is how masks are to be fused in the engine, which still votes on them (`pixel_votes`, `consensus`);
`python -m motion4d_ros.evaluation.mask_fusion` measures it on masks alone, without any 3D.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.fit.semantics.guided_filter import GuidedFilter
from motion4d_ros.fit.semantics.label_posterior import Evidence, Opinion, estimate
from motion4d_ros.geometry.image_warping import sample, warp
from motion4d_ros.priors.flow.optical_flow import FlowCache, chain
from motion4d_ros.types import BACKGROUND, UNKNOWN_LABEL, IntArray

RETURN_PX = 1.5  # forward-backward error of the flow at which its worth has fallen to 1/e
LIKENESS = 20.0  # grey levels by which a pixel may change its look before its past says little about it
SMOOTH_PX = 1.0  # pictures are compared at this scale: flow is no more exact
AROUND_PX = 3  # margin about whatever anybody takes for an object, in which pixels are judged
RADIUS_SHARE = 0.01  # of the image's diagonal: half the side of the windows in which the posterior follows edges
MOST_PLANES = 4  # OpenCV reads so many channels at once


@dataclass(frozen=True)
class MaskedFrame:
    """A picture and what a 2D source says about it."""

    index: int
    picture: NDArray[np.uint8]  # (H, W, 3)
    labels: IntArray  # (H, W) object ids, UNKNOWN_LABEL where nothing is said


@dataclass(frozen=True)
class Fused:
    """What is concluded about one frame."""

    labels: NDArray[np.int32]  # (H, W) the mode of the posterior
    confidence: NDArray[np.float32]  # (H, W) its probability


def fuse(frames: Sequence[MaskedFrame], flows: FlowCache, reach: int, *, smooth: bool = True) -> list[Fused]:
    """The conclusion about consecutive frames of one size, whose neighbours up to `reach` frames away are raters.

    `flows` holds the frames at their full size. Without `smooth` the posterior is left as it is.
    """
    found = set().union(*(np.unique(frame.labels).tolist() for frame in frames))
    names = sorted({BACKGROUND, *found} - {UNKNOWN_LABEL})
    collect = _Collector(frames, flows, reach, names)
    pixels, evidence = {}, {}
    for position in range(len(frames)):
        pixels[position], evidence[position] = collect(position)
    posterior, _ = estimate(evidence, len(names))
    return [_mode(frames[p].picture, names, pixels[p], posterior[p], smooth=smooth) for p in range(len(frames))]


class _Collector:
    """Gathers what is said about the pixels of frames."""

    def __init__(self, frames: Sequence[MaskedFrame], flows: FlowCache, reach: int, names: Sequence[int]) -> None:
        self._frames, self._flows, self._reach = frames, flows, reach
        self._planes = [np.stack([frame.labels == name for name in names], -1).astype(np.float32) for frame in frames]
        self._looks = [cv2.GaussianBlur(frame.picture, (0, 0), SMOOTH_PX) for frame in frames]

    def __call__(self, position: int) -> tuple[NDArray[np.intp], Evidence]:
        """(n,) flat pixels of a frame about which anything but background is said, and what is said about them."""
        links = list(self._links(position))
        busy = self._frames[position].labels > 0
        for there, flow, _ in links:
            busy |= warp(self._frames[there].labels > 0, flow, nearest=True)
        side = 2 * AROUND_PX + 1
        pixels = np.flatnonzero(cv2.dilate(busy.astype(np.uint8), np.ones((side, side), np.uint8)))
        here = np.stack([pixels % busy.shape[1], pixels // busy.shape[1]], 1).astype(np.float32)
        opinions = [Opinion(position, 0, self._planes[position].reshape(-1, self._planes[position].shape[-1])[pixels])]
        for there, flow, worth in links:
            said = _at(self._planes[there], here + flow.reshape(-1, 2)[pixels]) * worth.reshape(-1, 1)[pixels]
            opinions.append(Opinion(there, abs(there - position), said))
        return pixels, Evidence(opinions)

    def _links(self, position: int) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.float32]]]:
        """Neighbours of a frame, the (H, W, 2) flow to each and the (H, W) worth of what it says along it."""
        look = self._looks[position]
        for step in (1, -1):
            flow: NDArray[np.float32] = np.zeros((*look.shape[:2], 2), np.float32)
            worth: NDArray[np.float32] = np.ones(look.shape[:2], np.float32)
            for count in range(1, self._reach + 1):
                there = position + step * count
                if not 0 <= there < len(self._frames):
                    break
                a, b = self._frames[there - step].index, self._frames[there].index
                returns = np.exp(-np.square(self._flows.error(a, b) / np.float32(RETURN_PX)))
                worth = worth * warp(returns, flow)
                flow = chain(flow, self._flows.between(a, b))
                difference = cv2.absdiff(warp(self._looks[there], flow), look)
                unlike = cv2.transform(difference, np.full((1, 3), 1 / 3, np.float32)).astype(np.float32)
                likeness = np.exp(-np.square(unlike / np.float32(LIKENESS)))
                yield there, flow, np.asarray(worth * likeness, np.float32)


def _mode(
    picture: NDArray[np.uint8],
    names: Sequence[int],
    pixels: NDArray[np.intp],
    posterior: NDArray[np.float32],
    *,
    smooth: bool,
) -> Fused:
    """The posterior (n, K) of some pixels -> labels of the whole frame, background elsewhere."""
    height, width = picture.shape[:2]
    flat = np.zeros((height * width, len(names)), np.float32)
    flat[:, 0] = 1.0
    flat[pixels] = posterior
    planes: NDArray[np.float32] = flat.reshape(height, width, len(names))
    if smooth and len(pixels) and len(names) > 1:
        radius = max(1, round(RADIUS_SHARE * float(np.hypot(height, width))))
        rows, columns = np.divmod(pixels, width)
        box = tuple(slice(max(0, int(k.min()) - 2 * radius), int(k.max()) + 2 * radius + 1) for k in (rows, columns))
        along_edges = GuidedFilter(np.ascontiguousarray(picture[box]), radius)
        for k in range(1, len(names)):
            planes[box][..., k] = along_edges(np.ascontiguousarray(planes[box][..., k]))
        planes[..., 0] = 1.0 - planes[..., 1:].sum(-1)
    best = planes.argmax(-1)
    confidence = np.take_along_axis(planes, best[..., None], -1)[..., 0]
    return Fused(np.asarray(names, np.int32)[best], np.clip(confidence, 0.0, 1.0))


def _at(planes: NDArray[np.float32], uv: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, C) values of (H, W, C) planes at (n, 2) pixels, bilinear, the border repeated."""
    parts = [planes[..., k : k + MOST_PLANES] for k in range(0, planes.shape[-1], MOST_PLANES)]
    return np.concatenate(
        [sample(np.ascontiguousarray(part), uv).reshape(len(uv), part.shape[-1]) for part in parts], 1
    )
