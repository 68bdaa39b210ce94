"""Rigid motions of point sets: applied, and found."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from motion4d_ros.types import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

Points = TypeVar("Points", FloatArray, "Tensor")


def transform_points(T: Points, xyz: Points) -> Points:
    """(..., 3) points moved by the rigid motion `T` (4, 4): rotated, then shifted. For arrays and for tensors."""
    return xyz @ T[:3, :3].T + T[:3, 3]


def pose_matrix(R: FloatArray, t: FloatArray) -> FloatArray:
    """(4, 4) from (3, 3) and (3,)."""
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, np.ravel(t)
    return T


def inverse_pose(T: FloatArray) -> FloatArray:
    """Inverse of (..., 4, 4) rigid transforms."""
    out = np.zeros_like(T)
    R = np.swapaxes(T[..., :3, :3], -1, -2)
    out[..., :3, :3] = R
    out[..., :3, 3] = -np.einsum("...ij,...j->...i", R, T[..., :3, 3])
    out[..., 3, 3] = 1.0
    return out


def fit_rigid(source: FloatArray, target: FloatArray, tolerance: float, iterations: int = 6) -> FloatArray:
    """(4, 4) rigid motion with target = R source + t for (N, 3) points, N >= 3, robustly.

    Orthogonal Procrustes (Umeyama 1991, without scale), re-weighted by 1 / (1 + (r / tolerance)^2); `tolerance` in the
    points' unit.
    """
    weight = np.ones(len(source))
    T = np.eye(4)
    for _ in range(iterations):
        total = weight.sum()
        mean_source = weight @ source / total
        mean_target = weight @ target / total
        U, _, Vt = np.linalg.svd(((source - mean_source) * weight[:, None]).T @ (target - mean_target))
        mirror = np.array([1.0, 1.0, np.sign(np.linalg.det(Vt.T @ U.T))])
        R = (Vt.T * mirror) @ U.T
        t = mean_target - R @ mean_source
        residual = np.linalg.norm(source @ R.T + t - target, axis=1)
        weight = 1.0 / (1.0 + (residual / tolerance) ** 2)
        T[:3, :3], T[:3, 3] = R, t
    return T


def rotation_angle(R: FloatArray) -> float:
    """Angle of a rotation (3, 3), rad."""
    return float(np.arccos(np.clip((np.trace(R) - 1) / 2, -1, 1)))


def orthonormal(matrix: FloatArray) -> FloatArray:
    """The rotation (3, 3) nearest to a matrix that is almost one; the identity where it is not finite."""
    if not np.isfinite(matrix).all():
        return np.eye(3)
    U, _, Vt = np.linalg.svd(matrix)
    return np.asarray((U * np.array([1.0, 1.0, np.sign(np.linalg.det(U @ Vt))])) @ Vt)
