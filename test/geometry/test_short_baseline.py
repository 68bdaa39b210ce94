"""A camera that has hardly moved: right and wrong motions keep as many points, only how closely they fit tells."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from motion4d_ros.geometry.bundle import bundle_adjust, solve_pose
from motion4d_ros.geometry.rigid import pose_matrix
from motion4d_ros.geometry.two_view import reproject, two_view


def short_baseline(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A camera that has moved by 3 cm before a room of 2 to 5 m: T_b_a (4, 4), xyz (N, 3), both views (N, 2)."""
    xyz = np.stack([rng.uniform(-1, 1, 500), rng.uniform(-0.8, 0.8, 500), np.ones(500)], -1)
    xyz *= np.where(np.arange(500) < 150, 1.9, rng.uniform(3.5, 5, 500))[:, None] * np.array([0.5, 0.5, 1.0])
    T_b_a = pose_matrix(cv2.Rodrigues(np.array([0.004, -0.01, 0.002]))[0], np.array([0.02, 0.009, -0.015]))
    views = [reproject(T, xyz)[0] + rng.normal(0, 0.15 / 288, (500, 2)) for T in (np.eye(4), T_b_a)]
    return T_b_a, xyz, views[0], views[1]


def test_two_views_with_a_short_baseline_are_told_from_wrong_ones_that_keep_as_many_points() -> None:
    rng = np.random.default_rng(3)
    for _ in range(4):
        T_b_a, xyz, a, b = short_baseline(rng)
        wrong = rng.choice(500, 40, replace=False)
        b[wrong] += rng.normal(0, 20 / 288, (40, 2))  # mismatches
        found = two_view(a, b, 1 / 288)
        assert found is not None
        direction = T_b_a[:3, 3] / np.linalg.norm(T_b_a[:3, 3])
        assert np.degrees(np.arccos(found.T_b_a[:3, 3] @ direction)) < 20
        right = np.setdiff1d(np.flatnonzero(found.inliers), wrong)
        ratio = xyz[right, 2] / found.xyz_a[right, 2]
        assert np.median(ratio[right < 150]) / np.median(ratio[right >= 150]) == pytest.approx(1, abs=0.35)
        assert np.median(found.parallax_rad[found.inliers]) > 8 * found.noise


def test_a_shift_is_not_mistaken_for_the_turn_that_keeps_as_many_points() -> None:
    T_b_a, xyz, _, b = short_baseline(np.random.default_rng(5))
    found = solve_pose(xyz, b, 3 / 288, np.eye(4))
    assert found is not None
    assert np.linalg.norm(found[0][:3, 3] - T_b_a[:3, 3]) < 0.004


def test_bundle_adjustment_is_not_bent_by_what_moves() -> None:
    rng = np.random.default_rng(7)
    xyz = np.stack([rng.uniform(-1, 1, 220), rng.uniform(-0.8, 0.8, 220), rng.uniform(2, 5, 220)], -1)
    truth = np.stack([pose_matrix(np.eye(3), np.array([-0.01 * k, 0, 0])) for k in range(7)])
    frame, point = (grid.ravel() for grid in np.meshgrid(np.arange(7), np.arange(220), indexing="ij"))
    moved = xyz[point] + np.where(point[:, None] < 25, 0.04 * frame[:, None], 0.0) * np.array([-0.3, 0.5, 0.2])
    xy = np.stack([reproject(truth[f], x[None])[0][0] for f, x in zip(frame, moved, strict=True)])
    xy += rng.normal(0, 0.1 / 288, xy.shape)
    start = truth.copy()
    start[1:, :3, 3] += rng.normal(0, 0.001, (6, 3))
    fixed = np.isin(np.arange(7), [0, 6])
    result = bundle_adjust(start, xyz, frame, point, xy, np.full(len(frame), 0.5 / 288), fixed, 15)
    assert np.abs(result.T_cam_map[:, :3, 3] - truth[:, :3, 3]).max() < 0.01  # with Huber's weights 0.023
