"""How far rendered depth may be off."""

from __future__ import annotations

import numpy as np
import pytest

from motion4d_ros.fit.output.depth_uncertainty import EDGE, SHARED, SURFACE, depth_sigma
from motion4d_ros.geometry.pose_covariance import PoseCovariance
from motion4d_ros.types import Camera

CAMERA = Camera(100.0, 100.0, 31.5, 23.5, 64, 48)
NOBODY = np.zeros(CAMERA.size, int)


def unknown(label: int) -> tuple[None, float]:
    raise AssertionError(f"nobody asked for {label}")


def test_a_plane_errs_as_its_source_and_its_edge_by_its_step() -> None:
    depth = np.tile(np.linspace(2.0, 2.5, 64), (48, 1))  # steep, and no edge
    depth[:, 32:] += 1.0
    sigma = depth_sigma(depth, np.full(CAMERA.size, 0.02), NOBODY, np.eye(4), CAMERA, unknown)
    slopes = np.r_[0:30, 34:64]
    assert sigma[:, slopes] == pytest.approx(SHARED * 0.02 * depth[:, slopes], rel=1e-5)
    assert sigma[10, 31] == pytest.approx(np.hypot(EDGE, SHARED * 0.02 * depth[10, 31]), rel=1e-3)


def test_an_object_errs_as_its_pose_does_along_the_ray_whatever_way_the_camera_looks() -> None:
    T_map_cam = np.eye(4)
    T_map_cam[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]  # looks along the map's x
    depth, labels = np.full(CAMERA.size, 2.0), NOBODY.copy()
    labels[20:28, 28:36] = 3
    covariance = np.diag([0.05**2, 1.0, 1.0, 0, 0, 0])  # well known along x only
    known = PoseCovariance(np.array([2.0, 0, 0]), covariance, covariance)
    sigma = depth_sigma(depth, np.zeros(CAMERA.size), labels, T_map_cam, CAMERA, lambda _: (known, 0.0))
    assert sigma[23, 31] == pytest.approx(np.hypot(0.05, 2 * SURFACE), rel=0.05) and sigma[0, 0] == 0.0


def test_a_distance_that_no_sensor_tells_is_said_to_be_a_guess() -> None:
    labels = np.ones(CAMERA.size, int)
    sigma = depth_sigma(
        np.full(CAMERA.size, 2.0), np.zeros(CAMERA.size), labels, np.eye(4), CAMERA, lambda _: (None, 0.3)
    )
    assert sigma == pytest.approx(2 * np.hypot(0.3, SURFACE))
