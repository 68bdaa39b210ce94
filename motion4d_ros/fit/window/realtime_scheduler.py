"""Keeping the camera's pace (`budget.mode: realtime`): which frames a window gets, and how many steps.

A window costs what its geometry costs (that does not bend: it depends on the configuration), and so many steps of
gradient descent (they do). Frames come at the camera's period, each costs its share before any fit. From these follow

    stride   every n-th frame is fitted, the least n at which a window still gets `ENOUGH` of its steps
    share    of the steps, from what is left of a window's time once its geometry is done
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from motion4d_ros.config import Config

MIN_SHARE = 0.05  # a window always gets this share of its steps
ENOUGH = 0.3  # share of the steps for which frames are rather left out
MAX_STRIDE = 16
MIN_GLOBAL = 8  # fewer steps of a global round are not worth their report
NEW = 0.4  # weight of what was measured last in the running costs


@dataclass
class Costs:
    """What things cost, s: running means."""

    step: float = 0.05  # one step of gradient descent
    before: float = 0.0  # of a window, before its first step: geometry, new Gaussians
    after: float = 0.0  # of a window, from then on, without the steps: label votes, report
    keep: float = 0.0  # taking in a frame that will be fitted
    skip: float = 0.0  # taking in one that will not
    feed: float = 0.0  # whatever the owner of the engine does for every frame: decoding, publishing


class RealtimeScheduler:
    """Measures the camera's period and the costs; the rest is arithmetic."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.costs = Costs()
        self.stride = 1  # every n-th frame is fitted
        self._stamps: deque[int] = deque(maxlen=32)
        self._fed_period_s: float | None = None
        self._passed = 0  # frames since the last kept one

    @property
    def realtime(self) -> bool:
        """Whether there is a pace to keep."""
        return self.config.budget.mode == "realtime"

    # -- the camera ----------------------------------------------------------------------------------------------------

    def frame(self, stamp_ns: int) -> None:
        """Notes the stamp of a frame."""
        if self._stamps and stamp_ns <= self._stamps[-1]:
            self._stamps.clear()
        self._stamps.append(stamp_ns)

    def set_timing(self, period_s: float | None, cost_s: float) -> None:
        """What only the owner of the engine knows: the time between frames as they arrive, those included that were
        dropped before they got here (None: not known yet), and what each frame costs the owner, s.
        """
        self._fed_period_s = period_s
        self.costs.feed = cost_s

    @property
    def period_s(self) -> float:
        """Time between frames, s: as fed, else the median of the stamps' gaps; 0.1 until known."""
        if self._fed_period_s is not None:
            return self._fed_period_s
        gaps = np.diff(np.array(self._stamps, np.int64)) * 1e-9
        return float(np.median(gaps)) if len(gaps) else 0.1

    def keeps(self, waiting: int) -> bool:
        """Whether the next frame is to be fitted, with `waiting` frames waiting for the next window already."""
        keep = not self.realtime or (waiting < self.config.window.length and self._passed >= self.stride - 1)
        self._passed = 0 if keep else self._passed + 1
        return keep

    def took(self, seconds: float, *, kept: bool) -> None:
        """A frame was taken in."""
        if kept:
            self.costs.keep = _mean(self.costs.keep, seconds)
        else:
            self.costs.skip = _mean(self.costs.skip, seconds)

    # -- windows -------------------------------------------------------------------------------------------------------

    def share(self, spent_s: float) -> float:
        """Share of the configured steps that a window may have which has cost `spent_s` so far."""
        if not self.realtime:
            return 1.0
        return affordable(self._allowed(self.stride) - spent_s - self.costs.after, self._steps, self.costs.step)

    def finish(self, before_s: float, steps: int, steps_s: float, after_s: float) -> None:
        """Learns from a window what it cost (as in `Costs`) and `steps` steps of it; chooses the stride of the next."""
        if steps > 0:
            self.costs.step = _mean(self.costs.step, steps_s / steps)
        self.costs.before = _mean(self.costs.before, before_s)
        self.costs.after = _mean(self.costs.after, after_s)
        if self.realtime:
            self.stride = self.fitting_stride()

    def fitting_stride(self) -> int:
        """The least n at which every n-th frame can be fitted with `ENOUGH` of the steps."""
        wanted = self.costs.before + self.costs.after + ENOUGH * self._steps * self.costs.step
        for stride in range(1, MAX_STRIDE):
            if self._allowed(stride) >= wanted:
                return stride
        return MAX_STRIDE

    def global_iterations(self, configured: int) -> int:
        """Steps of a global round: as configured, or what a window's time leaves over; 0 if that is too little."""
        if not self.realtime:
            return configured
        idle = self._allowed(self.stride, load=1.0) - self._allowed(self.stride) - self.costs.after
        affordable_steps = min(configured, int(idle / max(self.costs.step, 1e-6)))
        return affordable_steps if affordable_steps >= min(MIN_GLOBAL, configured) else 0

    @property
    def _steps(self) -> int:
        return self.config.fit.motion_iterations + self.config.fit.semantic_iterations

    def _allowed(self, stride: int, load: float | None = None) -> float:
        """Seconds that a window may take when every `stride`-th frame is fitted: the load, less what frames cost."""
        share = self.config.budget.load if load is None else load
        costs = self.costs
        of_frames = costs.keep + (stride - 1) * costs.skip + stride * costs.feed
        return self.config.window.length * (share * stride * self.period_s - of_frames)


def affordable(seconds: float, steps: int, step_seconds: float) -> float:
    """Share of `steps` that `seconds` allow, in [MIN_SHARE, 1]."""
    if steps <= 0 or step_seconds <= 0:
        return 1.0
    return float(np.clip(seconds / (steps * step_seconds), MIN_SHARE, 1.0))


def _mean(before: float, now: float) -> float:
    return now if before == 0.0 or not math.isfinite(before) else (1 - NEW) * before + NEW * now
