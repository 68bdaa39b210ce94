"""The one entry to all renderers: checks the call and hands it to a back end."""

from __future__ import annotations

import torch
from torch import Tensor

from motion4d_ros.render.output import RenderOutput
from motion4d_ros.scene.posed import PosedGaussians
from motion4d_ros.types import Camera, Motion4DError

BACKENDS = ("auto", "cpu", "gsplat", "reference")


def render(
    gaussians: PosedGaussians,
    camera: Camera,
    T_cam_map: Tensor,
    features: Tensor,
    *,
    background: Tensor | None = None,
    backend: str = "auto",
    threads: int = 0,
    stats: bool = False,
) -> RenderOutput:
    """Renders Gaussians and their features into a camera, differentiably.

    EWA splatting (Zwicker et al., 2001) as in 3D Gaussian Splatting (Kerbl et al., 2023): 0.3 px^2 dilation, alpha
    clipped at 0.999 and skipped under 1/255, a ray ends before its transmittance falls to 1e-4. Colour, semantics,
    positions at other times: everything is a feature channel, so one pass renders them all.

    A Gaussian that cannot be drawn (not finite, zero quaternion, negative scale, not beyond the near plane) is
    left out and gets zero gradients.

    Args:
        gaussians: N Gaussians in the map frame.
        camera: Intrinsics and image size; pixel (0, 0) is the centre of the top-left pixel.
        T_cam_map: (4, 4) map to camera; may require gradients.
        features: (N, C) any channels, C >= 0.
        background: (C,) what lies behind everything; None = zeros.
        backend: One of `BACKENDS`; ``auto`` = gsplat for tensors on a GPU, else the C++ library.
        threads: CPU threads of the C++ library; 0 = all. The result does not depend on it.
        stats: Also return the blending weights per Gaussian, for pruning.

    Raises:
        Motion4DError: shapes disagree, the pose is not finite, or the back end is not available.
    """
    _check(gaussians, T_cam_map, features, background)
    return render_unchecked(gaussians, camera, T_cam_map, features, background, backend, threads, stats)


def render_unchecked(
    gaussians: PosedGaussians,
    camera: Camera,
    T_cam_map: Tensor,
    features: Tensor,
    background: Tensor | None = None,
    backend: str = "auto",
    threads: int = 0,
    stats: bool = False,
) -> RenderOutput:
    """As `render`, for inputs that are known to be sound: nothing is read back from a GPU, so it is not waited for."""
    if backend == "auto":
        backend = "gsplat" if gaussians.means.is_cuda else "cpu"
    # Imported when chosen: gsplat and the compiled library are both optional on a given machine.
    if backend == "cpu":
        from motion4d_ros.render.cpu import render_cpu

        return render_cpu(gaussians, camera, T_cam_map, features, background, threads, stats)
    if backend == "reference":
        from motion4d_ros.render.reference import render_reference

        return render_reference(gaussians, camera, T_cam_map, features, background, stats)
    if backend == "gsplat":
        from motion4d_ros.render.gsplat_cuda import render_gsplat

        return render_gsplat(gaussians, camera, T_cam_map, features, background, stats)
    raise Motion4DError(f"unknown renderer {backend!r}: choose one of {', '.join(BACKENDS)}")


def _check(gaussians: PosedGaussians, T_cam_map: Tensor, features: Tensor, background: Tensor | None) -> None:
    count = gaussians.count
    expected = {"means": (count, 3), "quats": (count, 4), "scales": (count, 3), "opacities": (count,)}
    for name, shape in expected.items():
        if tuple(getattr(gaussians, name).shape) != shape:
            raise Motion4DError(f"{name} has shape {tuple(getattr(gaussians, name).shape)}, expected {shape}")
    if features.ndim != 2 or features.shape[0] != count:
        raise Motion4DError(f"features have shape {tuple(features.shape)}, expected ({count}, C)")
    if background is not None and tuple(background.shape) != (features.shape[1],):
        raise Motion4DError(f"background has shape {tuple(background.shape)}, expected ({features.shape[1]},)")
    check_pose(T_cam_map)


def check_pose(T_cam_map: Tensor) -> None:
    """Raises `Motion4DError` unless this is a finite (4, 4) matrix."""
    if tuple(T_cam_map.shape) != (4, 4) or not bool(torch.isfinite(T_cam_map).all()):
        raise Motion4DError("T_cam_map must be a finite 4x4 matrix: check the camera pose")
