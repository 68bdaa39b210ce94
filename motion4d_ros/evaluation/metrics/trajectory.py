"""Absolute trajectory error (Sturm et al., IROS 2012) after the closed-form alignment of Umeyama (PAMI 1991)."""

from __future__ import annotations

import numpy as np

from motion4d_ros.types import FloatArray


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
