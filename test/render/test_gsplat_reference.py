"""gsplat's own mathematics against ours, without a GPU: values and gradients of every input.

gsplat carries a PyTorch reference of its CUDA kernels (`gsplat/cuda/_torch_impl.py`). Here gsplat's public function
`rasterization` runs on the CPU with that reference in the kernels' place, called by our `render_gsplat`: so what is
covered is our call (shapes, K + 0.5, "RGB+D", backgrounds, channels in chunks, radii), gsplat's own Python between the
call and the kernels, its projection (dilation, limits of the slope, expected depth, the camera's gradient), its tiles,
pixel centres, the clip at 0.999 and the compositing.

Written by hand, since only CUDA has it: which pairs of pixel and Gaussian are blended (`_pairs`), and the two functions
of `nerfacc` that the reference sums with. The thresholds in there, 1/255 and 1e-4, are compared with the text of the
CUDA sources instead. Not covered: the CUDA code itself (`make gpu-check`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from motion4d_ros.evaluation.splat_scenes import (
    INPUTS,
    SplatScene,
    gradients,
    random_image_gradients,
    random_scene,
    relative_difference,
)
from motion4d_ros.render import gsplat_cuda, reference
from motion4d_ros.types import Camera

rendering = pytest.importorskip("gsplat.rendering", reason="gsplat is not installed (tools/setup_venv.sh does it)")
from gsplat.cuda import _torch_impl, _wrapper  # noqa: E402

CAMERA = Camera(40.0, 45.0, 15.0, 12.5, 43, 24)  # not centred, no whole number of tiles
TOLERANCE = 2e-6  # of the largest entry: gsplat's side is computed in float64 here, what remains is float32 in and out
TOLERANCE_CPU = 1e-4  # the C++ library blends in float32

SCENES = {
    "small": {"seed": 1, "count": 80, "channels": 3, "size": 0.03},
    "large": {"seed": 2, "count": 40, "channels": 3, "size": 0.5},
    "opaque": {"seed": 3, "count": 120, "channels": 2, "size": 0.15, "opacity": 1.0},
    "no channels": {"seed": 4, "count": 40, "channels": 0},
    "one channel": {"seed": 5, "count": 40, "channels": 1},
    "two chunks": {"seed": 6, "count": 30, "channels": 40, "size": 0.1},
}


@pytest.fixture(autouse=True)
def _kernels_in_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """gsplat's `rasterization` with its PyTorch reference instead of CUDA, in float64."""
    nerfacc = ModuleType("nerfacc")
    nerfacc.render_weight_from_alpha = _render_weight_from_alpha  # type: ignore[attr-defined]
    nerfacc.accumulate_along_rays = _accumulate_along_rays  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nerfacc", nerfacc)
    monkeypatch.setattr(_wrapper, "rasterize_to_indices_in_range", _pairs)
    monkeypatch.setattr(rendering, "fully_fused_projection", _project)
    monkeypatch.setattr(rendering, "isect_tiles", _tiles)
    monkeypatch.setattr(rendering, "isect_offset_encode", _torch_impl._isect_offset_encode)
    monkeypatch.setattr(rendering, "rasterize_to_pixels", _blend)

    def rasterization(**given: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
        for name, value in given.items():
            if isinstance(value, Tensor):
                assert value.dtype == torch.float32, f"{name}: the kernels read float32"
                given[name] = value.double()
        return rendering.rasterization(**given)

    monkeypatch.setattr(gsplat_cuda, "_load_gsplat", lambda device: rasterization)


def _project(means: Tensor, covars: None, quats: Tensor, scales: Tensor, viewmats: Tensor, Ks: Tensor,
             width: int, height: int, **options: Any) -> tuple[Any, ...]:  # fmt: skip
    """`fully_fused_projection` without what the reference does not know, all of which is off in our call."""
    assert covars is None and not (options["packed"] or options["sparse_grad"] or options["radius_clip"])
    known = {name: options[name] for name in ("eps2d", "near_plane", "far_plane", "calc_compensations", "camera_model")}
    covars_map, _ = _torch_impl._quat_scale_to_covar_preci(quats, scales, compute_preci=False)
    return _torch_impl._fully_fused_projection(means, covars_map, viewmats, Ks, width, height, **known)


def _tiles(means2d: Tensor, radii: Tensor, depths: Tensor, *sizes: int, **options: Any) -> tuple[Tensor, ...]:
    assert not (options["packed"] or options["segmented"])
    return _torch_impl._isect_tiles(means2d.detach(), radii, depths.detach(), *sizes)


def _blend(*given: Any, packed: bool, absgrad: bool, **options: Any) -> tuple[Tensor, Tensor]:
    assert not (packed or absgrad)
    return _torch_impl._rasterize_to_pixels(*given, **options)


def _pairs(first: int, last: int, transmittances: Tensor, means2d: Tensor, conics: Tensor, opacities: Tensor,
           width: int, height: int, tile: int, offsets: Tensor, flatten_ids: Tensor) -> tuple[Tensor, ...]:  # fmt: skip
    """Gaussian, pixel and image of every pair that is blended, pixel after pixel, near to far, all at once."""
    assert first == 0 and last * tile**2 >= len(flatten_ids) and bool((transmittances == 1).all())
    ends = torch.cat([offsets.flatten()[1:], torch.tensor([len(flatten_ids)])])
    found: list[Tensor] = []
    for number, (start, end) in enumerate(zip(offsets.flatten().tolist(), ends.tolist(), strict=True)):
        row, column = divmod(number, offsets.shape[-1])
        chosen = flatten_ids[start:end].long()
        y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        pixels = (y * width + x)[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile].reshape(-1)
        centres = torch.stack([pixels % width, pixels // width], -1) + 0.5
        d = centres[:, None] - means2d[0, chosen]
        a, b, c = conics[0, chosen].unbind(-1)
        sigma = 0.5 * (a * d[..., 0] ** 2 + c * d[..., 1] ** 2) + b * d[..., 0] * d[..., 1]
        alpha = torch.clamp(opacities[0, chosen] * torch.exp(-sigma), max=reference.ALPHA_MAX)
        alpha = torch.where((sigma >= 0) & (alpha >= reference.ALPHA_MIN), alpha, 0.0)
        lit = torch.cumprod(1 - alpha, -1) > reference.TRANSMITTANCE_STOP
        pixel, place = ((alpha > 0) & lit).nonzero(as_tuple=True)
        found.append(torch.stack([chosen[place], pixels[pixel]]))
    gaussian_ids, pixel_ids = torch.cat(found, -1)
    return gaussian_ids, pixel_ids, torch.zeros_like(pixel_ids)


def _render_weight_from_alpha(alphas: Tensor, *, ray_indices: Tensor, n_rays: int) -> tuple[Tensor, Tensor]:
    """What `nerfacc` documents: w_i = alpha_i prod_(j < i on the ray) (1 - alpha_j), samples sorted by ray."""
    _, counts = torch.unique_consecutive(ray_indices, return_counts=True)
    rays = [(1 - part).cumprod(0) for part in alphas.split(counts.tolist())]
    before = torch.cat([torch.cat([torch.ones_like(ray[:1]), ray[:-1]]) for ray in rays])
    return alphas * before, before


def _accumulate_along_rays(weights: Tensor, values: Tensor | None, *, ray_indices: Tensor, n_rays: int) -> Tensor:
    """What `nerfacc` documents: (n_rays, D) sum of weights times values along each ray."""
    terms = weights[:, None] if values is None else weights[:, None] * values
    return torch.zeros(n_rays, terms.shape[-1], dtype=terms.dtype).index_add(0, ray_indices, terms)


@pytest.fixture(params=sorted(SCENES))
def scene(request: pytest.FixtureRequest) -> Iterator[SplatScene]:
    made = dict(SCENES[request.param])
    found = random_scene(made.pop("seed"), made.pop("count"), made.pop("channels"), CAMERA, **made)
    if request.param == "small":
        found.means[0], found.quats[1], found.scales[2] = torch.nan, 0.0, -1.0  # undrawable
    if request.param == "opaque":  # far to the side, where the slope of the projection is limited
        xyz_cam = torch.tensor([[4.0 + 0.1 * i, -0.2 * i, 1.5 + 0.05 * i] for i in range(8)])
        found.means[:8] = (xyz_cam - found.T_cam_map[:3, 3]) @ found.T_cam_map[:3, :3]
        found.scales[:8] = 1.0
    yield found


def _clear_of_thresholds(scene: SplatScene, brute_force: Any) -> Tensor:
    """(H, W) bool: pixels at which float32 and float64 need not decide differently about a Gaussian."""
    drawable = torch.isfinite(scene.means).all(-1) & (scene.quats.norm(dim=-1) > 0) & (scene.scales >= 0).all(-1)
    kept = [getattr(scene, name)[drawable] for name in ("means", "quats", "scales", "opacities", "features")]
    reference = brute_force(SplatScene(scene.camera, *kept, scene.T_cam_map, scene.background))
    return torch.from_numpy(reference.margin > 1e-5)


def _masked(image: Tensor, clear: Tensor) -> Tensor:
    return image.double() * (clear[..., None] if image.ndim == 3 else clear)


def test_gsplat_computes_what_the_reference_and_the_library_compute(scene: SplatScene, brute_force: Any) -> None:
    clear = _clear_of_thresholds(scene, brute_force)
    assert clear.double().mean() > 0.9
    exact = scene.to(torch.float64)
    given = tuple(_masked(image, clear) for image in random_image_gradients(exact, 1))
    truth, expected = gradients(exact, "reference", given)  # type: ignore[arg-type]
    assert (truth.alpha > 0.5).any() and expected["T_cam_map"].abs().max() > 0
    for backend, tolerance in (("gsplat", TOLERANCE), ("cpu", TOLERANCE_CPU)):
        image, found = gradients(scene, backend, tuple(g.float() for g in given))  # type: ignore[arg-type]
        for name in ("features", "alpha", "depth_sum", "depth"):
            value, other = _masked(getattr(image, name), clear), _masked(getattr(truth, name), clear)
            assert relative_difference(value, other) < tolerance, (backend, name)
        for name in INPUTS:
            assert relative_difference(found[name], expected[name]) < tolerance, (backend, name)


def test_gsplat_knows_which_gaussians_are_seen_and_how_much(scene: SplatScene) -> None:
    truth = scene.to(torch.float64).render("reference", stats=True)
    found = scene.render("gsplat", stats=True)
    assert found.weight_sum is not None and truth.weight_sum is not None
    torch.testing.assert_close(found.weight_sum.double(), truth.weight_sum, rtol=1e-4, atol=2 / 255)
    assert ((found.radii > 0) >= (truth.radii > 0)).all()  # gsplat's boxes are whole pixels and no smaller
    drawn = truth.radii > 0
    assert (found.radii[drawn] + 1e-3 >= truth.radii[drawn]).all()


def test_our_thresholds_are_those_of_the_cuda_sources() -> None:
    sources = Path(rendering.__file__).parent / "cuda"
    forward = (sources / "csrc" / "RasterizeToPixels3DGSFwd.cu").read_text(encoding="utf-8")
    backward = (sources / "csrc" / "RasterizeToPixels3DGSBwd.cu").read_text(encoding="utf-8")
    common = (sources / "include" / "Common.h").read_text(encoding="utf-8")

    def number(pattern: str, text: str) -> float:
        found = re.search(pattern, text)
        assert found, pattern
        return float(found[1])

    assert 1.0 / number(r"ALPHA_THRESHOLD \(1\.f / (\d+)\.f\)", common) == reference.ALPHA_MIN
    assert number(r"next_T <= (\S+?)f\)", forward) == reference.TRANSMITTANCE_STOP
    for text in (forward, backward):
        assert number(r"min\((0\.\d+)f, opac", text) == reference.ALPHA_MAX
        assert "alpha < ALPHA_THRESHOLD" in text
        assert "(float)j + 0.5f" in text and "(float)i + 0.5f" in text, "pixel centres"
    assert number(r"opac \* vis <= (0\.\d+)f", backward) == reference.ALPHA_MAX  # beyond the clip there is no gradient
    assert gsplat_cuda.DILATION == reference.DILATION
