"""An analysis on its way to a viewer: pictures as they are read, everything else as its windows close."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np

from motion4d_ros.offline.queries import OnlineTracks, objects_of_queries
from motion4d_ros.offline.results.frame_log import FrameLog
from motion4d_ros.offline.scenes import Scenes
from motion4d_ros.types import Camera, Estimate, FloatArray, QueryTracks, Stage, StaticPoints
from motion4d_ros.viewer import drawn
from motion4d_ros.viewer.destinations import recording_to
from motion4d_ros.viewer.rerun_stream import RerunStream, small_camera

if TYPE_CHECKING:
    from motion4d_ros.pipeline import Motion4D

logger = logging.getLogger(__name__)


class Shown(Protocol):
    """What is looked at of a `Reading`."""

    engine: Motion4D
    log: FrameLog
    online: OnlineTracks
    scenes: Scenes


@contextmanager
def live_show(target: str, name: str) -> Iterator[LiveShow]:
    """A show that goes to `target` (`destinations.recording_to`) while the block runs."""
    with recording_to(target, name) as recording:
        yield LiveShow(RerunStream(recording))


class LiveShow:
    """Told by a reading what happens. What goes wrong ends the show, and costs the analysis nothing but a line."""

    def __init__(self, stream: RerunStream) -> None:
        self._stream: RerunStream | None = stream
        self._camera: Camera | None = None  # of the pictures
        self._windows = 0
        self._before = (0, 0.0)  # frames and seconds of the last mark
        self._plotted: set[int] = set()
        self._ids: dict[int, int] = {}  # query -> object it lies on

    def frame(self, reading: Shown, live: Estimate) -> None:
        """A frame was accepted."""
        self._guarded(lambda stream: self._frame(reading, live, stream))

    def mark(self, frames: int, seconds: float, mib: float) -> None:
        """So far, computing has taken so long."""
        before, self._before = self._before, (frames, seconds)
        self._guarded(lambda stream: stream.cost(frames - 1, (seconds - before[1]) / max(1, frames - before[0]), mib))

    def window(self, reading: Shown, estimates: list[Estimate]) -> None:
        """Frames were fitted, or fitted again."""
        self._guarded(lambda stream: self._window(reading, estimates, stream))

    def end(self, reading: Shown, tracks: QueryTracks, static: StaticPoints, T_map_cams: dict[int, FloatArray]) -> None:
        """The last word on tracks and on what stands still."""

        def show(stream: RerunStream) -> None:
            self._show_tracks(reading, tracks, list(range(reading.log.finished)), stream)
            start = reading.scenes.newest_start(reading.log)
            if start in T_map_cams:
                stream.static(static, start, reading.log.stamps_ns[start], T_map_cams[start])

        self._guarded(show)

    def _frame(self, reading: Shown, live: Estimate, stream: RerunStream) -> None:
        jpeg = reading.log.picture(live.index).read_bytes()
        if self._camera is None or live.index == reading.scenes.starts[-1]:
            picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
            assert picture is not None, "written by ourselves"
            self._camera = small_camera(live.camera, (picture.shape[0], picture.shape[1]))
        stream.image(live.index, live.stamp_ns, jpeg, self._camera, live.T_map_cam)

    def _window(self, reading: Shown, estimates: list[Estimate], stream: RerunStream) -> None:
        fitted = [estimate for estimate in estimates if estimate.stage is not Stage.LIVE]
        if not fitted or self._camera is None:
            return
        for estimate in fitted:
            stream.estimate(estimate, self._camera, plotted=estimate.index not in self._plotted)
        new = sorted({estimate.index for estimate in fitted} - self._plotted)
        self._plotted.update(new)
        if not new:
            return
        self._show_tracks(reading, reading.online.result(reading.log.stamps_ns), new, stream)
        self._windows += 1
        if self._windows & (self._windows - 1) == 0:  # 1, 2, 4, 8, …: a map is large, and changes less and less
            start = reading.scenes.starts[-1]
            static = reading.engine.static_points()
            stream.static(static, start, reading.log.stamps_ns[start], fitted[0].T_map_cam)

    def _show_tracks(self, reading: Shown, tracks: QueryTracks, indices: list[int], stream: RerunStream) -> None:
        if self._camera is None or not len(tracks.query_points):
            return
        rows, log = drawn.chosen_tracks(len(tracks.query_points)), reading.log
        unknown = [row for row in rows.tolist() if row not in self._ids and tracks.query_points[row, 0] < log.finished]
        ids = objects_of_queries(tracks.query_points[unknown], log.masks, log.finished)
        self._ids |= dict(zip(unknown, ids, strict=True))
        factor = self._camera.width / log.facts[indices[0]].estimate.camera.width if indices else 1.0
        for index in indices:
            shown = drawn.trails(tracks, rows, index)
            stream.tracks(shown, [self._ids.get(row, 0) for row in shown.rows.tolist()], index, factor)

    def _guarded(self, show: Callable[[RerunStream], None]) -> None:
        if self._stream is None:
            return
        try:
            show(self._stream)
        except Exception as error:
            self._stream = None
            logger.warning("the viewer is told nothing more: %s", " ".join(f"{type(error).__name__} {error}".split()))
