"""Depth that comes with every frame (`depth.source: topic`), or none at all."""

from __future__ import annotations

import numpy as np

from motion4d_ros.config import Config
from motion4d_ros.priors.interfaces import DepthPrior, PosePrior, SceneHint
from motion4d_ros.types import Frame, Scale

GIVEN_SIGMA = 0.02  # relative, of one pixel


class GivenDepth:
    """Metric depth of a topic or of files: from a depth camera or a metric network."""

    def __init__(self, config: Config) -> None:
        self.config = config.depth

    def depth(self, frame: Frame, pose: PosePrior, hint: SceneHint | None) -> DepthPrior | None:
        """None when the frame brought no depth, or none within range."""
        if frame.depth_m is None:
            return None
        depth = frame.depth_m.astype(np.float32)
        with np.errstate(invalid="ignore"):
            usable = np.isfinite(depth) & (depth >= self.config.minimum) & (depth <= self.config.maximum)
        if not usable.any():
            return None
        depth = np.where(usable, depth, np.nan).astype(np.float32)
        return DepthPrior(depth, np.full_like(depth, GIVEN_SIGMA), Scale.METRIC)

    def reset(self) -> None:
        """There is nothing to forget."""


class NoDepth:
    """No depth at all."""

    def __init__(self, config: Config) -> None:
        self.config = config.depth

    def depth(self, frame: Frame, pose: PosePrior, hint: SceneHint | None) -> DepthPrior | None:
        """None."""
        return None

    def reset(self) -> None:
        """There is nothing to forget."""
