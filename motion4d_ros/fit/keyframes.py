"""Keyframes and the points picked on them, measured again in every frame within reach (see `retrack`)."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.fit.breath import Breath
from motion4d_ros.fit.horizon import FrameState, Horizon
from motion4d_ros.fit.points import PointTable
from motion4d_ros.fit.retrack import View, measure
from motion4d_ros.types import BoolArray, FloatArray

Motions = Callable[[int, int], dict[int, FloatArray]]
"""(from frame index, to frame index) -> rigid motion (4, 4) of every body, by label."""

SEED_SIGMA_PX = 0.15


@dataclass
class _Keyframe:
    index: int
    ids: NDArray[np.int64]  # (M,)
    uv_px: NDArray[np.float32]  # (M, 2)
    found: dict[int, tuple[NDArray[np.float32], BoolArray, NDArray[np.float32]]] = field(default_factory=dict)
    """frame index -> positions (M, 2), seen (M,), standard deviation (M,)"""


class Keyframes:
    """A keyframe every few frames; each is linked once to every frame within `reach`."""

    def __init__(self, spacing: int, reach: int, breath: Breath | None = None) -> None:
        self.spacing = spacing
        self.reach = reach
        self._breath = breath or Breath()
        self._keyframes: list[_Keyframe] = []
        self._next_id = 1 << 40  # far from the ids of chains

    @property
    def count(self) -> int:
        """Number of keyframes."""
        return len(self._keyframes)

    def forget_before(self, index: int) -> None:
        """Drops keyframes and measurements older than frame `index`."""
        self._keyframes = [keyframe for keyframe in self._keyframes if keyframe.index >= index]
        for keyframe in self._keyframes:
            for old in [k for k in keyframe.found if k < index]:
                del keyframe.found[old]

    def add(self, state: FrameState) -> None:
        """Picks points on a grid: twice as dense on objects."""
        height, width = state.labels.shape
        picked = []
        for step, on_object in ((self.spacing, False), (max(2, self.spacing // 2), True)):
            y, x = np.mgrid[step // 2 : height : step, step // 2 : width : step].reshape(2, -1)
            keep = ((state.labels[y, x] > 0) == on_object) & np.isfinite(state.depth_m[y, x])
            picked.append(np.stack([x[keep], y[keep]], 1))
        uv = np.concatenate(picked).astype(np.float32)
        ids = np.arange(self._next_id, self._next_id + len(uv))
        self._next_id += len(uv)
        keyframe = _Keyframe(state.index, ids, uv)
        seen = np.ones(len(uv), bool)
        keyframe.found[state.index] = (uv, seen, np.full(len(uv), SEED_SIGMA_PX, np.float32))
        self._keyframes.append(keyframe)

    def best_for(self, label: int, horizon: Horizon, before: int, most: int = 3) -> list[int]:
        """Indices of the keyframes older than `before` that show most of an object, best first."""
        areas = {
            keyframe.index: int((horizon.get(keyframe.index).labels == label).sum())
            for keyframe in self._keyframes
            if keyframe.index < before
        }
        return sorted((k for k, area in areas.items() if area > 0), key=lambda k: -areas[k])[:most]

    def unlink(self, before: int, frames: Set[int]) -> None:
        """Forgets what keyframes older than `before` measured in `frames`: it is to be measured again."""
        for keyframe in self._keyframes:
            if keyframe.index < before:
                for index in frames & keyframe.found.keys():
                    del keyframe.found[index]

    def start_again(self, frames: Set[int], horizon: Horizon) -> None:
        """Forgets what was measured in `frames`, whose labels have changed; keyframes among them are picked anew."""
        stale = [keyframe.index for keyframe in self._keyframes if keyframe.index in frames]
        self._keyframes = [keyframe for keyframe in self._keyframes if keyframe.index not in frames]
        self.unlink(horizon.frames[-1].index + 1, frames)
        for index in stale:
            self.add(horizon.get(index))

    def link(self, horizon: Horizon, motions: Motions, reunions: Set[tuple[int, int]] = frozenset()) -> int:
        """Measures every keyframe in every frame within reach, and in those `reunions` (keyframe, frame) names, where
        it has not been measured; the number of links.
        """
        views: dict[int, View] = {}
        links = 0
        for keyframe in self._keyframes:
            source_state = horizon.get(keyframe.index)
            for state in horizon.frames:
                near = abs(state.index - keyframe.index) <= self.reach or (keyframe.index, state.index) in reunions
                if not near or state.index in keyframe.found:
                    continue
                self._breath()
                source = views.setdefault(keyframe.index, _view(source_state))
                target = views.setdefault(state.index, _view(state))
                guess = self._guess(keyframe, source, target, motions(keyframe.index, state.index), horizon)
                backward = motions(state.index, keyframe.index)
                keyframe.found[state.index] = measure(source, target, backward, keyframe.uv_px, guess, horizon.camera)
                links += 1
        return links

    def table(self, horizon: Horizon) -> PointTable:
        """All points that were seen in at least three frames of the horizon, with voted labels."""
        tables = [PointTable.empty(len(horizon))]
        for keyframe in self._keyframes:
            count = len(keyframe.ids)
            uv = np.zeros((count, len(horizon), 2), np.float32)
            seen = np.zeros((count, len(horizon)), bool)
            sigma = np.full((count, len(horizon)), np.inf, np.float32)
            for index, (position, found, noise) in keyframe.found.items():
                column = index - horizon.first_index
                uv[:, column], seen[:, column], sigma[:, column] = position, found, noise
            query = np.full(count, keyframe.index)
            tables.append(
                PointTable(keyframe.ids, query, uv, seen, sigma, np.zeros(count, np.int64), np.zeros(count, np.float32))
            )
        table = tables[0]
        for other in tables[1:]:
            table = table.joined(other)
        table = table.select(table.seen.sum(1) >= 3)
        table.vote(horizon)
        return table

    def _guess(
        self, keyframe: _Keyframe, source: View, target: View, motions: dict[int, FloatArray], horizon: Horizon
    ) -> FloatArray:
        """Where the scene expects the points in `target`."""
        column, row = np.rint(keyframe.uv_px).astype(int).T
        labels = source.labels[row, column]
        xyz_cam = horizon.camera.unproject(
            keyframe.uv_px.astype(np.float64), source.depth_m[row, column].astype(np.float64)
        )
        guess = np.full((len(labels), 2), np.nan)
        T_target_map = np.linalg.inv(target.T_map_cam)
        for label, motion in motions.items():
            chosen = labels == label
            T = T_target_map @ motion @ source.T_map_cam
            guess[chosen] = horizon.camera.project(xyz_cam[chosen] @ T[:3, :3].T + T[:3, 3])
        return np.nan_to_num(guess, nan=-100.0)


def _view(state: FrameState) -> View:
    gray = np.asarray(cv2.cvtColor(state.image, cv2.COLOR_RGB2GRAY), np.uint8)
    return View(gray, state.labels, state.depth_m, state.T_map_cam)
