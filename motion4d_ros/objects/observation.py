"""What the scene says about one object at one time, and how certain that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motion4d_ros.geometry.pose_covariance import PoseCovariance
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
    pose_covariance: PoseCovariance | None = None  # of T_map_base, if a fit knows it
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

    def uncertainty(self, place: FloatArray, noise_m: float) -> PoseCovariance:
        """How well `T_map_base` is known, of the object's point at `place` (3,) m, map: as the fit says.

        Without one, from how much of the object supports it: `noise_m` is one standard deviation of the position in
        full view. The points' moments resist turning (information = sum of |x|² I - x xᵀ over the noise), so a small or
        elongated object's orientation is less certain about axes with little leverage.
        """
        if self.pose_covariance is not None:
            return self.pose_covariance.about(place)
        points, weights = self.usable()
        share = self.visible_pixels / max(self.expected_pixels, self.visible_pixels, 1)
        variance = noise_m**2 / max(share, 0.05)
        covariance = np.zeros((6, 6))
        covariance[:3, :3], covariance[3:, 3:] = variance * np.eye(3), np.pi**2 * np.eye(3)
        if len(points):
            centered = points - np.average(points, axis=0, weights=weights)
            scatter = (centered * weights[:, None]).T @ centered / weights.sum()
            leverage = np.trace(scatter) * np.eye(3) - scatter
            independent = min(len(points), INDEPENDENT_POINTS)
            covariance[:3, :3] += scatter / independent**2
            covariance[3:, 3:] = np.linalg.inv(leverage / variance + np.eye(3) / np.pi**2)  # at worst "any direction"
        return PoseCovariance(place, covariance, covariance)
