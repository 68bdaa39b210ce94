"""Whether live predictions err as much as they say, checked against what the fit says of the same frames later.

The measure is the squared error in units of the stated variance (normalised estimation error squared, NEES;
Bar-Shalom, Li and Kirubarajan, "Estimation with Applications to Tracking and Navigation", sec. 5.4), by number: 1 is
honest. Its running mean scales what is stated next, so that predictions learn how well objects can be predicted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from motion4d_ros.types import FloatArray

MEMORY = 64  # checks that the running means go back, about
LARGEST = 25.0  # a single check counts for no more: a bounce is no habit
KEPT = 256  # predictions that wait for their check
BAND = (1 / 3, 3.0)  # of the running mean: outside, a robot should know
ENOUGH = 32  # checks before the band means anything


@dataclass(frozen=True)
class _Prediction:
    position: FloatArray  # (3,) m
    rotation: FloatArray  # (3, 3)
    covariance: FloatArray  # (6, 6) before it was scaled
    scale: float


class LiveConsistency:
    """Running consistency of the live predictions of all objects."""

    def __init__(self) -> None:
        self.checks = 0
        self.scale = 1.0
        """Factor for the covariances of predictions."""
        self.told = 1.0
        """Mean squared error of predictions by what was told of them, scaled as they were; 1 is honest."""
        self._waiting: dict[tuple[int, int], _Prediction] = {}

    def predicted(
        self, object_id: int, stamp_ns: int, position: FloatArray, rotation: FloatArray, covariance: FloatArray
    ) -> None:
        """Notes a prediction; its (6, 6) `covariance` without `scale`, and without what the fit may err itself."""
        self._waiting.pop((object_id, stamp_ns), None)
        self._waiting[object_id, stamp_ns] = _Prediction(position, rotation, covariance, self.scale)
        while len(self._waiting) > KEPT:
            del self._waiting[next(iter(self._waiting))]

    def measured(
        self, object_id: int, stamp_ns: int, position: FloatArray, rotation: FloatArray, covariance: FloatArray
    ) -> None:
        """Checks the prediction of a pose, if there was one, against the fitted one; its `covariance` is its jitter."""
        guess = self._waiting.pop((object_id, stamp_ns), None)
        if guess is None:
            return
        error = np.concatenate(
            [position - guess.position, Rotation.from_matrix(rotation @ guess.rotation.T).as_rotvec()]
        )
        self.checks += 1
        share = 1 / min(self.checks, MEMORY)
        self.told += share * (_size(error, guess.scale * guess.covariance + covariance) - self.told)
        self.scale += share * (_size(error, guess.covariance + covariance) - self.scale)
        self.scale = float(np.clip(self.scale, 1 / LARGEST, LARGEST))

    @property
    def outside_band(self) -> bool:
        """Whether predictions err clearly more, or less, than they say."""
        return self.checks >= ENOUGH and not BAND[0] <= self.told <= BAND[1]

    def forget_before(self, stamp_ns: int) -> None:
        """What was predicted for frames before `stamp_ns` will not be checked any more."""
        self._waiting = {key: value for key, value in self._waiting.items() if key[1] >= stamp_ns}

    def forget(self, object_id: int) -> None:
        """An object was deleted."""
        self._waiting = {key: value for key, value in self._waiting.items() if key[0] != object_id}


def _size(error: FloatArray, covariance: FloatArray) -> float:
    return min(float(error @ np.linalg.solve(covariance, error)) / len(error), LARGEST)
