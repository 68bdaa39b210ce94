"""How freely a body changes its motion, and how much its poses jitter, learnt from how it has moved.

Changes of velocity are Student-t: a Gaussian whose density (variance per second) is another at every step. How large it
is as a rule comes from the likelihood of what was measured, as a Kalman filter at constant velocity gives it from its
innovations (Harvey, "Forecasting, Structural Time Series Models and the Kalman Filter", sec. 3.4), for a range of
densities at once; their mean under the posterior keeps little data cautious. How large it was at each step comes from
expectation and maximisation about the smoothed motion (Meinhold and Singpurwalla, JASA 1989): a body that rests has a
steady velocity then, though it has bounced before.

The same innovations tell how much neighbouring poses really jitter (Mehra, "On the Identification of Variances and
Adaptive Kalman Filtering", IEEE TAC 1970): an adjustment states it only up to a factor, as its errors of depth and of
flow are smoother in time than it can know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from motion4d_ros.objects.motion import PoseMeasurement, ProcessNoise
from motion4d_ros.types import FloatArray

DECADES = np.arange(-6.0, 2.1, 0.5)  # of the density, about what was expected
DECADES_EXPECTED = 2.0  # one standard deviation of what is known beforehand
JITTER_DECADES = np.arange(-2.0, 0.6, 0.5)  # of the variance of jitter, about what is stated
JITTER_EXPECTED = 1.0  # one standard deviation of what is known beforehand
DEGREES = 4.0  # of freedom, of changes of velocity and of innovations
SURPRISE = 9.0  # squared innovation, in variances, after which a filter forgets the velocity
FEWEST = 3  # measurements; fewer say nothing about accelerations
ROUNDS = 4  # of expectation and maximisation
RECENT = 4  # newest steps, whose mean goes on


@dataclass(frozen=True)
class LearntNoise:
    """The process noise between measurements, and what it is expected to be from now on."""

    stamps_ns: list[int]  # ascending, of the measurements
    steps: list[ProcessNoise]  # one fewer
    ahead: ProcessNoise
    jitter: tuple[float, float] = (1.0, 1.0)  # factors of the variances that measured positions and rotations state

    def at(self, stamp_ns: int) -> ProcessNoise:
        """Of the step that ends at a stamp, or passes it."""
        number = int(np.searchsorted(self.stamps_ns, stamp_ns)) - 1
        return self.steps[number] if 0 <= number < len(self.steps) else self.ahead


def learn_process_noise(measured: Sequence[tuple[int, PoseMeasurement]], expected: ProcessNoise) -> LearntNoise:
    """The process noise of a body `measured` at stamps (ns, ascending), where `expected` was known beforehand."""
    stamps = [stamp for stamp, _ in measured]
    if len(measured) < FEWEST:
        return LearntNoise(stamps, [expected] * max(0, len(stamps) - 1), expected)
    places = np.array([each.position for _, each in measured])
    place_variance = np.array([np.trace(each.position_covariance) / 3 for _, each in measured])
    seconds = np.array(stamps) * 1e-9
    velocity, shaken = _densities(seconds, places, place_variance, expected.velocity**2, expected.first_velocity)
    rate: FloatArray = np.full(len(stamps) - 1, expected.rate**2)
    wobbled = 1.0
    rotations = [each.rotation for _, each in measured if each.rotation is not None]
    turned = [each.rotation_covariance for _, each in measured if each.rotation_covariance is not None]
    if len(rotations) == len(turned) == len(measured):
        R = np.stack(rotations)
        turns = Rotation.from_matrix(R[1:] @ R[:-1].transpose(0, 2, 1)).as_rotvec()
        angles = np.concatenate([np.zeros((1, 3)), np.cumsum(turns, axis=0)])
        variance = np.array([np.trace(each) / 3 for each in turned])
        rate, wobbled = _densities(seconds, angles, variance, expected.rate**2, expected.first_rate)

    def noise(velocity: float, rate: float) -> ProcessNoise:
        return ProcessNoise(velocity**0.5, rate**0.5, expected.first_velocity, expected.first_rate)

    ahead = noise(float(velocity[-RECENT:].mean()), float(rate[-RECENT:].mean()))
    steps = [noise(float(v), float(r)) for v, r in zip(velocity, rate, strict=True)]
    return LearntNoise(stamps, steps, ahead, (shaken, wobbled))


def _densities(
    seconds: FloatArray, values: FloatArray, variance: FloatArray, expected: float, first_rate: float
) -> tuple[FloatArray, float]:
    """(T - 1,) variance per second that the rate of `values` (T, 3) gains at each step, and the factor of their stated
    `variance` (T,).
    """
    usual, jitter = _usual_noise(seconds, values, variance, expected, first_rate)
    variance = jitter * variance
    gap = np.diff(seconds)
    changed = _raw_changes(
        gap, values
    )  # from too much of it: what is thought to be smooth is hardly ever found not to be
    for _ in range(ROUNDS):
        changed = _changes(gap, values, variance, _posterior(changed, gap, usual), first_rate)
    return _posterior(changed, gap, usual), jitter


def _posterior(changed: FloatArray, gap: FloatArray, usual: float) -> FloatArray:
    """(T - 1,) densities after so much change of rate (T - 1,), squared. Neighbouring steps share what they know: else
    a steady acceleration, which positions alone show at every other step as well, would be called that.
    """
    shared = np.convolve(np.pad(changed / gap, 1, mode="edge"), [0.25, 0.5, 0.25], "valid")
    return np.asarray((DEGREES * usual + shared) / (DEGREES + 3))


def _raw_changes(gap: FloatArray, values: FloatArray) -> FloatArray:
    """(T - 1,) squared change of rate about each step, by differences of the values alone."""
    rate = np.diff(values, axis=0) / gap[:, None]
    change = (np.diff(rate, axis=0) ** 2).sum(1)
    return np.maximum(np.concatenate([change[:1], change]), np.concatenate([change, change[-1:]]))


def _changes(
    gap: FloatArray, values: FloatArray, variance: FloatArray, density: FloatArray, first_rate: float
) -> FloatArray:
    """(T - 1,) expected squared change of rate at each step, by a Rauch-Tung-Striebel smoother whose axes share their
    covariance.
    """
    length = len(values)
    state, covariance = np.zeros((length, 2, 3)), np.zeros((length, 2, 2))
    before, spread = np.zeros((length, 2, 3)), np.zeros((length, 2, 2))
    state[0, 0], covariance[0] = values[0], np.diag([variance[0], first_rate**2])
    for k in range(1, length):
        step = gap[k - 1]
        F = np.array([[1.0, step], [0.0, 1.0]])
        noise = density[k - 1] * np.array([[step**3 / 3, step**2 / 2], [step**2 / 2, step]])
        before[k], spread[k] = F @ state[k - 1], F @ covariance[k - 1] @ F.T + noise
        gain = spread[k, :, 0] / (spread[k, 0, 0] + variance[k])
        state[k] = before[k] + gain[:, None] * (values[k] - before[k, 0])
        covariance[k] = spread[k] - gain[:, None] * spread[k, 0]
    later, sure, changed = state[-1], covariance[-1], np.zeros(length - 1)
    for k in range(length - 2, -1, -1):
        F = np.array([[1.0, gap[k]], [0.0, 1.0]])
        back = covariance[k] @ F.T @ np.linalg.inv(spread[k + 1])
        smoothed, smooth = (
            state[k] + back @ (later - before[k + 1]),
            covariance[k] + back @ (sure - spread[k + 1]) @ back.T,
        )
        across = back @ sure  # covariance of the smoothed states at k and k + 1
        changed[k] = ((later[1] - smoothed[1]) ** 2).sum() + 3 * (smooth[1, 1] + sure[1, 1] - 2 * across[1, 1])
        later, sure = smoothed, smooth
    return changed


def _usual_noise(
    seconds: FloatArray, values: FloatArray, variance: FloatArray, expected: float, first_rate: float
) -> tuple[float, float]:
    """Variance per second that the rate of `values` (T, 3) gains as a rule, and the factor of their stated `variance`
    (T,): means under the posterior, which is known on a grid of G pairs.
    """
    decades, jitter_decades = (axis.ravel() for axis in np.meshgrid(DECADES, JITTER_DECADES, indexing="ij"))
    density, jitter = expected * 10.0**decades, 10.0**jitter_decades  # (G,): the axes share them
    score = -0.5 * ((decades / DECADES_EXPECTED) ** 2 + (jitter_decades / JITTER_EXPECTED) ** 2)
    value, rate = np.tile(values[0], (len(density), 1)), np.zeros((len(density), 3))
    xx = jitter * variance[0]
    xv: FloatArray = np.zeros(len(density))
    vv: FloatArray = np.full(len(density), first_rate**2)
    for step, now, noise in zip(np.diff(seconds), values[1:], variance[1:], strict=True):
        value = value + step * rate
        xx, xv = xx + 2 * step * xv + step**2 * vv + density * step**3 / 3, xv + step * vv + density * step**2 / 2
        vv = vv + density * step
        spread = xx + jitter * noise
        innovation = now - value
        size = (innovation**2).sum(1) / spread
        score += -1.5 * np.log(spread) - 0.5 * (DEGREES + 3) * np.log1p(size / DEGREES)
        surprised = size > 3 * SURPRISE
        vv = np.where(surprised, first_rate**2, vv)
        xx = np.where(surprised, xx + step**2 * first_rate**2, xx)
        xv = np.where(surprised, step * first_rate**2, xv)
        spread = xx + jitter * noise
        gain_x, gain_v = xx / spread, xv / spread
        value, rate = value + gain_x[:, None] * innovation, rate + gain_v[:, None] * innovation
        xx, xv, vv = (1 - gain_x) * xx, (1 - gain_x) * xv, vv - gain_v * xv
    weight = np.exp(score - score.max())
    weight /= weight.sum()
    return float(weight @ density), float(weight @ jitter)
