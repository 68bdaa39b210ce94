"""Keyframes and the points picked on them, measured again in every frame within reach (see `keyframe_measurement`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Set
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.fit.motion.object_motion import Step
from motion4d_ros.fit.tracks.keyframe_measurement import (
    NOWHERE_PX,
    Measured,
    Request,
    View,
    expected,
    labels_at,
    measure_all,
)
from motion4d_ros.fit.tracks.point_table import PointTable
from motion4d_ros.fit.window.horizon import FrameState, Horizon
from motion4d_ros.fit.window.yield_point import YieldPoint
from motion4d_ros.types import BACKGROUND, Camera

ObjectMotions = Callable[[int, int], dict[int, Step]]
"""(from frame index, to frame index) -> motion of every object, by label."""

SEED_SIGMA_PX = 0.15
STALE_PX = 1.0  # an object's warp that the scene has moved by more since is not what would be measured from now
MOST_MEASUREMENTS = 4  # of an object in one frame from one keyframe


@dataclass
class _Keyframe:
    index: int
    ids: NDArray[np.int64]  # (M,)
    uv_px: NDArray[np.float32]  # (M, 2)
    found: dict[int, Measured] = field(default_factory=dict)  # by frame index
    times: Counter[tuple[int, int]] = field(default_factory=Counter)  # (frame index, label) -> measurements


class Keyframes:
    """A keyframe every few frames; each is linked once to every frame within `reach`."""

    def __init__(self, spacing: int, reach: int, yield_point: YieldPoint | None = None, threads: int = 1) -> None:
        """Points are picked every `spacing` px; `threads` measure at once (0: as many as there are cores)."""
        self.spacing = spacing
        self.reach = reach
        self._threads = threads
        self._yield_point = yield_point or YieldPoint()
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
        uv = np.concatenate([self._pick(state, on_object) for on_object in (False, True)])
        keyframe = _Keyframe(state.index, self._new_ids(len(uv)), uv)
        keyframe.found[state.index] = _picked(uv)
        self._keyframes.append(keyframe)

    def _pick(self, state: FrameState, on_object: bool) -> NDArray[np.float32]:
        height, width = state.labels.shape
        step = max(2, self.spacing // 2) if on_object else self.spacing
        y, x = np.mgrid[step // 2 : height : step, step // 2 : width : step].reshape(2, -1)
        keep = ((state.labels[y, x] > 0) == on_object) & np.isfinite(state.depth_m[y, x])
        return np.stack([x[keep], y[keep]], 1).astype(np.float32)

    def _new_ids(self, count: int) -> NDArray[np.int64]:
        self._next_id += count
        return np.arange(self._next_id - count, self._next_id)

    def best_for(self, label: int, horizon: Horizon, before: int, most: int = 3) -> list[int]:
        """Indices of the keyframes older than `before` that show most of an object, best first."""
        areas = {
            keyframe.index: int((horizon.get(keyframe.index).labels == label).sum())
            for keyframe in self._keyframes
            if keyframe.index < before
        }
        return sorted((k for k, area in areas.items() if area > 0), key=lambda k: -areas[k])[:most]

    def newest_before(self, index: int) -> int | None:
        """Index of the newest keyframe older than frame `index`."""
        return max((keyframe.index for keyframe in self._keyframes if keyframe.index < index), default=None)

    def unlink(self, horizon: Horizon, before: int, frames: Set[int]) -> None:
        """Forgets what keyframes older than `before` measured of objects in `frames`: :meth:`correct` measures it
        again.
        """
        for keyframe in self._keyframes:
            if keyframe.index < before:
                labels = labels_at(horizon.get(keyframe.index).labels, keyframe.uv_px)
                rows = np.flatnonzero(labels != BACKGROUND)
                for index in (frames & keyframe.found.keys()) - {keyframe.index}:
                    keyframe.found[index].forget(rows)
                    for concerned in np.unique(labels[rows]).tolist():
                        keyframe.times[index, concerned] = 0

    def start_again(self, frames: Set[int], horizon: Horizon) -> None:
        """Forgets what was measured of objects in `frames`, whose labels have changed; in keyframes among them their
        points are picked anew.
        """
        for number, keyframe in enumerate(self._keyframes):
            if keyframe.index in frames:
                self._keyframes[number] = self._pick_again(keyframe, horizon.get(keyframe.index))
        self.unlink(horizon, horizon.frames[-1].index + 1, frames)

    def _pick_again(self, keyframe: _Keyframe, state: FrameState) -> _Keyframe:
        """The keyframe with the points of the static scene that it has, and new ones on objects, not yet measured."""
        kept = np.flatnonzero(labels_at(state.labels, keyframe.uv_px) == BACKGROUND)
        new = self._pick(state, on_object=True)
        uv = np.concatenate([keyframe.uv_px[kept], new])
        again = _Keyframe(keyframe.index, np.concatenate([keyframe.ids[kept], self._new_ids(len(new))]), uv)
        for index, link in keyframe.found.items():
            again.found[index] = Measured.nowhere(np.full((len(uv), 2), NOWHERE_PX))
            again.found[index].put(np.arange(len(kept)), link.select(kept))
        again.found[keyframe.index] = _picked(uv)
        return again

    def link(self, horizon: Horizon, motions: ObjectMotions) -> int:
        """Measures every keyframe in every frame within reach where it has not been measured; the number of links."""
        views = _Views(horizon)
        links = [
            (keyframe, state.index)
            for keyframe in self._keyframes
            for state in horizon.frames
            if abs(state.index - keyframe.index) <= self.reach
            if state.index not in keyframe.found
        ]
        requests = [_request(keyframe, index, views, motions) for keyframe, index in links]
        measured = measure_all(requests, horizon.camera, self._threads, self._yield_point)
        for (keyframe, index), found in zip(links, measured, strict=True):
            keyframe.found[index] = found
        return len(links)

    def correct(self, horizon: Horizon, motions: ObjectMotions) -> int:
        """Measures objects again in frames where the scene has moved them since; how often it did."""
        views = _Views(horizon)
        stale: list[tuple[_Keyframe, int, int, NDArray[np.intp]]] = []
        requests: list[Request] = []
        for keyframe in self._keyframes:
            self._yield_point()
            for index in sorted(keyframe.found.keys() - {keyframe.index}):
                request = _request(keyframe, index, views, motions)
                for label, rows in _moved(keyframe, index, request, horizon.camera):
                    stale.append((keyframe, index, label, rows))
                    requests.append(replace(request, uv_source=keyframe.uv_px[rows]))
        measured = measure_all(requests, horizon.camera, self._threads, self._yield_point)
        for (keyframe, index, label, rows), again in zip(stale, measured, strict=True):
            keyframe.times[index, label] += 1
            keyframe.found[index].put(rows, again)
        return len(stale)

    def table(self, horizon: Horizon) -> PointTable:
        """All points that were seen in at least three frames of the horizon, with voted labels."""
        tables = [PointTable.empty(len(horizon))]
        for keyframe in self._keyframes:
            count = len(keyframe.ids)
            uv = np.zeros((count, len(horizon), 2), np.float32)
            seen = np.zeros((count, len(horizon)), bool)
            sigma = np.full((count, len(horizon)), np.inf, np.float32)
            for index, link in keyframe.found.items():
                column = index - horizon.first_index
                uv[:, column], seen[:, column], sigma[:, column] = link.uv_px, link.found, link.sigma_px
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


class _Views(dict[int, View]):
    """What the frames of a horizon contribute, made when it is asked for."""

    def __init__(self, horizon: Horizon) -> None:
        super().__init__()
        self._horizon = horizon

    def __missing__(self, index: int) -> View:
        self[index] = _view(self._horizon.get(index))
        return self[index]


def _request(keyframe: _Keyframe, index: int, views: _Views, motions: ObjectMotions) -> Request:
    """All points of a keyframe, to be measured in a frame."""
    return Request(views[keyframe.index], views[index], motions(index, keyframe.index), keyframe.uv_px)


def _moved(keyframe: _Keyframe, index: int, request: Request, camera: Camera) -> list[tuple[int, NDArray[np.intp]]]:
    """Labels and rows of the objects that the scene has moved since they were measured in a frame."""
    now = expected(request.source, request.target, request.motions, keyframe.uv_px, camera)
    moved = np.linalg.norm(now - keyframe.found[index].warped_px, axis=1)
    result = []
    for label in np.unique(request.labels[request.labels != BACKGROUND]).tolist():
        rows = np.flatnonzero(request.labels == label)
        stale = float(np.median(moved[rows])) >= STALE_PX
        if stale and keyframe.times[index, label] < MOST_MEASUREMENTS:
            result.append((label, rows))
    return result


def _view(state: FrameState) -> View:
    gray = np.asarray(cv2.cvtColor(state.image, cv2.COLOR_RGB2GRAY), np.uint8)
    return View(gray, state.labels, state.depth_m, state.T_map_cam)


def _picked(uv_px: NDArray[np.float32]) -> Measured:
    """Points in the frame in which they were picked."""
    sigma = np.full(len(uv_px), SEED_SIGMA_PX, np.float32)
    return Measured(uv_px.copy(), np.ones(len(uv_px), bool), sigma, uv_px.copy())
