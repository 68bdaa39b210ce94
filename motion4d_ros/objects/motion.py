"""Constant-velocity filtering and smoothing of a rigid body's pose, with honest covariances.

Position and orientation are two filters of the same form, value and rate: a Kalman filter for the position, an
error-state Kalman filter with perturbations in the map frame, ``R = exp(dθ) R̂``, for the orientation. The velocity
follows a random walk. Where lengths are not metres, the position goes on in (bearing, distance) instead (`Sight`): of
the velocity along the ray nothing is learnt, so its mean stays 0 and its variance that of the first sight. Backwards,
the Rauch-Tung-Striebel smoother (AIAA Journal 1965) on the same tangent spaces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from motion4d_ros.geometry.sight import Sight
from motion4d_ros.types import FloatArray

SURPRISE_GATE = 11.34
"""99 % of innovations of three numbers are smaller than this (chi-square): beyond, the body is manoeuvring."""


@dataclass(frozen=True)
class ProcessNoise:
    """How freely a body changes its motion and how uncertain a new one's is."""

    velocity: float  # m/s of change within one second
    rate: float  # rad/s of change within one second
    first_velocity: float = 2.0  # m/s, one standard deviation at the first sight
    first_rate: float = 2.0  # rad/s


@dataclass(frozen=True)
class PoseMeasurement:
    """Where a body was seen."""

    position: FloatArray  # (3,) m
    position_covariance: FloatArray  # (3, 3)
    rotation: FloatArray | None = None  # (3, 3); None = not measured
    rotation_covariance: FloatArray | None = None  # (3, 3) rad²

    def scaled(self, position: float, rotation: float) -> PoseMeasurement:
        """With variances by these factors as large."""
        turned = None if self.rotation_covariance is None else rotation * self.rotation_covariance
        return replace(self, position_covariance=position * self.position_covariance, rotation_covariance=turned)


@dataclass(frozen=True)
class Half:
    """One half of the motion: `value` is a position (3,) or a rotation (3, 3), `rate` its velocity (3,) in the map."""

    value: FloatArray
    rate: FloatArray
    covariance: FloatArray  # (6, 6) of value, rate


@dataclass(frozen=True)
class MotionState:
    """Pose and twist of a body at a time."""

    stamp_ns: int
    linear: Half
    angular: Half

    @property
    def pose_covariance(self) -> FloatArray:
        """(6, 6) of position (m) and rotation about the map's axes (rad)."""
        return _block_diagonal(self.linear.covariance[:3, :3], self.angular.covariance[:3, :3])


@dataclass(frozen=True)
class FilterStep:
    """One step of the filter, with what the smoother needs."""

    predicted: MotionState | None  # None for the first
    transitions: tuple[FloatArray, FloatArray] | None  # linear and angular (6, 6), from the step before
    updated: MotionState
    measurement: PoseMeasurement | None = None  # what it was updated with
    sight: Sight | None = None  # and where it was seen from


def begin(stamp_ns: int, measurement: PoseMeasurement, process_noise: ProcessNoise) -> FilterStep:
    """The state at first sight: at rest, as far as anyone knows."""
    rotation = np.eye(3) if measurement.rotation is None else measurement.rotation
    turned = measurement.rotation_covariance if measurement.rotation is not None else None
    linear = _block_diagonal(measurement.position_covariance, np.eye(3) * process_noise.first_velocity**2)
    angular = _block_diagonal(
        np.eye(3) * np.pi**2 if turned is None else turned, np.eye(3) * process_noise.first_rate**2
    )
    state = MotionState(
        stamp_ns,
        Half(np.asarray(measurement.position, float), np.zeros(3), linear),
        Half(np.asarray(rotation, float), np.zeros(3), angular),
    )
    return FilterStep(None, None, state)


def predict(state: MotionState, stamp_ns: int, process_noise: ProcessNoise, sight: Sight | None = None) -> MotionState:
    """The state continued at constant twist; its covariance grows with the time that passes. With a `sight`, as that
    continues the position.
    """
    seconds = (stamp_ns - state.stamp_ns) * 1e-9
    linear, _ = _predict(state.linear, seconds, process_noise.velocity**2, _View.of(sight, process_noise))
    angular, _ = _predict(state.angular, seconds, process_noise.rate**2)
    return MotionState(stamp_ns, linear, angular)


