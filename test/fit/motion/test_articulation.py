"""Objects of several parts: a hinge is divided at its axis, shares blend, canonical inverts forward."""

from __future__ import annotations

import numpy as np
import pytest
from fit_builders import move, observe, pose
from scipy.spatial.transform import Rotation

from motion4d_ros.fit.motion.articulation import mean_residual, shares, split, unexplained
from motion4d_ros.fit.motion.bundle_adjustment import Body, BundleOptions, Observations, solve
from motion4d_ros.fit.motion.motion_prediction import one_step_on
from motion4d_ros.fit.motion.object_motion import ObjectMotion
from motion4d_ros.fit.motion.object_motions import _hold_gauge
from motion4d_ros.types import Camera, FloatArray

CAMERA = Camera(300.0, 300.0, 159.5, 119.5, 320, 240)
LENGTH = 8
OPTIONS = BundleOptions(iterations=12)


def hinge(opening: float, apart_m: float = 0.0) -> tuple[FloatArray, Observations]:
    """Two plates of 60 points, joined at x = 0; in the image plane the right one turns by `opening` rad. Or, `apart_m`
    to its right, something else that turns.
    """
    rng = np.random.default_rng(0)
    left = np.c_[rng.uniform(-0.3, -0.03, 60), rng.uniform(-0.15, 0.15, (60, 2)) * [1, 0.2]] + [0, 0, 2]
    right = left * [-1, 1, 1] + [apart_m, 0, 0]
    xyz = np.zeros((120, LENGTH, 3))
    for k in range(LENGTH):
        turn = Rotation.from_rotvec([0, 0, opening * k / (LENGTH - 1)]).as_matrix()
        xyz[:60, k] = left
        xyz[60:, k] = (right - [0, 0, 2]) @ turn.T + [0, 0, 2]
    return xyz, observe(xyz, CAMERA, np.tile(np.eye(4), (LENGTH, 1, 1)), noise_px=0.1)


def rigid_fit(xyz: FloatArray, seen: Observations) -> Body:
    body = Body(
        np.array([0.0, 0, 2]),
        np.tile(np.eye(3), (LENGTH, 1, 1)),
        np.zeros((LENGTH, 3)),
        xyz[:, 0].copy(),
        np.zeros(LENGTH),
        np.zeros(LENGTH),
    )
    solve(body, seen, OPTIONS)
    return body


def test_a_hinge_is_divided_at_its_axis() -> None:
    xyz, seen = hinge(opening=1.0)
    body = rigid_fit(xyz, seen)
    assert unexplained(body, seen) > 0.3
    found = split(body, seen, 2, OPTIONS, seed=0)
    assert found is not None
    sides = found.assignment[:60].mean(), found.assignment[60:].mean()
    assert abs(sides[0] - sides[1]) > 0.95
    for part, rows in zip(found.bodies, found.rows, strict=True):
        error = np.linalg.norm(part.at_frames(part.points) - xyz[rows], axis=-1)
        assert np.median(error) < 0.005
    assert sorted(np.concatenate(found.rows).tolist()) == list(range(120))


def test_parts_share_the_canonical_frame_of_the_whole() -> None:
    xyz, seen = hinge(opening=1.0)
    body = rigid_fit(xyz, seen)
    found = split(body, seen, 2, OPTIONS, seed=0)
    assert found is not None
    for part in found.bodies:  # at the reference time (all see the same: the first) every part moves as the whole
        assert part.R[0] == pytest.approx(body.R[0], abs=1e-9)
        assert part.t[0] == pytest.approx(body.t[0], abs=1e-9)


def test_what_is_rigid_is_explained_and_too_few_points_are_not_divided() -> None:
    xyz, seen = hinge(opening=0.0)
    body = rigid_fit(xyz, seen)
    assert unexplained(body, seen) == 0.0
    assert split(body, seen, 6, OPTIONS, seed=0) is None  # 20 points each are too few


def test_what_lies_apart_is_no_part() -> None:
    """Points of another object, called by this one's name while a mask source swaps the two."""
    xyz, seen = hinge(opening=1.0, apart_m=0.3)
    assert split(rigid_fit(xyz, seen), seen, 2, OPTIONS, seed=0) is None


def test_residuals_ignore_what_was_not_seen() -> None:
    xyz, seen = hinge(opening=0.0)
    body = rigid_fit(xyz, seen)
    seen.visible[:2] = False
    seen.visible[1, 3] = True
    seen.uv_px[1, 3] += 100.0
    residual = mean_residual(body, seen)
    assert residual[0] == 0.0
    assert residual[1] == pytest.approx(8.0)  # trimmed


