from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from motion4d_ros.evaluation.splat_scenes import SplatScene


@dataclass
class Reference:
    """A render by the textbook, pixel by pixel, and how near each pixel came to one of the thresholds."""

    features: np.ndarray  # (H, W, C)
    alpha: np.ndarray  # (H, W)
    depth_sum: np.ndarray  # (H, W)
    margin: np.ndarray  # (H, W) smallest relative distance of an alpha or a transmittance from a threshold


def composite_by_brute_force(scene: SplatScene) -> Reference:
    """Every Gaussian at every pixel in plain NumPy, with nothing in common with the back ends but the formulas."""
    camera = scene.camera
    arrays = [tensor.detach().double().numpy() for tensor in scene.inputs()]
    means, quats, scales, opacities, features, T, background = arrays
    xyz = means @ T[:3, :3].T + T[:3, 3]
    features_out = np.zeros((camera.height, camera.width, features.shape[1]))
    alpha_out, depth_out = np.zeros(camera.size), np.zeros(camera.size)
    margin = np.full(camera.size, np.inf)
    left = np.ones(camera.size)
    ended = np.zeros(camera.size, bool)
    grid = camera.pixel_grid()
    for i in np.argsort(xyz[:, 2], kind="stable"):
        x, y, z = xyz[i]
        if z <= 0.05:
            continue
        R = Rotation.from_quat(np.roll(quats[i], -1)).as_matrix()
        covariance = T[:3, :3] @ R @ np.diag(scales[i] ** 2) @ R.T @ T[:3, :3].T
        half = np.array([0.5 * camera.width / camera.fx, 0.5 * camera.height / camera.fy])
        middle = camera.unproject(np.array([(camera.width - 1) / 2, (camera.height - 1) / 2]), np.array(1.0))[:2]
        u, v = np.clip(xyz[i, :2] / z, middle - 1.3 * half, middle + 1.3 * half)
        J = np.array([[camera.fx / z, 0, -camera.fx * u / z], [0, camera.fy / z, -camera.fy * v / z]])
        inverse = np.linalg.inv(J @ covariance @ J.T + 0.3 * np.eye(2))
        d = grid - camera.project(np.array([x, y, z]))
        raw = opacities[i] * np.exp(-0.5 * np.einsum("hwi,ij,hwj->hw", d, inverse, d))
        alpha = np.minimum(raw, 0.999)
        alpha[alpha < 1 / 255] = 0
        after = left * (1 - alpha)
        margin = np.minimum(margin, np.where(ended, np.inf, np.minimum(abs(raw * 255 - 1), abs(raw / 0.999 - 1))))
        margin = np.minimum(margin, np.where(ended, np.inf, abs(after / 1e-4 - 1)))
        ended |= after <= 1e-4
        weight = np.where(ended, 0, left * alpha)
        left = np.where(ended, left, after)
        features_out += weight[..., None] * features[i]
        alpha_out += weight
        depth_out += weight * z
    features_out += (1 - alpha_out)[..., None] * background
    return Reference(features_out, alpha_out, depth_out, margin)


@pytest.fixture(scope="session")
def brute_force() -> Callable[[SplatScene], Reference]:
    return composite_by_brute_force


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    torch.set_num_threads(1)