def scaled(state: MotionState, factor: float) -> MotionState:
    """The same state with covariances `factor` times as large."""
    halves = (Half(half.value, half.rate, factor * half.covariance) for half in (state.linear, state.angular))
    return MotionState(state.stamp_ns, *halves)


def advance(
    state: MotionState,
    stamp_ns: int,
    measurement: PoseMeasurement | None,
    process_noise: ProcessNoise,
    sight: Sight | None = None,
) -> FilterStep:
    """Predicts to `stamp_ns`, as `predict` does, and, where something was measured, updates.

    A measurement that the prediction can't explain (a bounce, a kick) makes the velocity freer for this one step, just
    as much as is needed: the data choose the stiffness of the motion model.
    """
    seconds = (stamp_ns - state.stamp_ns) * 1e-9
    linear = _advance(
        state.linear,
        seconds,
        process_noise.velocity**2,
        None if measurement is None else measurement.position,
        None if measurement is None else measurement.position_covariance,
        _View.of(sight, process_noise),
    )
    angular = _advance(
        state.angular,
        seconds,
        process_noise.rate**2,
        None if measurement is None else measurement.rotation,
        None if measurement is None else measurement.rotation_covariance,
    )
    return FilterStep(
        predicted=MotionState(stamp_ns, linear[0], angular[0]),
        transitions=(linear[1], angular[1]),
        updated=MotionState(stamp_ns, linear[2], angular[2]),
        measurement=measurement,
        sight=sight,
    )


def again(
    steps: Sequence[FilterStep], noise_at: Callable[[int], ProcessNoise], jitter: tuple[float, float] = (1.0, 1.0)
) -> list[FilterStep]:
    """The same steps with another process noise, by stamp, from the first step's state on. `jitter`: factors of the
    variances that measured positions and rotations state.
    """
    result = list(steps[:1])
    for step in steps[1:]:
        stamp_ns = step.updated.stamp_ns
        measured = None if step.measurement is None else step.measurement.scaled(*jitter)
        result.append(advance(result[-1].updated, stamp_ns, measured, noise_at(stamp_ns), step.sight))
    return result


def smooth(steps: Sequence[FilterStep]) -> list[MotionState]:
    """States given all measurements, not only those up to each time. `steps` are consecutive."""
    if not steps:
        return []
    states = [steps[-1].updated]
    for step, following in zip(reversed(steps[:-1]), reversed(steps[1:])):
        assert following.predicted is not None and following.transitions is not None
        predicted, later = following.predicted, states[-1]
        linear = _smooth(step.updated.linear, predicted.linear, following.transitions[0], later.linear)
        angular = _smooth(step.updated.angular, predicted.angular, following.transitions[1], later.angular)
        states.append(MotionState(step.updated.stamp_ns, linear, angular))
    return states[::-1]


@dataclass(frozen=True)
class _View:
    """A sight, and how fast things may move along its rays."""

    sight: Sight
    speed: float  # map units/s, one standard deviation

    @staticmethod
    def of(sight: Sight | None, process_noise: ProcessNoise) -> _View | None:
        return None if sight is None else _View(sight, process_noise.first_velocity)

    def predict(self, half: Half, seconds: float, density: float) -> tuple[Half, FloatArray]:
        """As `_predict`, of a position whose distance is not measured, or only in units that are no metres."""
        value, rate = (each[0] for each in self.sight.onward(half.value[None], half.rate[None], seconds))
        transition = np.eye(6)
        transition[:3, 3:] = seconds * np.eye(3)
        noise = np.kron(_random_walk(density, seconds), np.eye(3))
        if not self.sight.ranged:
            across, ray = _across(self.sight.direction(half.value)), self.sight.direction(value)
            transition[:3, 3:], transition[3:, 3:] = seconds * across, across
            noise = np.kron(_random_walk(density, seconds), _across(ray))
            along = self.speed**2 + float(rate @ rate)  # as a thing seen for the first time, or as it moves across
            noise += np.kron(np.diag([along * seconds**2, along]), np.outer(ray, ray))
        return Half(value, rate, transition @ half.covariance @ transition.T + noise), transition


