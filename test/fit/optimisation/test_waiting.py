"""No step on a GPU waits for it: what would make one wait is refused on the CPU, where both dispatch the same calls.

Runs the trainer's PyTorch path through `render_gsplat`, as a scene on a GPU does. The reference renderer plays gsplat's
own function, and its calls are not looked at: on a GPU they are kernels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from step_builders import ALL, CAMERA, FIRST, LENGTH, make_target, make_trainer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from motion4d_ros.fit.optimisation import losses
from motion4d_ros.fit.optimisation import trainer as trainer_module
from motion4d_ros.fit.optimisation.native_step import Task
from motion4d_ros.fit.optimisation.targets import DeviceTracks, TrackTargets
from motion4d_ros.fit.tracks.point_table import PointTable
from motion4d_ros.render import gsplat_cuda
from motion4d_ros.render.reference import render_reference
from motion4d_ros.render.render import render_unchecked
from motion4d_ros.scene.posed import PosedGaussians

REFUSED = {
    "aten::_local_scalar_dense": "reads a value back",
    "aten::nonzero": "reads back how many there are",
    "aten::masked_select": "reads back how many there are",
    "aten::_unique2": "reads back how many there are",
    "aten::equal": "reads a value back",
    "aten::lift_fresh": "sends what Python or NumPy holds",
}


class Waits(TorchDispatchMode):
    """Notes every call that would make the host wait for the device, or send to it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._looking = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.name().partition(".")[0]
        if self._looking:
            if name in REFUSED:
                self.found.append(f"{name} {REFUSED[name]}")
            if name == "aten::index" and any(each is not None and each.dtype == torch.bool for each in args[1]):
                self.found.append(f"{name} by a mask reads back how many there are")
            if name == "aten::_to_copy" and kwargs.get("device") is not None:
                self.found.append(f"{name} sends to {kwargs['device']}")
        return func(*args, **kwargs)

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """What is called inside is not what a GPU would do."""
        before, self._looking = self._looking, False
        try:
            yield
        finally:
            self._looking = before


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x[np.array([0, 1])],
        lambda x: torch.tensor([1.0, 2.0]) + x[:2],
        lambda x: torch.as_tensor(np.ones(4), dtype=x.dtype),
    ],
)
def test_what_waits_is_noticed(call: Callable[[Tensor], object]) -> None:
    x = torch.ones(4)
    with Waits() as waits:
        call(x)
    assert waits.found


@pytest.mark.parametrize("stage", ["motion", "semantic", "global"])
def test_a_step_waits_for_nothing(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(torch.float32)
    trainer.native = None
    targets = [make_target(FIRST + k, torch.float32) for k in range(LENGTH)]
    trainer.set_targets({target.index: target for target in targets})
    for target in targets:
        target.local_means()  # known since the frame was first looked at; on a GPU by a pooling layer
    tracks = DeviceTracks(make_table(), FIRST, trainer.scene.params["means"])
    trainer.scene.motion_index()  # anew only when Gaussians come or go
    waits = Waits()

    def rasterization(*, means: Tensor, viewmats: Tensor, Ks: Tensor, colors: Tensor, **given: Any) -> Any:
        with waits.elsewhere():
            gaussians = PosedGaussians(means, given["quats"], given["scales"], given["opacities"])
            out = render_reference(gaussians, CAMERA, viewmats[0], colors, None, False)
            image = torch.cat([out.features, out.depth_sum[..., None]], -1)[None]
            return image, out.alpha[None, ..., None], {"radii": out.radii.int()[None, :, None].expand(-1, -1, 2)}

    monkeypatch.setattr(gsplat_cuda, "_load_gsplat", lambda device: rasterization)
    monkeypatch.setattr(trainer_module, "render_unchecked", functools.partial(render_unchecked, backend="gsplat"))
    monkeypatch.setattr(losses, "_window_means", _pooled)  # as on a GPU: OpenCV, which serves the CPU, is not asked
    before = {name: value.detach().clone() for name, value in trainer.scene.params.items()}
    with waits:
        assert trainer.run(stage, targets, CAMERA, LENGTH, tracks) == LENGTH
    assert not waits.found, sorted(set(waits.found))
    moved = {name for name, value in trainer.scene.params.items() if not torch.equal(value, before[name])}
    assert moved >= {"semantic": {"semantics"}}.get(stage, {"means", "colors", "confidence_logits"})
    assert trainer.optimizer.bad_gradients == 0


def _pooled(image: Tensor) -> Tensor:
    pooled = torch.nn.functional.avg_pool2d(image.permute(2, 0, 1), losses.SSIM_WINDOW_PX, stride=1)
    return pooled.permute(1, 2, 0)


def make_table(count: int = 60) -> PointTable:
    """Points over the frames of the scene, a third of them unseen in each frame."""
    random = np.random.default_rng(4)
    shape = (count, LENGTH)
    uv = random.uniform((0, 0), (CAMERA.width, CAMERA.height), (count, 1, 2)) + random.normal(0, 2, (*shape, 2))
    seen = random.uniform(size=shape) < 0.67
    uv[~seen] = np.nan
    ids = np.arange(count)
    sigma = random.uniform(0.2, 1, shape).astype(np.float32)
    return PointTable(ids, ids * 0 + FIRST, uv.astype(np.float32), seen, sigma, ids % 3, np.ones(count, np.float32))


def test_tracks_on_the_device_are_those_of_the_pairs() -> None:
    """Their loss and its gradients are those of the points that both frames have, alone."""
    trainer, table = make_trainer(torch.float64), make_table()
    trainer.native = None
    targets = [make_target(FIRST + k, torch.float64) for k in range(LENGTH)]
    trainer.set_targets({target.index: target for target in targets})
    given = DeviceTracks(table, FIRST, trainer.scene.params["means"])
    a, b = FIRST, FIRST + 2
    both = table.seen[:, 0] & table.seen[:, 2]
    wanted = TrackTargets(
        *(torch.as_tensor(table.uv_px[both, k], dtype=torch.float64) for k in (0, 2)),
        1 / (0.25 + torch.as_tensor(table.sigma_px[both][:, [0, 2]], dtype=torch.float64).square().sum(1)),
    )
    found = []
    for pairs in (given(a, b), wanted):
        assert pairs is not None
        task = Task(targets[0], CAMERA, False, targets[2], pairs)
        with trainer.optimizer.training_only(ALL):
            trainer._backward(task)
        found.append({name: trainer.scene.params[name].grad for name in ALL})
    for name, gradient in found[1].items():
        least = 1e-6 * float(gradient.abs().max())  # the rasteriser works in single precision
        torch.testing.assert_close(found[0][name], gradient, rtol=0, atol=least)
    table.seen[:, 0] = False
    assert DeviceTracks(table, FIRST, trainer.scene.params["means"])(a, b) is None
    assert given(a, FIRST + LENGTH) is None
