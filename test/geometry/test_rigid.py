"""Rigid alignment: exact on exact points, unmoved by outliers, never a mirror image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from motion4d_ros.fit.motion.motion_prediction import one_step_on
from motion4d_ros.fit.motion.object_motion import ObjectMotion
from motion4d_ros.geometry.rigid import fit_rigid, orthonormal

numbers = st.floats(-2, 2)


def truth(rotvec: tuple[float, float, float], t: tuple[float, float, float]) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_rotvec(rotvec).as_matrix(), t
    return T


@settings(max_examples=30, deadline=None)
@given(st.tuples(numbers, numbers, numbers), st.tuples(numbers, numbers, numbers))
def test_recovers_any_motion_exactly(rotvec: tuple[float, float, float], t: tuple[float, float, float]) -> None:
    T = truth(rotvec, t)
    source = np.random.default_rng(0).normal(size=(12, 3))
    assert fit_rigid(source, source @ T[:3, :3].T + T[:3, 3], tolerance=0.1) == pytest.approx(T, abs=1e-9)


def test_a_quarter_of_outliers_hardly_moves_it() -> None:
    rng = np.random.default_rng(1)
    T = truth((0.3, -0.2, 0.5), (0.1, 0.2, -0.3))
    source = rng.normal(size=(80, 3))
    target = source @ T[:3, :3].T + T[:3, 3] + 0.001 * rng.normal(size=source.shape)
    target[::4] += rng.uniform(0.5, 2.0, (20, 3))
    robust = fit_rigid(source, target, tolerance=0.01, iterations=30)
    plain = fit_rigid(source, target, tolerance=1e6, iterations=1)
    assert np.abs(robust - T).max() < 0.005 < np.abs(plain - T).max()


def test_planar_points_give_a_rotation_not_a_mirror() -> None:
    rng = np.random.default_rng(2)
    flat = np.c_[rng.normal(size=(10, 2)), np.zeros(10)]
    noisy = flat + 0.2 * rng.normal(size=flat.shape)
    for target in (noisy, noisy * [1, 1, -1], noisy * [-1, 1, 1]):
        assert np.linalg.det(fit_rigid(flat, target, tolerance=1.0)[:3, :3]) == pytest.approx(1.0)


def test_extrapolated_rotations_stay_rotations() -> None:
    """Rounding in float32 poses grew threefold with every extrapolated step, until bundle adjustment met nonsense."""
    rng = np.random.default_rng(0)
    turn = Rotation.from_rotvec([0.1, 0.2, 0.3]).as_matrix()
    rough = turn + 1e-6 * rng.normal(size=(3, 3))  # as it comes back from a float32 scene
    motion = ObjectMotion(1, np.zeros(3), {0: (np.eye(3), np.zeros(3)), 1: (rough, np.zeros(3))})
    for index in range(2, 60):
        motion.poses[index] = one_step_on(motion, index, 1)
    R = motion.poses[59][0]
    assert np.abs(R @ R.T - np.eye(3)).max() < 1e-5 and np.linalg.det(R) > 0.99


def test_orthonormal_mends_and_survives() -> None:
    turn = Rotation.from_rotvec([0.4, -0.2, 1.0]).as_matrix()
    assert np.abs(orthonormal(turn + 1e-4) - turn).max() < 2e-4
    assert np.array_equal(orthonormal(np.full((3, 3), np.nan)), np.eye(3))
