"""The running check of live predictions: honest ones stay as they are, others are scaled until they are."""

from __future__ import annotations

import numpy as np
import pytest

from motion4d_ros.objects.live_consistency import BAND, ENOUGH, KEPT, LiveConsistency

JITTER = 1e-8 * np.eye(6)


def play(consistency: LiveConsistency, ratio: float, frames: int, seed: int = 0) -> None:
    """Predictions whose squared errors are `ratio` times the variance that the filter states."""
    rng = np.random.default_rng(seed)
    stated = np.diag([1e-4, 1e-4, 1e-4, 1e-6, 1e-6, 1e-6])
    for k in range(frames):
        error = np.sqrt(ratio) * np.linalg.cholesky(stated) @ rng.standard_normal(6)
        consistency.predicted(1, k, error[:3], np.eye(3), stated)
        w = -error[3:]
        turn = np.array([[1, -w[2], w[1]], [w[2], 1, -w[0]], [-w[1], w[0], 1]])
        consistency.measured(1, k, np.zeros(3), turn, JITTER)


def test_honest_predictions_are_left_alone() -> None:
    consistency = LiveConsistency()
    play(consistency, 1.0, 400)
    assert consistency.scale == pytest.approx(1.0, abs=0.3)
    assert consistency.told == pytest.approx(1.0, abs=0.3)
    assert not consistency.outside_band


@pytest.mark.parametrize("ratio", [0.1, 8.0])
def test_what_is_told_becomes_honest(ratio: float) -> None:
    consistency = LiveConsistency()
    play(consistency, ratio, 400)
    assert consistency.scale == pytest.approx(ratio, rel=0.35)
    assert consistency.told == pytest.approx(1.0, abs=0.35)
    assert not consistency.outside_band


def test_a_sudden_change_leaves_the_band_until_it_is_learnt() -> None:
    consistency = LiveConsistency()
    play(consistency, 1.0, 200)
    play(consistency, 200.0, ENOUGH, seed=1)
    assert consistency.outside_band and consistency.told > BAND[1]
    play(consistency, 20.0, 400, seed=2)
    assert not consistency.outside_band


def test_memory_is_bounded_and_what_was_never_predicted_is_not_checked() -> None:
    consistency = LiveConsistency()
    for k in range(3 * KEPT):
        consistency.predicted(1, k, np.zeros(3), np.eye(3), np.eye(6))
    assert len(consistency._waiting) == KEPT
    consistency.measured(1, 0, np.zeros(3), np.eye(3), JITTER)
    assert consistency.checks == 0
    consistency.forget(1)
    assert not consistency._waiting
