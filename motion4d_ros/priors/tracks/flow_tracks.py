"""Point tracks from chained dense optical flow (`tracks.source: flow`).

Neighbouring frames are linked by DIS flow; a chain ends where flow there and back disagree, where it leaves the image
or where the patch no longer looks like the one it started from. New chains start wherever none is near, and a whole
fresh grid every few frames, traced backwards too: many short, fresh chains carry less drift than few long ones, and
whoever fits them together (bundle adjustment) gains from both ends of every chain.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.geometry.image_warping import sample
from motion4d_ros.priors.flow.guided_flow import guided
from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.types import BoolArray, FloatArray, Frame, IntArray, PointTracks

STEP_NOISE_PX = 0.12  # error that every link adds, one standard deviation
START_NOISE_PX = 0.15  # error of the first position (interpolation, aliasing)
DISAGREEMENT_SHARE = 0.35  # share of the forward-backward disagreement that counts as noise of the link
CUT_SHARE = 0.25  # of the image where flow agrees with its reverse; with less, two frames show different things
PATCH_OFFSETS_PX = np.array([(x, y) for y in (-3, 0, 3) for x in (-3, 0, 3)], np.float32)


@dataclass
class _Chains:
    """Chains over the kept frames; columns are frames, oldest first."""

    ids: NDArray[np.int64]  # (N,)
    uv: NDArray[np.float32]  # (N, T, 2)
    visible: BoolArray  # (N, T)
    sigma: NDArray[np.float32]  # (N, T)
    query: NDArray[np.int64]  # (N,)

    @staticmethod
    def empty(length: int) -> _Chains:
        return _Chains(
            np.zeros(0, np.int64),
            np.zeros((0, length, 2), np.float32),
            np.zeros((0, length), bool),
            np.zeros((0, length), np.float32),
            np.zeros(0, np.int64),
        )

    def select(self, rows: IntArray | BoolArray, columns: slice = slice(None)) -> _Chains:
        return _Chains(
            self.ids[rows],
            self.uv[rows][:, columns],
            self.visible[rows][:, columns],
            self.sigma[rows][:, columns],
            self.query[rows],
        )

    def joined(self, other: _Chains) -> _Chains:
        return _Chains(
            np.concatenate([self.ids, other.ids]),
            np.concatenate([self.uv, other.uv]),
            np.concatenate([self.visible, other.visible]),
            np.concatenate([self.sigma, other.sigma]),
            np.concatenate([self.query, other.query]),
        )

    def with_blank_column(self) -> _Chains:
        count = len(self.ids)
        return _Chains(
            self.ids,
            np.concatenate([self.uv, np.full((count, 1, 2), np.nan, np.float32)], 1),
            np.concatenate([self.visible, np.zeros((count, 1), bool)], 1),
            np.concatenate([self.sigma, np.full((count, 1), np.inf, np.float32)], 1),
            self.query,
        )


class FlowTracks:
    """Chains of DIS flow behind the `TrackSource` Protocol."""

    def __init__(self, config: Config, flows: FlowCache | None = None) -> None:
        self.config = config.tracks
        self.horizon = config.window.horizon + config.window.length
        self.flows = flows or FlowCache(max_side=0, keep=self.horizon + 1)
        self._next_id = 0
        self._clear()

    def _clear(self) -> None:
        self._indices: list[int] = []
        self._labels: IntArray | None = None  # of the newest frame
        self._chains = _Chains.empty(0)

    def push(self, frame: Frame, masks: IntArray | None) -> None:
        """Adds the next frame; chains are spaced twice as densely where `masks` (H, W) are not background."""
        self.flows.push(frame)
        if self._indices and (frame.index != self._indices[-1] + 1 or not self.flows.has(self._indices[-1])):
            self._clear()  # a gap or a new image size: nothing to link to
            self.flows.push(frame)
        self._chains = self._chains.with_blank_column()
        self._indices.append(frame.index)
        if len(self._indices) > 1:
            self._guide(self._indices[-2], self._indices[-1], masks)
            alive = np.flatnonzero(self._chains.visible[:, -2])
            self._follow(self._chains, alive, len(self._indices) - 2, len(self._indices) - 1)
        self._start(frame.index, masks)
        self._labels = masks

    def tracks(self, first_index: int, last_index: int) -> PointTracks:
        """All chains with at least two visible positions between the frame indices, inclusive."""
        columns = slice(self._indices.index(first_index), self._indices.index(last_index) + 1)
        rows = np.flatnonzero(self._chains.visible[:, columns].sum(1) >= 2)
        return _as_tracks(self._chains.select(rows, columns), first_index)

    def query(self, points_tyx: FloatArray) -> PointTracks:
        """Chains from the given (Q, 3) points (frame index, y, x), forwards and backwards over all kept frames."""
        chains = self._seed(points_tyx)
        self._trace(chains)
        return _as_tracks(chains, self._indices[0])

    def flow(self, from_index: int, to_index: int) -> tuple[NDArray[np.float32], BoolArray]:
        """(H, W, 2) flow between two kept frames and (H, W) where it agrees with its reverse."""
        error = self.flows.error(from_index, to_index)
        return self.flows.between(from_index, to_index), error < self.config.forward_backward

    def forget_before(self, index: int) -> None:
        """Drops frames older than `index`, and the chains that lived only there."""
        drop = sum(i < index for i in self._indices)
        if drop == 0:
            return
        self._indices = self._indices[drop:]
        kept = self._chains.select(np.arange(len(self._chains.ids)), slice(drop, None))
        self._chains = kept.select(np.flatnonzero(kept.visible.any(1)))
        self.flows.forget_before(index)

    def reset(self) -> None:
        """Forgets everything but the counter of ids."""
        self._clear()
        self.flows.reset()

    def _guide(self, a: int, b: int, labels: IntArray | None) -> None:
        """Helps the flow between two neighbours, both ways, on objects that move fast."""
        before = self._labels
        if before is None or labels is None or before.shape != self.flows.size or labels.shape != self.flows.size:
            return
        for source, target, here, there in ((a, b, before, labels), (b, a, labels, before)):
            gray, other = self.flows.gray(source), self.flows.gray(target)
            self.flows.replace(source, target, guided(self.flows.between(source, target), gray, other, here, there))

    # -- chains ----------------------------------------------------------------------------------------------------

    def _seed(self, points_tyx: FloatArray) -> _Chains:
        """Chains of one position each."""
        count, length = len(points_tyx), len(self._indices)
        chains = _Chains(
            np.arange(self._next_id, self._next_id + count),
            np.full((count, length, 2), np.nan, np.float32),
            np.zeros((count, length), bool),
            np.full((count, length), np.inf, np.float32),
            points_tyx[:, 0].astype(np.int64),
        )
        self._next_id += count
        column = chains.query - self._indices[0]
        rows = np.arange(count)
        chains.uv[rows, column] = points_tyx[:, :0:-1]
        chains.visible[rows, column] = True
        chains.sigma[rows, column] = START_NOISE_PX
        return chains

    def _trace(self, chains: _Chains) -> None:
        """Follows every chain from its only position to both ends of the kept frames."""
        column = chains.query - self._indices[0]
        for step in (1, -1):
            span = range(len(self._indices) - 1) if step == 1 else range(len(self._indices) - 1, 0, -1)
            for at in span:
                ready = chains.visible[:, at] & ((column <= at) if step == 1 else (column >= at))
                self._follow(chains, np.flatnonzero(ready), at, at + step)

    def _follow(self, chains: _Chains, rows: IntArray, source: int, target: int) -> None:
        """Moves the chains `rows` from column `source` to its neighbour `target`, in place."""
        if len(rows) == 0:
            return
        a, b = self._indices[source], self._indices[target]
        if (self.flows.error(a, b) < self.config.forward_backward).mean() < CUT_SHARE:
            return  # a cut: what still seems to agree does so by chance
        start = chains.uv[rows, source]
        moved = start + sample(self.flows.between(a, b), start)
        back = moved + sample(self.flows.between(b, a), moved)
        error = np.linalg.norm(back - start, axis=1)
        height, width = self.flows.size
        inside = (moved >= 0).all(1) & (moved[:, 0] <= width - 1) & (moved[:, 1] <= height - 1)
        good = inside & (error < self.config.forward_backward) & self._looks_alike(a, start, b, moved)
        rows, moved, error = rows[good], moved[good], error[good]
        chains.uv[rows, target] = moved
        chains.visible[rows, target] = True
        step = STEP_NOISE_PX**2 + (DISAGREEMENT_SHARE * error) ** 2
        chains.sigma[rows, target] = np.sqrt(chains.sigma[rows, source] ** 2 + step)

    def _looks_alike(self, a: int, uv_a: FloatArray, b: int, uv_b: FloatArray) -> BoolArray:
        """Whether small patches agree up to a change of brightness: catches flow that is consistent but wrong."""
        patches = []
        for index, uv in ((a, uv_a), (b, uv_b)):
            around = (uv[:, None, :] + PATCH_OFFSETS_PX[None]).reshape(-1, 2)
            values = sample(self.flows.gray(index), around).reshape(len(uv), -1).astype(np.float32)
            patches.append(values - values.mean(1, keepdims=True))
        difference = np.abs(patches[0] - patches[1]).mean(1)
        contrast = np.maximum(patches[0].std(1), patches[1].std(1))
        return difference < 12.0 + self.config.patch_difference * contrast

    def _start(self, index: int, masks: IntArray | None) -> None:
        """New chains on the newest frame where no living one is near; everywhere on every `restart_every`-th frame."""
        room = self.config.max_tracks - int(self._chains.visible[:, -1].sum())
        if room <= 0:
            return
        height, width = self.flows.size
        taken = np.zeros((height, width), np.uint8)
        fresh = len(self._indices) == 1 or index % self.config.restart_every == 0
        if not fresh:
            alive = self._chains.uv[self._chains.visible[:, -1], -1]
            column, row = np.rint(alive).astype(int).T
            taken[row, column] = 1
        spacing = self.config.spacing
        dense = max(2, spacing // 2)
        free = cv2.dilate(taken, np.ones((spacing + 1,) * 2, np.uint8)) == 0
        free_dense = cv2.dilate(taken, np.ones((dense + 1,) * 2, np.uint8)) == 0
        on_object = np.zeros((height, width), bool) if masks is None else masks != 0
        points = []
        for step, allowed in ((spacing, free & ~on_object), (dense, free_dense & on_object)):
            y, x = np.mgrid[step // 2 : height : step, step // 2 : width : step].reshape(2, -1)
            chosen = allowed[y, x]
            points.append(np.stack([np.full(chosen.sum(), index), y[chosen], x[chosen]], 1))
        seeds = np.concatenate(points).astype(np.float64)
        if len(seeds) > room:
            seeds = seeds[np.linspace(0, len(seeds) - 1, room).astype(int)]
        chains = self._seed(seeds)
        if fresh:
            self._trace(chains)  # elsewhere, what is new has just come into view: nothing behind it
        self._chains = self._chains.joined(chains)


def _as_tracks(chains: _Chains, first_index: int) -> PointTracks:
    return PointTracks(chains.ids, chains.uv, chains.visible, chains.sigma, chains.query, first_index)
