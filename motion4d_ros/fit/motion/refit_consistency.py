"""Whether the poses of a body err as much as its adjustment says, checked against what later adjustments say.

An adjustment knows how precise its solution is, not whether it is the right one: points that were followed wrongly
agree with each other. Later windows see more, and what they change in the frames told before shows how far off those
were. If all is honest, a first estimate differs from a later, better one by the difference of their covariances
(Hausman, "Specification Tests in Econometrics", Econometrica 1978). The covariance is therefore taken to be right up to
a factor, one for positions and one for rotations of a body. These differences make its inverse-gamma posterior, as of
the a-posteriori variance factor of geodesy (Baarda, "A Testing Procedure for Use in Geodetic Networks", 1968).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from motion4d_ros.geometry.pose_covariance import PoseCovariance
from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.types import FloatArray

EXPECTED = (2.0, 6.0)
"""Factors of the variances of positions and rotations that are usual when a frame is told first (made-up scenes, seeds
71, 72, 91 and 92, `python -m motion4d_ros.evaluation.calibration`)."""

WEIGHT = 2.0  # of what is usual, in windows
LARGEST = 50.0  # a window's change counts for no more: an object that is found again elsewhere has jumped once
LEAST_GAIN = 0.25  # share of a variance that a later adjustment gains at least: later windows are no independent proof
SETTLED = 0.1  # share of the excess that is left in frames which later windows have seen


class _Told(NamedTuple):
    pose: FloatArray  # (4, 4) canonical -> map
    known: PoseCovariance


class RefitConsistency:
    """Factors for the covariances of one body, learnt over the run."""

    def __init__(self) -> None:
        self._weight = WEIGHT
        self._sum = WEIGHT * np.array(EXPECTED)
        self._told: dict[int, _Told] = {}  # of the frames that the newest adjustment is the first to know
        self._newest = -1  # frame index

    @property
    def factors(self) -> FloatArray:
        """(2,) of the variances of positions and of rotations, in frames told for the first time."""
        return np.asarray(self._sum / self._weight)

    def adjusted(
        self,
        pose: Callable[[int], FloatArray],
        covariances: dict[int, PoseCovariance],
        measured: Collection[int],
    ) -> None:
        """After the adjustment of a window: the `pose` (4, 4) of a frame by its index, how well it is known, and in
        which frames enough was seen.
        """
        found = {index: _Told(pose(index), known) for index, known in covariances.items() if index in measured}
        changes = [_change(told, found[index]) for index, told in self._told.items() if index in found]
        if changes:
            self._sum += np.minimum(np.mean(changes, axis=0), LARGEST)
            self._weight += 1.0
        self._told = {index: told for index, told in found.items() if index > self._newest}
        self._newest = max(self._newest, *covariances)

    def scaled(self, index: int, known: PoseCovariance) -> PoseCovariance:
        """The covariance to tell of a frame, from what its adjustment knows."""
        share = 1.0 if index in self._told else SETTLED
        return known.scaled(*(1.0 + share * (self.factors - 1.0)))


def _change(before: _Told, now: _Told) -> FloatArray:
    """(2,) squared change of position and of rotation, per axis, by how large it ought to be."""
    place = before.known.place
    moved = transform_points(now.pose @ np.linalg.inv(before.pose), place[None])[0] - place
    turned = Rotation.from_matrix(now.pose[:3, :3] @ before.pose[:3, :3].T).as_rotvec()
    variance = np.diag(before.known.covariance)
    gained = np.maximum(variance - np.diag(now.known.about(place).covariance), LEAST_GAIN * variance)
    return np.asarray((np.concatenate([moved, turned]) ** 2 / gained).reshape(2, 3).mean(1))
