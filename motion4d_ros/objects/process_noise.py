"""How freely a body changes its motion, learnt from how it has moved.

The likelihood of what was measured, as a Kalman filter at constant velocity gives it from its innovations (Harvey,
"Forecasting, Structural Time Series Models and the Kalman Filter", sec. 3.4), for a range of densities of white
acceleration at once. What is returned is their mean under the posterior, so that little data stays cautious.
Innovations are Student-t, and after a surprise the velocity is as unknown as at first sight: a bounce is no unrest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from motion4d_ros.objects.motion import PoseMeasurement, ProcessNoise
from motion4d_ros.types import FloatArray

DECADES = np.arange(-6.0, 2.1, 0.5)  # of the density, about what was expected
DECADES_EXPECTED = 2.0  # one standard deviation of what is known beforehand
DEGREES = 4.0  # of freedom of an innovation
SURPRISE = 9.0  # squared innovation, in variances, after which the velocity is forgotten
FEWEST = 3  # measurements; fewer say nothing about accelerations


def learn_process_noise(measured: Sequence[tuple[int, PoseMeasurement]], expected: ProcessNoise) -> ProcessNoise:
    """The process noise of a body `measured` at stamps (ns, ascending), where `expected` was known beforehand."""
    if len(measured) < FEWEST:
        return expected
    seconds = np.array([stamp for stamp, _ in measured]) * 1e-9
    places = np.array([each.position for _, each in measured])
    velocity = _density(
        seconds,
        places,
        np.array([np.trace(each.position_covariance) / 3 for _, each in measured]),
        expected.velocity**2,
        expected.first_velocity,
    )
    turned = [(stamp, each) for stamp, each in measured if each.rotation is not None]
    rate = expected.rate**2
    if len(turned) >= FEWEST:
        rotations = np.stack([each.rotation for _, each in turned])  # type: ignore[misc]
        steps = Rotation.from_matrix(rotations[1:] @ rotations[:-1].transpose(0, 2, 1)).as_rotvec()
        rate = _density(
            np.array([stamp for stamp, _ in turned]) * 1e-9,
            np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)]),
            np.array([np.trace(each.rotation_covariance) / 3 for _, each in turned]),  # type: ignore[arg-type]
            expected.rate**2,
            expected.first_rate,
        )
    return ProcessNoise(np.sqrt(velocity), np.sqrt(rate), expected.first_velocity, expected.first_rate)


def _density(
    seconds: FloatArray, values: FloatArray, variance: FloatArray, expected: float, first_rate: float
) -> float:
    """Variance per second that the rate of `values` (T, 3) gains; they were measured with `variance` (T,)."""
    density = expected * 10.0**DECADES  # (G,): all at once, the axes share it
    score = -0.5 * (DECADES / DECADES_EXPECTED) ** 2
    value, rate = np.tile(values[0], (len(density), 1)), np.zeros((len(density), 3))
    xx: FloatArray = np.full(len(density), variance[0])
    xv: FloatArray = np.zeros(len(density))
    vv: FloatArray = np.full(len(density), first_rate**2)
    for step, now, noise in zip(np.diff(seconds), values[1:], variance[1:], strict=True):
        value = value + step * rate
        xx, xv = xx + 2 * step * xv + step**2 * vv + density * step**3 / 3, xv + step * vv + density * step**2 / 2
        vv = vv + density * step
        spread = xx + noise
        innovation = now - value
        size = (innovation**2).sum(1) / spread
        score += -1.5 * np.log(spread) - 0.5 * (DEGREES + 3) * np.log1p(size / DEGREES)
        surprised = size > 3 * SURPRISE
        vv = np.where(surprised, first_rate**2, vv)
        xx = np.where(surprised, xx + step**2 * first_rate**2, xx)
        xv = np.where(surprised, step * first_rate**2, xv)
        spread = xx + noise
        gain_x, gain_v = xx / spread, xv / spread
        value, rate = value + gain_x[:, None] * innovation, rate + gain_v[:, None] * innovation
        xx, xv, vv = (1 - gain_x) * xx, (1 - gain_x) * xv, vv - gain_v * xv
    weight = np.exp(score - score.max())
    return float((weight * density).sum() / weight.sum())
