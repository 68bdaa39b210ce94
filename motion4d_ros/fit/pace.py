"""Keeping the camera's pace: how much of the work a window may have (`budget.mode: realtime`)."""

from __future__ import annotations

import time
from collections import deque

import numpy as np

from motion4d_ros.config import Config
from motion4d_ros.fit.fitter import Fitter

MIN_SHARE = 0.05  # a window always gets this share of its steps


class Pace:
    """Measures the camera's period and the cost of a step; the rest is arithmetic."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._stamps: deque[int] = deque(maxlen=32)
        self._step_seconds = 0.05
        self._fitter: Fitter | None = None
        self._steps_before = 0
        self._fit_started = 0.0

    def frame(self, stamp_ns: int) -> None:
        """Notes the stamp of a frame."""
        if self._stamps and stamp_ns <= self._stamps[-1]:
            self._stamps.clear()
        self._stamps.append(stamp_ns)

    @property
    def period_s(self) -> float:
        """Median time between frames, s; 0.1 until known."""
        gaps = np.diff(np.array(self._stamps, np.int64)) * 1e-9
        return float(np.median(gaps)) if len(gaps) else 0.1

    def start(self) -> float:
        """The time at which work on a window starts."""
        return time.perf_counter()

    def share(self, fitter: Fitter, started: float) -> float:
        """Share of the configured steps that fits into what is left of the window's time."""
        self._fitter, self._steps_before, self._fit_started = fitter, fitter.iterations, time.perf_counter()
        if self.config.budget.mode != "realtime":
            return 1.0
        allowed = self.config.window.length * self.period_s * self.config.budget.load
        return affordable(
            allowed - (self._fit_started - started),
            self.config.fit.motion_iterations + self.config.fit.semantic_iterations,
            self._step_seconds,
        )

    def finish(self) -> None:
        """Learns from a finished window what a step costs."""
        if self._fitter is None:
            return
        steps = self._fitter.iterations - self._steps_before
        if steps > 0:
            cost = (time.perf_counter() - self._fit_started) / steps
            self._step_seconds = 0.7 * self._step_seconds + 0.3 * cost

    def global_iterations(self, configured: int) -> int:
        """Steps of a global round: as configured, or what one window's time allows."""
        if self.config.budget.mode != "realtime":
            return configured
        allowed = self.config.window.length * self.period_s * (1 - self.config.budget.load)
        return max(1, min(configured, int(allowed / self._step_seconds)))


def affordable(seconds: float, steps: int, step_seconds: float) -> float:
    """Share of `steps` that `seconds` allow, in [MIN_SHARE, 1]."""
    if steps <= 0 or step_seconds <= 0:
        return 1.0
    return float(np.clip(seconds / (steps * step_seconds), MIN_SHARE, 1.0))
