"""Covariances of poses are true: measured against many worlds whose motion is known."""

from __future__ import annotations

import numpy as np
import pytest
from fit_builders import observe, turning_body
from scipy.spatial.transform import Rotation

from motion4d_ros.fit.motion.bundle_adjustment import Body, BundleOptions, Observations, solve
from motion4d_ros.fit.motion.pose_uncertainty import COMMON_SHARE, FRAME_POINTS, Adjusted
from motion4d_ros.geometry.pose_covariance import PoseCovariance
from motion4d_ros.geometry.rigid import fit_rigid
from motion4d_ros.types import Camera

CAMERA = Camera(200.0, 200.0, 79.5, 59.5, 160, 120)
LENGTH = 8
OPTIONS = BundleOptions(iterations=40, sigma_acceleration=20.0, sigma_angular_acceleration=40.0)
WORLDS = 16


def noisy_world(seed: int, field_px: float) -> tuple[Body, Body, Observations]:
    """Truth, a start near it, and what was seen: white noise of .2 px, and a smooth field of errors in each frame."""
    truth = turning_body(count=FRAME_POINTS, length=LENGTH, seed=seed)
    seen = observe(truth.at_frames(truth.points), CAMERA, np.tile(np.eye(4), (LENGTH, 1, 1)))
    rng = np.random.default_rng(100 + seed)
    x, y = np.moveaxis((seen.uv_px - seen.uv_px.mean(0)) / seen.uv_px.std(0), -1, 0)
    terms = np.stack([np.ones_like(x), x, y, (x**2 - 1) / 2**0.5, x * y, (y**2 - 1) / 2**0.5], -1)
    field = np.einsum("ntf,tfc->ntc", terms, field_px * rng.standard_normal((LENGTH, 6, 2)))
    seen.uv_px = seen.uv_px + field + 0.2 * rng.standard_normal(seen.uv_px.shape)
    seen.sigma_px = np.full_like(seen.sigma_px, 0.2)
    seen.inverse_depth = seen.inverse_depth * np.exp(0.015 * rng.standard_normal(seen.inverse_depth.shape))
    scale = OPTIONS.sigma_scale * (rng.standard_normal(LENGTH) + COMMON_SHARE * rng.standard_normal())
    seen.inverse_depth = seen.inverse_depth * np.exp(-scale)
    body = Body(truth.center, truth.R, truth.t, truth.points.copy(), np.zeros(LENGTH), np.zeros(LENGTH))
    return truth, body, seen


def errors(body: Body, truth: Body) -> np.ndarray:
    """(T, 6) translation, rotation; in the canonical frame in which the points are where they truly are on average."""
    G = fit_rigid(truth.points, body.points, tolerance=1.0)  # found = G true
    found = np.tile(np.eye(4), (LENGTH, 1, 1))
    found[:, :3, :3], found[:, :3, 3] = body.R, body.center + body.t - body.R @ body.center
    found = found @ G
    turn = Rotation.from_matrix(found[:, :3, :3] @ truth.R.transpose(0, 2, 1)).as_rotvec()
    return np.concatenate([found[:, :3, :3] @ truth.center + found[:, :3, 3] - truth.center - truth.t, turn], 1)


def adjusted(body: Body, seen: Observations, assumed_px: float) -> list[PoseCovariance]:
    """How well the poses are known, frame by frame."""
    return list(Adjusted(body, seen, OPTIONS, range(LENGTH), assumed_px, least=6).covariances.values())


def consistency(field_px: float, assumed_px: float) -> tuple[float, float]:
    """Mean squared error of position and rotation in units of what is stated, over many worlds."""
    position, rotation = [], []
    for seed in range(WORLDS):
        truth, body, seen = noisy_world(seed, field_px)
        solve(body, seen, OPTIONS)
        for error, known in zip(errors(body, truth), adjusted(body, seen, assumed_px), strict=True):
            covariance = known.covariance
            position.append(error[:3] @ np.linalg.solve(covariance[:3, :3], error[:3]) / 3)
            rotation.append(error[3:] @ np.linalg.solve(covariance[3:, 3:], error[3:]) / 3)
    return float(np.mean(position)), float(np.mean(rotation))


def test_independent_errors_are_stated_as_they_are() -> None:
    position, rotation = consistency(0.0, 0.001)
    assert 0.6 < position < 1.6
    assert 0.6 < rotation < 1.6


def test_errors_that_neighbours_share_are_not_averaged_away() -> None:
    position, rotation = consistency(0.15, 0.15)
    assert 0.6 < position < 1.6
    assert 0.6 < rotation < 2.1  # the adjustment itself takes errors as independent, so it is not the best there is
    believed_independent = consistency(0.15, 0.001)
    assert believed_independent[0] > 2 * position
    assert believed_independent[1] > 2 * rotation


def test_a_hidden_frame_is_known_less_well_and_jitter_is_the_smaller_part() -> None:
    _, body, seen = noisy_world(0, 0.1)
    seen.visible[:, 4:6] = False
    seen.uv_px[:, 4:6] = np.nan  # invalid entries are never read
    solve(body, seen, OPTIONS)
    found = adjusted(body, seen, 0.1)
    size = np.array([np.trace(each.covariance[:3, :3]) for each in found])
    assert size[4:6].min() > 2 * size[[0, 1, 2, 3, 6, 7]].max()
    for known in found:
        for each in (known.covariance, known.jitter, known.shared + 1e-12 * np.eye(6)):
            assert each == pytest.approx(each.T, rel=1e-6, abs=1e-12)
            assert np.linalg.eigvalsh(each).min() > 0


def test_many_points_cost_no_more_than_enough() -> None:
    truth = turning_body(count=500, length=LENGTH)
    seen = observe(truth.at_frames(truth.points), CAMERA, np.tile(np.eye(4), (LENGTH, 1, 1)), noise_px=0.2)
    body = Body(truth.center, truth.R, truth.t, truth.points.copy(), np.zeros(LENGTH), np.zeros(LENGTH))
    solve(body, seen, OPTIONS)
    all_of_them = adjusted(body, seen, 0.1)
    few = Body(*(getattr(body, name) for name in ("center", "R", "t", "points", "depth_scale", "depth_offset")))
    few.inliers = body.inliers & (np.arange(500) < FRAME_POINTS)[:, None]
    for one, other in zip(adjusted(few, seen, 0.1), all_of_them, strict=True):
        ratio = np.trace(one.covariance[:3, :3]) / np.trace(other.covariance[:3, :3])
        assert 0.3 < ratio < 3.0


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_points_to_hold_a_frame_are_no_error(count: int) -> None:
    _, body, seen = noisy_world(0, 0.1)
    body.inliers = np.zeros((len(body.points), LENGTH), bool)
    body.inliers[:count] = True
    found = adjusted(body, seen, 0.1)
    assert all(np.isfinite(each.covariance).all() for each in found)
