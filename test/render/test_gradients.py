"""The proof of the renderer: values and gradients of every input against the float64 reference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motion4d_ros.evaluation.splat_scenes import (
    INPUTS,
    gradients,
    random_image_gradients,
    random_scene,
    relative_difference,
)
from motion4d_ros.types import Camera

TOLERANCE = 1e-4  # of the largest entry

cameras = st.builds(
    Camera,
    fx=st.floats(20, 80),
    fy=st.floats(20, 80),
    cx=st.floats(-5, 45),
    cy=st.floats(-5, 35),
    width=st.integers(1, 41),
    height=st.integers(1, 35),
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    camera=cameras,
    seed=st.integers(0, 2**31),
    count=st.integers(1, 60),
    channels=st.integers(0, 21),
    size=st.sampled_from([0.005, 0.05, 0.3, 2.0]),
    opacity=st.sampled_from([0.05, 0.5, 1.0]),
)
def test_cpu_gradients_equal_the_float64_reference(brute_force, camera, seed, count, channels, size, opacity):
    scene = random_scene(seed, count, channels, camera, size=size, opacity=opacity)
    exact = scene.to(torch.float64)
    # On a threshold float32 and float64 rightly differ: such pixels stay out of the loss.
    clear = torch.from_numpy(brute_force(exact).margin > 1e-5)
    given_gradients = random_image_gradients(exact, seed + 1)
    given_gradients = tuple(g * (clear[..., None] if g.ndim == 3 else clear) for g in given_gradients)
    truth_image, truth = gradients(exact, "reference", given_gradients)
    image, found = gradients(scene, "cpu", tuple(g.float() for g in given_gradients))
    for name in ("features", "alpha", "depth_sum"):
        value, expected = getattr(image, name).double(), getattr(truth_image, name)
        mask = clear[..., None] if value.ndim == 3 else clear
        assert relative_difference(value * mask, expected * mask) < 1e-5, name
    for name in INPUTS:
        assert relative_difference(found[name], truth[name]) < TOLERANCE, name


@pytest.mark.parametrize("channels", [0, 1, 3, 4, 8, 12, 16, 33])
def test_gradients_of_a_full_image(brute_force, channels):
    """Many splats a pixel, several tiles, every way the kernels treat channels."""
    camera = Camera(55.0, 50.0, 34.0, 21.0, 70, 45)
    scene = random_scene(7, 300, channels, camera, size=0.15)
    exact = scene.to(torch.float64)
    clear = torch.from_numpy(brute_force(exact).margin > 1e-5)
    given_gradients = random_image_gradients(exact, 8)
    given_gradients = tuple(g * (clear[..., None] if g.ndim == 3 else clear) for g in given_gradients)
    _, truth = gradients(exact, "reference", given_gradients)
    _, found = gradients(scene, "cpu", tuple(g.float() for g in given_gradients))
    for name in INPUTS:
        assert relative_difference(found[name], truth[name]) < 2e-5, name


def test_reference_gradients_equal_finite_differences():
    """Anchors the reference itself: central differences in float64 for every input."""
    camera = Camera(20.0, 22.0, 4.3, 3.1, 9, 8)
    scene = random_scene(3, 5, 2, camera, size=0.2, opacity=0.7, dtype=torch.float64)
    given_gradients = random_image_gradients(scene, 4)
    _, found = gradients(scene, "reference", given_gradients)

    def loss() -> float:
        out = scene.render("reference")
        images = (out.features, out.alpha, out.depth_sum)
        return float(sum((image * g).sum() for image, g in zip(images, given_gradients, strict=True)))

    step = 1e-7
    for name in INPUTS:
        flat = getattr(scene, name).view(-1)
        numeric = torch.zeros_like(flat)
        for k in range(12 if name == "T_cam_map" else len(flat)):
            start = flat[k].item()
            flat[k] = start + step
            up = loss()
            flat[k] = start - step
            numeric[k] = (up - loss()) / (2 * step)
            flat[k] = start
        assert relative_difference(found[name].reshape(-1), numeric) < 1e-5, name


def test_depth_is_the_mean_and_differentiable():
    camera = Camera(30.0, 30.0, 15.5, 11.5, 32, 24)
    scene = random_scene(5, 40, 1, camera, size=0.1).requires_grad()
    out = scene.render("cpu")
    assert torch.equal(out.depth[out.alpha == 0], torch.zeros_like(out.depth[out.alpha == 0]))
    drawn = out.alpha > 0
    assert drawn.any() and not drawn.all()
    torch.testing.assert_close(out.depth[drawn], (out.depth_sum / out.alpha)[drawn])
    out.depth.sum().backward()
    assert torch.isfinite(scene.means.grad).all() and scene.means.grad.abs().max() > 0


def test_unused_outputs_and_inputs_cost_nothing_and_break_nothing():
    camera = Camera(30.0, 30.0, 15.5, 11.5, 32, 24)
    scene = random_scene(6, 40, 3, camera)
    scene.opacities.requires_grad_()
    scene.render("cpu").alpha.sum().backward()
    assert scene.opacities.grad is not None and scene.opacities.grad.abs().max() > 0
    assert scene.means.grad is None and scene.features.grad is None


def test_backward_twice_gives_the_same():
    camera = Camera(30.0, 30.0, 15.5, 11.5, 32, 24)
    scene = random_scene(6, 40, 3, camera).requires_grad()
    out = scene.render("cpu")
    first = torch.autograd.grad(out.features.sum(), scene.inputs(), retain_graph=True)
    second = torch.autograd.grad(out.features.sum(), scene.inputs())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
