"""Odometry that drifts or lags, mended by images."""

from __future__ import annotations

import numpy as np
from boards import CAMERA, SCENE, path, shot

from motion4d_ros.config import Config
from motion4d_ros.priors.pose.correction import RefinedPose
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
