"""The one thread that owns the engine. Callbacks only put frames into its queue and jobs into its inbox. In realtime
mode another thread tells frames meanwhile (`work/live.py`).

Its day: answer jobs (services, prompts), take in frames (each yields a LIVE estimate at once), fit windows, and in idle
time refine globally, giving way to whatever comes. A window takes seconds, so the engine pauses between its steps, and
the worker looks up: is it to stop, has a frame come? No exception of a frame ends it; what survives is counted.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from motion4d_ros.config import Config
from motion4d_ros.failures import is_out_of_memory
from motion4d_ros.imagery.validation import Rejection
from motion4d_ros.ros.engine import Engine, Wanted
from motion4d_ros.ros.inputs.frames import FrameContext, ImageGroup
from motion4d_ros.ros.work.interrupt import Abandoned, Interrupted, interrupt, whereabouts
from motion4d_ros.ros.work.live import LiveThread, Told
from motion4d_ros.ros.work.memory import free_gpu_memory, lower_budgets
from motion4d_ros.ros.work.queue import FrameQueue
from motion4d_ros.ros.work.report import WorkerReport
from motion4d_ros.types import CAMERA_CHANGED, CLOCK_JUMPED, Camera, Estimate, Frame, Motion4DError

Result = TypeVar("Result")
PAUSE_S = 0.1
"""A pause of a window takes in no further frame after this."""


@dataclass(frozen=True)
class WorkerHooks:
    """What a worker asks and tells its owner."""

    ready: Callable[[], bool] = lambda: True  # whether frames can be built yet
    on_reset: Callable[[bool], None] = lambda jumped: None  # a new scene begins; True: because the clock jumped
    wanted: Callable[[], Wanted] = Wanted  # what somebody would read of a live estimate


class Worker:
    """Runs an engine over a queue of image groups.

    `build` makes a frame of a group (raising `Rejection`), `deliver` publishes an estimate, `log` writes a line,
    `report` goes on with the account of a worker that died.
    """

    def __init__(
        self,
        engine: Engine,
        config: Config,
        queue: FrameQueue[ImageGroup],
        build: Callable[[ImageGroup], tuple[Frame, FrameContext]],
        deliver: Callable[[Estimate, FrameContext | None], None],
        log: Callable[[str], None],
        *,
        hooks: WorkerHooks | None = None,
        report: WorkerReport | None = None,
    ) -> None:
        self.engine = engine
        self.report = report or WorkerReport()
        self.newest: Estimate | None = None
        self.health = copy.deepcopy(engine.status())  # as of the last step: read by other threads
        self._config = config
        self.queue = queue
        self.build = build
        self._deliver = deliver
        self._log = log
        hooks = hooks or WorkerHooks()
        self._ready, self._on_reset = hooks.ready, hooks.on_reset
        self._live = LiveThread(self, hooks.wanted)
        self._looks = 0  # of the live thread, that the engine has counted
        self._aside_s, self._aside_looks = 0.0, 0  # stood aside for it since a frame was kept, and its looks then
        self.contexts: dict[int, FrameContext] = {}  # of the frames of the horizon, by index
        self._jobs: deque[tuple[Callable[[Engine], Any], Future[Any]]] = deque()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._last_stamp_ns: int | None = None
        self._camera: Camera | None = None
        self._cost_s = 0.0  # running mean of what a frame costs beside the engine: decoding, publishing
        self._held: ImageGroup | None = None  # a frame that ended a window: the next one to be taken in
        self._unrefined = False
        self._failed_advances = 0
        self._step_at = time.monotonic()  # when the last step ended: between two of them it hears nobody
        self._paused_at = 0.0  # when the last pause began
        self._job: Future[Any] | None = None  # the one that runs

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stop.is_set()

    @property
    def step_s(self) -> float:
        """For how long the step lasts that the thread is at, s; minus infinity while it waits."""
        return time.monotonic() - self._step_at

    def end_step(self, after_s: float) -> None:
        """Ends a step that takes too long, between two lines of Python: the thread ends with it, and names it."""
        assert self._thread is not None
        error = TimeoutError(f"no step ended within {after_s:g} s, at {whereabouts(self._thread)}")
        self.note_exception("watchdog", error)
        interrupt(self._thread)

    def leave(self) -> None:
        """Gives up a thread that cannot be ended: whatever it still does reaches nobody, its frames are counted."""
        self._stop.set()
        queue, self.queue = self.queue, FrameQueue(1)
        queue.abandon("worker died")
        if self._job is not None and not self._job.done():
            self._job.set_exception(TimeoutError("the worker hangs, and was left behind"))
        self._deliver = lambda estimate, context: None
        self._on_reset = lambda jumped: None
        self._cancel_jobs()

    def start(self) -> None:
        """Starts the thread."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="motion4d-worker", daemon=True)
        self._thread.start()
        if self._config.budget.mode == "realtime":
            self._live.start()

    def stop(self, timeout_s: float = 2.0) -> bool:
        """Ends the thread within `timeout_s`; False if that took force: the engine is then broken and must go.

        First it is asked: it hears that between two steps of a window, which it abandons. What does not pause (a
        network's pass, a library that hangs) is interrupted between two lines of Python, halfway through the time.
        Jobs that were not begun are cancelled.
        """
        self._stop.set()
        self._wake()
        whole = True
        if self._thread is not None:
            self._thread.join(timeout_s / 2)
            if self._thread.is_alive():
                whole = False
                interrupt(self._thread)
                self._thread.join(timeout_s / 2)
        self._live.join(timeout_s / 2)
        self._cancel_jobs()
        return whole

    def _wake(self) -> None:
        self.queue.wake()
        self._live.news.set()

    def _cancel_jobs(self) -> None:
        while self._jobs:
            self._jobs.popleft()[1].cancel()

    def submit(self, job: Callable[[Engine], Result]) -> Future[Result]:
        """Runs `job(engine)` in the worker's thread, between two frames or windows."""
        future: Future[Result] = Future()
        if self._stop.is_set() or not self.alive:
            future.cancel()
            return future
        self._jobs.append((job, future))
        self._wake()
        return future

    # --- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._turn()
        except Interrupted:
            self._log("a window was interrupted: its scene is given up")
        except BaseException as error:  # the thread ends here; the node sees it and restarts it once
            self.note_exception("worker", error)
        self._live.end(1.0)
        for _ in range((self._held is not None) + len(self._live.untold)):
            self.queue.finish_dropped("deactivated")

    def _turn(self) -> None:
        """One round: jobs, then frames, then windows, then refinement."""
        self._step_at = time.monotonic()
        self._count_looks()
        self.health = copy.deepcopy(self.engine.status())
        self._do_jobs()
        busy = False
        for _ in range(self._config.window.length if self._config.budget.mode == "realtime" else 1):
            if not self._take_next():
                break
            busy = True
            if self._stop.is_set():
                return
        if self._advance() or busy:
            return
        if self._unrefined and self._config.budget.mode == "realtime":
            self._unrefined = False
            self._refine()
            return
        self._wait()

    def _count_looks(self) -> None:
        looks = self._live.looks
        self.engine.count_looks(looks - self._looks)
        self._looks = looks

    def _take_next(self, *, in_pause: bool = False) -> bool:
        """Takes in the next frame that waits, if any does: first those that were told already."""
        if self._live.kept:
            self._take_told(self._live.kept.popleft(), in_pause=in_pause)
            return True
        with self._live.order:
            group = self._next()
            if group is not None:
                self._take_in(group, in_pause=in_pause)
        return group is not None

    def _next(self) -> ImageGroup | None:
        """The next frame that nobody has told, if any waits for this thread."""
        if self._held is not None:
            group, self._held = self._held, None
            return group
        if self._live.untold:
            return self._live.untold.popleft()
        return self.queue.take(0.0) if self._ready() and not self._live.tells else None

    def _look_up(self) -> None:
        """In a pause of the engine: frames that have come get their LIVE estimate now, not after the window.

        Only in realtime mode: without losses, a frame is taken in when the one before has had all its work.
        """
        self._step_at = self._paused_at = time.monotonic()
        if self._stop.is_set():
            raise Abandoned("the node stops")
        if self._config.budget.mode != "realtime":
            return
        self._count_looks()
        self._live.let(PAUSE_S)
        self._aside_s += time.monotonic() - self._paused_at
        for _ in range(len(self.queue) + len(self._live.kept) + len(self._live.untold)):
            if not self._take_next(in_pause=True):
                return
            if time.monotonic() - self._paused_at > PAUSE_S:  # else a window would never end where frames are slow
                return

    def _wait(self) -> None:
        if self._jobs or self._stop.is_set():
            return
        self._step_at = float("inf")  # to wait is no step, however long a busy machine makes it
        if not self._ready():
            self._stop.wait(0.02)
        elif self._live.tells:
            self._live.news.wait(0.05)
            self._live.news.clear()
        else:
            self.queue.wait(0.05)

    def _do_jobs(self) -> None:
        while self._jobs:
            job, future = self._jobs.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            self._job = future
            try:
                future.set_result(job(self.engine))
            except BaseException as error:
                future.set_exception(error)  # whoever waits for it is told, whatever it is
                if not isinstance(error, Exception):
                    raise
                if isinstance(error, Abandoned):
                    self._give_up(error)
                elif not isinstance(error, Motion4DError):
                    self.note_exception("job", error)

    def _take_told(self, told: Told, *, in_pause: bool) -> None:
        """Takes in a frame whose live estimate is out."""
        self._step_at = time.monotonic()
        try:
            frames = 1 + self._live.looks - self._aside_looks  # since the last one that was kept
            self._cost_s += 0.2 * (self._aside_s / frames - self._cost_s)
            self._aside_s, self._aside_looks = 0.0, self._live.looks
            self.engine.set_timing(self.queue.period_s, self._cost_s)
            estimate = self.engine.add_frame(told.frame, told=True)
        except Motion4DError as error:
            self._log(f"frame not fitted: {error}")
        except Exception as error:
            self.note_exception("frame", error)
            self._failed_advances += 1
            self._recover(error, in_pause=in_pause)
        else:
            self._camera = self._camera or told.frame.camera
            self._remember(estimate.index, told.context)
            self.newest = estimate

    def told(self) -> None:
        """The live estimate of the frame in hand is there."""
        self.queue.finish_processed()
        self.report.processed_at = time.monotonic()

    @property
    def ready(self) -> bool:
        """Whether frames can be built yet."""
        return self._ready()

    @property
    def holds_frame(self) -> bool:
        """Whether a frame ended a window: nothing is to be told before it."""
        return self._held is not None

    def _take_in(self, group: ImageGroup, *, in_pause: bool = False) -> None:
        began, self._step_at = time.perf_counter(), time.monotonic()
        try:
            if in_pause and self.jumped_back(group.stamp_ns):
                self._held = group
                raise Abandoned(CLOCK_JUMPED, jumped=True)
            if not self.in_order(group.stamp_ns):
                return
            frame, context = self.build(group)
            self.report.tf_problem = ""
            changed = self._camera is not None and not frame.camera.is_like(self._camera)
            if in_pause and changed:
                self._held = group
                raise Abandoned(CAMERA_CHANGED)
            reason = CAMERA_CHANGED if changed else self.engine.reason_to_restart(frame)
            if reason and not in_pause:
                self.reset(reason)
                self._last_stamp_ns = group.stamp_ns
            self.engine.set_timing(self.queue.period_s, self._cost_s)
            asked = time.perf_counter()
            estimate = self.engine.add_frame(frame)
            answered = time.perf_counter()
        except Abandoned:
            raise
        except Rejection as error:
            self.reject(error.reason, error)
        except Motion4DError as error:
            self.reject("refused", error)
        except Exception as error:
            self.note_exception("frame", error)
            self._failed_advances += 1  # sources may have taken it by halves: the next window that fails is the last
            self.reject("exception", error, said=True)
            self._recover(error, in_pause=in_pause)
        else:
            self.told()
            self._camera = self._camera or frame.camera
            if estimate.index >= 0:
                self._remember(estimate.index, context)
                self.newest = estimate
            self.publish(estimate, context)
            own_s = (asked - began) + (time.perf_counter() - answered)
            self._cost_s += 0.2 * (own_s - self._cost_s)

    def jumped_back(self, stamp_ns: int) -> bool:
        """Whether a stamp is so far behind that time has begun anew."""
        behind_ns = 0 if self._last_stamp_ns is None else self._last_stamp_ns - stamp_ns
        return behind_ns * 1e-9 > self._config.ros.clock_jump

    def in_order(self, stamp_ns: int) -> bool:
        """Drops doubles and late-comers; resets on a backward jump."""
        last = self._last_stamp_ns
        if last is not None and self.jumped_back(stamp_ns):
            self._log(f"stamps jumped back by {(last - stamp_ns) * 1e-9:.1f} s")
            self.reset(CLOCK_JUMPED, jumped=True)
        elif last is not None and stamp_ns <= last:
            self.queue.finish_dropped("duplicate stamp" if stamp_ns == last else "out of order")
            return False
        self._last_stamp_ns = stamp_ns
        return True

    def reset(self, reason: str, *, jumped: bool = False) -> None:
        """Begins the scene anew. Only in the worker's thread: as a job, or by itself after a clock jump."""
        self._log(f"reset: {reason}")
        self.report.resets += 1
        self.contexts.clear()
        self.newest = None
        self._unrefined = False
        self._live.clear()
        self._last_stamp_ns = None
        self._camera = None
        self.report.reset_at[reason] = time.monotonic()
        self.engine.reset(reason)
        self._on_reset(jumped)

    def _advance(self) -> bool:
        try:
            estimates = self.engine.process_window(self._should_give_way, self._look_up)
        except Abandoned as error:
            self._give_up(error)
            return True
        except Exception as error:
            self.note_exception("window", error)
            self._recover(error)
            self._failed_advances += 1
            if self._failed_advances >= 2:  # the same window fails again and again: better a new scene than none
                self._failed_advances = 0
                self._try_reset("a window failed twice")
            return True
        for estimate in estimates:
            self.publish(estimate)
        if estimates:
            self._unrefined, self._failed_advances = True, 0
        return bool(estimates)

    def refine_now(self) -> str:
        """Closes the unfinished window and refines globally (in the worker's thread); one line on what came of it."""
        estimates = self.engine.flush(self._stop.is_set, self._look_up)
        self._unrefined = False
        for estimate in estimates:
            self.publish(estimate)
        return f"{len(estimates)} frames refined"

    def _refine(self) -> None:
        try:
            for estimate in self.engine.refine(self._should_give_way, self._look_up):
                self.publish(estimate)
        except Abandoned as error:
            self._give_up(error)
        except Exception as error:
            self.note_exception("refinement", error)
            self._recover(error)

    def _give_up(self, error: Abandoned) -> None:
        """After an abandoned window: its scene is half-done, and goes. After a stop, activating again sees to that."""
        if not self._stop.is_set():
            self._try_reset(str(error), jumped=error.jumped)
            free_gpu_memory()

    def _should_give_way(self) -> bool:
        """Whether a refinement should end. Without losses only a stop ends it: results must not depend on timing."""
        asked = bool(self._jobs) or self.engine.window_is_full
        return self._stop.is_set() or (asked and self._config.budget.mode == "realtime")

    def publish(self, estimate: Estimate, context: FrameContext | None = None) -> None:
        try:
            self._deliver(estimate, context or self.contexts.get(estimate.index))
        except Exception as error:
            if not self._stop.is_set():  # publishers go away before the thread does
                self.note_exception("publishing", error)

    def _remember(self, index: int, context: FrameContext) -> None:
        self.contexts[index] = context
        for old in [key for key in self.contexts if key <= index - self._config.window.horizon]:
            del self.contexts[old]

    def reject(self, reason: str, error: Exception, *, said: bool = False) -> None:
        self.queue.finish_rejected(reason)
        self.report.last_rejection = str(error)
        if reason == "tf":
            self.report.tf_problem = str(error)
        if not said:
            self._log(f"frame rejected: {error}")

    def note_exception(self, where: str, error: BaseException) -> None:
        self._log(self.report.note(where, error))

    def _recover(self, error: Exception, *, in_pause: bool = False) -> None:
        """After an exception: nothing to do, unless memory ran out."""
        if not is_out_of_memory(error):
            return
        self.report.oom_at = time.monotonic()
        self._log(lower_budgets(self._config, self.engine.config))
        if in_pause:
            raise Abandoned("out of memory")
        self._try_reset("out of memory")
        free_gpu_memory()

    def _try_reset(self, reason: str, *, jumped: bool = False) -> None:
        try:
            self.reset(reason, jumped=jumped)
        except Exception as error:
            self.note_exception("reset", error)
