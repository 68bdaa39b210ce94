"""The factor of a body's covariances follows what later windows say of the frames told before."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from motion4d_ros.fit.motion.refit_consistency import EXPECTED, SETTLED, RefitConsistency
from motion4d_ros.geometry.pose_covariance import PoseCovariance
from motion4d_ros.geometry.rigid import pose_matrix

WINDOW, WINDOWS = 8, 120
SIGMA = 0.01  # m and rad, of a frame told first; later windows halve the variance
PLACE = np.array([0.3, -0.2, 2.0])


def known(variance: float) -> PoseCovariance:
    return PoseCovariance(PLACE, variance * np.eye(6), 0.5 * variance * np.eye(6))


def run(factor: float, windows: int = WINDOWS, seed: int = 0) -> RefitConsistency:
    """Windows whose first word errs by `factor` times the variance it states, and whose second is half as wrong."""
    rng = np.random.default_rng(seed)
    consistency = RefitConsistency()
    before: dict[int, np.ndarray] = {}
    for window in range(windows):
        new = range(window * WINDOW, (window + 1) * WINDOW)
        errors = {k: rng.standard_normal(6) * SIGMA * (0.5 * factor) ** 0.5 for k in before}  # what stays
        first = {k: rng.standard_normal((2, 6)) * SIGMA * (0.5 * factor) ** 0.5 for k in new}
        poses = {k: pose(before[k]) for k in errors} | {k: pose(each.sum(0)) for k, each in first.items()}
        variances = dict.fromkeys(errors, 0.5 * SIGMA**2) | dict.fromkeys(first, SIGMA**2)
        consistency.adjusted(poses.__getitem__, {k: known(each) for k, each in variances.items()}, set(poses))
        before = {k: each[0] for k, each in first.items()}
    return consistency


def pose(error: np.ndarray) -> np.ndarray:
    R = Rotation.from_rotvec(error[3:]).as_matrix()
    return pose_matrix(R, PLACE + error[:3] - R @ PLACE)


@pytest.mark.parametrize("factor", [0.5, 1.0, 8.0])
def test_the_factor_is_learnt(factor: float) -> None:
    assert run(factor).factors == pytest.approx([factor, factor], rel=0.25)


def test_before_anything_is_known_what_is_usual_is_told() -> None:
    assert RefitConsistency().factors == pytest.approx(EXPECTED)
    assert run(1.0, windows=1).factors == pytest.approx(EXPECTED)


def test_frames_that_later_windows_have_seen_keep_a_share_of_the_excess() -> None:
    consistency = run(8.0)
    newest = consistency.scaled(WINDOWS * WINDOW - 1, known(1.0))
    older = consistency.scaled((WINDOWS - 2) * WINDOW, known(1.0))
    assert newest.covariance[0, 0] == pytest.approx(consistency.factors[0])
    assert newest.jitter[3, 3] == pytest.approx(0.5 * consistency.factors[1])
    assert older.covariance[0, 0] == pytest.approx(1 + SETTLED * (consistency.factors[0] - 1))


def test_one_jump_does_not_make_an_object_unknown_for_good() -> None:
    consistency = run(1.0, windows=4)
    last = 4 * WINDOW - 1
    jumped = {k: pose(np.array([1.0, 0, 0, 0, 0, 0])) for k in range(last - WINDOW + 1, last + 1)}
    consistency.adjusted(jumped.__getitem__, {k: known(0.5 * SIGMA**2) for k in jumped}, set(jumped))
    assert 2 < consistency.factors[0] < 20


def test_what_is_hidden_proves_nothing_and_memory_does_not_grow() -> None:
    consistency = RefitConsistency()
    for window in range(50):
        covariances = {k: known(1.0) for k in range((window + 1) * WINDOW)}
        consistency.adjusted(lambda index: pose(np.full(6, float(index))), covariances, measured=set())
    assert consistency.factors == pytest.approx(EXPECTED)
    assert not consistency._told
