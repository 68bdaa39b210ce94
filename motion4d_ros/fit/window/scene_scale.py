"""What a length of 1.0 in the map means, where depth and poses come from sources of their own."""

from __future__ import annotations

import numpy as np

from motion4d_ros.config import Config
from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.geometry.sight import Sight
from motion4d_ros.priors.interfaces import DepthPrior, PosePrior
from motion4d_ros.types import PoseStatus, Scale


def scene_scale(depth: Scale | None, pose: Scale) -> Scale:
    """The scale of a scene by what its depth and its poses say.

    `depth` is None where no depth has been told yet, UNKNOWN where it is a guess. `pose` is UNKNOWN while the camera's
    path has no length: a camera that stands still, turns on the spot or is not found.

    | depth    | poses METRIC | poses RELATIVE | poses UNKNOWN |
    |----------|--------------|----------------|---------------|
    | METRIC   | METRIC       | RELATIVE       | METRIC        |
    | RELATIVE | METRIC       | RELATIVE       | RELATIVE      |
    | UNKNOWN  | UNKNOWN      | RELATIVE       | UNKNOWN       |
    | None     | METRIC       | RELATIVE       | UNKNOWN       |
    """
    if pose is Scale.RELATIVE:  # a map in units of its own, which depth is brought to
        return Scale.RELATIVE
    if depth is None:
        return pose
    if depth is Scale.RELATIVE and pose is Scale.METRIC:
        return Scale.METRIC
    return depth


class SceneScale:
    """What the sources of a scene have said so far of its lengths: what one has told holds until it says otherwise."""

    def __init__(self, config: Config) -> None:
        self._still = config.pose.source == "static"
        self._flat = config.depth.source == "none"
        self._senses = config.depth.source in ("topic", "model")
        self.reset()

    def reset(self) -> None:
        """A new scene begins."""
        self.depth: Scale | None = None
        self.pose = Scale.UNKNOWN

    @property
    def now(self) -> Scale:
        """What a length means."""
        return scene_scale(self.depth, self.pose)

    @property
    def sensed(self) -> bool:
        """Whether a sensor or a network sees how far things are, those that move, too."""
        return self._senses and self.depth not in (None, Scale.UNKNOWN)

    @property
    def own_metres(self) -> bool:
        """Whether depth is in metres by itself, whatever the camera's path says."""
        return self._senses and self.depth is Scale.METRIC

    def hear_pose(self, pose: PosePrior) -> None:
        """The next frame's pose. A lost one says nothing; nor does the pose of a camera that is taken for still."""
        if pose.status is not PoseStatus.LOST and not self._still:
            self.pose = pose.scale

    def hear_depth(self, depth: DepthPrior | None) -> None:
        """The next frame's depth; None says nothing, unless the scene is flat for want of any."""
        if depth is not None:
            said = depth.scale
        elif self._flat:
            said = Scale.UNKNOWN
        else:
            return
        if self.depth is None or said is not Scale.UNKNOWN:
            self.depth = said


def sight_of(state: FrameState, object_id: int | None = None) -> Sight | None:
    """The view that a frame gives of an object, or of anything, where lengths are not metres; None where they are.

    How well its distance is known is what its depth source says of its pixels.
    """
    if state.scale is Scale.METRIC:
        return None
    sigma = state.depth_sigma if object_id is None else state.depth_sigma[state.labels == object_id]
    known = sigma[np.isfinite(sigma)]
    typical = float(np.median(known)) if len(known) else float(np.nanmedian(state.depth_sigma))
    return Sight(state.T_map_cam, typical, state.sensed)
