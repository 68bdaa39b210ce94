"""The probability that a tracked point is where it is told to be: within 5 px, and 5 cm where lengths are metres.

A point errs as the pose of its object does, and as the surface does on which it was found. (What the pose was off by
when the point was queried is mostly the same error.) Beside that, some points are simply wrong: queried at an edge, or
carried by another object's motion. How many is measured on scenes whose truth is known
(`python -m motion4d_ros.evaluation.calibration`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc

from motion4d_ros.geometry.pose_covariance import PoseCovariance
from motion4d_ros.types import BoolArray, Camera, FloatArray, IntArray, TrackedPoints

WITHIN_PX = 5.0
WITHIN_M = 0.05
SHARE_RIGHT = 0.98  # of visible points
SHARE_RIGHT_HIDDEN = 0.85  # of those that are told to be hidden and are not
SHARE_RIGHT_POINTS = 0.98  # of the points of a frame
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
    spread = np.repeat(_of_surface(away)[:, None], length, 1)
    for label in np.unique(labels[labels > 0]).tolist():
        mine = np.flatnonzero(labels == label)
        for k in range(length):
            if (known := covariance_of(label, k)) is not None:
                spread[mine, k] += known.of_points(tracks_xyz[mine, k])
    right = np.where(occluded, SHARE_RIGHT_HIDDEN, SHARE_RIGHT)
    return right * _within(tracks_xyz - T_map_cams[None, :, :3, 3], spread, camera, metric)


def point_confidence(
    points: TrackedPoints,
    covariance_of: Callable[[int], PoseCovariance | None],
    T_map_cam: FloatArray,
    camera: Camera,
    metric: bool,
) -> NDArray[np.float32]:
    """(P,) probabilities for the points of a frame, by how well the pose of their object is known there; 0 where nobody
    knows.
    """
    result = np.zeros(len(points.point_id), np.float32)
    for label in np.unique(points.object_id).tolist():
        mine = np.flatnonzero(points.object_id == label)
        known = covariance_of(label)
        if known is not None:
            xyz = points.xyz_map[mine].astype(np.float64)
            ray = xyz - T_map_cam[:3, 3]
            result[mine] = SHARE_RIGHT_POINTS * _within(ray, _of_surface(ray) + known.of_points(xyz), camera, metric)
    return result


def _of_surface(away: FloatArray) -> FloatArray:
    """(N, 3, 3) covariance of places on surfaces, `away` (N, 3) m from the camera that sees them."""
    least = 1e-6 * np.linalg.norm(away, axis=1)[:, None, None]
    return SIGMA_SURFACE**2 * away[:, :, None] * away[:, None, :] + least**2 * np.eye(3)


def _within(ray: FloatArray, spread: FloatArray, camera: Camera, metric: bool) -> FloatArray:
    """(...) probability that errors of covariance `spread` (..., 3, 3) m of points `ray` (..., 3) m from the camera are
    within the limits; 0 where nothing finite is known.
    """
    distance = np.maximum(np.linalg.norm(ray, axis=-1), 1e-9)
    along = np.einsum("...i,...ij,...j->...", ray, spread, ray) / distance**2
    across = (np.trace(spread, axis1=-2, axis2=-1) - along) / 2 * (camera.fx / distance) ** 2
    within = 1 - np.exp(-(WITHIN_PX**2) / (2 * np.maximum(across, 1e-9)))
    if metric:
        within = np.minimum(within, probability_within(WITHIN_M, spread))
    return np.asarray(np.nan_to_num(within, nan=0.0))


def probability_within(radius: float, covariance: FloatArray) -> FloatArray:
    """(...) probability that a normal error of `covariance` (..., D, D) is shorter than `radius`: its square as a gamma
    variable of the same mean and variance (Satterthwaite, Biometrics Bulletin 1946).
    """
    mean = np.trace(covariance, axis1=-2, axis2=-1)
    variance = 2 * (covariance**2).sum((-2, -1))
    shape = mean**2 / np.maximum(variance, 1e-30)
    return np.asarray(gammainc(shape, radius**2 * mean / np.maximum(variance, 1e-30)))
