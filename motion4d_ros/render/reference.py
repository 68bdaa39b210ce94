"""The PyTorch back end: the definition of what the others must give, in any dtype, with autograd's own gradients.

Vectorised over Gaussians and over the pixels of a tile; good for tests and as the yardstick of speed, not for fitting.
"""

from __future__ import annotations

import torch
from torch import Tensor

from motion4d_ros.render.output import RenderOutput
from motion4d_ros.render.validity import ALPHA_MIN, drawable, safe_gaussians
from motion4d_ros.scene.posed import PosedGaussians
from motion4d_ros.types import Camera

TILE = 16  # px
DILATION = 0.3  # px^2
ALPHA_MAX = 0.999
TRANSMITTANCE_STOP = 1e-4


def render_reference(
    gaussians: PosedGaussians,
    camera: Camera,
    T_cam_map: Tensor,
    features: Tensor,
    background: Tensor | None,
    stats: bool,
) -> RenderOutput:
    """See `render`. Everything is computed in the dtype and on the device of `gaussians.means`."""
    means = gaussians.means
    T_cam_map, features = T_cam_map.to(means), features.to(means)
    keep = drawable(gaussians, T_cam_map, features)
    index = keep.nonzero()[:, 0]
    safe, safe_features = safe_gaussians(gaussians, features, index)
    splats = project(safe, camera, T_cam_map)
    order = torch.argsort(splats.depth.detach(), stable=True)
    radii = means.new_zeros(gaussians.count)
    radii[index] = torch.where(splats.inside(camera), splats.half_extent.amax(-1), 0.0).detach()

    channels = torch.cat([safe_features, splats.depth[:, None], torch.ones_like(splats.depth[:, None])], -1)
    weight_sum = means.new_zeros(gaussians.count)
    weight_max = means.new_zeros(gaussians.count)
    pairs = 0
    rows: list[Tensor] = []
    for y0 in range(0, camera.height, TILE):
        tiles: list[Tensor] = []
        for x0 in range(0, camera.width, TILE):
            x1, y1 = min(x0 + TILE, camera.width), min(y0 + TILE, camera.height)
            chosen = order[splats.overlaps(x0, y0, x1 - 1, y1 - 1)[order]]
            weights = _weights(splats, chosen, x0, y0, x1, y1)
            tiles.append((weights @ channels[chosen]).reshape(y1 - y0, x1 - x0, -1))
            if stats and len(chosen):
                detached = weights.detach()
                weight_sum[index[chosen]] += detached.sum(0)
                weight_max[index[chosen]] = torch.maximum(weight_max[index[chosen]], detached.amax(0))
                pairs += int((detached > 0).sum())
        rows.append(torch.cat(tiles, 1))
    image = torch.cat(rows, 0)
    alpha = image[..., -1]
    colours = image[..., :-2]
    if background is not None:
        colours = colours + (1.0 - alpha)[..., None] * background.to(means)
    return RenderOutput(
        features=colours,
        alpha=alpha,
        depth_sum=image[..., -2],
        radii=radii,
        weight_sum=weight_sum if stats else None,
        weight_max=weight_max if stats else None,
        pairs=pairs if stats else None,
    )


