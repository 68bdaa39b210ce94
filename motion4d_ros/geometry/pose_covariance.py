"""How well the pose of a rigid body is known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from motion4d_ros.types import FloatArray


@dataclass(frozen=True)
class PoseCovariance:
    """Covariances of a pose: of the position of one point of the body, m, and of its rotation, rad, map frame."""

    place: FloatArray  # (3,) m, map: the point whose position is meant
    covariance: FloatArray  # (6, 6) position, rotation
    jitter: FloatArray  # (6, 6) the part of it that neighbouring frames do not share
    twist: FloatArray = field(default_factory=lambda: np.zeros((6, 6)))
    """(6, 6) of the velocity, m/s, and rate of rotation, rad/s, beside what a filter of the poses knows: errors that
    change slowly look like motion, and a body that bends has no single one."""

    @property
    def shared(self) -> FloatArray:
        """(6, 6) the part that neighbouring frames share: no filter averages it."""
        values, vectors = np.linalg.eigh(self.covariance - self.jitter)
        return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)

    def about(self, place: FloatArray) -> PoseCovariance:
        """The same of another point (3,) of the body, m, map."""
        moved = lever(place - self.place)
        return PoseCovariance(place, *(moved @ each @ moved.T for each in (self.covariance, self.jitter, self.twist)))

    def scaled(self, position: float, rotation: float) -> PoseCovariance:
        """With variances of the position and of the rotation, and of their rates, by these factors as large."""
        factor = np.sqrt(np.repeat([position, rotation], 3))
        both = np.outer(factor, factor)
        return PoseCovariance(self.place, *(both * each for each in (self.covariance, self.jitter, self.twist)))

    def of_points(self, xyz: FloatArray) -> FloatArray:
        """(N, 3, 3) covariances of points (N, 3) of the body, m, map."""
        moved = lever(xyz - self.place)[:, :3]
        return np.asarray(moved @ self.covariance @ moved.transpose(0, 2, 1))

    def plus(self, pose: FloatArray, twist: FloatArray) -> PoseCovariance:
        """With covariances (6, 6) added that neighbouring frames share."""
        return PoseCovariance(self.place, self.covariance + pose, self.jitter, self.twist + twist)


def lever(arm: FloatArray) -> FloatArray:
    """(..., 6, 6) from changes (position, rotation) of a body at one point to those at points `arm` (..., 3) farther:
    what turns by w moves there by w x arm.
    """
    x, y, z = np.moveaxis(np.asarray(arm, float), -1, 0)
    moved = np.zeros((*x.shape, 6, 6))
    moved[..., range(6), range(6)] = 1.0
    moved[..., 0, 4], moved[..., 0, 5] = z, -y
    moved[..., 1, 3], moved[..., 1, 5] = -z, x
    moved[..., 2, 3], moved[..., 2, 4] = y, -x
    return moved