def _across(ray: FloatArray) -> FloatArray:
    """(3, 3) projection onto the directions across a `ray` (3,)."""
    return np.asarray(np.eye(3) - np.outer(ray, ray))


def _random_walk(density: float, seconds: float) -> FloatArray:
    """(2, 2) covariance that a value and its rate gain; `density` is the rate's variance per second."""
    return density * np.array([[seconds**3 / 3, seconds**2 / 2], [seconds**2 / 2, seconds]])


def _predict(half: Half, seconds: float, density: float, view: _View | None = None) -> tuple[Half, FloatArray]:
    """`half` after `seconds` and the (6, 6) transition of its errors; `density` is the rate's variance per second."""
    if view is not None:
        return view.predict(half, seconds, density)
    step = half.rate * seconds
    transition = np.eye(6)
    transition[:3, 3:] = seconds * np.eye(3)
    if half.value.ndim == 2:
        transition[:3, :3] = Rotation.from_rotvec(step).as_matrix()
    noise = np.kron(_random_walk(density, seconds), np.eye(3))
    covariance = transition @ half.covariance @ transition.T + noise
    return Half(_plus(half.value, step), half.rate, covariance), transition


def _advance(
    half: Half,
    seconds: float,
    density: float,
    measured: FloatArray | None,
    noise: FloatArray | None,
    view: _View | None = None,
) -> tuple[Half, FloatArray, Half]:
    """Predicted half, transition, updated half."""
    predicted, transition = _predict(half, seconds, density, view)
    if measured is None or noise is None:
        return predicted, transition, predicted
    innovation = _minus(measured, predicted.value)
    for _ in range(12):
        spread = predicted.covariance[:3, :3] + noise
        if seconds <= 0 or innovation @ np.linalg.solve(spread, innovation) <= SURPRISE_GATE:
            break
        density = max(density, 1e-6) * 4.0
        predicted, transition = _predict(half, seconds, density, view)
    gain = np.linalg.solve(spread, predicted.covariance[:3]).T  # (6, 3)
    change = gain @ innovation
    remaining = np.eye(6)
    remaining[:, :3] -= gain
    covariance = remaining @ predicted.covariance @ remaining.T + gain @ noise @ gain.T  # Joseph's form
    updated = Half(_plus(predicted.value, change[:3]), predicted.rate + change[3:], _symmetric(covariance))
    return predicted, transition, updated


def _smooth(updated: Half, predicted: Half, transition: FloatArray, later: Half) -> Half:
    """One backward step: `updated` at this time, `predicted` and the smoothed `later` at the next."""
    gain = np.linalg.solve(predicted.covariance, transition @ updated.covariance).T
    surprise = np.concatenate([_minus(later.value, predicted.value), later.rate - predicted.rate])
    change = gain @ surprise
    covariance = updated.covariance + gain @ (later.covariance - predicted.covariance) @ gain.T
    return Half(_plus(updated.value, change[:3]), updated.rate + change[3:], _symmetric(covariance))


def _plus(value: FloatArray, change: FloatArray) -> FloatArray:
    """A position moved, or a rotation turned about the map's axes, by `change` (3,)."""
    return value + change if value.ndim == 1 else Rotation.from_rotvec(change).as_matrix() @ value


def _minus(value: FloatArray, reference: FloatArray) -> FloatArray:
    """The (3,) change that takes `reference` to `value`."""
    if value.ndim == 1:
        return value - reference
    return Rotation.from_matrix(value @ reference.T).as_rotvec()


def _symmetric(covariance: FloatArray) -> FloatArray:
    return (covariance + covariance.T) / 2


def _block_diagonal(first: FloatArray, second: FloatArray) -> FloatArray:
    """(6, 6) from two (3, 3) blocks."""
    covariance = np.zeros((6, 6))
    covariance[:3, :3], covariance[3:, 3:] = first, second
    return covariance
