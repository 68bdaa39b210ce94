"""Says whether a renderer works on this machine: a small picture, drawn as the reference draws it, gradients too."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motion4d_ros.render.render import render
from motion4d_ros.scene.posed import PosedGaussians
from motion4d_ros.types import Camera

CAMERA = Camera(45.0, 50.0, 20.0, 14.0, 47, 31)  # centred on nothing, no whole number of tiles
COUNT = 60
CHANNELS = 3
PIXEL_TOLERANCE = 1e-3  # of the largest value in the image
PIXEL_SHARE = 0.02  # of the pixels may be further off: float32 decides otherwise there about a Gaussian of alpha 1/255
GRADIENT_TOLERANCE = 0.02  # of the gradient's length; what those pixels do to it, and no more


@dataclass
class Picture:
    """What was drawn, and its gradients with respect to means, quats, scales, opacities, features and pose."""

    images: dict[str, Tensor]
    gradients: dict[str, Tensor]


def disagreement(backend: str, device: str) -> str:
    """Why `backend` on `device` does not draw the picture as the reference does; empty if it does.

    Whatever the renderer raises comes through.
    """
    return difference(draw(backend, torch.device(device), torch.float32), draw("reference", torch.device("cpu")))


def draw(backend: str, device: torch.device, dtype: torch.dtype = torch.float64) -> Picture:
    """The picture by one renderer; everything in it lies on the CPU, in float64."""
    generator = torch.Generator().manual_seed(7)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    z = 1.0 + 3.0 * uniform(COUNT)
    x = (CAMERA.width * uniform(COUNT) - CAMERA.cx) / CAMERA.fx * z
    y = (CAMERA.height * uniform(COUNT) - CAMERA.cy) / CAMERA.fy * z
    turn = 0.1 * torch.tensor([[0.0, -1.0, 0.5], [1.0, 0.0, -0.3], [-0.5, 0.3, 0.0]], dtype=torch.float64)
    T_cam_map = torch.eye(4, dtype=torch.float64)
    T_cam_map[:3, :3] = torch.matrix_exp(turn)
    T_cam_map[:3, 3] = torch.tensor([0.1, -0.05, 0.02], dtype=torch.float64)
    inputs = {
        "means": (torch.stack([x, y, z], -1) - T_cam_map[:3, 3]) @ T_cam_map[:3, :3],
        "quats": uniform(COUNT, 4) - 0.5,
        "scales": 0.02 + 0.2 * uniform(COUNT, 3),
        "opacities": 0.1 + 0.8 * uniform(COUNT),
        "features": uniform(COUNT, CHANNELS),
        "T_cam_map": T_cam_map,
    }
    leaves = {name: value.float().to(device, dtype).requires_grad_() for name, value in inputs.items()}
    gaussians = PosedGaussians(*(leaves[name] for name in ("means", "quats", "scales", "opacities")))
    out = render(gaussians, CAMERA, leaves["T_cam_map"], leaves["features"], backend=backend)
    images = {"features": out.features, "alpha": out.alpha, "depth_sum": out.depth_sum}
    given = [2.0 * uniform(*image.shape) - 1.0 for image in images.values()]
    found = torch.autograd.grad(
        list(images.values()), list(leaves.values()), [image.to(device, dtype) for image in given], allow_unused=True
    )
    gradients = {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }
    return Picture(_plain(images), _plain(gradients))


def difference(found: Picture, truth: Picture) -> str:
    """Where the first picture does not agree with the second, in words; empty if it agrees."""
    for name, expected in truth.images.items():
        off = (found.images[name] - expected).abs() > PIXEL_TOLERANCE * expected.abs().max()
        share = float((off | ~torch.isfinite(found.images[name])).double().mean())
        if share > PIXEL_SHARE:
            return f"{share:.0%} of its {name} are wrong"
    for name, expected in truth.gradients.items():
        error = float((found.gradients[name] - expected).norm() / expected.norm())
        if not error <= GRADIENT_TOLERANCE:
            return f"its gradient of {name} is wrong by {error:.0%}"
    return ""


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().double() for name, tensor in tensors.items()}
