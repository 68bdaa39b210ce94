"""Who watches the worker: one that died is replaced, one that hangs is ended or left behind."""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable

from motion4d_ros.ros.work.worker import Worker

PAUSES_S = (0.0, 10.0, 30.0, 60.0)
"""Before the first, second, … restart within `FRESH_S`: what kills every worker at once must not keep a core busy."""
FRESH_S = 600.0
GRACE_S = 3.0
"""A step that does not end so long after it was told to is in a library that hears nothing."""
MOST_LEFT = 3
"""Threads left behind, each with an engine in its hands, after which only a new process helps."""


class Verdict(enum.Enum):
    """What is to be done about a worker."""

    FINE = enum.auto()
    REPLACE = enum.auto()  # it has ended: a new one takes over its engine
    RENEW = enum.auto()  # it was left behind: a new one needs an engine of its own
    HOPELESS = enum.auto()  # too many were left behind


class Watch:
    """Looks at a worker once a second. `say` writes a line."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.restarts = 0
        self.left = 0
        self._say, self._clock = say, clock
        self._deaths: deque[float] = deque(maxlen=len(PAUSES_S))
        self._mourned: Worker | None = None  # has ended, and has no successor yet
        self._due = 0.0  # when it gets one
        self._ended: tuple[Worker, float] | None = None  # was told to end, and when

    def begin(self) -> None:
        """The node is activated (again)."""
        self.restarts = 0
        self._deaths.clear()
        self._mourned = self._ended = None

    def look(self, worker: Worker, limit_s: float) -> Verdict:
        """What is to be done about `worker`, whose steps may take `limit_s` (0 = as long as they like)."""
        if worker.stopping and worker is not self._mourned:
            return Verdict.FINE
        if worker.alive:
            return self._look_at_step(worker, limit_s)
        now = self._clock()
        if worker is not self._mourned:
            worker.stop(0.0)  # it has ended: this tells those who wait for its jobs
            self._mourned, self._due = worker, now + self._pause(now)
        if now < self._due:
            return Verdict.FINE
        self._mourned = None
        self.restarts += 1
        self._say(f"the worker died ({worker.report.last_exception}): restarted, with a new scene")
        return Verdict.REPLACE

    def _look_at_step(self, worker: Worker, limit_s: float) -> Verdict:
        if limit_s <= 0.0 or worker.step_s <= limit_s:
            return Verdict.FINE
        now = self._clock()
        if self._ended is None or self._ended[0] is not worker:
            self._ended = (worker, now)
            worker.end_step(limit_s)
        elif now - self._ended[1] > GRACE_S:
            self._ended = None
            worker.leave()
            self.left += 1
            self.restarts += 1
            self._say(f"the worker hangs ({worker.report.last_exception}): left behind, a new engine takes over")
            return Verdict.HOPELESS if self.left >= MOST_LEFT else Verdict.RENEW
        return Verdict.FINE

    def _pause(self, now: float) -> float:
        """How long to wait before the next start, s."""
        recent = sum(now - at < FRESH_S for at in self._deaths)
        self._deaths.append(now)
        return PAUSES_S[min(recent, len(PAUSES_S) - 1)]
