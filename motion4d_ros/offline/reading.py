"""The first half of an analysis: frames go through the engine, and what is finished is kept whatever comes next."""

from __future__ import annotations

import errno
import logging
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from motion4d_ros.failures import Stopped, is_full, is_users
from motion4d_ros.offline.carriers import AnalyzeOptions, Progress
from motion4d_ros.offline.interrupt import Interrupt
from motion4d_ros.offline.preflight import check_first_frame
from motion4d_ros.offline.queries import OnlineTracks, check_queries
from motion4d_ros.offline.results.disk_space import check_room, runs_out
from motion4d_ros.offline.results.frame_log import FrameLog
from motion4d_ros.offline.results.metrics import Timeline
from motion4d_ros.offline.results.renders import RenderLog
from motion4d_ros.offline.results.workspace import Workspace
from motion4d_ros.offline.scenes import Scenes
from motion4d_ros.offline.sources import FrameSource
from motion4d_ros.types import Estimate, FloatArray, Frame, IntArray, Motion4DError, Prompt

if TYPE_CHECKING:
    from motion4d_ros.offline.viewing.live_show import LiveShow
    from motion4d_ros.pipeline import Motion4D


logger = logging.getLogger(__name__)


class Reading:
    """One recording on its way through the engine; afterwards, what was found and how it ended."""

    def __init__(
        self, options: AnalyzeOptions, source: FrameSource, engine: Motion4D, work: Workspace, stop: Interrupt
    ) -> None:
        self.options, self.source, self.engine = options, source, engine
        self.log = FrameLog(work.products, work.spool)
        self.renders = RenderLog(work.spool)
        self.timeline = Timeline()
        self.total = source.count
        if options.limit is not None:
            self.total = min(options.limit, source.count or options.limit)
        self.online = OnlineTracks(None)
        self.scenes = Scenes()
        self.failure = ""
        self.notes: list[str] = []  # to be said once the first frame has been read: an error before it is one line
        self.full = False  # the disk was full
        self.broken = False  # the engine has failed in a way nobody foresaw: it is asked for nothing new
        self.interrupted = False
        self.stopped_by = 0  # the signal that did it
        self.show: LiveShow | None = None
        self.tell: Callable[[Progress], None] = lambda progress: None
        self._work, self._stop = work, stop

    def read(self, queries: FloatArray | None, prompt_labels: IntArray | None) -> None:
        """Frames in, until the input ends, breaks off, or a signal comes.

        Raises `Motion4DError`, or `Stopped`, if there is nothing to keep.
        """
        self.online = OnlineTracks(queries)
        self._stop.hold()
        with self._keeping_what_is_finished():
            self._read_frames(queries, prompt_labels)
        if not (self._stop.requested() or self.broken or self.full):
            self.tell(Progress(len(self.log.stamps_ns), self.total, "last window and global refinement"))
            with self._keeping_what_is_finished():
                with self.timeline.timed("fitting"):
                    estimates = self.engine.flush(self._stop.requested)
                self._take(estimates)
        self.interrupted = self._stop.requested()
        self.stopped_by = self._stop.number if self.interrupted else 0
        self.log.drop_unfinished()
        if not self.log.finished:
            if not self.interrupted:
                raise Motion4DError(f"{self.options.input}: holds no frame")
            raise Stopped(self._stop.number)
        if queries is not None and not (self.interrupted or self.failure or self.options.limit):
            try:  # the recording may be shorter than it said
                check_queries(queries, self.log.facts[0].estimate.camera.size, self.log.finished)
            except Motion4DError as error:
                self.failure = str(error)

    def _read_frames(self, queries: FloatArray | None, prompt_labels: IntArray | None) -> None:
        for count, frame in enumerate(self.timeline.timed_iteration("reading", self.source)):
            if self._stop.requested() or (self.options.limit is not None and count >= self.options.limit):
                break
            if count == 0:
                check_first_frame(frame, queries, prompt_labels, None if self.options.limit else self.total)
                self.source.report.warnings.update(check_room(self._work, frame, self.total))
                for note in self.notes:
                    logger.info(note)
            self._push(frame, prompt_labels if count == 0 else None)
            self.tell(Progress(count + 1, self.total, "frames"))

    @contextmanager
    def _keeping_what_is_finished(self) -> Iterator[None]:
        """Once a window has been closed, an error ends the reading and is reported, but costs no finished work."""
        try:
            yield
        except Exception as error:
            if not self.log.finished:
                if is_full(error):
                    raise Motion4DError(f"{self._work.reason(error)}: free some, or choose another --out") from error
                raise
            self.full = is_full(error)
            self.broken = not is_users(error)
            self.failure = self._work.reason(error)

    def _push(self, frame: Frame, prompt_labels: IntArray | None) -> None:
        if reason := self.engine.reason_to_restart(frame):
            self._close_scene(reason)
        with self.timeline.timed("accepting"):
            live = self.engine.add_frame(frame)
        self.log.add_frame(frame, live)
        if self.show is not None:
            self.show.frame(self, live)
        if prompt_labels is not None:
            self._prompt(frame, prompt_labels)
        with self.timeline.timed("fitting"):
            estimates = self.engine.process_window(self._stop.requested)
        self._take(estimates)
        if estimates:
            health = self.engine.status()
            if runs_out(self._work, self.log, health.gaussians_static + health.gaussians_dynamic):
                raise OSError(errno.ENOSPC, "hardly any room is left", str(self._work.out))
        self.timeline.mark(len(self.log.stamps_ns), peak_memory_mib())
        if self.show is not None:
            self.show.mark(*self.timeline.marks[-1])

    def _close_scene(self, reason: str) -> None:
        """The engine is about to forget its scene: its last word is asked for first."""
        with self.timeline.timed("fitting"):
            estimates = self.engine.flush(self._stop.requested)
        self._take(estimates)
        frames = len(self.log.stamps_ns)
        with self.timeline.timed("queries"):
            self.online.close_scene(self.engine, frames)
        self.scenes.close(self.engine, frames, reason)

    def _take(self, estimates: list[Estimate]) -> None:
        with self.timeline.timed("writing"):
            closed = self.log.add(estimates)
        if closed:
            with self.timeline.timed("queries"):
                self.online.close_window(self.engine, closed)
            with self.timeline.timed("renders"):
                self.renders.add(self.engine, max(estimate.index for estimate in closed))
        if self.show is not None:
            self.show.window(self, estimates)

    def _prompt(self, frame: Frame, labels: IntArray) -> None:
        """One prompt for every id in the label image of the first frame."""
        for object_id in np.unique(labels[labels > 0]).tolist():
            self.engine.prompt(Prompt(frame.stamp_ns, object_id=int(object_id), mask=labels == object_id))


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024.0 * 1024.0 if sys.platform == "darwin" else 1024.0), 1)
