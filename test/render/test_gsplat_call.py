"""How gsplat is called, with a double that keeps to its documented interface (gsplat itself needs a GPU).

What gsplat computes is checked where a GPU is at hand: `make gpu-check`.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from motion4d_ros.evaluation.splat_scenes import INPUTS, gradients, random_image_gradients, random_scene
from motion4d_ros.render import gsplat_cuda
from motion4d_ros.render.reference import render_reference
from motion4d_ros.render.validity import NEAR_PLANE_M
from motion4d_ros.scene.posed import PosedGaussians
from motion4d_ros.types import Camera

CAMERA = Camera(40.0, 45.0, 15.0, 12.5, 32, 24)


def rasterization(
    means: Tensor,  # (N, 3)
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,  # (N, D)
    viewmats: Tensor,  # (1, 4, 4)
    Ks: Tensor,  # (1, 3, 3), pixels counted from the image's corner
    width: int,
    height: int,
    near_plane: float = 0.01,
    eps2d: float = 0.3,
    packed: bool = True,
    backgrounds: Tensor | None = None,  # (1, D)
    render_mode: str = "RGB",
    channel_chunk: int = 32,
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    assert means.dtype == colors.dtype == viewmats.dtype == torch.float32
    assert colors.shape[1] > 0 and len(means) > 0, "gsplat refuses these"
    assert near_plane == NEAR_PLANE_M and eps2d == 0.3 and not packed and render_mode == "RGB+D"
    K = Ks[0]
    camera = Camera(*(float(v) for v in (K[0, 0], K[1, 1], K[0, 2] - 0.5, K[1, 2] - 0.5)), width, height)
    out = render_reference(
        PosedGaussians(means, quats, scales, opacities),
        camera,
        viewmats[0],
        colors,
        None if backgrounds is None else backgrounds[0],
        False,
    )
    image = torch.cat([out.features, out.depth_sum[..., None]], -1)[None]
    radii = torch.ceil(out.radii).int()[None, :, None].expand(-1, -1, 2)
    return image, out.alpha[None, ..., None], {"radii": radii}


@pytest.fixture(autouse=True)
def _double(monkeypatch):
    monkeypatch.setattr(gsplat_cuda, "_load_gsplat", lambda device: rasterization)


@pytest.mark.parametrize("channels", [0, 1, 3, 40])
def test_same_result_as_the_others(channels):
    scene = random_scene(1, 60, channels, CAMERA, size=0.1)
    scene.means[0] = torch.nan  # gsplat must not even see it
    scene.quats[1] = 0.0
    given = random_image_gradients(scene, 2)
    truth, expected = gradients(scene, "reference", given)
    image, found = gradients(scene, "gsplat", given)
    for name in ("features", "alpha", "depth_sum", "depth"):
        torch.testing.assert_close(getattr(image, name), getattr(truth, name), rtol=1e-4, atol=1e-5)
    for name in INPUTS:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-3)
    assert (found["means"][0] == 0).all() and image.radii[0] == 0


@pytest.mark.parametrize("grad", [True, False])
def test_weights_of_the_gaussians(grad):
    scene = random_scene(1, 60, 2, CAMERA, size=0.1)
    truth = scene.render("reference", stats=True)
    with torch.set_grad_enabled(grad):
        out = scene.render("gsplat", stats=True)
    torch.testing.assert_close(out.weight_sum, truth.weight_sum, rtol=1e-4, atol=1e-4)
    assert out.weight_max is None
    assert grad or not out.features.requires_grad


def test_nothing_to_draw():
    scene = random_scene(1, 3, 2, CAMERA)
    scene.opacities[:] = 0.0
    image, found = gradients(scene, "gsplat", random_image_gradients(scene, 2))
    assert torch.equal(image.features, scene.background.expand(24, 32, 2)) and (image.alpha == 0).all()
    assert all((found[name] == 0).all() for name in INPUTS[:6])
