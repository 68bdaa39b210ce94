"""What the scene says about one object at one time, and how certain that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motion4d_ros.geometry.sight import Sight
from motion4d_ros.objects.lifecycle import Sighting
from motion4d_ros.types import FloatArray

INDEPENDENT_POINTS = 50
"""Points of one frame share depth and pose errors: more of them than this add no information."""


@dataclass
class ObjectObservation:
    """What the scene says about one object at one time."""

    object_id: int
    points_map: FloatArray  # (N, 3) m, where its points are now (may be empty)
    point_weights: FloatArray  # (N,) > 0, for example opacities
    T_map_base: FloatArray | None  # (4, 4) rigid motion canonical -> now (`Scene.object_pose`); None = unknown
    visible_pixels: int  # pixels at which the 2D masks show it
    expected_pixels: int  # pixels it would cover if nothing stood before it
    hidden_share: float = 0.0  # share of those that something nearer hides, [0, 1]
    in_view: bool = True  # within the camera's field of view
    label: str = ""
    colors: FloatArray | None = None  # (N, 3) RGB in [0, 1], to recognise it by when it returns
    pose_covariance: FloatArray | None = None  # (6, 6) of T_map_base at the object, if a fit knows it
    sight: Sight | None = None  # the view it was seen in, where lengths are not metres

    @property
    def sighting(self) -> Sighting:
        """Its visibility."""
        return Sighting(self.visible_pixels, self.expected_pixels, self.hidden_share, self.in_view)

    def usable(self) -> tuple[FloatArray, FloatArray]:
        """Finite points (N, 3) with positive weights (N,)."""
        points, weights = np.asarray(self.points_map, float), np.asarray(self.point_weights, float)
        good = np.isfinite(points).all(1) & np.isfinite(weights) & (weights > 0)
        return points[good], weights[good]

    def uncertainty(self, noise_m: float) -> tuple[FloatArray, FloatArray]:
        """Covariances (3, 3) of the position, m², and rotation, rad², of `T_map_base` at the object.

        Those of the fit where it knows them; else from how much of the object supports them: `noise_m` is one standard
        deviation of the position in full view. The points' moments resist turning (information = sum of |x|² I - x xᵀ
        over the noise), so a small or elongated object's orientation is less certain about axes with little leverage.
        """
        if self.pose_covariance is not None:
            return self.pose_covariance[:3, :3], self.pose_covariance[3:, 3:]
        points, weights = self.usable()
        share = self.visible_pixels / max(self.expected_pixels, self.visible_pixels, 1)
        variance = noise_m**2 / max(share, 0.05)
        if len(points) == 0:
            return variance * np.eye(3), np.pi**2 * np.eye(3)
        centered = points - np.average(points, axis=0, weights=weights)
        scatter = (centered * weights[:, None]).T @ centered / weights.sum()
        leverage = np.trace(scatter) * np.eye(3) - scatter
        turn = np.linalg.inv(leverage / variance + np.eye(3) / np.pi**2)  # never less certain than "any direction"
        independent = min(len(points), INDEPENDENT_POINTS)
        return variance * np.eye(3) + scatter / independent**2, turn
