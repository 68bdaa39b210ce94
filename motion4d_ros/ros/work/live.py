"""The thread that tells frames while the worker fits a window, in realtime mode.

A window takes seconds, and its steps tenths of a second: who waits for them is late. So this thread takes frames from
the queue, tells each by the engine's `live_view`, and hands those that are to be fitted on to the worker, which takes
them in when it gets to it. What it cannot tell (a new camera, a clock that jumped) it hands on untold, and waits until
the worker has seen to it. Without a view it leaves the queue to the worker.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from motion4d_ros.imagery.validation import Rejection
from motion4d_ros.ros.engine import Engine, Wanted
from motion4d_ros.ros.inputs.frames import FrameContext, ImageGroup
from motion4d_ros.ros.work.queue import FrameQueue
from motion4d_ros.ros.work.report import WorkerReport
from motion4d_ros.types import Estimate, Frame, Motion4DError

IDLE_S = 0.05
"""It looks so often whether there is a view by now."""
ASIDE_S = 0.001
"""The worker looks so often whether all is told."""


@dataclass(frozen=True)
class Told:
    """A frame whose live estimate is out, and that is to be fitted."""

    frame: Frame
    context: FrameContext


class Teller(Protocol):
    """The worker, as this thread sees it."""

    engine: Engine
    queue: FrameQueue[ImageGroup]
    report: WorkerReport
    build: Callable[[ImageGroup], tuple[Frame, FrameContext]]

    @property
    def stopping(self) -> bool: ...
    @property
    def ready(self) -> bool: ...
    @property
    def holds_frame(self) -> bool: ...
    def jumped_back(self, stamp_ns: int) -> bool: ...
    def in_order(self, stamp_ns: int) -> bool: ...
    def publish(self, estimate: Estimate, context: FrameContext | None = None) -> None: ...
    def told(self) -> None: ...
    def reject(self, reason: str, error: Exception, *, said: bool = False) -> None: ...
    def note_exception(self, where: str, error: BaseException) -> None: ...


class LiveThread:
    """Tells frames for a worker, its owner, as long as that is not `stopping`."""

    def __init__(self, worker: Teller, wanted: Callable[[], Wanted]) -> None:
        self.order = threading.Lock()
        """Held by whoever takes a frame from the queue, until it is told or handed on: frames are told in order."""
        self.kept: deque[Told] = deque()  # for the worker, oldest first
        self.untold: deque[ImageGroup] = deque(maxlen=1)  # for the worker, after those
        self.looks = 0  # frames told and not kept
        self.news = threading.Event()  # there is something for the worker
        self._worker = worker
        self._wanted = wanted
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    @property
    def tells(self) -> bool:
        """Whether the queue is this thread's now."""
        alive = self._thread is not None and self._thread.is_alive()
        return alive and not self._ends and self._worker.engine.live_view is not None

    def start(self) -> None:
        """Starts the thread."""
        self._thread = threading.Thread(target=self._run, name="motion4d-live", daemon=True)
        self._thread.start()

    def join(self, timeout_s: float) -> None:
        """Waits for its end, once the worker stops."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def let(self, timeout_s: float) -> None:
        """For the worker, in a pause: stands aside until what has come is told. Both want Python's lock, which a
        thread that waits for a core keeps: on a busy machine a frame that takes 3 ms took 400 while both went on.
        """
        until = time.monotonic() + timeout_s
        while self.tells and (self.order.locked() or len(self._worker.queue)) and not self._waits:
            if time.monotonic() > until:
                return
            time.sleep(ASIDE_S)

    def end(self, timeout_s: float) -> None:
        """The worker ends, for whatever reason: no further frame is told, the one in hand within `timeout_s`."""
        self._over.set()
        if self.order.acquire(timeout=timeout_s):
            self.order.release()

    def clear(self) -> None:
        """A new scene begins: what was kept for the old one goes."""
        self.kept.clear()

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        worker = self._worker
        while not self._ends:
            if worker.engine.live_view is None or not worker.ready:
                self._over.wait(IDLE_S)
            elif self._waits:
                self._over.wait(IDLE_S / 10)
            else:
                worker.queue.wait(IDLE_S)
                with self.order:
                    group = None if self._waits or self._ends else worker.queue.take(0.0)
                    if group is not None:
                        self._tell(group)

    @property
    def _ends(self) -> bool:
        return self._worker.stopping or self._over.is_set()

    @property
    def _waits(self) -> bool:
        """Whether the worker has a frame to see to before another may be told."""
        return bool(self.untold) or self._worker.holds_frame or self._worker.engine.live_view is None

    def _tell(self, group: ImageGroup) -> None:
        worker = self._worker
        try:
            view = worker.engine.live_view
            if view is None or worker.jumped_back(group.stamp_ns):
                self._hand_on(group)
                return
            frame, context = worker.build(group)
            if not view.continues(frame):
                self._hand_on(group)
                return
            if not worker.in_order(group.stamp_ns):
                return
            worker.report.tf_problem = ""
            wanted = self._wanted()
            estimate = view.look(frame, with_labels=wanted.labels, with_points=wanted.points)
        except Rejection as error:
            worker.reject(error.reason, error)
        except Motion4DError as error:
            worker.reject("refused", error)
        except Exception as error:
            worker.note_exception("frame", error)
            worker.reject("exception", error, said=True)
        else:
            worker.told()
            worker.publish(estimate, context)
            self._keep(frame, context)

    def _keep(self, frame: Frame, context: FrameContext) -> None:
        if self._worker.engine.keeps_next(len(self.kept)):
            self.kept.append(Told(frame, context))
            self.news.set()
        else:
            self.looks += 1

    def _hand_on(self, group: ImageGroup) -> None:
        self.untold.append(group)
        self.news.set()
