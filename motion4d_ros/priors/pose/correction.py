"""Given poses that drift or lag, mended by the images (`pose.refine`).

The given poses fix the scale and the place of the map; from then on the images say how the camera moved, and the given
poses bridge what the images can't show.
"""

from __future__ import annotations

import numpy as np

from motion4d_ros.config import Config
from motion4d_ros.geometry.rigid import inverse_pose, pose_matrix
from motion4d_ros.geometry.two_view import procrustes
from motion4d_ros.priors.interfaces import PosePrior, SceneHint
from motion4d_ros.priors.pose.given import GivenPose
from motion4d_ros.priors.pose.visual_odometry import VisualPose
from motion4d_ros.types import FloatArray, Frame, PoseStatus, Scale

HISTORY = 120  # frames whose given poses are kept, to be aligned with the visual ones


class RefinedPose:
    """A `PoseSource`: `VisualPose`, put into the frame and scale of the poses that come with the frames."""

    def __init__(self, config: Config) -> None:
        self._given = GivenPose(config)
        self._visual = VisualPose(config)
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self._given.reset()
        self._visual.reset()
        self._given_poses: dict[int, FloatArray] = {}
        self._revised: dict[int, FloatArray] = {}
        self._T_given_visual: FloatArray | None = None
        self._correction: FloatArray = np.eye(4)

    def revised_poses(self) -> dict[int, FloatArray]:
        """Poses of earlier frames that changed since the last call: frame index -> T_map_cam (4, 4)."""
        revised, self._revised = self._revised, {}
        return revised

    def pose(self, frame: Frame, hint: SceneHint | None) -> PosePrior:
        """The images' word on the camera where they have one, else the given pose, corrected as far as is known."""
        given = self._given.pose(frame, hint)
        seen = self._visual.pose(frame, hint)
        if frame.T_map_cam is not None:
            self._given_poses[frame.index] = frame.T_map_cam
        revised = self._visual.revised_poses()
        if revised and seen.scale is Scale.METRIC:
            self._T_given_visual = align(revised, self._given_poses)
            if self._T_given_visual is not None:
                self._revised = {index: self._T_given_visual @ T for index, T in revised.items()}
        for index in [i for i in self._given_poses if i < frame.index - HISTORY]:
            del self._given_poses[index]
        if self._T_given_visual is None or seen.status is not PoseStatus.OK:
            T = self._correction @ given.T_map_cam
            return PosePrior(T, given.status, given.scale, given.sigma_m, given.sigma_rad)
        T = self._T_given_visual @ seen.T_map_cam
        if frame.T_map_cam is not None:
            self._correction = T @ inverse_pose(frame.T_map_cam)
        return PosePrior(T, PoseStatus.OK, Scale.METRIC, seen.sigma_m, seen.sigma_rad)


def align(visual: dict[int, FloatArray], given: dict[int, FloatArray]) -> FloatArray | None:
    """(4, 4) T_given_visual that brings the visual poses onto the given ones of the same frames; None without any."""
    common = [index for index in visual if index in given]
    if not common:
        return None
    a, b = np.stack([visual[i] for i in common]), np.stack([given[i] for i in common])
    axes_a, axes_b = (poses[:, :3, :3].transpose(0, 2, 1).reshape(-1, 3) for poses in (a, b))
    R = procrustes(axes_a, axes_b)
    return pose_matrix(R, np.median(b[:, :3, 3] - a[:, :3, 3] @ R.T, axis=0))
