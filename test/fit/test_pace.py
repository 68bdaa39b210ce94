"""How much work a window gets: arithmetic on stamps and a clock that the test holds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from motion4d_ros.config import Config
from motion4d_ros.fit import pace as pace_module
from motion4d_ros.fit.pace import MIN_SHARE, Pace, affordable

MS = 1_000_000


class Clock:
    """Stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace_module, "time", clock)
    return clock


def realtime(**values: Any) -> Config:
    config = Config()
    config.update({"budget.mode": "realtime", "budget.load": 0.5, "window.length": 8, **values})
    return config


def fed(config: Config, period_ms: int = 100) -> Pace:
    pace = Pace(config)
    for k in range(5):
        pace.frame(k * period_ms * MS)
    return pace


@pytest.mark.parametrize(
    ("seconds", "steps", "cost", "share"),
    [
        (1.0, 100, 0.005, 1.0),
        (0.5, 100, 0.01, 0.5),
        (0.0, 100, 0.01, MIN_SHARE),
        (-3.0, 10, 1.0, MIN_SHARE),
        (1, 0, 1, 1.0),
    ],
)
def test_affordable_share(seconds: float, steps: int, cost: float, share: float) -> None:
    assert affordable(seconds, steps, cost) == pytest.approx(share)


def test_period_is_the_median_and_starts_anew_after_a_jump() -> None:
    pace = Pace(Config())
    assert pace.period_s == 0.1  # until known
    for stamp in (0, 50, 100, 150, 900):
        pace.frame(stamp * MS)
    assert pace.period_s == pytest.approx(0.05)
    pace.frame(10 * MS)
    assert pace.period_s == 0.1
    pace.frame(40 * MS)
    assert pace.period_s == pytest.approx(0.03)


def test_lossless_work_is_never_cut(clock: Clock) -> None:
    pace = fed(Config(), period_ms=1)
    started = pace.start()
    clock.now += 1000
    assert pace.share(SimpleNamespace(iterations=0), started) == 1.0  # type: ignore[arg-type]
    assert pace.global_iterations(500) == 500


def test_the_share_shrinks_with_what_geometry_has_used(clock: Clock) -> None:
    config = realtime(**{"fit.motion_iterations": 60, "fit.semantic_iterations": 20})
    pace, fitter = fed(config), SimpleNamespace(iterations=0)
    fresh = pace.share(fitter, pace.start())  # type: ignore[arg-type]
    assert fresh == pytest.approx(8 * 0.1 * 0.5 / (80 * 0.05))  # a step is taken for 50 ms at first
    started = pace.start()
    clock.now += 0.2
    assert pace.share(fitter, started) == pytest.approx(fresh / 2)  # type: ignore[arg-type]
    clock.now += 100
    assert pace.share(fitter, started) == MIN_SHARE  # type: ignore[arg-type]


def test_cheap_steps_earn_more_of_them(clock: Clock) -> None:
    pace, fitter = fed(realtime()), SimpleNamespace(iterations=0)
    before = pace.share(fitter, pace.start()), pace.global_iterations(10_000)  # type: ignore[arg-type]
    for _ in range(30):
        started = pace.start()
        pace.share(fitter, started)  # type: ignore[arg-type]
        fitter.iterations += 20
        clock.now += 20 * 0.01
        pace.finish()
    after = pace.share(fitter, pace.start()), pace.global_iterations(10_000)  # type: ignore[arg-type]
    assert after[0] == pytest.approx(5 * before[0], rel=0.01)  # 10 ms instead of 50
    assert after[1] == pytest.approx(5 * before[1], rel=0.1)
    assert pace.global_iterations(3) == 3  # never more than configured


def test_a_window_without_steps_teaches_nothing(clock: Clock) -> None:
    pace, fitter = fed(realtime()), SimpleNamespace(iterations=7)
    pace.finish()  # before any window
    before = pace.share(fitter, pace.start())  # type: ignore[arg-type]
    clock.now += 50
    pace.finish()
    assert pace.share(fitter, pace.start()) == before  # type: ignore[arg-type]
