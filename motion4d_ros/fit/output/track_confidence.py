"""The probability that a tracked point is where it is told to be: within 5 px, and 5 cm where lengths are metres.

A point errs as the pose of its object does, and as the surface does on which it was found. (What the pose was off by
when the point was queried is mostly the same error.) Beside that, some points are simply wrong: queried at an edge, or
carried by another object's motion. How many is measured on scenes whose truth is known
(`python -m motion4d_ros.evaluation.calibration`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import gammainc

from motion4d_ros.geometry.pose_covariance import PoseCovariance, lever
from motion4d_ros.types import BoolArray, Camera, FloatArray, IntArray

WITHIN_PX = 5.0
WITHIN_M = 0.05
SHARE_RIGHT = 0.98  # of visible points
SHARE_RIGHT_HIDDEN = 0.85  # of those that are told to be hidden and are not
SIGMA_SURFACE = 0.006  # of the depth at which a point was found, relative

CovarianceOf = Callable[[int, int], PoseCovariance | None]
"""(object id, frame column) -> how well the object's pose is known there."""


def track_confidence(
    tracks_xyz: FloatArray,
    occluded: BoolArray,
    labels: IntArray,
    start: IntArray,
    T_map_cams: FloatArray,
    camera: Camera,
    covariance_of: CovarianceOf,
    metric: bool,
) -> FloatArray:
    """(Q, T) probabilities for points `tracks_xyz` (Q, T, 3) m of the objects `labels` (Q,), queried at the columns
    `start` (Q,), as seen by cameras `T_map_cams` (T, 4, 4).
    """
    count, length = tracks_xyz.shape[:2]
    every = np.arange(count)
    away = tracks_xyz[every, start] - T_map_cams[start, :3, 3]
    depth = np.linalg.norm(away, axis=1)
    surface = (SIGMA_SURFACE**2 * away[:, :, None] * away[:, None, :]) + (1e-6 * depth[:, None, None]) ** 2 * np.eye(3)
    spread = np.repeat(surface[:, None], length, 1)
    for label in np.unique(labels[labels > 0]).tolist():
        mine = np.flatnonzero(labels == label)
        spread[mine] += np.stack([_of_points(covariance_of(label, k), tracks_xyz[mine, k]) for k in range(length)], 1)
    ray = tracks_xyz - T_map_cams[None, :, :3, 3]
    distance = np.maximum(np.linalg.norm(ray, axis=-1), 1e-9)
    along = np.einsum("qti,qtij,qtj->qt", ray, spread, ray) / distance**2
    across = (np.trace(spread, axis1=-2, axis2=-1) - along) / 2 * (camera.fx / distance) ** 2
    within = 1 - np.exp(-(WITHIN_PX**2) / (2 * np.maximum(across, 1e-9)))
    if metric:
        within = np.minimum(within, probability_within(WITHIN_M, spread))
    right = np.where(occluded, SHARE_RIGHT_HIDDEN, SHARE_RIGHT) * within
    return np.asarray(np.nan_to_num(right, nan=0.0))


def probability_within(radius: float, covariance: FloatArray) -> FloatArray:
    """(...) probability that a normal error of `covariance` (..., D, D) is shorter than `radius`: its square as a gamma
    variable of the same mean and variance (Satterthwaite, Biometrics Bulletin 1946).
    """
    mean = np.trace(covariance, axis1=-2, axis2=-1)
    variance = 2 * (covariance**2).sum((-2, -1))
    shape = mean**2 / np.maximum(variance, 1e-30)
    return np.asarray(gammainc(shape, radius**2 * mean / np.maximum(variance, 1e-30)))


def _of_points(known: PoseCovariance | None, xyz: FloatArray) -> FloatArray:
    """(P, 3, 3) covariance that the pose gives points (P, 3) m of its body; 0 where nothing is known."""
    if known is None:
        return np.zeros((len(xyz), 3, 3))
    moved = lever(xyz - known.place)[:, :3]
    return np.asarray(moved @ known.covariance @ moved.transpose(0, 2, 1))
