"""The CUDA back end: gsplat 1.5 (Ye et al., 2024), called so that it draws what the other two draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from motion4d_ros.render.gpu import INSTALL_GSPLAT
from motion4d_ros.render.output import RenderOutput
from motion4d_ros.render.reference import DILATION
from motion4d_ros.render.validity import NEAR_PLANE_M, drawable
from motion4d_ros.scene.posed import PosedGaussians
from motion4d_ros.types import Camera, Motion4DError

CHANNEL_CHUNK = 32  # gsplat's kernels slow down beyond this many channels a pass


def render_gsplat(
    gaussians: PosedGaussians,
    camera: Camera,
    T_cam_map: Tensor,
    features: Tensor,
    background: Tensor | None,
    stats: bool,
) -> RenderOutput:
    """See `render`. Computes in float32 on the GPU of `gaussians.means`; `weight_max` and `pairs` are not to be had."""
    means = gaussians.means
    device, dtype = means.device, means.dtype
    rasterization = _load_gsplat(device)
    features = features.to(device)
    pose = T_cam_map.to(device=device, dtype=torch.float32)
    count, channels = gaussians.count, features.shape[1]
    if count == 0:
        nothing = torch.zeros(0, device=device)
        return _empty(gaussians, camera, T_cam_map, features, background, nothing, nothing if stats else None)
    keep = drawable(gaussians, T_cam_map.to(means), features)
    chosen, colours = _left_out(gaussians, features, keep)
    colours = colours.float() if channels else torch.zeros(count, 1, device=device)
    counting = torch.zeros(count, 1, device=device, requires_grad=True) if stats else None
    wants_gradients = torch.is_grad_enabled()
    with torch.set_grad_enabled(wants_gradients or stats):
        image, alpha, meta = rasterization(
            means=chosen.means.float(),
            quats=chosen.quats.float(),
            scales=chosen.scales.float(),
            opacities=chosen.opacities.float(),
            colors=colours if counting is None else torch.cat([colours, counting], -1),
            viewmats=pose[None],
            Ks=_intrinsics(camera, device)[None],
            width=camera.width,
            height=camera.height,
            near_plane=NEAR_PLANE_M,
            eps2d=DILATION,
            packed=False,
            backgrounds=_backgrounds(background if channels else None, counting is not None, device),
            render_mode="RGB+D",  # the sum of w z; the mean is formed in RenderOutput, alike for all back ends
            channel_chunk=CHANNEL_CHUNK,
        )
        weight_sum: Tensor | None = None
        if counting is not None:
            # The image of a channel is linear in it, so its derivative is the sum of the weights.
            weight_sum = torch.autograd.grad(image[..., -2].sum(), counting, retain_graph=True)[0][:, 0]
    radii = torch.where(keep, meta["radii"][0].amax(-1).float(), 0.0)
    if not wants_gradients:
        image, alpha = image.detach(), alpha.detach()
    return RenderOutput(
        features=image[0, ..., :channels].to(dtype),
        alpha=alpha[0, ..., 0].to(dtype),
        depth_sum=image[0, ..., -1].to(dtype),
        radii=radii,
        weight_sum=weight_sum,
    )


def _left_out(gaussians: PosedGaussians, features: Tensor, keep: Tensor) -> tuple[PosedGaussians, Tensor]:
    """All Gaussians and features, those that can't be drawn made harmless: at the origin, round, without opacity.

    Their number would have to be read back to select the others, and the GPU be waited for. They get no gradient.
    """

    def safe(values: Tensor, value: float) -> Tensor:
        return torch.where(keep.view(-1, *[1] * (values.ndim - 1)), values, value)

    harmless = PosedGaussians(
        safe(gaussians.means, 0.0), safe(gaussians.quats, 1.0), safe(gaussians.scales, 1e-3),
        safe(gaussians.opacities, 0.0),
    )  # fmt: skip
    return harmless, safe(features, 0.0)


def _backgrounds(background: Tensor | None, counting: bool, device: torch.device) -> Tensor | None:
    """(1, C) of one image; with a zero for the channel that counts weights."""
    if background is None:
        return None
    row = background.to(device=device, dtype=torch.float32)[None]
    return torch.cat([row, torch.zeros(1, 1, device=device)], -1) if counting else row


def _intrinsics(camera: Camera, device: torch.device) -> Tensor:
    """(3, 3) as gsplat counts pixels: from the image's corner, where we count from the centre of the first pixel."""
    K = torch.eye(3, device=device)  # filled there: nothing is sent to the device
    for row, column, value in (
        (0, 0, camera.fx), (0, 2, camera.cx + 0.5), (1, 1, camera.fy), (1, 2, camera.cy + 0.5),
    ):  # fmt: skip
        K[row, column].fill_(value)
    return K


def _load_gsplat(device: torch.device) -> Callable[..., tuple[Tensor, Tensor, dict[str, Any]]]:
    # `import gsplat` succeeds without CUDA and fails later with messages that mislead, hence the order.
    if not torch.cuda.is_available():
        raise Motion4DError("the gsplat renderer needs a CUDA GPU and a CUDA build of PyTorch: use backend='cpu' here")
    if device.type != "cuda":
        raise Motion4DError("the gsplat renderer needs tensors on a GPU: move the scene there, or use backend='cpu'")
    try:
        from gsplat import rasterization
    except ImportError as error:
        raise Motion4DError(f"gsplat cannot be imported ({error}): {INSTALL_GSPLAT}") from None
    return rasterization


def _empty(
    gaussians: PosedGaussians,
    camera: Camera,
    T_cam_map: Tensor,
    features: Tensor,
    background: Tensor | None,
    radii: Tensor,
    weight_sum: Tensor | None,
) -> RenderOutput:
    """An image of nothing but background; still joined to its inputs, so that gradients are zero and not missing."""
    inputs = [gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities, T_cam_map, features]
    nothing = sum((tensor[:0].sum().to(gaussians.means) for tensor in inputs), start=gaussians.means.new_zeros(()))
    blank = nothing.expand(camera.height, camera.width)
    image = blank[..., None].expand(-1, -1, features.shape[1])
    if background is not None:
        image = image + background.to(image)
    return RenderOutput(features=image, alpha=blank, depth_sum=blank, radii=radii, weight_sum=weight_sum)
