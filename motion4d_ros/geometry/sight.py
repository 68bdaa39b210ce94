"""Where things go that are seen without a known distance: their bearing moves on, their distance stays.

Images tell in which direction a thing is and how that changes, not how far it is. So its motion is continued in
(bearing, logarithm of distance), as in modified polar coordinates (Aidala and Hammel, IEEE TAC 1983): the bearing moves
at a constant rate on the image plane of the camera that saw it last, and the distance is held. However long that goes
on, the thing stays in front of that camera and does not move along its ray.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motion4d_ros.types import FloatArray

FARTHEST = 2.0  # factor by which a predicted distance may differ from the one seen last
WIDEST = 1e3  # tangent of the angle to the camera's axis: what is predicted stays in front of the image plane
_NEAREST = 1e-9  # map units; nearer than this to the camera there is no direction


@dataclass(frozen=True)
class Sight:
    """The view in which something was seen, where lengths are not metres."""

    T_map_cam: FloatArray  # (4, 4)
    sigma: float = 0.0  # relative standard deviation of its distance, which many frames may share
    ranged: bool = False  # whether its distance is measured in every frame, and so its motion along the ray

    @property
    def centre(self) -> FloatArray:
        """(3,) the camera, map."""
        return np.asarray(self.T_map_cam[:3, 3], float)

    def direction(self, xyz_map: FloatArray) -> FloatArray:
        """(..., 3) unit vectors from the camera to (..., 3) map points."""
        away = np.asarray(xyz_map, float) - self.centre
        return away / np.maximum(np.linalg.norm(away, axis=-1, keepdims=True), _NEAREST)

    def depth(self, xyz_map: FloatArray) -> FloatArray:
        """(...) how far (..., 3) map points are in front of the camera, along its axis."""
        return np.asarray((np.asarray(xyz_map, float) - self.centre) @ self.T_map_cam[:3, 2])

    def told(self, xyz_map: FloatArray, velocity: FloatArray) -> FloatArray:
        """(..., 3) what is told of the `velocity` (..., 3) of map points: without the part along the ray, unless that
        is measured.
        """
        if self.ranged:
            return velocity
        ray = self.direction(xyz_map)
        return np.asarray(velocity - (velocity * ray).sum(-1, keepdims=True) * ray)

    def onward(
        self, xyz_map: FloatArray, velocity: FloatArray, seconds: float, T_map_now: FloatArray | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """(N, 3) where map points (N, 3) that move at `velocity` (N, 3) are after `seconds`, and how they move then.

        Their distance from where they were seen stays; where it is `ranged` it goes on changing, by a factor of less
        than `FARTHEST` in all. A camera that has moved on since, to `T_map_now` (4, 4), has them before it still, by
        that factor nearer at most. What was not in front of the camera stays where it is.
        """
        R = self.T_map_cam[:3, :3]
        local, moving = (xyz_map - self.centre) @ R, velocity @ R
        ahead = local[:, 2] > _NEAREST
        local = np.where(ahead[:, None], local, [0.0, 0.0, 1.0])
        z, distance = local[:, 2:], np.linalg.norm(local, axis=1, keepdims=True)
        bearing = local[:, :2] / z
        rate = (moving[:, :2] - bearing * moving[:, 2:]) / z
        there = bearing + seconds * rate
        there *= np.minimum(1.0, WIDEST / np.maximum(np.linalg.norm(there, axis=1, keepdims=True), 1.0))
        plane = np.concatenate([there, np.ones_like(z)], 1)
        shift = np.concatenate([rate, np.zeros_like(z)], 1)
        length = np.linalg.norm(plane, axis=1, keepdims=True)
        ray = plane / length
        turning = (shift - (shift * ray).sum(1, keepdims=True) * ray) / length
        factor, growth = self._stretch((local * moving).sum(1, keepdims=True) / distance**2, seconds)
        placed = (factor * distance * ray) @ R.T + self.centre
        moved = (factor * distance * (turning + growth * ray)) @ R.T
        placed = np.where(ahead[:, None], placed, xyz_map)
        moved = np.where(ahead[:, None], moved, 0.0)
        if T_map_now is not None:
            placed = placed + self._kept_before(placed, np.where(ahead[:, None], distance, np.nan), T_map_now[:3, 3])
        return placed, moved

    def _stretch(self, rate: FloatArray, seconds: float) -> tuple[FloatArray, FloatArray]:
        """(N, 1) factor of the distance after `seconds`, and its relative rate then, 1/s; `rate` (N, 1) now."""
        if not self.ranged:
            return np.ones_like(rate), np.zeros_like(rate)
        most = np.log(FARTHEST)
        share = np.tanh(rate * seconds / most)
        return np.exp(most * share), rate * (1.0 - share**2)

    def _kept_before(self, placed: FloatArray, distance: FloatArray, now: FloatArray) -> FloatArray:
        """(N, 3) by how much to move points (N, 3) along their rays so that the camera, at `now` (3,), has them before
        it; `distance` (N, 1) is that from where they were seen, NaN for points that stay.
        """
        ray = self.direction(placed)
        along = ((placed - now) * ray).sum(1, keepdims=True)
        return np.asarray(np.nan_to_num(np.maximum(distance / FARTHEST - along, 0.0)) * ray)
