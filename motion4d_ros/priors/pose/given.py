"""Camera poses that come with every frame (`pose.source: odometry` or `tf`), and the camera that never moves."""

from __future__ import annotations

import numpy as np

from motion4d_ros.config import Config
from motion4d_ros.priors.interfaces import PosePrior, SceneHint
from motion4d_ros.types import FloatArray, Frame, PoseStatus, Scale

MAX_BRIDGED = 3  # frames without a pose that are bridged at constant velocity


class GivenPose:
    """The pose that the frame brought. Short gaps are bridged at constant velocity, long ones reported as lost."""

    def __init__(self, config: Config) -> None:
        self.config = config.pose
        self._last: FloatArray = np.eye(4)
        self._step: FloatArray = np.eye(4)
        self._seen = False
        self._gap = 0

    def pose(self, frame: Frame, hint: SceneHint | None) -> PosePrior:
        """As given; PREDICTED over a gap of at most `MAX_BRIDGED` frames, then LOST at the last known place."""
        if frame.T_map_cam is not None:
            self._step = frame.T_map_cam @ np.linalg.inv(self._last) if self._seen else np.eye(4)
            self._last, self._seen, self._gap = frame.T_map_cam.copy(), True, 0
            return PosePrior(frame.T_map_cam, PoseStatus.OK, Scale.METRIC)
        self._gap += 1
        if not self._seen or self._gap > MAX_BRIDGED:
            return PosePrior(self._last.copy(), PoseStatus.LOST, Scale.METRIC, sigma_m=1.0, sigma_rad=0.5)
        self._last = self._step @ self._last
        return PosePrior(
            self._last.copy(), PoseStatus.PREDICTED, Scale.METRIC, sigma_m=0.02 * self._gap, sigma_rad=0.02
        )

    def reset(self) -> None:
        """Forgets the last pose."""
        self._last = np.eye(4)
        self._step = np.eye(4)
        self._seen = False
        self._gap = 0


class StaticPose:
    """A camera that is bolted down: its own frame is the map. Metric if depth is."""

    def __init__(self, config: Config) -> None:
        self.config = config.pose

    def pose(self, frame: Frame, hint: SceneHint | None) -> PosePrior:
        """The identity."""
        return PosePrior(np.eye(4), PoseStatus.OK, Scale.METRIC)

    def reset(self) -> None:
        """There is nothing to forget."""