class Splats:
    """M Gaussians as the image sees them."""

    def __init__(self, centre: Tensor, axes: Tensor, depth: Tensor, opacity: Tensor) -> None:
        """`axes` (M, 2, 3), px: the images of the three axes P; the covariance is P P^T, dilated."""
        self.centre = centre  # (M, 2) px
        self.depth = depth  # (M,) m
        self.opacity = opacity  # (M,)
        across, down = axes[:, 0], axes[:, 1]
        xx, xy, yy = (across**2).sum(-1) + DILATION, (across * down).sum(-1), (down**2).sum(-1) + DILATION
        # |x cross y|^2 instead of xx yy - xy^2 (Lagrange): long thin splats keep a positive determinant.
        normal = torch.linalg.cross(across, down)
        determinant = (normal**2).sum(-1) + DILATION * (xx + yy) - DILATION**2
        self.conic = torch.stack([yy, -xy, xx], -1) / determinant[:, None]  # (M, 3) inverse covariance, px^-2
        # Where alpha falls to 1/255: the box a splat is drawn in.
        spread = torch.sqrt(2.0 * torch.log(torch.clamp(255.0 * opacity, min=1.0))).detach()
        self.half_extent = spread[:, None] * torch.sqrt(torch.stack([xx, yy], -1)).detach()  # (M, 2) px

    def overlaps(self, x0: int, y0: int, x1: int, y1: int) -> Tensor:
        """(M,) bool: whether the box reaches a pixel centre in these inclusive bounds."""
        low = torch.ceil(self.centre.detach() - self.half_extent)
        high = torch.floor(self.centre.detach() + self.half_extent)
        reaches_x = (high[:, 0] >= x0) & (low[:, 0] <= x1) & (low[:, 0] <= high[:, 0])
        return reaches_x & (high[:, 1] >= y0) & (low[:, 1] <= y1) & (low[:, 1] <= high[:, 1])

    def inside(self, camera: Camera) -> Tensor:
        """(M,) bool: whether the box reaches the image."""
        return self.overlaps(0, 0, camera.width - 1, camera.height - 1)


def project(gaussians: PosedGaussians, camera: Camera, T_cam_map: Tensor) -> Splats:
    """EWA projection (Zwicker et al., 2001) of Gaussians that are all drawable."""
    R, t = T_cam_map[:3, :3], T_cam_map[:3, 3]
    x, y, z = (gaussians.means @ R.T + t).unbind(-1)
    # Borders are pixel edges, half a pixel beyond the outermost centres; limits as in gsplat.
    margin_x, margin_y = 0.15 * camera.width / camera.fx, 0.15 * camera.height / camera.fy
    u = torch.clamp(
        x / z, -(camera.cx + 0.5) / camera.fx - margin_x, (camera.width - 0.5 - camera.cx) / camera.fx + margin_x
    )
    v = torch.clamp(
        y / z, -(camera.cy + 0.5) / camera.fy - margin_y, (camera.height - 0.5 - camera.cy) / camera.fy + margin_y
    )
    zero = torch.zeros_like(z)
    slope = torch.stack(
        [
            torch.stack([camera.fx / z, zero, -camera.fx * u / z], -1),
            torch.stack([zero, camera.fy / z, -camera.fy * v / z], -1),
        ],
        -2,
    )
    axes = slope @ R @ rotation_matrices(gaussians.quats) * gaussians.scales[:, None, :]
    centre = torch.stack([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy], -1)
    return Splats(centre, axes, z, gaussians.opacities)


def rotation_matrices(quats: Tensor) -> Tensor:
    """(M, 4) quaternions w x y z of any length but zero -> (M, 3, 3)."""
    w, x, y, z = (quats / quats.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _weights(splats: Splats, chosen: Tensor, x0: int, y0: int, x1: int, y1: int) -> Tensor:
    """(pixels, M') blending weights T_i alpha_i of the chosen splats, near to far, in a rectangle of pixels."""
    device, dtype = splats.depth.device, splats.depth.dtype
    across = torch.arange(x0, x1, device=device, dtype=dtype)
    down = torch.arange(y0, y1, device=device, dtype=dtype)
    ys, xs = torch.meshgrid(down, across, indexing="ij")
    centre, conic = splats.centre[chosen], splats.conic[chosen]
    dx, dy = xs.reshape(-1, 1) - centre[:, 0], ys.reshape(-1, 1) - centre[:, 1]
    power = -0.5 * (conic[:, 0] * dx * dx + conic[:, 2] * dy * dy) - conic[:, 1] * dx * dy
    alpha = torch.clamp(splats.opacity[chosen] * torch.exp(power), max=ALPHA_MAX)
    alpha = torch.where(alpha >= ALPHA_MIN, alpha, 0.0)
    after = torch.cumprod(1.0 - alpha, -1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], -1)
    # Transmittance never grows, so the first splat that ends the ray leaves out all behind it.
    return torch.where(after.detach() > TRANSMITTANCE_STOP, before * alpha, 0.0)
