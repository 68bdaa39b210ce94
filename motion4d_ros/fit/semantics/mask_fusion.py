"""One posterior of the labels of every frame: the source's masks of that frame and of its neighbours, and the scene.

Each mask of the 2D source is carried along the pixels' own flow to the frame that is judged; the rendered scene is one
rater more. How far each of them is believed is estimated, not set (`label_posterior`). The posterior is then smoothed
along the edges of the picture, and its mode is what is published, at the input's size.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import MasksConfig
from motion4d_ros.fit.optimisation.trainer import View
from motion4d_ros.fit.semantics.label_planes import Told, along_edges, planes, resized
from motion4d_ros.fit.semantics.label_posterior import CONCLUDED, Evidence, Rater, Reliability, estimate, judge
from motion4d_ros.fit.semantics.native_opinions import SILENT, Link, Rendered, leads_to_label, opinions, packed
from motion4d_ros.fit.semantics.sparse_labels import LabelValues, Said
from motion4d_ros.geometry.image_warping import sample
from motion4d_ros.geometry.label_images import labels_in, resize_labels
from motion4d_ros.priors.interfaces import FlowSource
from motion4d_ros.types import BACKGROUND, UNKNOWN_LABEL, BoolArray, IntArray

RETURN_PX = 1.5  # forward-backward error of the flow at which its worth has fallen to 1/e
LIKENESS = 20.0  # grey levels by which a pixel may change its look before its past says little about it
SMOOTH_PX = 1.0  # pictures are compared at this scale: flow is no more exact
CELL_PX = 4  # side of the cells that are looked at to find out which pixels anybody takes for an object
SURE = 0.8  # probability from which a label is used for geometry: one wrong point costs more than five right ones
SHOWN = 0.02  # rendered share from which the scene takes a pixel for an object


class MaskedFrame(Protocol):
    """A picture and what a 2D source says about it."""

    @property
    def index(self) -> int:
        """Frame index, by which its flow is known."""

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of the labels that are concluded."""

    @property
    def concluded(self) -> IntArray | None:
        """(H, W) labels that were concluded before; None if there are none."""

    def picture(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """(H, W, 3) RGB at `size` (height, width)."""

    def named_source(self) -> IntArray:
        """(H, W) what the source says, `UNKNOWN_LABEL` where it says nothing; any size."""


@dataclass(frozen=True)
class Fused:
    """What is concluded about one frame."""

    labels: NDArray[np.int32]  # (H, W) the mode of the posterior
    confidence: NDArray[np.float32]  # (H, W) its probability


@dataclass(frozen=True)
class SceneLabels:
    """What the scene shows in one frame."""

    rendered: NDArray[np.float32]  # (h, w, C), in [0, 1]
    names: NDArray[np.int64]  # (C,) the object of every channel
    alpha: NDArray[np.float32] | None = None  # (h, w) how much of it there is; what is missing is background

    @property
    def probability(self) -> NDArray[np.float32]:
        """(h, w, C); found anew, as it takes memory for every label."""
        if self.alpha is None:
            return self.rendered
        found = self.rendered.copy()
        found[..., 0] += 1 - self.alpha
        return found


class MaskFusion:
    """Fuses the masks of frames, and remembers what its raters were worth."""

    def __init__(self, config: MasksConfig, *, follow_edges: bool = True) -> None:
        """Without `follow_edges` the posterior is left as it is."""
        self._follow_edges = follow_edges
        self.reach = config.fusion_reach  # frames each way that are raters
        self._width = config.fusion_width
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._reliability = Reliability()
        self._names: list[int] = [BACKGROUND]

    def size_for(self, output: tuple[int, int]) -> tuple[int, int]:
        """(height, width) at which labels of images of size `output` are fused."""
        shrink = min(1.0, self._width / output[1]) if self._width else 1.0
        return max(1, round(output[0] * shrink)), max(1, round(output[1] * shrink))

    def fuse(
        self,
        frames: Sequence[MaskedFrame],
        flows: FlowSource,
        positions: Sequence[int],
        scene: Mapping[int, SceneLabels] | None = None,
    ) -> dict[int, Fused]:
        """The conclusion about the frames at `positions`, by position. Consecutive `frames` are each other's raters;
        `flows` may be of another size than the images. `scene` is what is rendered of some.
        """
        raters, told = self._posterior(frames, flows, positions, scene or {})
        return {p: raters.conclude(p, told[p], edges=self._follow_edges) for p in positions}

    def sure(
        self,
        frames: Sequence[MaskedFrame],
        flows: FlowSource,
        positions: Sequence[int],
        scene: Mapping[int, SceneLabels] | None = None,
    ) -> dict[int, NDArray[np.int32]]:
        """As :meth:`fuse`, for geometry: (h, w) labels before they follow edges, at the size at which they are fused,
        `UNKNOWN_LABEL` where they are not sure.
        """
        raters, told = self._posterior(frames, flows, positions, scene or {})
        return {p: raters.sure(told[p]) for p in positions}

    def _posterior(
        self,
        frames: Sequence[MaskedFrame],
        flows: FlowSource,
        positions: Sequence[int],
        shown: Mapping[int, SceneLabels],
    ) -> tuple[_Raters, dict[int, Told]]:
        """The raters of frames, and the posterior by position."""
        raters = _Raters(frames, flows, self.reach, self.size_for(frames[-1].output_size))
        near = range(max(0, min(positions) - self.reach), min(len(frames), max(positions) + self.reach + 1))
        self._names = raters.names = _names((raters.labels(k) for k in near), shown.values())
        raters.forget()
        judged = {}
        for position in sorted(positions):
            judged[position] = raters.collect(position, shown.get(position))
            raters.forget(before=position - self.reach)
        raters.forget()
        posterior, self._reliability = estimate({p: one.evidence for p, one in judged.items()}, len(self._names))
        return raters, {p: judged.pop(p).with_posterior(posterior.pop(p)) for p in positions}

    def fuse_newest(self, frames: Sequence[MaskedFrame], flows: FlowSource) -> Fused:
        """The conclusion about the last of `frames` by itself and those before it, with the worth that raters had."""
        position = len(frames) - 1
        raters = _Raters(frames, flows, self.reach, self.size_for(frames[-1].output_size), past=True)
        names = _names((raters.labels(k) for k in range(max(0, position - self.reach), len(frames))), [])
        raters.names = names
        judged = raters.collect(position, None)
        reliability = self._reliability.relabelled(self._names, names)
        if reliability.pooled is None:
            posterior = estimate({0: judged.evidence}, len(names))[0][0]
        else:
            posterior = judge(judged.evidence, reliability)
        return raters.conclude(position, judged.with_posterior(posterior), edges=self._follow_edges)

    def forget(self, label: int) -> None:
        """Drops what is known about raters of an object."""
        names = [name for name in self._names if name != label]
        self._reliability, self._names = self._reliability.relabelled(self._names, names), names


def scene_labels(channel_of: Mapping[int, int], view: View) -> SceneLabels:
    """What the scene shows in one frame, as a rater of its labels; where nothing is, it shows background."""
    names = channel_names(channel_of, view.labels.shape[-1])
    return SceneLabels(view.labels.cpu().numpy(), names, view.output.alpha.cpu().numpy())


def channel_names(channel_of: Mapping[int, int], channels: int) -> NDArray[np.int64]:
    """(C,) object id of every semantic channel."""
    names = np.zeros(channels, np.int64)
    for label, channel in channel_of.items():
        names[channel] = label
    return names


def _names(images: Iterable[IntArray], shown: Iterable[SceneLabels]) -> list[int]:
    """The labels that some image (H, W), or the scene, shows; background first."""
    found = {BACKGROUND}
    for image in images:
        found.update(labels_in(image).tolist())
    for one in shown:
        found.update(one.names.tolist())
    return sorted(found - {UNKNOWN_LABEL})


@dataclass(frozen=True)
class _Judged:
    """The (n,) flat pixels of a frame that anybody takes for an object."""

    pixels: NDArray[np.intp]
    shares: LabelValues  # of what is said about them
    disputed: NDArray[np.bool_]  # (n,)
    evidence: Evidence  # about those that are disputed

    def with_posterior(self, posterior: LabelValues) -> Told:
        """The shares, and the posterior of the pixels that are disputed."""
        return Told(self.pixels, self.shares.replaced(self.disputed, posterior))


class _Raters:
    """Gathers what frames and the scene say about the pixels of frames."""

    def __init__(
        self,
        frames: Sequence[MaskedFrame],
        flows: FlowSource,
        reach: int,
        size: tuple[int, int],
        *,
        past: bool = False,
    ) -> None:
        """With `past`, frames that were concluded speak by that, and are silent about objects that came since."""
        self._frames, self._flows, self._reach, self._size, self._past = frames, flows, reach, size, past
        self.names: list[int] = [BACKGROUND]
        self._labels: dict[int, IntArray] = {}
        self._by_conclusion: set[int] = set()  # positions of frames that speak by what was concluded
        self._numbered: dict[int, NDArray[np.int32]] = {}
        self._nearby: dict[int, NDArray[np.int32]] = {}
        self._looks: dict[int, NDArray[np.uint32]] = {}
        self._returns: dict[tuple[int, int], NDArray[np.float32]] = {}

    def labels(self, position: int) -> IntArray:
        """(H, W) what a frame says."""
        if position not in self._labels:
            before_newest = position < len(self._frames) - 1
            said = self._frames[position].concluded if self._past and before_newest else None
            if said is None:
                said = self._frames[position].named_source()
            else:
                self._by_conclusion.add(position)
            self._labels[position] = resize_labels(said, self._size)
        return self._labels[position]

    def forget(self, before: int | None = None) -> None:
        """Drops what is kept of frames, of those `before` a position or of all; it is found again when asked for."""
        for kept in (self._labels, self._numbered, self._nearby, self._looks):
            for position in [position for position in kept if before is None or position < before]:
                del kept[position]
        for link in [link for link in self._returns if before is None or min(link) < before]:
            del self._returns[link]

    def collect(self, position: int, scene: SceneLabels | None) -> _Judged:
        """What is said about the pixels of a frame that anybody takes for an object."""
        shown = None if scene is None else Rendered(scene.probability, self._channel_numbers(scene))
        pixels = self._seen(position, shown)
        links = self._links(position)
        own = (self._look(position), self._numbers(position))
        chains = [
            Link(a == position, self._flow(a, there), self._numbers(there), self._look(there), self._return(a, there))
            for a, there in links
        ]
        said = opinions(pixels, *own, chains, len(self.names), LIKENESS, shown)
        raters = [Rater(self._rater(k), abs(k - position)) for k in (position, *(there for _, there in links))]
        if self._past:
            said = _silenced(said)
        evidence = Evidence(raters, said, scene is not None)
        told = evidence.shares()
        evidence, disputed = evidence.split(told)
        return _Judged(pixels, told, disputed, evidence)

    def conclude(self, position: int, told: Told, *, edges: bool) -> Fused:
        """The posterior -> labels of the whole frame, background elsewhere; smoothed along `edges` of the picture."""
        frame = self._frames[position]
        best = np.zeros(frame.output_size, np.int32)
        if len(self.names) == 1 or len(told.pixels) == 0:
            return Fused(best, np.ones(frame.output_size, np.float32))
        follow = along_edges(frame.picture(self._size), told.pixels) if edges else None
        background: NDArray[np.float32] = np.ones(self._size, np.float32)
        most: NDArray[np.float32] = np.full(frame.output_size, -np.inf, np.float32)
        for number, pixels, plane in planes(told, self._size):
            if follow is not None:
                follow(plane, pixels)
            background -= plane
            plane = resized(plane, frame.output_size)
            is_larger = plane > most
            best[is_larger] = self.names[number]
            np.maximum(most, plane, out=most)
        background = resized(background, frame.output_size)
        best[background >= most] = BACKGROUND
        return Fused(best, np.clip(np.maximum(most, background), 0.0, 1.0))

    def sure(self, told: Told) -> NDArray[np.int32]:
        """(H, W) labels by the posterior, UNKNOWN_LABEL where it is less than `SURE`."""
        result = np.zeros(self._size, np.int32)
        if len(self.names) > 1:
            labels = np.asarray(self.names, np.int32)[told.values.best()]
            result.reshape(-1)[told.pixels] = np.where(told.values.largest() >= SURE, labels, UNKNOWN_LABEL)
        return result

    def _rater(self, position: int) -> int:
        self.labels(position)
        return CONCLUDED if position in self._by_conclusion else self._frames[position].index

    def _seen(self, position: int, scene: Rendered | None) -> NDArray[np.intp]:
        """(n,) flat pixels of a frame in cells about which anything but background is said."""
        height, width = self._size
        rows, columns = np.mgrid[0 : height + CELL_PX : CELL_PX, 0 : width + CELL_PX : CELL_PX]
        uv = np.stack([columns.ravel(), rows.ravel()], 1).astype(np.float32)
        uv = np.minimum(uv, np.array([width - 1, height - 1], np.float32))
        flat = uv[:, 1].astype(np.intp) * width + uv[:, 0].astype(np.intp)
        busy = self._near(position).reshape(-1)[flat] > 0
        links = self._links(position)
        near = [Link(a == position, self._flow(a, there), self._near(there)) for a, there in links]
        busy |= leads_to_label(flat, self._size, near)
        if scene is not None:
            shown = 1 - scene.share[..., scene.numbers == 0].sum(-1)
            busy |= sample(shown, _scaled(uv, self._size, shown.shape)) > SHOWN
        cells = busy.reshape(rows.shape).astype(np.uint8)
        pixels = np.repeat(np.repeat(cv2.dilate(cells, np.ones((3, 3), np.uint8)), CELL_PX, 0), CELL_PX, 1)
        return np.flatnonzero(pixels[:height, :width])

    def _near(self, position: int) -> NDArray[np.int32]:
        """(H, W) whether any object is within a cell's reach."""
        if position not in self._nearby:
            square = np.ones((2 * CELL_PX + 1, 2 * CELL_PX + 1), np.uint8)
            objects = (self.labels(position) > 0).astype(np.uint8)
            self._nearby[position] = np.asarray(cv2.dilate(objects, square), np.int32)
        return self._nearby[position]

    def _links(self, position: int) -> list[tuple[int, int]]:
        """Steps of the chains from a frame to its neighbours, forwards and back: from one position to the next."""
        ways = [range(position, position + step * (self._reach + 1), step) for step in (1, -1)]
        steps = [pair for way in ways for pair in itertools.pairwise(way)]
        return [(a, b) for a, b in steps if 0 <= b < len(self._frames)]

    def _flow(self, a: int, b: int) -> NDArray[np.float32]:
        return self._flows.between(self._frames[a].index, self._frames[b].index)

    def _return(self, a: int, b: int) -> NDArray[np.float32]:
        """(h, w) worth of the flow between the frames at two positions by how closely it returns."""
        if (a, b) not in self._returns:
            error = self._flows.error(self._frames[a].index, self._frames[b].index)
            ratio = np.float32(error.shape[1] / self._size[1])
            self._returns[a, b] = np.exp(-np.square(error / (ratio * np.float32(RETURN_PX))))
        return self._returns[a, b]

    def _look(self, position: int) -> NDArray[np.uint32]:
        if position not in self._looks:
            picture = self._frames[position].picture(self._size)
            self._looks[position] = packed(np.asarray(cv2.GaussianBlur(picture, (0, 0), SMOOTH_PX), np.uint8))
        return self._looks[position]

    def _numbers(self, position: int) -> NDArray[np.int32]:
        """(H, W) what a frame says: places among the names, `SILENT` where it says nothing."""
        if position not in self._numbered:
            labels = self.labels(position)
            numbers = np.full(labels.shape, SILENT, np.int32)
            for number, name in enumerate(self.names):
                numbers[labels == name] = number
            self._numbered[position] = numbers
        return self._numbered[position]

    def _channel_numbers(self, scene: SceneLabels) -> NDArray[np.int32]:
        """(C,) places of the scene's channels among the names."""
        return np.searchsorted(self.names, scene.names).astype(np.int32)


def _silenced(said: Said) -> Said:
    """Frames of the past know nothing of an object that only the newest one shows: where it does, they are silent."""
    is_past = said.rater > 0
    known = np.isin(np.arange(said.labels), said.named[is_past])
    if said.raters == 1 or known.all():
        return said
    is_fresh: BoolArray = np.zeros(said.pixels, bool)
    pixel = said.pixel_of()
    is_fresh[pixel[~is_past & ~known[said.named]]] = True
    return said.without(is_past & is_fresh[pixel])


def _scaled(uv: NDArray[np.float32], size: tuple[int, int], to: tuple[int, ...]) -> NDArray[np.float32]:
    """(n, 2) pixels of an image of `size` (height, width) in the same image at size `to`."""
    if size == tuple(to):
        return uv
    ratio = np.array([to[1] / size[1], to[0] / size[0]], np.float32)
    return (uv + np.float32(0.5)) * ratio - np.float32(0.5)
