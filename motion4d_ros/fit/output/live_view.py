"""Live estimates apart from the engine: another thread makes them while the engine fits a window.

A fit holds the scene for seconds. What a live estimate takes from it is small: the newest kept frame, the tracked
objects, the points on them. The engine keeps a view of these, made anew whenever they change, and whoever holds one
tells frames by it without asking the engine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motion4d_ros.config import Config
from motion4d_ros.fit.frontend.skipped_frames import KeptFrame
from motion4d_ros.fit.output.estimate_builder import LiveScene
from motion4d_ros.fit.semantics.mask_fusion import Fused
from motion4d_ros.types import Estimate, Frame


def suffices(config: Config) -> bool:
    """Whether a view says of a frame all that its sources would: poses and masks come with it, or there are none."""
    given = config.masks.source in ("topic", "none") and config.pose.source in ("odometry", "tf", "static")
    return given and config.budget.mode == "realtime"


@dataclass(frozen=True)
class LiveView:
    """What was known at one moment. Used by one thread at a time."""

    kept: KeptFrame
    scene: LiveScene

    def continues(self, frame: Frame) -> bool:
        """Whether a frame is of the same camera."""
        return frame.camera.is_like(self.kept.newest.output_camera)

    def look(self, frame: Frame, *, with_labels: bool = True, with_points: bool = True) -> Estimate:
        """The LIVE estimate of a frame, its index -1. Without labels `Estimate.masks` is (0, 0), without points there
        are none: each costs as much as the rest.

        Raises `Motion4DError` for masks of more objects than there may be.
        """
        state = self.kept.predicted(frame)
        fused = Fused(np.zeros((0, 0), np.int32), np.zeros((0, 0), np.float32))
        if with_labels:
            fused = self.kept.labels(state)
        return self.scene.tell(state, fused, with_points=with_points)
