"""Point tracks from a neural tracker that finds a point again after it was hidden. Set `tracks.source` to `tapir`.

The causal BootsTAPIR sees one frame at a time. New points start where none is near, are followed back over the current
window, and forth as long as the horizon remembers them, hidden or not. Dense flow between neighbouring frames, which
others ask for, is DIS as with `tracks.source: flow`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.models.tapir import SIDE, Found, Points, Tapir, load_tapir
from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.types import BoolArray, FloatArray, Frame, IntArray, PointTracks

MOST_POINTS = 1024  # alive at once: the network's state takes about 1 MB for each
VISIBLE = 0.5  # probability from which a point counts as seen (TAPIR, section 3.3)
SIGMA_SURE, SIGMA_DOUBT = 0.35, 3.0  # px of 256: error of a sure point, and what full doubt adds
START_SIGMA = 0.15  # px, of the pixel a point is started on


@dataclass
class _Table:
    """N tracks over the kept frames; columns are frames, oldest first."""

    ids: NDArray[np.int64]  # (N,)
    query: NDArray[np.int64]  # (N,) frame index of the start
    uv: NDArray[np.float32]  # (N, T, 2)
    visible: BoolArray  # (N, T)
    sigma: NDArray[np.float32]  # (N, T)

    @staticmethod
    def blank(ids: NDArray[np.int64], query: NDArray[np.int64], length: int) -> _Table:
        count = len(ids)
        return _Table(
            ids,
            query,
            np.full((count, length, 2), np.nan, np.float32),
            np.zeros((count, length), bool),
            np.full((count, length), np.inf, np.float32),
        )

    def select(self, rows: NDArray[np.int64] | BoolArray, columns: slice = slice(None)) -> _Table:
        return _Table(
            self.ids[rows],
            self.query[rows],
            self.uv[rows][:, columns],
            self.visible[rows][:, columns],
            self.sigma[rows][:, columns],
        )

    def joined(self, other: _Table) -> _Table:
        names = ("ids", "query", "uv", "visible", "sigma")
        return _Table(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in names))

    def widened(self) -> _Table:
        last = _Table.blank(self.ids, self.query, 1)
        names = ("uv", "visible", "sigma")
        return _Table(self.ids, self.query, *(np.concatenate([getattr(self, n), getattr(last, n)], 1) for n in names))

    def as_tracks(self, first_index: int) -> PointTracks:
        return PointTracks(self.ids, self.uv, self.visible, self.sigma, self.query, first_index)


class TapirTracks:
    """The neural tracker behind the `TrackSource` Protocol."""

    def __init__(self, config: Config, network: Tapir | None = None, flows: FlowCache | None = None) -> None:
        self.config = config.tracks
        self._window, self._horizon = config.window.length, config.window.horizon + config.window.length
        self._network = network or load_tapir(config)
        self.flows = flows or FlowCache(max_side=0, keep=self._horizon + 1)
        self._next_id = 0
        self._clear()

    def _clear(self) -> None:
        self._size = (0, 0)
        self._indices: list[int] = []
        self._grids: list[object] = []  # one per kept frame
        self._table = _Table.blank(np.zeros(0, np.int64), np.zeros(0, np.int64), 0)
        self._alive: Points | None = None
        self._rows: NDArray[np.int64] = np.zeros(0, np.int64)  # (P,) row of the table for each point alive

    def push(self, frame: Frame, masks: IntArray | None) -> None:
        """Adds the next frame; points stand twice as densely where `masks` (H, W) are not background."""
        self.flows.push(frame)
        if self._indices and (frame.index != self._indices[-1] + 1 or frame.camera.size != self._size):
            self._clear()
        self._size = frame.camera.size
        self._indices.append(frame.index)
        self._grids.append(self._network.grid(frame.image))
        self._table = self._table.widened()
        if self._alive is not None and self._alive.count:
            found, self._alive = self._network.track(self._grids[-1:], self._alive, self._size)
            self._write(self._rows, [len(self._indices) - 1], found)
        self._retire()
        self._start(masks)
        if len(self._indices) > self._horizon:
            self.forget_before(self._indices[-self._horizon])

    def tracks(self, first_index: int, last_index: int) -> PointTracks:
        """All tracks with at least two visible positions between the frame indices, inclusive."""
        columns = slice(self._indices.index(first_index), self._indices.index(last_index) + 1)
        rows = self._table.visible[:, columns].sum(1) >= 2
        return self._table.select(rows, columns).as_tracks(first_index)

    def query(self, points_tyx: FloatArray) -> PointTracks:
        """Tracks of the given (Q, 3) points (frame index, y, x), forwards and backwards over all kept frames."""
        points = np.asarray(points_tyx, float).reshape(-1, 3)
        ids = np.arange(self._next_id, self._next_id + len(points))
        self._next_id += len(points)
        table = _Table.blank(ids, points[:, 0].astype(np.int64), len(self._indices))
        for index in np.unique(table.query):
            if index not in self._indices:
                continue  # no longer, or not yet, kept: nothing is known
            column = self._indices.index(int(index))
            rows = np.flatnonzero(table.query == index)
            for order in (list(range(column, len(self._indices))), list(range(column, -1, -1))):
                self._trace(table, rows, points[rows][:, [2, 1]], order)
        return table.as_tracks(self._indices[0] if self._indices else 0)

    def flow(self, from_index: int, to_index: int) -> tuple[NDArray[np.float32], BoolArray]:
        """(H, W, 2) flow between two kept frames and (H, W) where it agrees with its reverse."""
        error = self.flows.error(from_index, to_index)
        return self.flows.between(from_index, to_index), error < self.config.forward_backward

    def forget_before(self, index: int) -> None:
        """Drops frames older than `index`, and the tracks that were seen only there."""
        drop = sum(i < index for i in self._indices)
        if drop == 0:
            return
        self._indices, self._grids = self._indices[drop:], self._grids[drop:]
        table = self._table.select(np.arange(len(self._table.ids)), slice(drop, None))
        seen: BoolArray = np.asarray(table.visible.any(1))
        alive = seen[self._rows]
        self._keep_alive(alive)
        self._rows = np.asarray((np.cumsum(seen) - 1)[self._rows], np.int64)
        self._table = table.select(seen)
        self.flows.forget_before(index)

    def reset(self) -> None:
        """Forgets everything but the counter of ids."""
        self._clear()
        self.flows.reset()

    def _write(self, rows: NDArray[np.int64], columns: list[int], found: Found, table: _Table | None = None) -> None:
        """Enters (N, T) findings; points outside the image are not visible."""
        table = self._table if table is None else table
        height, width = self._size
        inside = ((found.uv_px >= 0) & (found.uv_px <= [width - 1, height - 1])).all(-1)
        cells = np.ix_(rows, np.asarray(columns))
        table.uv[cells] = found.uv_px
        table.visible[cells] = (found.visible > VISIBLE) & inside
        table.sigma[cells] = (SIGMA_SURE + SIGMA_DOUBT * found.doubt) * max(self._size) / SIDE

    def _trace(self, table: _Table, rows: NDArray[np.int64], uv_px: FloatArray, order: list[int]) -> Points:
        """Follows new points through the frames in columns `order`; the first holds their starts. Their memory."""
        points = self._network.points(self._grids[order[0]], uv_px, self._size)
        found, points = self._network.track([self._grids[column] for column in order], points, self._size)
        self._write(rows, order, found, table)
        table.uv[rows, order[0]] = uv_px
        table.visible[rows, order[0]] = True
        table.sigma[rows, order[0]] = START_SIGMA
        return points

    def _keep_alive(self, which: BoolArray) -> None:
        if self._alive is not None and not which.all():
            self._alive = self._alive.select(which)
            self._rows = self._rows[which]

    def _retire(self) -> None:
        """Lets go of the points hidden longest once there are too many, and of those hidden for a whole horizon."""
        if len(self._rows) == 0:
            return
        columns = np.arange(len(self._indices))
        seen = self._table.visible[self._rows]
        hidden_for = len(columns) - 1 - np.where(seen, columns, -1).max(1)
        keep = hidden_for < self._horizon
        surplus = int(keep.sum()) - self._limit() * 3 // 4  # room for new ones
        if surplus > 0:
            candidates = np.flatnonzero(keep & (hidden_for > 0))
            keep[candidates[np.argsort(-hidden_for[candidates], kind="stable")[:surplus]]] = False
        self._keep_alive(keep)

    def _limit(self) -> int:
        return min(MOST_POINTS, self.config.max_tracks)

    def _start(self, masks: IntArray | None) -> None:
        """Starts points where none is near, objects first, and follows them back over the window."""
        column = len(self._indices) - 1
        budget = self._limit() - len(self._rows)
        here = self._table.visible[:, column] if len(self._table.ids) else np.zeros(0, bool)
        starts = self._free_places(self._table.uv[here, column], masks)[: max(0, budget)]
        if len(starts) == 0:
            return
        ids = np.arange(self._next_id, self._next_id + len(starts))
        self._next_id += len(starts)
        fresh = _Table.blank(ids, np.full(len(ids), self._indices[-1]), column + 1)
        rows = np.arange(len(ids))
        back = list(range(column, max(-1, column - self._window), -1))
        self._trace(fresh, rows, starts, back)
        points = self._trace(fresh, rows, starts, [column])
        self._rows = np.asarray(np.concatenate([self._rows, len(self._table.ids) + rows]), np.int64)
        self._table = self._table.joined(fresh)
        self._alive = points if self._alive is None else self._alive.joined(points)

    def _free_places(self, taken_px: FloatArray, masks: IntArray | None) -> NDArray[np.float32]:
        """(S, 2) pixels on a grid that have no tracked point near, those on objects first."""
        height, width = self._size
        # so coarse that half of all the points a CPU or GPU can carry cover the image
        spacing = max(self.config.spacing, int(np.ceil(np.sqrt(2.0 * height * width / self._limit()))))
        free = np.ones((height, width), np.uint8)
        at = np.round(taken_px).astype(int)
        free[at[:, 1].clip(0, height - 1), at[:, 0].clip(0, width - 1)] = 0
        distance = cv2.distanceTransform(free, cv2.DIST_L2, 3) if len(at) else np.full((height, width), np.inf)
        places = []
        for step, wanted in ((max(2, spacing // 2), True), (spacing, False)):
            x, y = np.meshgrid(np.arange(step // 2, width, step), np.arange(step // 2, height, step))
            on_object = np.zeros(x.shape, bool) if masks is None else masks[y, x] > 0
            good = (on_object == wanted) & (distance[y, x] > 0.75 * step)
            places.append(np.stack([x[good], y[good]], -1))
        return np.concatenate(places).astype(np.float32)
