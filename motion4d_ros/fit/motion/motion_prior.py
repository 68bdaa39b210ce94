"""How steadily an object moves, learnt from the frames that show it well.

Bundle adjustment bridges badly seen frames by a prior on accelerations. How strong it should be differs by object: a
ball that rolls behind a box hardly accelerates, one that bounces does all the time. So the data choose. They also
choose the point whose acceleration counts: a body that turns drags every point but its pivot around a curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from motion4d_ros.types import FloatArray, IntArray

WELL_SEEN = 15  # points; fewer leave a pose too noisy to measure accelerations with
MIN_TRIPLES = 5  # runs of three well-seen frames before anything is concluded
MARGIN = 1.5  # the future may be somewhat livelier than the past
LEAST_SHARE = 0.05  # of what is expected of objects in general
PER_AXIS = 1.54  # median length of a 3D normal vector, in standard deviations per axis
PIVOT_NOISE = 0.05  # share of the general expectation: accelerations so small say nothing about the pivot
ROUNDS = 5


@dataclass(frozen=True)
class MotionPrior:
    """What was learnt of one object's motion."""

    pivot: FloatArray  # (3,) canonical point, m, whose path is smoothest
    sigma_acceleration: float  # m/s^2 per axis
    sigma_angular_acceleration: float  # rad/s^2 per axis


def learn_motion_prior(
    R: FloatArray,
    t: FloatArray,
    center: FloatArray,
    seconds: FloatArray,
    support: IntArray,
    place: FloatArray,
    radius: float,
    general: tuple[float, float],
) -> MotionPrior:
    """Learns from the poses x -> R_k (x - c) + c + t_k: (T, 3, 3), (T, 3) m at `seconds` (T,), seen by `support` (T,)
    points.

    `place` (3,) m and `radius` m say where the object's points are, canonical. `general` is what is expected of
    objects that are not known yet (m/s^2, rad/s^2); nothing livelier is ever concluded.
    """
    gap = np.maximum(np.diff(seconds), 1e-3)
    middle = 0.5 * (gap[1:] + gap[:-1])
    well = support >= WELL_SEEN
    triples = np.flatnonzero(well[:-2] & well[1:-1] & well[2:])
    if len(triples) < MIN_TRIPLES:
        return MotionPrior(place, *general)
    offset, arm = _second(t, gap, middle)[triples], _second(R, gap, middle)[triples]  # a(p) = arm (p - c) + offset
    pivot = _pivot(arm, offset, place - center, radius, PIVOT_NOISE * general[0]) + center
    linear = np.linalg.norm(np.einsum("mij,j->mi", arm, pivot - center) + offset, axis=1)
    spin = Rotation.from_matrix(R[1:] @ R[:-1].transpose(0, 2, 1)).as_rotvec() / gap[:, None]
    angular = np.linalg.norm((spin[1:] - spin[:-1]) / middle[:, None], axis=1)[triples]
    sigma = [
        float(np.clip(MARGIN * np.median(size) / PER_AXIS, LEAST_SHARE * most, most))
        for size, most in zip((linear, angular), general, strict=True)
    ]
    return MotionPrior(pivot, *sigma)


def _second(values: FloatArray, gap: FloatArray, middle: FloatArray) -> FloatArray:
    """(T, ...) -> (T-2, ...) second derivatives by time."""
    shape = (-1, *(1,) * (values.ndim - 1))
    slope = np.diff(values, axis=0) / gap.reshape(shape)
    return np.asarray(np.diff(slope, axis=0) / middle.reshape(shape))


def _pivot(arm: FloatArray, offset: FloatArray, start: FloatArray, radius: float, noise: float) -> FloatArray:
    """(3,) the point, from c, whose accelerations are smallest; `start` where the object does not turn enough."""
    point = start
    for _ in range(ROUNDS):
        acceleration = np.einsum("mij,j->mi", arm, point) + offset
        size = np.linalg.norm(acceleration, axis=1)
        sigma = max(noise, float(np.median(size)))
        weight = 1.0 / (1.0 + (size / (2 * sigma)) ** 2) / sigma**2
        H = np.einsum("m,mij,mik->jk", weight, arm, arm) + np.eye(3) / radius**2
        point = np.linalg.solve(H, start / radius**2 - np.einsum("m,mij,mi->j", weight, arm, offset))
    away = point - start
    return start + away * min(1.0, 3.0 * radius / max(float(np.linalg.norm(away)), 1e-9))