def test_shares_follow_the_nearest_group() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.normal(0, 0.02, (30, 3)) - [0.2, 0, 0], rng.normal(0, 0.02, (30, 3)) + np.array([0.2, 0, 0])
    result = shares(np.array([[-0.25, 0, 0], [0.25, 0, 0], [0.19, 0.01, 0]]), [left, right])
    assert result.sum(1) == pytest.approx(1.0)
    assert result[0, 0] > 0.99 and result[1, 1] > 0.99 and result[2, 1] > 0.99
    seam = shares(np.zeros((1, 3)), [np.array([[-0.1, 0, 0], [-0.1, 0.1, 0]]), np.array([[0.1, 0, 0], [0.1, 0.1, 0]])])
    assert seam[0] == pytest.approx([0.5, 0.5])


# -- motion of an object -----------------------------------------------------------------------------------------------


def one_part(number: int) -> ObjectMotion:
    rng = np.random.default_rng(number)
    motion = ObjectMotion(3, np.array([0.0, 0.0, 2.0]), {})
    turn = np.array([0.02, 0.1, -0.03]) * (1 + number)
    for k in range(4, 9):
        motion.poses[k] = (Rotation.from_rotvec(turn * (k - 4)).as_matrix(), np.array([0.05, 0, 0.02]) * (k - 4))
    for row in range(30):
        point = rng.uniform(-0.1, 0.1, 3) + np.array([0.3 * number - 0.15, 0, 2])
        motion.points[100 * number + row] = point
    return motion


def jointed() -> ObjectMotion:
    motion = one_part(0)
    motion.parts = [one_part(0), one_part(1)]
    return motion


@pytest.mark.parametrize("motion", [one_part(0), jointed()], ids=["rigid", "two parts"])
def test_canonical_inverts_the_blended_motion(motion: ObjectMotion) -> None:
    index = 7
    xyz = np.random.default_rng(5).uniform(-0.25, 0.25, (20, 3)) + np.array([0.1, 0, 2])
    canonical, weights = motion.canonical(xyz, index)
    assert weights.shape == (20, len(motion.bodies))
    assert weights.sum(1) == pytest.approx(1.0)
    images = np.stack([move(body.matrix(index), canonical) for body in motion.bodies], 1)
    assert np.einsum("mk,mkj->mj", weights, images) == pytest.approx(xyz, abs=1e-9)


def test_matrices_are_set_and_read_alike() -> None:
    motion = one_part(0)
    T = pose((0.3, -0.4, 0.1), (0.2, 0.1, -0.3))
    motion.set_matrix(6, T)
    assert motion.matrix(6) == pytest.approx(T, abs=1e-12)
    X = np.array([[0.1, 0.2, 2.2]])
    there = move(motion.matrix(5), X)
    assert move(motion.between(5, 8), there) == pytest.approx(move(motion.matrix(8), X), abs=1e-12)


def test_extrapolation_keeps_the_velocity_in_both_directions() -> None:
    motion = one_part(0)
    for index, direction in ((8, 1), (4, -1)):
        R, t = motion.poses.pop(index)
        guess = one_step_on(motion, index, direction)
        assert guess[0] == pytest.approx(R, abs=1e-12)
        assert guess[1] == pytest.approx(t, abs=1e-12)
    alone = ObjectMotion(1, np.zeros(3), {0: (np.eye(3), np.ones(3))})
    assert one_step_on(alone, 1, 1)[1].tolist() == [1, 1, 1]


def test_what_is_old_is_forgotten_in_every_part() -> None:
    motion = jointed()
    motion.support = dict.fromkeys(range(4, 9), 10)
    motion.forget_before(7)
    assert sorted(motion.poses) == sorted(motion.support) == [7, 8]
    assert all(sorted(part.poses) == [7, 8] for part in motion.parts)


def test_holding_the_gauge_moves_nothing_in_the_map() -> None:
    rng = np.random.default_rng(6)
    R = Rotation.from_rotvec(0.1 * rng.standard_normal((5, 3))).as_matrix()
    old = rng.uniform(-0.2, 0.2, (15, 3)) + np.array([0, 0, 2])
    drifted = move(pose((0.05, 0.1, -0.02), (0.03, -0.02, 0.01)), old)
    body = Body(np.array([0, 0, 2.0]), R, rng.normal(size=(5, 3)), drifted, np.zeros(5), np.zeros(5))
    before = body.at_frames(body.points)
    _hold_gauge(body, old, drifted)
    assert body.points == pytest.approx(old, abs=1e-6)
    assert body.at_frames(body.points) == pytest.approx(before, abs=1e-9)
