"""The step in C++ against the step in PyTorch: gradients of every parameter, losses, Adam, any number of threads."""

from __future__ import annotations

import pytest
import torch
from step_builders import ALL, CAMERA, FIRST, LENGTH, make_target, make_tracks, make_trainer

from motion4d_ros.fit.optimisation import losses
from motion4d_ros.fit.optimisation.native_step import Task
from motion4d_ros.fit.optimisation.trainer import APPEARANCE, SEMANTICS, Trainer
from motion4d_ros.types import Camera


def make_task(dtype: torch.dtype, labels_only: bool = False, tracks: bool = True) -> Task:
    target, other = make_target(FIRST + 1, dtype), make_target(FIRST + 3, dtype)
    if labels_only or not tracks:
        return Task(target, CAMERA, labels_only)
    return Task(target, CAMERA, False, other, make_tracks(dtype))


def by_torch(trainer: Trainer, task: Task, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    with trainer.optimizer.training_only(names):
        trainer._backward(task)
    return {name: trainer.scene.params[name].grad for name in names}


@pytest.mark.parametrize("tracks", [True, False])
@pytest.mark.parametrize("confidence", [True, False])
def test_gradients_are_those_of_the_reference_in_double_precision(tracks: bool, confidence: bool) -> None:
    exact = make_trainer(torch.float64, confidence=confidence)
    trainer = make_trainer(torch.float32, confidence=confidence)
    assert trainer.native is not None
    found = trainer.native.gradients(make_task(torch.float32, tracks=tracks), ALL)
    for name, wanted in by_torch(exact, make_task(torch.float64, tracks=tracks), ALL).items():
        if wanted is None:  # without tracks nothing teaches the confidence
            wanted = torch.zeros_like(exact.scene.params[name])
        largest = float(wanted.abs().max())
        off = float((found[name].double() - wanted).abs().max())
        assert off <= 1e-4 * largest, f"{name}: {off} of {largest}"
        assert largest > 0 or (name == "confidence_logits" and not (tracks and confidence)), name


def test_losses_are_those_of_the_reference() -> None:
    trainer, task = make_trainer(torch.float32), make_task(torch.float32)
    assert trainer.native is not None and task.other is not None and task.tracks is not None
    trainer.native.gradients(task, ALL)
    view = trainer.view(task.target, CAMERA, task.other.index)
    target, found = task.target, trainer.native.losses
    assert found["l1"] == pytest.approx((view.rgb - target.image).abs().mean().item(), rel=1e-5)
    assert found["ssim"] == pytest.approx(losses.ssim(view.rgb, target.image).item(), rel=1e-4)
    semantic = losses.semantic(view.labels, target.channels, target.known, 1 - view.output.alpha)
    assert found["semantic"] == pytest.approx(semantic.item(), rel=1e-5)
    trust = view.confidence / view.output.alpha.clamp_min(1e-3)
    weight = target.depth_weight * trust * (view.output.alpha > 0.5)
    assert found["depth"] == pytest.approx(losses.depth(view.output.depth, target.depth_m, weight).item(), rel=1e-4)
    tracks = trainer._track_loss(target, task.other, view, trust, task.tracks, CAMERA).item()
    weights = trainer.weights
    assert weights.track * found["track"] + weights.confidence * found["confidence"] == pytest.approx(tracks, rel=1e-4)


def test_views_without_gradients_are_those_of_the_reference() -> None:
    exact, trainer = make_trainer(torch.float64), make_trainer(torch.float32)
    with torch.no_grad():
        found = trainer.view(make_target(FIRST + 1, torch.float32), CAMERA)
        kept = found.rgb.clone()
        trainer.view(make_target(FIRST + 2, torch.float32), CAMERA)
        wanted = exact.view(make_target(FIRST + 1, torch.float64), CAMERA)
    assert torch.equal(found.rgb, kept), "overwritten by the next view"
    for ours, theirs in (
        (found.rgb, wanted.rgb),
        (found.labels, wanted.labels),
        (found.confidence, wanted.confidence),
        (found.output.alpha, wanted.output.alpha),
        (found.output.depth, wanted.output.depth),
    ):
        assert torch.allclose(ours.double(), theirs, atol=2e-5)
    assert torch.allclose(found.output.radii, wanted.output.radii.float(), rtol=1e-4)


def test_stage_two_has_the_gradients_of_labels_alone() -> None:
    exact, trainer = make_trainer(torch.float64), make_trainer(torch.float32)
    assert trainer.native is not None
    found = trainer.native.gradients(make_task(torch.float32, labels_only=True), SEMANTICS)
    wanted = by_torch(exact, make_task(torch.float64, labels_only=True), SEMANTICS)["semantics"]
    assert found.keys() == {"semantics"}
    assert torch.allclose(found["semantics"].double(), wanted, atol=1e-5 * float(wanted.abs().max()))


def test_steps_follow_those_of_torch() -> None:
    """Ten steps of both kinds from the same start: the parameters stay together far more closely than they move."""
    trainers = [make_trainer(torch.float32) for _ in range(2)]
    start = {name: value.detach().clone() for name, value in trainers[0].scene.params.items()}
    for trainer, native in zip(trainers, (True, False), strict=True):
        assert trainer.native is not None
        targets = [make_target(FIRST + k, torch.float32) for k in range(LENGTH)]
        trainer.set_targets({target.index: target for target in targets})
        trainer.native = trainer.native if native else None
        tracks = make_tracks(torch.float32)
        trainer.run("motion", targets, CAMERA, 6, lambda *_, tracks=tracks: tracks)
        trainer.run("semantic", targets, CAMERA, 4, lambda *_: None)
        assert trainer.iterations == 10 and trainer.raster_seconds > 0
    ours, theirs = (trainer.scene.params for trainer in trainers)
    for name, value in ours.items():
        moved = (theirs[name].detach() - start[name]).abs()
        off = (value.detach() - theirs[name].detach()).abs()
        # Adam takes a step of full length for a gradient that is nothing but rounding: a few entries may differ
        assert moved.max() > 0, name
        assert float(off.mean()) < 0.02 * float(moved.mean()), name


@pytest.mark.parametrize("native", [True, False])
def test_steps_of_stage_three_become_shorter(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(torch.float32)
    assert trainer.native is not None
    place, call = (trainer.native, "apply") if native else (trainer.optimizer, "step")
    trainer.native = trainer.native if native else None
    taken = getattr(place, call)
    factors: list[float] = []

    def noted(*given: object) -> None:
        factors.append(float(given[-1]))  # type: ignore[arg-type]
        taken(*given)

    monkeypatch.setattr(place, call, noted)
    targets = [make_target(FIRST + k, torch.float32) for k in range(LENGTH)]
    trainer.set_targets({target.index: target for target in targets})
    trainer.run("motion", targets, CAMERA, 2, lambda *_: None)
    assert factors == [1.0, 1.0]
    trainer.run("global", targets, CAMERA, 5, lambda *_: None)
    assert factors[2:] == pytest.approx([2.0, 2**0.5, 1.0, 0.5**0.5, 0.5])


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_bit_equal_for_any_number_of_threads(threads: int) -> None:
    one, many = make_trainer(torch.float32), make_trainer(torch.float32, threads)
    for trainer in (one, many):
        targets = [make_target(FIRST + k, torch.float32) for k in range(LENGTH)]
        trainer.set_targets({target.index: target for target in targets})
        tracks = make_tracks(torch.float32)
        trainer.run("global", targets, CAMERA, 3, lambda *_, tracks=tracks: tracks)
    assert all(torch.equal(value, many.scene.params[name]) for name, value in one.scene.params.items())


def test_what_cannot_be_done_in_c_is_left_to_torch() -> None:
    trainer = make_trainer(torch.float32)
    assert trainer.native is not None and trainer.native.takes(make_task(torch.float32))
    beyond = Task(make_target(FIRST + LENGTH, torch.float32), CAMERA, False)
    assert not trainer.native.takes(beyond)
    double = make_trainer(torch.float64)
    assert double.native is not None and not double.native.takes(make_task(torch.float64))


def test_images_smaller_than_a_window_and_scenes_without_gaussians() -> None:
    small = Camera(10.0, 10.0, 2.5, 2.0, 6, 5)
    trainer = make_trainer(torch.float32)
    assert trainer.native is not None
    task = Task(make_target(FIRST, torch.float32, small), small, False)
    found = trainer.native.gradients(task, ALL)
    trainer._backward(task)
    for name in APPEARANCE[:-1]:
        wanted = trainer.scene.params[name].grad
        assert wanted is not None
        assert torch.allclose(found[name], wanted, atol=1e-4 * float(wanted.abs().max()) + 1e-9), name
    trainer.scene.prune(torch.zeros(trainer.scene.count, dtype=torch.bool))
    found = trainer.native.gradients(Task(make_target(FIRST, torch.float32), CAMERA, False), ALL)
    assert found["means"].shape == (0, 3) and not found["base_quats"].any()
    trainer.native.apply(found, 1.0, ())


def test_a_scene_in_which_nothing_moves() -> None:
    exact, trainer = (make_trainer(dtype) for dtype in (torch.float64, torch.float32))
    for one in (exact, trainer):
        one.scene.keep_bases(torch.zeros(one.scene.bases.count, dtype=torch.bool))
    assert trainer.native is not None
    found = trainer.native.gradients(make_task(torch.float32), ALL)
    for name, wanted in by_torch(exact, make_task(torch.float64), APPEARANCE).items():
        assert torch.allclose(found[name].double(), wanted, atol=1e-4 * float(wanted.abs().max())), name
    assert found["motion_logits"].shape[1] == 0
    trainer.native.apply(found, 1.0, ())


def test_a_gradient_that_is_not_finite_counts_as_zero() -> None:
    trainer = make_trainer(torch.float32)
    assert trainer.native is not None
    before = trainer.scene.params["means"].detach().clone()
    gradient = torch.ones_like(before)
    gradient[0, 0], gradient[1, 1] = torch.nan, torch.inf
    trainer.native.apply({"means": gradient}, 1.0, ())
    moved = trainer.scene.params["means"].detach() - before
    assert moved[0, 0] == 0 and moved[1, 1] == 0 and bool((moved[2:] < 0).all())
    assert trainer.optimizer.bad_gradients == 1
