"""Which frames a window gets and how many steps: arithmetic on stamps and costs."""

from __future__ import annotations

from typing import Any

import pytest

from motion4d_ros.config import Config
from motion4d_ros.fit.window.realtime_scheduler import (
    ENOUGH,
    MAX_STRIDE,
    MIN_SHARE,
    Costs,
    RealtimeScheduler,
    affordable,
)

MS = 1_000_000


def realtime(**values: Any) -> Config:
    config = Config()
    config.update(
        {
            "budget.mode": "realtime",
            "budget.load": 0.5,
            "window.length": 8,
            "fit": {"motion_iterations": 60, "semantic_iterations": 20},
            **values,
        }
    )
    return config


def fed(config: Config, period_ms: int = 100, **costs: float) -> RealtimeScheduler:
    pace = RealtimeScheduler(config)
    for k in range(5):
        pace.frame(k * period_ms * MS)
    pace.costs = Costs(**costs)
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
    pace = RealtimeScheduler(Config())
    assert pace.period_s == 0.1  # until known
    for stamp in (0, 50, 100, 150, 900):
        pace.frame(stamp * MS)
    assert pace.period_s == pytest.approx(0.05)
    pace.frame(10 * MS)
    assert pace.period_s == 0.1
    pace.frame(40 * MS)
    assert pace.period_s == pytest.approx(0.03)


def test_frames_that_never_got_here_do_not_stretch_the_period() -> None:
    pace = fed(realtime(), period_ms=500)  # four of five are dropped on the way
    assert pace.period_s == pytest.approx(0.5)
    pace.set_timing(0.1, 0.0)
    assert pace.period_s == 0.1
    pace.set_timing(None, 0.0)
    assert pace.period_s == pytest.approx(0.5)


def test_lossless_work_is_never_cut() -> None:
    pace = fed(Config(), period_ms=1, before=100.0)
    assert pace.share(1000.0) == 1.0
    assert pace.global_iterations(500) == 500
    pace.finish(100.0, 10, 10.0, 10.0)
    assert pace.stride == 1
    assert all(pace.keeps(waiting) for waiting in range(100))


def test_the_share_shrinks_with_what_geometry_has_used() -> None:
    pace = fed(realtime(), step=0.01)
    assert pace.share(0.0) == pytest.approx(8 * 0.1 * 0.5 / (80 * 0.01))
    assert pace.share(0.2) == pytest.approx(pace.share(0.0) / 2)
    assert pace.share(100.0) == MIN_SHARE
    pace.costs.after = 0.2  # what will follow is set aside
    assert pace.share(0.0) == pytest.approx(0.25)
    pace.costs.keep = 0.025  # and what the frames cost before any fit
    assert pace.share(0.0) == MIN_SHARE


def test_frames_are_left_out_until_a_window_can_be_paid_for() -> None:
    assert fed(realtime(), step=0.001, before=0.2, after=0.1).fitting_stride() == 1
    pace = fed(realtime(), step=0.01, before=1.0, after=0.2, keep=0.02, skip=0.01, feed=0.002)
    stride = pace.fitting_stride()
    wanted = 1.2 + ENOUGH * 80 * 0.01
    frames = 0.02 + (stride - 1) * 0.01 + stride * 0.002
    assert 8 * (0.5 * 0.1 * stride - frames) >= wanted
    frames -= 0.01 + 0.002
    assert 8 * (0.5 * 0.1 * (stride - 1) - frames) < wanted, "and not one more"
    assert fed(realtime(), step=0.01, before=1.0, keep=0.2, skip=0.2).fitting_stride() == MAX_STRIDE
    pace.finish(1.0, 24, 0.24, 0.2)
    assert pace.stride == stride


def test_every_nth_frame_is_kept_and_never_more_than_a_window() -> None:
    pace = fed(realtime())
    pace.stride = 3
    assert [pace.keeps(0) for _ in range(7)] == [False, False, True, False, False, True, False]
    assert [pace.keeps(8) for _ in range(4)] == [False] * 4, "a window's worth waits already"
    assert pace.keeps(7), "as soon as there is room"


def test_costs_are_learnt() -> None:
    pace = fed(realtime())
    for _ in range(30):
        pace.took(0.02, kept=True)
        pace.took(0.01, kept=False)
        pace.finish(0.3, 20, 20 * 0.01, 0.1)
    assert (pace.costs.keep, pace.costs.skip) == pytest.approx((0.02, 0.01))
    assert (pace.costs.step, pace.costs.before, pace.costs.after) == pytest.approx((0.01, 0.3, 0.1))
    step = pace.costs.step
    pace.finish(0.3, 0, 0.0, 0.1)
    assert pace.costs.step == step, "a window without steps says nothing of their cost"


def test_a_global_round_gets_what_is_left_over_or_nothing() -> None:
    pace = fed(realtime(), step=0.01, after=0.1)
    assert pace.global_iterations(10_000) == 30  # half of 0.8 s, less the report
    assert pace.global_iterations(3) == 3  # never more than configured
    pace.costs.after = 0.35
    assert pace.global_iterations(10_000) == 0
