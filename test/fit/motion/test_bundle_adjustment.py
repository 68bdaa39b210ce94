"""Bundle adjustment of one body on exact worlds: poses, points, depth errors, outliers, gaps, gauge."""

from __future__ import annotations

import numpy as np
import pytest
from fit_builders import observe, pose, shaken, turning_body

from motion4d_ros.fit.motion.bundle_adjustment import Body, BundleOptions, corrected_inverse_depth, residual_px, solve
from motion4d_ros.types import Camera

CAMERA = Camera(200.0, 200.0, 79.5, 59.5, 160, 120)
STILL = np.tile(np.eye(4), (8, 1, 1))
SIDEWAYS = np.stack([pose((0, -0.03 * k, 0), (0.08 * k, 0, 0)) for k in range(8)])


def error_m(body: Body, truth: Body) -> float:
    """Largest distance of a point from its true place over all frames: free of the gauge."""
    return float(np.linalg.norm(body.at_frames(body.points) - truth.at_frames(truth.points), axis=-1).max())


def test_exact_views_give_exact_motion() -> None:
    truth = turning_body()
    body = shaken(truth)
    start = error_m(body, truth)
    cost = solve(body, observe(truth.at_frames(truth.points), CAMERA, STILL), BundleOptions(iterations=40))
    assert start > 0.05
    assert error_m(body, truth) < 1e-3
    assert cost < 0.1


def test_noise_of_half_a_pixel_costs_millimetres() -> None:
    truth = turning_body(count=80)
    body = shaken(truth)
    seen = observe(truth.at_frames(truth.points), CAMERA, STILL, noise_px=0.5)
    solve(body, seen, BundleOptions(iterations=40))
    distance = np.linalg.norm(body.at_frames(body.points) - truth.at_frames(truth.points), axis=-1)
    assert np.sqrt((distance**2).mean()) < 0.009  # one view alone: 7 mm across and no depth
    assert np.nanmean(residual_px(body, seen)) < 1.0


def static_scene(length: int = 8) -> Body:
    points = np.random.default_rng(3).uniform([-1, -0.6, 1.5], [1.4, 0.6, 4.0], (120, 3))
    return Body(
        np.zeros(3),
        np.tile(np.eye(3), (length, 1, 1)),
        np.zeros((length, 3)),
        points,
        np.zeros(length),
        np.zeros(length),
    )


def test_depth_scale_and_offset_of_every_frame_are_found() -> None:
    truth = static_scene()
    rng = np.random.default_rng(4)
    a, b = 0.08 * rng.standard_normal(8), 0.01 * rng.standard_normal(8)
    seen = observe(truth.at_frames(truth.points), CAMERA, SIDEWAYS)
    exact = seen.inverse_depth.copy()
    seen.inverse_depth = (exact - b) / np.exp(a)
    body = static_scene()
    body.points = body.points + 0.05 * rng.standard_normal(body.points.shape)
    solve(
        body,
        seen,
        BundleOptions(free_poses=False, free_offset=True, sigma_scale=0.5, sigma_offset=0.5, iterations=30),
    )
    assert np.abs(a).max() > 0.08
    assert body.depth_scale == pytest.approx(a, abs=0.003)
    assert body.depth_offset == pytest.approx(b, abs=0.002)
    assert corrected_inverse_depth(body, seen.inverse_depth) == pytest.approx(exact, rel=0.003)
    assert (np.eye(3) == body.R).all() and (body.t == 0).all()  # the static scene does not move


def test_outliers_are_resisted_and_named() -> None:
    truth = turning_body(count=60)
    seen = observe(truth.at_frames(truth.points), CAMERA, STILL, noise_px=0.2)
    rng = np.random.default_rng(5)
    wrong = rng.random(seen.visible.shape) < 0.12
    seen.uv_px[wrong] += rng.uniform(15, 40, (int(wrong.sum()), 2)) * rng.choice([-1, 1], (int(wrong.sum()), 2))
    body = shaken(truth, rotation=0.02, shift=0.01, points=0.01)
    solve(body, seen, BundleOptions(iterations=60))
    distance = np.linalg.norm(body.at_frames(body.points) - truth.at_frames(truth.points), axis=-1)
    assert np.median(distance) < 0.005
    assert not body.inliers[wrong].any()
    assert body.inliers[~wrong].mean() > 0.9


def test_wrong_depth_of_a_frame_does_not_shift_the_body() -> None:
    truth = turning_body(count=60)
    seen = observe(truth.at_frames(truth.points), CAMERA, STILL)
    seen.inverse_depth[:, 4] /= 1.1  # ten per cent too far
    body = shaken(truth, rotation=0.01, shift=0.005, points=0.005)
    solve(body, seen, BundleOptions(sigma_scale=0.2, sigma_acceleration=1.0, iterations=40))
    assert body.depth_scale[4] == pytest.approx(np.log(1.1), abs=0.02)
    assert np.abs(np.delete(body.depth_scale, 4)).max() < 0.03
    assert error_m(body, truth) < 0.03  # not the 20 cm that the depth says


def test_hidden_frames_are_bridged_at_constant_velocity() -> None:
    truth = turning_body(length=10)
    views = np.tile(np.eye(4), (10, 1, 1))
    seen = observe(truth.at_frames(truth.points), CAMERA, views)
    seen.visible[:, 4:7] = False
    seen.uv_px[:, 4:7] = np.nan  # invalid entries are never read
    seen.inverse_depth[:, 4:7] = np.nan
    body = shaken(truth, rotation=0, shift=0, points=0.01)
    body.R[4:7], body.t[4:7] = truth.R[3], truth.t[3]  # as if it had stopped
    solve(body, seen, BundleOptions(iterations=60))
    gap = np.linalg.norm((body.at_frames(body.points) - truth.at_frames(truth.points))[:, 4:7], axis=-1)
    assert gap.max() < 0.01
    assert np.isfinite(body.t).all() and np.isfinite(body.points).all()


def test_the_gauge_stays_where_it_was() -> None:
    truth = turning_body()
    seen = observe(truth.at_frames(truth.points), CAMERA, STILL, noise_px=0.3)
    body = shaken(truth, rotation=0, shift=0, points=0)
    solve(body, seen, BundleOptions(iterations=20))
    assert np.linalg.norm(body.points.mean(0) - truth.points.mean(0)) < 0.01
    assert np.linalg.norm(body.t.mean(0) - truth.t.mean(0)) < 0.01


def test_points_without_depth_are_triangulated() -> None:
    truth = static_scene()
    seen = observe(truth.at_frames(truth.points), CAMERA, SIDEWAYS)
    seen.inverse_depth[:] = np.nan
    body = static_scene()
    body.points = body.points * 1.1
    solve(body, seen, BundleOptions(free_poses=False, iterations=60))
    assert body.points == pytest.approx(truth.points, abs=0.01)
    assert (body.depth_scale == 0).all()


def test_canonical_inverts_at_frames() -> None:
    body = turning_body()
    assert body.canonical(body.at_frames(body.points)[:, 3], 3) == pytest.approx(body.points, abs=1e-12)
