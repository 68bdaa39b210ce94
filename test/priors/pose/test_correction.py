"""Odometry that drifts or lags, mended by images."""

from __future__ import annotations

import numpy as np
import pytest
from boards import CAMERA, SCENE, path, shot

from motion4d_ros.config import Config
from motion4d_ros.priors.pose.correction import RefinedPose, align, lag
from motion4d_ros.types import Frame, PoseStatus


def test_drift_is_taken_out_and_gaps_are_bridged() -> None:
    source = RefinedPose(Config())
    poses: dict[int, np.ndarray] = {}
    drift = np.zeros(3)
    for index in range(16):
        drift = drift + (np.array([0.0, 0.015, 0.0]) if index > 5 else 0)
        given = path(index)
        given[:3, 3] += drift
        image = shot(SCENE, path(index), index)[0].image
        if index == 12:
            image = np.zeros_like(image)  # a black frame
        prior = source.pose(Frame(index * 10**8, image, CAMERA, given, index=index), None)
        assert prior.status is PoseStatus.OK
        poses[index] = prior.T_map_cam
        poses.update(source.revised_poses())
    errors = [np.linalg.norm(poses[i][:3, 3] - path(i)[:3, 3]) for i in range(16)]
    assert np.linalg.norm(drift) > 0.14
    assert errors[15] < 0.05 and errors[12] < 0.06
    source.reset()
    assert source.time_offset_s is None


def test_lag_is_read_from_the_turning() -> None:
    stamp = np.arange(60) * 0.1

    def turning(t: np.ndarray) -> np.ndarray:
        return 0.05 + 0.03 * np.sin(2.1 * t) + 0.02 * np.sin(5.3 * t)

    late = np.stack([stamp, turning(stamp - 0.15), turning(stamp)], -1)
    assert lag(late) == pytest.approx(0.15, abs=0.03)
    still = np.stack([stamp, np.zeros(60), np.zeros(60)], -1)
    assert lag(still) is None
    rng = np.random.default_rng(0)
    assert lag(np.stack([stamp, rng.normal(0, 0.1, 60), rng.normal(0, 0.1, 60)], -1)) is None


def test_alignment_needs_common_frames() -> None:
    T = path(7)
    found = align({1: np.eye(4), 2: path(3)}, {1: T, 2: T @ path(3)})
    assert found == pytest.approx(T, abs=1e-9)
    assert align({1: np.eye(4)}, {2: T}) is None
