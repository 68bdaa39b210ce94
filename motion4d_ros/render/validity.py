"""Which Gaussians can be drawn at all; the C++ library applies the same rules by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from motion4d_ros.scene.posed import PosedGaussians

NEAR_PLANE_M = 0.05
ALPHA_MIN = 1.0 / 255.0
QUATERNION_MIN = 1e-12


def drawable(gaussians: PosedGaussians, T_cam_map: Tensor, features: Tensor) -> Tensor:
    """(N,) bool: finite, beyond the near plane, rotation defined, scales not negative, opacity at least 1/255."""
    with torch.no_grad():
        depth = gaussians.means @ T_cam_map[2, :3] + T_cam_map[2, 3]
        good = depth > NEAR_PLANE_M
        good &= torch.isfinite(gaussians.means).all(-1) & torch.isfinite(gaussians.quats).all(-1)
        good &= torch.isfinite(gaussians.scales).all(-1) & (gaussians.scales >= 0).all(-1)
        good &= gaussians.quats.norm(dim=-1) > QUATERNION_MIN
        good &= torch.isfinite(gaussians.opacities) & (gaussians.opacities >= ALPHA_MIN)
        good &= torch.isfinite(features).all(-1)
        return good


def safe_gaussians(gaussians: PosedGaussians, features: Tensor, index: Tensor) -> tuple[PosedGaussians, Tensor]:
    """The Gaussians and features at `index`; whatever was left out gets zero gradients, even when not finite."""
    return gaussians.select(index), features[index]
