"""What is drawn: by hand, against a brute-force reference, and alike in all back ends."""

from __future__ import annotations

import math

import pytest
import torch

from motion4d_ros.evaluation.splat_scenes import SplatScene, random_scene
from motion4d_ros.types import Camera

BACKENDS = ["cpu", "reference"]
CAMERA = Camera(40.0, 50.0, 10.0, 8.0, 24, 18)


def balls(camera: Camera, *rows: tuple[float, float, float, float, float], background: float = 0.0) -> SplatScene:
    """Round Gaussians, each a row of x, y, z (m), standard deviation (m), opacity; feature = its number, from 1."""
    values = torch.tensor(rows, dtype=torch.float64)
    count = len(rows)
    return SplatScene(
        camera,
        means=values[:, :3],
        quats=torch.tensor([[2.0, 0, 0, 0]], dtype=torch.float64).repeat(count, 1),
        scales=values[:, 3:4].repeat(1, 3),
        opacities=values[:, 4],
        features=torch.arange(1.0, count + 1, dtype=torch.float64)[:, None],
        T_cam_map=torch.eye(4, dtype=torch.float64),
        background=torch.tensor([background], dtype=torch.float64),
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_ball_on_the_axis(backend):
    """At the principal point the covariance is (f s / z)^2 + 0.3, so alpha is known in closed form."""
    out = balls(CAMERA, (0, 0, 2, 0.1, 0.8), background=5.0).render(backend)
    assert out.features[8, 10, 0].item() == pytest.approx(0.8 * 1 + 0.2 * 5, rel=1e-6)
    assert out.alpha[8, 10].item() == pytest.approx(0.8, rel=1e-6)
    across = 0.8 * math.exp(-0.5 * 3**2 / ((40 * 0.1 / 2) ** 2 + 0.3))
    down = 0.8 * math.exp(-0.5 * 4**2 / ((50 * 0.1 / 2) ** 2 + 0.3))
    assert out.alpha[8, 13].item() == pytest.approx(across, rel=1e-6)
    assert out.alpha[8, 7].item() == pytest.approx(across, rel=1e-6)
    assert out.alpha[12, 10].item() == pytest.approx(down, rel=1e-6)
    assert out.depth[8, 10].item() == pytest.approx(2.0, rel=1e-6)
    assert out.depth_sum[8, 10].item() == pytest.approx(1.6, rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nearer_hides_farther_whatever_the_order(backend):
    out = balls(CAMERA, (0, 0, 4, 0.2, 0.5), (0, 0, 2, 0.1, 0.6), background=10.0).render(backend, stats=True)
    assert out.features[8, 10, 0].item() == pytest.approx(0.6 * 2 + 0.4 * 0.5 * 1 + 0.4 * 0.5 * 10, rel=1e-6)
    assert out.depth[8, 10].item() == pytest.approx((0.6 * 2 + 0.2 * 4) / 0.8, rel=1e-6)
    # Behind the other one, the first shows best a little off the centre: max over e of 0.5 e (1 - 0.6 e), e = 1/1.2.
    assert out.weight_max[1].item() == pytest.approx(0.6, rel=1e-6)
    assert 0.2 < out.weight_max[0].item() < 0.25 / 1.2 + 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_alpha_is_clipped_and_faint_contributions_are_skipped(backend):
    solid = balls(CAMERA, (0, 0, 2, 0.1, 1.0)).render(backend)
    assert solid.alpha[8, 10].item() == pytest.approx(0.999, abs=1e-6)
    drawn = solid.alpha[solid.alpha > 0]
    assert drawn.min().item() >= 1 / 255 - 1e-6
    faint = balls(CAMERA, (0, 0, 2, 0.1, 0.0039)).render(backend)
    assert faint.alpha.abs().max().item() == 0 and faint.radii.item() == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_ray_ends_before_its_transmittance_reaches_the_stop(backend):
    """With opacity 0.91, a fourth ball would leave 6.6e-5 of the light, so only three are blended; with 0.89 it leaves
    1.5e-4 and is blended, and the fifth is not."""
    for opacity, blended in ((0.91, 3), (0.89, 4)):
        out = balls(CAMERA, *[(0, 0, 1.0 + i, 0.05 * (1 + i), opacity) for i in range(6)]).render(backend)
        assert out.alpha[8, 10].item() == pytest.approx(1 - (1 - opacity) ** blended, rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_radii_bound_what_is_drawn(backend):
    out = balls(CAMERA, (0, 0, 2, 0.1, 0.8)).render(backend)
    spread = math.sqrt(2 * math.log(255 * 0.8))
    assert out.radii.item() == pytest.approx(spread * math.sqrt((50 * 0.1 / 2) ** 2 + 0.3), rel=1e-5)
    rows = (out.alpha > 0).any(1).nonzero()[:, 0]
    assert rows.max() - 8 == math.floor(out.radii.item())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_brute_force(brute_force, backend, seed):
    camera = Camera(30.0 + 10 * seed, 35.0, 18.0 - 4 * seed, 9.0, 37, 21)
    scene = random_scene(seed, 80, 3, camera, size=[0.02, 0.1, 0.4, 1.5][seed], dtype=torch.float64)
    reference = brute_force(scene)
    out = scene.render(backend)
    tolerance, clear = (1e-10, reference.margin > 1e-12) if backend == "reference" else (2e-5, reference.margin > 1e-5)
    assert clear.mean() > 0.9
    for name in ("features", "alpha", "depth_sum"):
        difference = abs(getattr(out, name).numpy() - getattr(reference, name))
        assert difference[clear].max() < tolerance, name


@pytest.mark.parametrize("seed", range(3))
def test_statistics_agree(seed):
    camera = Camera(60.0, 60.0, 31.5, 23.5, 64, 48)
    scene = random_scene(seed, 200, 2, camera, dtype=torch.float64)
    ours, truth = scene.render("cpu", stats=True), scene.render("reference", stats=True)
    for name in ("radii", "weight_sum", "weight_max"):
        torch.testing.assert_close(getattr(ours, name).double(), getattr(truth, name), rtol=1e-4, atol=1e-4)
    assert abs(ours.pairs - truth.pairs) <= 3
    assert ours.weight_sum.sum().item() == pytest.approx(ours.alpha.sum().item(), rel=1e-5)


def test_statistics_are_left_out_unless_asked_for():
    out = random_scene(0, 10, 2, CAMERA).render("cpu")
    assert out.weight_sum is None and out.weight_max is None and out.pairs is None


def test_dtype_of_the_output_is_that_of_the_means():
    assert random_scene(0, 10, 2, CAMERA, dtype=torch.float64).render("cpu").features.dtype == torch.float64
    assert random_scene(0, 10, 2, CAMERA).render("auto").features.dtype == torch.float32
