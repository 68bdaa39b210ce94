"""Losses on examples that can be checked by hand."""

from __future__ import annotations

import math

import pytest
import torch

from motion4d_ros.fit.optimisation import losses


def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(20, 24, 3, generator=generator), torch.rand(20, 24, 3, generator=generator)


def test_equal_images_have_structural_similarity_one() -> None:
    a, b = images()
    assert losses.ssim(a, a).item() == pytest.approx(1.0, abs=1e-4)
    assert losses.ssim(a, b).item() < 0.5
    assert losses.ssim(a, 1 - a).item() < 0  # inverted


def test_ssim_and_its_gradient_are_those_of_the_definition() -> None:
    """Wang et al. 2004, eq. 13, window by window, in double precision."""
    random = torch.Generator().manual_seed(1)
    a, b = torch.rand(12, 15, 3, generator=random), torch.rand(12, 15, 3, generator=random)
    windows = [image.double().requires_grad_() for image in (a, b)]
    x, y = (image.unfold(0, 7, 1).unfold(1, 7, 1).flatten(-2) for image in windows)
    mean_x, mean_y = x.mean(-1), y.mean(-1)
    var_x, var_y = x.var(-1, correction=0), y.var(-1, correction=0)
    cov = (x * y).mean(-1) - mean_x * mean_y
    top = (2 * mean_x * mean_y + 0.01**2) * (2 * cov + 0.03**2)
    expected = (top / ((mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2))).mean()
    wanted = torch.autograd.grad(expected, windows[0])[0]
    a.requires_grad_()
    found = losses.ssim(a, b)
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    gradient = torch.autograd.grad(3 * found, a)[0]
    assert torch.allclose(gradient.double(), 3 * wanted, atol=1e-5 * float(wanted.abs().max()))


def test_window_means_that_are_known_change_nothing() -> None:
    a, b = images()
    a.requires_grad_()
    asked: list[losses.LocalMeans] = []

    def means() -> losses.LocalMeans:
        asked.append(losses.local_means(b))
        return asked[-1]

    plain, known = losses.photometric(a, b, 0.2), losses.photometric(a, b, 0.2, means)
    assert torch.equal(plain, known) and len(asked) == 1
    assert torch.equal(*(torch.autograd.grad(loss, a)[0] for loss in (plain, known)))
    losses.photometric(a, b, 0.0, means)
    assert len(asked) == 1  # not needed


def test_photometric_mixes_l1_and_dissimilarity() -> None:
    a, _ = images()
    assert losses.photometric(a, a, 0.2).item() == pytest.approx(0.0, abs=1e-4)
    shifted = a * 0.5
    l1, structure = (shifted - a).abs().mean().item(), 1 - losses.ssim(shifted, a).item()
    assert losses.photometric(shifted, a, 0.0).item() == pytest.approx(l1)
    assert losses.photometric(shifted, a, 0.2).item() == pytest.approx(0.8 * l1 + 0.2 * structure, rel=1e-5)
    tiny = torch.zeros(4, 4, 3)
    assert losses.photometric(tiny + 0.25, tiny, 0.2).item() == pytest.approx(0.25)  # too small for a window


def test_semantic_loss_is_zero_when_sure_and_bounded_when_wrong() -> None:
    target = torch.zeros(2, 2, dtype=torch.int64)
    weight = torch.ones(2, 2)
    sure = torch.zeros(2, 2, 3)
    sure[..., 0] = 1.0
    assert losses.semantic(sure, target, weight).item() == pytest.approx(0.0)
    half = torch.full((2, 2, 3), 0.5)
    assert losses.semantic(half, target, weight).item() == pytest.approx((1 - 0.5**0.7) / 0.7, rel=1e-5)
    wrong = losses.semantic(sure, target + 1, weight).item()
    assert 1.3 < wrong < 1 / 0.7  # cross-entropy would be over 9


def test_where_nothing_is_there_counts_as_background() -> None:
    probability = torch.tensor([[[0.3, 0.2], [0.3, 0.2]]])  # the rest, one half, is nothing
    target, weight, nothing = torch.tensor([[0, 1]]), torch.ones(1, 2), torch.full((1, 2), 0.5)
    whole = torch.tensor([[[0.8, 0.2], [0.8, 0.2]]])
    assert losses.semantic(probability, target, weight, nothing) == losses.semantic(whole, target, weight)


def test_pixels_nobody_knows_do_not_count() -> None:
    probability = torch.full((1, 4, 2), 0.5)
    probability[0, :2] = torch.tensor([1.0, 0.0])
    weight = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert losses.semantic(probability, torch.zeros(1, 4, dtype=torch.int64), weight).item() == pytest.approx(0.0)
    assert losses.semantic(probability, torch.zeros(1, 4, dtype=torch.int64), 0 * weight).item() == 0.0
    prior = torch.tensor([[2.0, 100.0]])
    assert losses.depth(torch.full((1, 2), 2.0), prior, torch.tensor([[1.0, 0.0]])).item() == pytest.approx(0.0)


def test_depth_is_relative_and_trimmed() -> None:
    prior = torch.tensor([[2.0, 4.0]])
    weight = torch.ones(1, 2)
    assert losses.depth(prior / 1.1, prior, weight).item() == pytest.approx(0.1, rel=1e-4)
    assert losses.depth(prior / 3.0, prior, weight).item() == pytest.approx(0.2)
    rendered = torch.tensor([[0.0, 4.0]], requires_grad=True)  # a hole in the rendering
    losses.depth(rendered, prior, weight).backward()
    assert torch.isfinite(rendered.grad).all()


def test_track_distance_over_the_image_side_weighted_and_trimmed() -> None:
    target = torch.tensor([[10.0, 10.0], [20.0, 20.0]])
    uv = target + torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    even = torch.ones(2)
    assert losses.track(uv, target, even, 100).item() == pytest.approx(5 / 2 / 100, rel=1e-3)
    assert losses.track(uv, target, torch.tensor([0.0, 1.0]), 100).item() == pytest.approx(0.0, abs=1e-5)
    far = target + torch.tensor([[300.0, 400.0], [300.0, 400.0]])
    assert losses.track(far, target, even, 100).item() == pytest.approx(0.16)


def test_confidence_loss_drives_w_to_the_indicator() -> None:
    consistent = torch.tensor([1.0, 0.0, 1.0, 0.0])
    logits = torch.tensor([-1.0, 1.0, 2.0, -2.0], requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.2)
    for _ in range(60):
        optimiser.zero_grad()
        losses.confidence(logits.sigmoid(), consistent).backward()
        optimiser.step()
    assert logits.sigmoid().detach().round().tolist() == consistent.tolist()
    assert losses.confidence(torch.tensor([0.5]), torch.tensor([1.0])).item() == pytest.approx(math.log(2), rel=1e-5)
    assert math.isfinite(losses.confidence(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])).item())


def test_round_gaussians_have_no_scale_spread() -> None:
    assert losses.scale_spread(torch.full((5, 3), -2.0)).item() == 0.0
    assert losses.scale_spread(torch.tensor([[0.0, 0.0, 3.0]])).item() == pytest.approx(3.0)
    assert losses.scale_spread(torch.zeros(0, 3)).item() == 0.0, "an empty scene"


def test_the_spread_of_scales_and_its_gradient_are_those_of_the_variance() -> None:
    scales = torch.rand(50, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found, expected = losses.scale_spread(scales), scales.var(dim=1).mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.allclose(*(torch.autograd.grad(loss, scales)[0] for loss in (found, expected)), rtol=1e-5, atol=1e-8)
