"""Two-view geometry, bundle adjustment, dense depth and smoothing against exact numbers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from motion4d_ros.geometry.bundle import apply_delta, bundle_adjust, refine_pose, rotation_exp, solve_pose
from motion4d_ros.geometry.dense_depth import densify, fuse, inverse_depth_from_flow, splat
from motion4d_ros.geometry.rigid import inverse_pose, pose_matrix
from motion4d_ros.geometry.smoothing import domain_transform
from motion4d_ros.geometry.two_view import normalise, reproject, rotation_between, triangulate, two_view
from motion4d_ros.types import Camera

PIXEL = 1 / 300


def cloud(count: int = 120, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.uniform(-2, 2, count), rng.uniform(-1.5, 1.5, count), rng.uniform(2, 6, count)], -1)


def relative_pose() -> np.ndarray:
    return pose_matrix(rotation_exp(np.array([0.02, -0.08, 0.03])), np.array([-0.4, 0.05, 0.1]))


def angle(R: np.ndarray) -> float:
    return float(np.arccos(np.clip((np.trace(R) - 1) / 2, -1, 1)))


def test_two_view_finds_the_pose_despite_outliers() -> None:
    rng = np.random.default_rng(1)
    xyz, T = cloud(), relative_pose()
    a, b = xyz[:, :2] / xyz[:, 2:], reproject(T, xyz)[0]
    a, b = a + rng.normal(0, 0.3 * PIXEL, a.shape), b + rng.normal(0, 0.3 * PIXEL, b.shape)
    b[:30] += rng.uniform(-0.2, 0.2, (30, 2))
    found = two_view(a, b, PIXEL)
    assert found is not None
    assert angle(found.T_b_a[:3, :3].T @ T[:3, :3]) < np.radians(0.5)
    direction = T[:3, 3] / np.linalg.norm(T[:3, 3])
    assert found.T_b_a[:3, 3] @ direction > np.cos(np.radians(5))
    assert found.inliers[30:].mean() > 0.9 and found.inliers[:30].mean() < 0.4


def test_two_view_of_a_flat_scene_reprojects() -> None:
    xyz, T = cloud(), relative_pose()
    xyz[:, 2] = 3.0 + 0.2 * xyz[:, 0]
    found = two_view(xyz[:, :2] / xyz[:, 2:], reproject(T, xyz)[0], PIXEL)
    assert found is not None and found.inliers.mean() > 0.95


def test_two_view_needs_matches() -> None:
    assert two_view(np.zeros((5, 2)), np.zeros((5, 2)), PIXEL) is None


def test_rotation_is_found_among_moving_things() -> None:
    rng = np.random.default_rng(2)
    xyz = cloud()
    R = rotation_exp(np.array([0.05, 0.1, -0.02]))
    a, b = xyz[:, :2] / xyz[:, 2:], reproject(pose_matrix(R, np.zeros(3)), xyz)[0]
    b[:40] += rng.uniform(0.02, 0.1, (40, 2))
    found, inliers = rotation_between(a, b, 2 * PIXEL, rng)
    assert angle(found.T @ R) < 1e-4
    assert inliers[40:].all() and not inliers[:40].any()


def test_triangulation_is_exact_and_says_what_is_far() -> None:
    xyz = np.vstack([cloud(20), [[0, 0, 1e5]]])
    poses = np.stack([np.eye(4), relative_pose()])
    xy = np.stack([reproject(T, xyz)[0] for T in poses], 1)
    found, ratio = triangulate(poses, xy)
    assert found[:20] == pytest.approx(xyz[:20], abs=1e-9)
    assert ratio[20] < 1e-9 < ratio[:20].min()
    assert inverse_pose(poses) @ poses == pytest.approx(np.stack([np.eye(4)] * 2), abs=1e-12)


def test_bundle_adjustment_recovers_poses_and_points() -> None:
    rng = np.random.default_rng(3)
    xyz = cloud(60)
    poses = np.stack([np.eye(4)] + [apply_delta(relative_pose(), rng.normal(0, 0.1, 6)) for _ in range(4)])
    frame, point = (grid.ravel() for grid in np.meshgrid(np.arange(5), np.arange(60)))
    xy = np.stack([reproject(poses[f], xyz[p : p + 1])[0][0] for f, p in zip(frame, point, strict=True)])
    xy[::29] += 0.1  # a few are wrong
    start = apply_delta(poses, np.where(np.arange(5)[:, None] > 1, rng.normal(0, 0.02, (5, 6)), 0))
    fixed = np.arange(5) < 2
    sigma = np.full(len(xy), PIXEL)
    result = bundle_adjust(start, xyz + rng.normal(0, 0.05, xyz.shape), frame, point, xy, sigma, fixed, 40)
    assert result.T_cam_map == pytest.approx(poses, abs=5e-3)
    assert np.median(np.abs(result.xyz_map - xyz)) < 5e-3
    assert (result.error[::29] > 10).mean() > 0.9


def test_pose_from_points_with_outliers_and_its_covariance() -> None:
    rng = np.random.default_rng(4)
    xyz, T = cloud(100), relative_pose()
    xy = reproject(T, xyz)[0] + rng.normal(0, 0.5 * PIXEL, (100, 2))
    xy[:40] = rng.uniform(-0.5, 0.5, (40, 2))
    found = solve_pose(xyz, xy, 3 * PIXEL)
    assert found is not None and found[1][40:].mean() > 0.9
    assert found[0] == pytest.approx(T, abs=0.02)
    _, covariance, _ = refine_pose(found[0], xyz[40:], xy[40:], np.full(60, PIXEL / 2))
    assert 1e-5 < np.sqrt(covariance[0, 0]) < 0.02
    assert solve_pose(xyz[:3], xy[:3], PIXEL) is None


def test_smoothing_stops_at_edges() -> None:
    guide = np.zeros((20, 40, 3), np.uint8)
    guide[:, 20:] = 200
    values = (guide[..., 0] / 200 + np.random.default_rng(5).normal(0, 0.1, (20, 40))).astype(np.float32)
    smooth = domain_transform(values, guide, 10.0, 20.0)
    assert smooth[:, :20].std() < 0.05 and smooth[:, 20:].std() < 0.05
    assert smooth[:, 20:].mean() - smooth[:, :20].mean() == pytest.approx(1.0, abs=0.1)


def reference_transform(values: np.ndarray, guide: np.ndarray, space: float, color: float, passes: int) -> np.ndarray:
    """The recursive filter written out, row by row, in double precision."""
    out = np.array(values, np.float64)
    for index in range(passes):
        sigma = space * np.sqrt(3.0) * 2.0 ** (passes - index - 1) / np.sqrt(4.0**passes - 1.0)
        for axis in (1, 0):
            rows, edges = (np.moveaxis(k, axis, 0) for k in (out, guide.astype(float)))
            step = 1 + space / color * np.abs(np.diff(edges, axis=0)).sum(-1)
            share = np.exp(-np.sqrt(2) / sigma * step)[..., None]
            for k in range(1, len(rows)):
                rows[k] += share[k - 1] * (rows[k - 1] - rows[k])
            for k in range(len(rows) - 2, -1, -1):
                rows[k] += share[k] * (rows[k + 1] - rows[k])
    return out


@pytest.mark.parametrize("channels", [1, 3])
def test_smoothing_is_that_of_the_reference(channels: int) -> None:
    random = np.random.default_rng(6)
    guide = cv2.GaussianBlur(random.integers(0, 256, (31, 47, 3)).astype(np.uint8), (0, 0), 2.0)
    values = random.normal(size=(31, 47, channels)).astype(np.float32)
    before = values.copy()
    wanted = reference_transform(values, guide, 9.0, 25.0, passes=3)
    assert domain_transform(values, guide, 9.0, 25.0, passes=3) == pytest.approx(wanted, abs=1e-5)
    assert np.array_equal(values, before)
    if channels == 1:
        flat = domain_transform(values[..., 0], guide, 9.0, 25.0, passes=3)
        assert np.array_equal(flat, domain_transform(values, guide, 9.0, 25.0, passes=3)[..., 0])
    with pytest.raises(ValueError, match="smoothed by a guide"):
        domain_transform(values, guide[1:], 9.0, 25.0)


def test_poses_stay_rigid_however_often_they_are_predicted() -> None:
    pose, before = relative_pose(), np.eye(4)
    for _ in range(60):  # constant velocity triples a rounding error at every step
        guess = pose @ inverse_pose(before) @ pose
        pose, before = apply_delta(guess, np.zeros(6)), pose
    assert pose[:3, :3] @ pose[:3, :3].T == pytest.approx(np.eye(3), abs=1e-9)


def camera() -> Camera:
    return Camera(100.0, 100.0, 31.5, 23.5, 64, 48)


def test_inverse_depth_of_a_slanted_plane() -> None:
    cam = camera()
    grid = cam.pixel_grid()
    depth = 2.0 + 0.01 * grid[..., 0]
    T = relative_pose()
    flow = cam.project(cam.unproject(grid, depth) @ T[:3, :3].T + T[:3, 3]) - grid
    w, sigma, across = inverse_depth_from_flow(flow, cam, T, np.full(depth.shape, 0.3))
    assert 1 / w == pytest.approx(depth, rel=1e-4)
    assert across.max() < 1e-3 and (sigma > 0).all()
    _, _, across = inverse_depth_from_flow(flow + np.array([0.0, 5.0]), cam, T, np.full(depth.shape, 0.3))
    assert np.median(across) > 3.0
    assert normalise(cam, np.array([31.5, 23.5])) == pytest.approx([0, 0])


def test_splat_moves_depth_with_the_camera_and_keeps_the_near_surface() -> None:
    cam = camera()
    w = np.full(cam.size, 0.25, np.float32)
    w[20:30, 20:30] = 0.5
    moved, sigma = splat(w, 0.1 * w, cam, pose_matrix(np.eye(3), np.array([0.2, 0.0, 0.0])))
    assert moved[25, 35] == pytest.approx(0.5) and moved[25, 15] == pytest.approx(0.25, rel=1e-3)
    assert np.isnan(moved[0, 0])
    assert np.isfinite(sigma).sum() == np.isfinite(moved).sum()


def test_fusion_is_surer_where_images_agree_and_not_where_they_clash() -> None:
    one = np.array([[1.0, 1.0, np.nan, np.nan]], np.float32)
    two = np.array([[1.02, 2.0, 3.0, np.nan]], np.float32)
    w, sigma = fuse(one, np.full((1, 4), 0.1, np.float32), two, np.full((1, 4), 0.1, np.float32))
    assert w[0, 0] == pytest.approx(1.01) and sigma[0, 0] < 0.1
    assert sigma[0, 1] > 0.4 and w[0, 2] == 3.0 and np.isnan(w[0, 3])


def test_holes_are_filled_with_doubt() -> None:
    guide = np.full((48, 64, 3), 100, np.uint8)
    w = np.full((48, 64), 0.5, np.float32)
    w[10:40, 20:50] = np.nan
    full, sigma = densify(w, np.full(w.shape, 0.01, np.float32), guide)
    assert full == pytest.approx(np.full(w.shape, 0.5), abs=0.01)
    assert sigma[25, 35] > 3 * sigma[2, 2]
    assert np.isnan(densify(np.full((4, 4), np.nan, np.float32), np.ones((4, 4), np.float32), guide[:4, :4])[0]).all()
