"""The C++ back end: a `torch.autograd.Function` around two calls of the raster library."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from motion4d_ros.raster_library import (
    ImageGradientsStruct,
    ImagesStruct,
    SceneGradientsStruct,
    SceneStruct,
    load_library,
)
from motion4d_ros.render.output import RenderOutput
from motion4d_ros.render.validity import NEAR_PLANE_M
from motion4d_ros.scene.posed import PosedGaussians
from motion4d_ros.types import Camera, Motion4DError


def render_cpu(
    gaussians: PosedGaussians,
    camera: Camera,
    T_cam_map: Tensor,
    features: Tensor,
    background: Tensor | None,
    threads: int,
    stats: bool,
) -> RenderOutput:
    """See `render`. Computes in float32 (projection in float64) and returns images of the dtype of `means`."""
    dtype = gaussians.means.dtype
    call = _Call(camera, threads, stats)
    image, alpha, depth_sum, radii, weight_sum, weight_max = _Raster.apply(
        gaussians.means,
        gaussians.quats,
        gaussians.scales,
        gaussians.opacities,
        features,
        T_cam_map,
        background,
        call,
    )
    return RenderOutput(
        features=image.to(dtype),
        alpha=alpha.to(dtype),
        depth_sum=depth_sum.to(dtype),
        radii=radii,
        weight_sum=weight_sum if stats else None,
        weight_max=weight_max if stats else None,
        pairs=call.pairs,
    )


@dataclass
class _Call:
    """What a render needs beside tensors; carries a number past autograd."""

    camera: Camera
    threads: int
    stats: bool
    pairs: int | None = None


class Pass:
    """Owns what the library remembers of a forward pass."""

    def __init__(self) -> None:
        self.pointer = ctypes.c_void_p()
        self._free = load_library().m4d_raster_free

    def __del__(self) -> None:
        if self.pointer:
            self._free(self.pointer)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to(dtype=torch.float32, device="cpu").contiguous()


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor's values lie, for the library; None for none."""
    return None if tensor is None or tensor.numel() == 0 else tensor.data_ptr()


def _check(code: int) -> None:
    if code == 1:
        raise Motion4DError("the rasteriser ran out of memory: lower budget.max_static or budget.working_width")
    if code:
        raise Motion4DError("the rasteriser refused the image size or the number of channels (at most 32768 px, 4096)")


def raster_forward(scene: SceneStruct, images: ImagesStruct, remember: bool = True) -> Pass:
    """Renders into `images`; what :func:`raster_backward` needs, empty unless it is to `remember`."""
    memory = Pass()
    _check(load_library().m4d_raster_forward(scene, images, ctypes.byref(memory.pointer) if remember else None))
    return memory


def raster_backward(
    scene: SceneStruct, memory: Pass, given: ImageGradientsStruct, wanted: SceneGradientsStruct
) -> None:
    """Gradients of what was rendered, from those of the images."""
    _check(load_library().m4d_raster_backward(scene, memory.pointer, given, wanted))


class _Raster(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, ...]:
        """The seven tensors of `render` that may want gradients, `background` perhaps None, and the :class:`_Call`."""
        *tensors, call = given
        means, quats, scales, opacities, features, T_cam_map, background = tensors
        inputs = [_plain(tensor) for tensor in (means, quats, scales, opacities, features)]
        plain_background = None if background is None else _plain(background)
        count, channels = features.shape
        camera, stats = call.camera, call.stats
        size = (camera.height, camera.width)
        scene = SceneStruct(
            width=camera.width,
            height=camera.height,
            channels=channels,
            threads=call.threads,
            count=count,
            fx=camera.fx,
            fy=camera.fy,
            cx=camera.cx,
            cy=camera.cy,
            near_plane=NEAR_PLANE_M,
            T_cam_map=(ctypes.c_double * 12)(*T_cam_map.detach().double().reshape(-1)[:12].tolist()),
            **dict(zip(("means", "quats", "scales", "opacities", "features"), map(address, inputs), strict=True)),
            background=address(plain_background),
        )
        image = torch.empty((*size, channels))
        alpha, depth_sum = torch.empty(size), torch.empty(size)
        radii = torch.empty(count)
        weight_sum, weight_max = (torch.empty(count if stats else 0) for _ in range(2))
        images = ImagesStruct(*map(address, (image, alpha, depth_sum, radii, weight_sum, weight_max)))
        wants_gradients = any(ctx.needs_input_grad)
        memory = raster_forward(scene, images, wants_gradients or stats)
        if stats:
            call.pairs = load_library().m4d_raster_pairs(memory.pointer)
        if wants_gradients:
            ctx.save_for_backward(T_cam_map, *inputs)
            ctx.scene, ctx.memory, ctx.background = scene, memory, plain_background
            ctx.background_dtype = None if background is None else background.dtype
            ctx.dtypes = [tensor.dtype for tensor in (means, quats, scales, opacities, features)]
        ctx.mark_non_differentiable(radii, weight_sum, weight_max)
        ctx.set_materialize_grads(False)
        return image, alpha, depth_sum, radii, weight_sum, weight_max

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        T_cam_map, *inputs = ctx.saved_tensors
        images = [None if tensor is None else _plain(tensor) for tensor in given[:3]]
        geometry = any(ctx.needs_input_grad[:4]) or ctx.needs_input_grad[5]
        gradients = [torch.empty_like(tensor) for tensor in inputs]
        background = torch.empty_like(ctx.background) if ctx.needs_input_grad[6] else None
        pose = torch.zeros(4, 4, dtype=torch.float64)
        wanted = SceneGradientsStruct(
            *(address(gradient) if geometry else None for gradient in gradients[:4]),
            address(gradients[4]) if ctx.needs_input_grad[4] else None,
            address(background),
            address(pose) if ctx.needs_input_grad[5] else None,
        )
        raster_backward(ctx.scene, ctx.memory, ImageGradientsStruct(*map(address, images)), wanted)
        results: list[Tensor | None] = [
            gradient.to(dtype) if needed else None
            for gradient, dtype, needed in zip(gradients, ctx.dtypes, ctx.needs_input_grad[:5], strict=True)
        ]
        results.append(pose.to(T_cam_map.dtype) if ctx.needs_input_grad[5] else None)
        results.append(None if background is None else background.to(ctx.background_dtype))
        return (*results, None)
