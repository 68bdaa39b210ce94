"""Which points are followed, and what was believed of them while the recording ran."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from motion4d_ros.files import write_bytes
from motion4d_ros.options import no_such_path
from motion4d_ros.types import Estimate, FloatArray, IntArray, Motion4DError, QueryTracks

if TYPE_CHECKING:
    from motion4d_ros.pipeline import Motion4D

POINTS_PER_OBJECT = 36
MAX_POINTS = 512
_SMALLEST_OBJECT = 24  # px; smaller patches are likely to be noise


def read_queries(path: Path) -> FloatArray:
    """(Q, 3) query points t, y, x from a `.npy`, or the `query_points` of a `.npz`. Raises `Motion4DError`."""
    if not path.exists():
        raise no_such_path(path, "--queries")
    try:
        content = np.load(path, allow_pickle=False)
        points = content["query_points"] if isinstance(content, np.lib.npyio.NpzFile) else content
    except OSError as error:
        raise Motion4DError(f"--queries {path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise Motion4DError(
            f"--queries {path}: cannot be read as a .npy of numbers (Q, 3), or a .npz with `query_points`"
        ) from None
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "iuf" or not np.isfinite(points).all():
        raise Motion4DError(
            f"--queries {path}: expected finite numbers (Q, 3) as t, y, x, got {points.dtype}{points.shape}"
        )
    if (points[:, 0] < 0).any() or (points[:, 0] != np.round(points[:, 0])).any():
        raise Motion4DError(f"--queries {path}: t must be whole frame numbers from 0 on")
    return points.astype(float)


def check_queries(points_tyx: FloatArray, size: tuple[int, int], count: int | None) -> None:
    """Raises `Motion4DError` for points outside the (height, width) image or after the last of `count` frames."""
    outside = (points_tyx[:, 1:] < -0.5) | (points_tyx[:, 1:] > np.array(size) - 0.5)
    if outside.any():
        bad = points_tyx[outside.any(1)][0]
        raise Motion4DError(
            f"--queries: (t, y, x) = ({bad[0]:g}, {bad[1]:g}, {bad[2]:g}) lies outside the {size[1]}x{size[0]} image"
        )
    if count is not None and len(points_tyx) and points_tyx[:, 0].max() >= count:
        raise Motion4DError(f"--queries: frame {points_tyx[:, 0].max():g} does not exist, there are {count}")


def grid_on_object(masks: IntArray, object_id: int, index: int) -> FloatArray:
    """(P, 3) about `POINTS_PER_OBJECT` points t, y, x on a square grid within one object of a label image."""
    rows, columns = np.nonzero(masks == object_id)
    if not len(rows):
        return np.zeros((0, 3))
    step = max(4, round(float(np.sqrt(len(rows) / POINTS_PER_OBJECT))))
    top, left = int(rows.min()) + step // 2, int(columns.min()) + step // 2
    on_grid = ((rows - top) % step == 0) & ((columns - left) % step == 0)
    y, x = rows[on_grid], columns[on_grid]
    return np.stack([np.full(len(y), float(index)), y.astype(float), x.astype(float)], 1)


def objects_of_queries(points_tyx: FloatArray, labels_of: Callable[[int], IntArray | None], frames: int) -> list[int]:
    """The id of the object on which each of (Q, 3) points t, y, x lies, 0 for none; `labels_of` gives the (H, W) ids of
    one of the `frames` frames.
    """
    found: list[int] = []
    known: tuple[int, IntArray | None] = (-1, None)
    for t, y, x in points_tyx:
        index = int(t)
        if known[0] != index:  # queries come sorted by frame, or few: one image at a time
            known = index, labels_of(index) if index < frames else None
        labels = known[1]
        if labels is None:
            found.append(0)
            continue
        row, column = (int(np.clip(round(v), 0, side - 1)) for v, side in zip((y, x), labels.shape, strict=True))
        found.append(int(labels[row, column]))
    return found


class OnlineTracks:
    """The query tracks as they stood when each frame's window closed: columns are frozen as time goes by.

    With given queries these never change; without, a grid is laid on every object when a window first shows it.
    A track lives in the scene of its query: it is occluded in frames of other scenes.
    """

    def __init__(self, points_tyx: FloatArray | None) -> None:
        self._grid = points_tyx is None
        self.points_tyx = np.zeros((0, 3)) if points_tyx is None else points_tyx
        self._known: set[int] = set()
        self._scene_start = 0  # first frame of the newest scene
        self._closed: list[tuple[IntArray, QueryTracks]] = []  # of earlier scenes: queries, and their last word
        self._frozen = 0  # columns [0, frozen) are final
        self._answered = np.zeros(len(self.points_tyx), bool)  # queries whose frame has been seen
        self._state = empty_tracks(self.points_tyx, np.zeros(0, np.int64))

    def close_window(self, engine: Motion4D, estimates: list[Estimate]) -> None:
        """Asks the engine about the frames of a window that has just been fitted and keeps the answer."""
        if not estimates:
            return
        if self._grid:
            self._lay_grids(estimates)
        end = max(estimate.index for estimate in estimates) + 1
        rows = self._of_this_scene(end)
        self._grow(end)
        if len(rows):
            answer = engine.query(self.points_tyx[rows])
            end = min(end, answer.first_index + answer.tracks.shape[1])
            fresh = ~self._answered[rows]  # a new query also learns its past
            _copy(answer, self._state, rows, max(self._frozen, self._scene_start), end)
            _copy(answer, self._state, rows[fresh], self._scene_start, end, np.flatnonzero(fresh))
            self._answered[rows] = True
        self._frozen = max(self._frozen, end)

    def close_scene(self, engine: Motion4D, frames: int) -> None:
        """Keeps the engine's last word on the scene that ends with frame number `frames` - 1; a new one follows."""
        rows = self._of_this_scene(frames)
        if len(rows):
            self._closed.append((rows, engine.query(self.points_tyx[rows])))
        self._scene_start = self._frozen = frames

    def final(self, engine: Motion4D, stamps_ns: list[int]) -> QueryTracks:
        """All queries over the frames with `stamps_ns`, as believed at the end of their scenes."""
        count = len(stamps_ns)
        result = empty_tracks(self.points_tyx, np.array(stamps_ns, np.int64))
        rows = self._of_this_scene(count)
        newest = [(rows, engine.query(self.points_tyx[rows]))] if len(rows) else []
        for asked, answer in [*self._closed, *newest]:
            _copy(answer, result, asked, answer.first_index, min(count, answer.first_index + answer.tracks.shape[1]))
        return result

    def result(self, stamps_ns: list[int]) -> QueryTracks:
        """The frozen columns of all frames with `stamps_ns`; never answered ones are occluded and NaN."""
        self._grow(len(stamps_ns))
        state, count = self._state, len(stamps_ns)
        return QueryTracks(
            self.points_tyx,
            state.tracks[:, :count],
            state.occluded[:, :count],
            state.tracks_xyz[:, :count],
            state.confidence[:, :count],
            np.array(stamps_ns, np.int64),
        )

    def _of_this_scene(self, end: int) -> IntArray:
        """Rows of the queries about frames of the newest scene before frame number `end`."""
        t = self.points_tyx[:, 0]
        return np.flatnonzero((t >= self._scene_start) & (t < end))

    def _lay_grids(self, estimates: list[Estimate]) -> None:
        for estimate in sorted(estimates, key=lambda e: e.index):
            ids, areas = np.unique(estimate.masks, return_counts=True)
            for object_id, area in zip(ids.tolist(), areas.tolist(), strict=True):
                full = len(self.points_tyx) >= MAX_POINTS
                if object_id == 0 or object_id in self._known or area < _SMALLEST_OBJECT or full:
                    continue
                self._known.add(object_id)
                points = grid_on_object(estimate.masks, object_id, estimate.index)
                self.points_tyx = np.concatenate([self.points_tyx, points])
        self._answered = np.concatenate([self._answered, np.zeros(len(self.points_tyx) - len(self._answered), bool)])

    def _grow(self, frames: int) -> None:
        """Makes room for all queries and at least `frames` columns, in strides so that it stays linear."""
        queries, columns = self._state.occluded.shape
        if queries == len(self.points_tyx) and columns >= frames:
            return
        larger = empty_tracks(self.points_tyx, np.zeros(max(columns, frames + frames // 2), np.int64))
        for name in ("tracks", "occluded", "tracks_xyz", "confidence"):
            getattr(larger, name)[:queries, :columns] = getattr(self._state, name)
        self._state = larger


def empty_tracks(points_tyx: FloatArray, stamps_ns: IntArray) -> QueryTracks:
    """Tracks of which nothing is known: occluded, NaN, confidence 0."""
    shape = (len(points_tyx), len(stamps_ns))
    return QueryTracks(
        points_tyx,
        np.full((*shape, 2), np.nan, np.float32),
        np.ones(shape, bool),
        np.full((*shape, 3), np.nan, np.float32),
        np.zeros(shape, np.float32),
        np.asarray(stamps_ns, np.int64),
    )


def _copy(
    answer: QueryTracks, to: QueryTracks, rows: IntArray, start: int, end: int, asked: IntArray | None = None
) -> None:
    """Copies frames [start, end) of an `answer` into the `rows` of tracks that begin with frame 0.

    `asked`: the rows of the answer (None: all, in order).
    """
    first = answer.first_index
    start = max(start, first)
    chosen = slice(None) if asked is None else asked
    for name in ("tracks", "occluded", "tracks_xyz", "confidence"):
        getattr(to, name)[rows, start:end] = getattr(answer, name)[chosen, start - first : end - first]


def save_tracks(path: Path, tracks: QueryTracks) -> None:
    """Writes `tracks.npz` in TAP-Vid conventions (byte-identical for identical content)."""
    packed = io.BytesIO()  # a zip file that is closed on a full disk complains by a traceback
    np.savez_compressed(
        packed,
        query_points=tracks.query_points.astype(np.float64),
        tracks=tracks.tracks,
        occluded=tracks.occluded,
        tracks_xyz=tracks.tracks_xyz,
        confidence=tracks.confidence,
        stamps_ns=tracks.stamps_ns,
    )
    write_bytes(path, packed.getvalue())
