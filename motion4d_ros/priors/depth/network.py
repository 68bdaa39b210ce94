"""Depth seen by a network in each image. Set `depth.source` to `model` and `depth.model` to its name or file.

Such depth knows neither its scale nor, mostly, its offset: `DepthPrior.affine` says so, and the fit aligns every frame
to the scene in disparity (`docs/explanation/method.md`).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.models.depth_network import DISPARITY, METRIC, DepthNetwork, load_depth_network
from motion4d_ros.priors.interfaces import DepthPrior, PosePrior, SceneHint
from motion4d_ros.types import Frame, Motion4DError, Scale

SIGMA = 0.08  # relative, away from edges; networks differ (docs/how-to/models.md has what was measured)
FARTHEST = 100.0  # times the nearest: where a disparity sinks into its noise around zero nothing is known
EDGE = 0.5  # share of the jump across a pixel that counts as uncertainty: networks smear outlines


class ModelDepth:
    """One network, no memory."""

    def __init__(self, config: Config, network: DepthNetwork | None = None) -> None:
        self._config = config.depth
        self._network = network or load_depth_network(config)

    def depth(self, frame: Frame, pose: PosePrior, hint: SceneHint | None) -> DepthPrior | None:
        """None where the network returns nothing usable (a black image, for example)."""
        height, width = frame.camera.size
        found = self._network.infer(frame.image)
        if found.ndim != 2 or found.size == 0:
            raise Motion4DError(f"the network answered {found.shape}, not one map of depth")
        found = np.asarray(cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            disparity = found if self._network.output == DISPARITY else np.float32(1.0) / found
            usable = np.isfinite(disparity)
            if not usable.any():
                return None
            nearest = float(np.percentile(disparity[usable], 99.0))
            usable &= disparity > max(nearest, 0.0) / FARTHEST
            depth = np.where(usable, np.float32(1.0) / disparity, np.nan).astype(np.float32)
        scale = Scale.RELATIVE
        if self._network.output == METRIC:
            scale = Scale.METRIC
            with np.errstate(invalid="ignore"):
                depth[~((depth >= self._config.minimum) & (depth <= self._config.maximum))] = np.nan
        if not np.isfinite(depth).any():
            return None
        return DepthPrior(depth, relative_sigma(depth), scale, affine=True)

    def reset(self) -> None:
        """There is nothing to forget."""


def relative_sigma(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) one relative standard deviation: `SIGMA`, and more where the depth jumps between neighbours."""
    filled = np.where(np.isfinite(depth), depth, 0.0).astype(np.float32)
    square = np.ones((3, 3), np.uint8)
    high, low = cv2.dilate(filled, square), cv2.erode(filled, square)
    with np.errstate(divide="ignore", invalid="ignore"):
        jump = np.where(high > 0, (high - low) / high, 1.0)
    return np.hypot(SIGMA, EDGE * jump).astype(np.float32)
