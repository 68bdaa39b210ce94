"""Random Gaussians in front of a camera: what the renderers are checked and timed on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motion4d_ros.render import RenderOutput, render
from motion4d_ros.scene.posed import PosedGaussians
from motion4d_ros.types import Camera

INPUTS = ("means", "quats", "scales", "opacities", "features", "T_cam_map", "background")
"""What a render can be differentiated by."""


@dataclass
class SplatScene:
    """Gaussians, their features and a camera that sees them."""

    camera: Camera
    means: Tensor  # (N, 3) m
    quats: Tensor  # (N, 4)
    scales: Tensor  # (N, 3) m
    opacities: Tensor  # (N,)
    features: Tensor  # (N, C)
    T_cam_map: Tensor  # (4, 4)
    background: Tensor  # (C,)

    def to(self, where: torch.dtype | torch.device | str) -> SplatScene:
        """A copy in another dtype or on another device."""
        return SplatScene(self.camera, *(getattr(self, name).detach().to(where) for name in INPUTS))

    def requires_grad(self) -> SplatScene:
        """A copy whose inputs are leaves that gather gradients."""
        return SplatScene(self.camera, *(getattr(self, name).detach().clone().requires_grad_() for name in INPUTS))

    def inputs(self) -> list[Tensor]:
        """The tensors in the order of `INPUTS`."""
        return [getattr(self, name) for name in INPUTS]

    def render(self, backend: str, *, threads: int = 0, stats: bool = False) -> RenderOutput:
        """Renders with the given back end."""
        return render(
            PosedGaussians(self.means, self.quats, self.scales, self.opacities),
            self.camera,
            self.T_cam_map,
            self.features,
            background=self.background,
            backend=backend,
            threads=threads,
            stats=stats,
        )


def random_scene(
    seed: int,
    count: int,
    channels: int,
    camera: Camera,
    *,
    size: float = 0.05,
    opacity: float = 0.95,
    dtype: torch.dtype = torch.float32,
) -> SplatScene:
    """Gaussians spread evenly over the image (and a little beyond) at 1 to 4 m, from a camera that is slightly turned.

    `size` is the largest standard deviation in m of a Gaussian, `opacity` the largest opacity.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    z = 1.0 + 3.0 * uniform(count)
    x = (1.1 * camera.width * (uniform(count) - 0.5) + (camera.width - 1) / 2 - camera.cx) / camera.fx * z
    y = (1.1 * camera.height * (uniform(count) - 0.5) + (camera.height - 1) / 2 - camera.cy) / camera.fy * z
    T_cam_map = torch.eye(4, dtype=torch.float64)
    T_cam_map[:3, :3] = torch.matrix_exp(_skew(0.4 * (uniform(3) - 0.5)))
    T_cam_map[:3, 3] = 0.5 * (uniform(3) - 0.5)
    xyz_map = (torch.stack([x, y, z], -1) - T_cam_map[:3, 3]) @ T_cam_map[:3, :3]
    quats = torch.randn(count, 4, generator=generator, dtype=torch.float64)
    scene = SplatScene(
        camera=camera,
        means=xyz_map,
        quats=quats,
        scales=size * (0.1 + 0.9 * uniform(count, 3)),
        opacities=opacity * (0.05 + 0.95 * uniform(count)),
        features=2.0 * uniform(count, channels) - 0.5,
        T_cam_map=T_cam_map,
        background=uniform(channels),
    )
    return scene.to(dtype)


def random_image_gradients(scene: SplatScene, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Loss gradients with respect to features (H, W, C), alpha and depth_sum (H, W), in the scene's dtype and place."""
    generator = torch.Generator().manual_seed(seed)
    size, like = scene.camera.size, scene.means
    shapes = ((*size, scene.features.shape[1]), size, size)
    features, alpha, depth_sum = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return features.to(like), alpha.to(like), depth_sum.to(like)


def gradients(
    scene: SplatScene, backend: str, given: tuple[Tensor, Tensor, Tensor], *, threads: int = 0
) -> tuple[RenderOutput, dict[str, Tensor]]:
    """Renders and returns the gradient of every input for the given image gradients."""
    leaf = scene.requires_grad()
    out = leaf.render(backend, threads=threads)
    found = torch.autograd.grad(
        [out.features, out.alpha, out.depth_sum], leaf.inputs(), list(given), allow_unused=True, materialize_grads=True
    )
    return out, dict(zip(INPUTS, found, strict=True))


def relative_difference(value: Tensor, truth: Tensor) -> float:
    """Largest difference, relative to the largest entry of `truth` (absolute when that is all zeros)."""
    if truth.numel() == 0:
        return 0.0
    difference = (value.detach().cpu().double() - truth.detach().cpu().double()).abs().max()
    largest = truth.detach().abs().max().cpu().double()
    return float(difference / largest) if largest > 0 else float(difference)


def _skew(v: Tensor) -> Tensor:
    x, y, z = v.tolist()
    return torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=v.dtype)
