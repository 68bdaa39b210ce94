"""Rotations as differentiable, batched PyTorch functions. Quaternions are (..., 4) in the order w, x, y, z."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def quat_multiply(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product: the rotation `b` followed by `a`. Shapes broadcast."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )


def quat_conjugate(q: Tensor) -> Tensor:
    """The inverse rotation of a unit quaternion."""
    return torch.cat([q[..., :1], -q[..., 1:]], -1)


def quat_to_matrix(q: Tensor) -> Tensor:
    """(..., 4) quaternions of any length > 0 -> (..., 3, 3) rotation matrices."""
    w, x, y, z = normalize(q, dim=-1).unbind(-1)
    return torch.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ],
        -1,
    ).unflatten(-1, (3, 3))  # fmt: skip


def orthonormalise(m: Tensor) -> Tensor:
    """The rotation nearest in the Gram-Schmidt sense to (..., 3, 3) matrices with independent first two columns.

    This is the 6D representation of Zhou et al. (CVPR 2019), which Shape of Motion uses to blend rotations.
    """
    first = normalize(m[..., :, 0], dim=-1)
    second = m[..., :, 1]
    second = normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -1)


def quat_to_rotvec(q: Tensor) -> Tensor:
    """(..., 4) unit quaternions -> (..., 3) rotation vectors, rad, of the shorter turn; smooth at the identity."""
    q = torch.where(q[..., :1] < 0, -q, q)
    w, v = q[..., :1], q[..., 1:]
    squared = (v * v).sum(-1, keepdim=True)
    small = squared < 1e-12
    length = torch.where(small, torch.ones_like(squared), squared).sqrt()
    factor = torch.where(small, 2 / w.clamp_min(0.5), 2 * torch.atan2(length, w) / length)
    return factor * v


def rotvec_to_quat(rotvec: Tensor) -> Tensor:
    """(..., 3) rotation vectors, rad -> (..., 4) unit quaternions; smooth at zero."""
    squared = (rotvec * rotvec).sum(-1, keepdim=True)
    small = squared < 1e-12
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    imaginary = torch.where(small, 0.5 - squared / 48, torch.sin(angle / 2) / angle)
    real = torch.where(small, 1 - squared / 8, torch.cos(angle / 2))
    return torch.cat([real, imaginary * rotvec], -1)


def slerp(a: Tensor, b: Tensor, fraction: Tensor) -> Tensor:
    """Spherical interpolation along the shorter arc from (..., 4) `a` at 0 to `b` at 1; extrapolates beyond.

    `fraction` has the leading shape of `a` and `b`. The turning rate is constant in `fraction`.
    """
    a, b = normalize(a, dim=-1), normalize(b, dim=-1)
    turn = quat_to_rotvec(quat_multiply(b, quat_conjugate(a)))
    return quat_multiply(rotvec_to_quat(turn * fraction[..., None]), a)
