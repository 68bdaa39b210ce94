"""Absolute and relative trajectory errors (Sturm et al., IROS 2012), and the closed-form alignment of Umeyama (PAMI
1991).
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from motion4d_ros.geometry.rigid import inverse_pose
from motion4d_ros.types import FloatArray, IntArray


def align_umeyama(
    source: FloatArray, target: FloatArray, with_scale: bool = False
) -> tuple[float, FloatArray, FloatArray]:
    """Scale s, rotation R (3, 3) and translation t (3,) that minimise sum |target - (s R source + t)|^2, (N, 3) each.

    Scale is 1 unless `with_scale`. Raises `ValueError` for fewer than 3 points or unequal shapes.
    """
    if source.shape != target.shape or len(source) < 3:
        raise ValueError(
            f"alignment of {source.shape} to {target.shape}: at least 3 points and equal shapes are needed"
        )
    mean_source, mean_target = source.mean(0), target.mean(0)
    a, b = source - mean_source, target - mean_target
    u, singular, vt = np.linalg.svd(b.T @ a / len(a))
    sign = np.ones(3)
    if np.linalg.det(u) * np.linalg.det(vt) < 0:
        sign[2] = -1.0  # a reflection would fit better: take the best rotation instead
    rotation = (u * sign) @ vt
    variance = float((a**2).sum() / len(a))
    scale = float((singular * sign).sum() / variance) if with_scale and variance > 0 else 1.0
    return scale, rotation, mean_target - scale * rotation @ mean_source


def absolute_trajectory_error(T_map_cam: FloatArray, truth: FloatArray, with_scale: bool = False) -> float:
    """Root mean square distance of camera positions, m, after SE(3) (or Sim(3)) alignment; (T, 4, 4) poses each."""
    positions, expected = T_map_cam[:, :3, 3], truth[:, :3, 3]
    scale, rotation, translation = align_umeyama(positions, expected, with_scale)
    residual = expected - (scale * positions @ rotation.T + translation)
    return float(np.sqrt((residual**2).sum(-1).mean()))


def relative_pose_error(T_map_cam: FloatArray, truth: FloatArray, scale: float = 1.0) -> tuple[float, float]:
    """Root mean square error of the motion from each pose to the next: m, and degrees; (T, 4, 4) poses each.

    `scale` multiplies the positions of `T_map_cam` first. NaN for fewer than two poses.
    """
    if len(truth) < 2:
        return float("nan"), float("nan")
    poses = np.array(T_map_cam, float)
    poses[:, :3, 3] *= scale
    moved, expected = (inverse_pose(p[:-1]) @ p[1:] for p in (poses, np.asarray(truth, float)))
    error = inverse_pose(expected) @ moved
    angles = np.degrees(Rotation.from_matrix(error[:, :3, :3]).magnitude())
    return float(np.sqrt((error[:, :3, 3] ** 2).sum(-1).mean())), float(np.sqrt((angles**2).mean()))


def associate(stamps: FloatArray, others: FloatArray, most_s: float = 0.02) -> tuple[IntArray, IntArray]:
    """Rows of two ascending lists of stamps, s, that belong together: each other's nearest, at most `most_s` apart."""
    if not len(stamps) or not len(others):
        return np.zeros(0, int), np.zeros(0, int)
    gap = np.abs(np.asarray(stamps, float)[:, None] - np.asarray(others, float)[None])
    nearest, back = gap.argmin(1), gap.argmin(0)
    rows = np.arange(len(stamps))
    good = (back[nearest] == rows) & (gap[rows, nearest] <= most_s)
    return rows[good], nearest[good]
