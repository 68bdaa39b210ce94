"""Adam whose state follows the scene: rows may be appended, pruned and re-ordered between any two steps."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from motion4d_ros.scene.scene import Scene
from motion4d_ros.scene.store import Resized

COUNTED_DIMS = {"base_quats": 2, "base_trans": 2}
"""Leading dimensions whose slots count their own steps (1 where not listed: the Gaussians)."""


@dataclass
class AdamState:
    """Moments of one parameter, kept *bias-corrected* (see `SceneOptimizer`)."""

    mean: Tensor  # shape of the parameter
    square: Tensor  # shape of the parameter
    steps: Tensor  # its leading dimensions, then ones: steps each slot has seen


class SceneOptimizer:
    """Adam (Kingma & Ba 2015) with one rate per parameter name, all of them in `rates`, and one step count per slot.

    A Gaussian that is a few steps old must not be treated as if its moments had warmed up for thousands: with one
    global step count (as in 3D Gaussian splatting's densification) its first steps come out sqrt(1 - b2) / (1 - b1),
    about three times, too long, and online, many Gaussians are young. So each slot counts its own steps, and the
    moments are stored bias-corrected: ``m <- m + (g - m) (1 - b1) / (1 - b1^k)``, Adam's ``m / (1 - b1^k)``.

    A gradient that holds NaN or infinity counts as zero there, and `bad_gradients` counts such steps.
    """

    def __init__(
        self,
        scene: Scene,
        rates: Mapping[str, float],
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-15,
    ) -> None:
        self.scene = scene
        self.rates = dict(rates)
        if odd := self.rates.keys() ^ scene.params.keys():
            raise ValueError(f"not one rate for each parameter of the scene: {', '.join(sorted(odd))}")
        self.betas = betas
        self.epsilon = epsilon
        self._bad_gradients = torch.zeros((), dtype=torch.int64, device=scene.device)  # read when somebody asks
        self.state: dict[str, AdamState] = {}
        for name, parameter in scene.params.items():
            counted = COUNTED_DIMS.get(name, 1)
            shape = [*parameter.shape[:counted], *[1] * (parameter.dim() - counted)]
            steps = torch.zeros(shape, dtype=parameter.dtype, device=parameter.device)
            self.state[name] = AdamState(torch.zeros_like(parameter.data), torch.zeros_like(parameter.data), steps)
        scene.subscribe(self._follow)

    @property
    def bad_gradients(self) -> int:
        """Steps of a parameter so far whose gradient was not finite somewhere."""
        return int(self._bad_gradients)

    def note_bad_gradient(self) -> None:
        """Counts one that was met elsewhere."""
        self._bad_gradients += 1

    def close(self) -> None:
        """Stops following the scene."""
        self.scene.unsubscribe(self._follow)

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for parameter in self.scene.params.values():
            parameter.grad = None

    @torch.no_grad()
    def step(self, scale: float = 1.0, names: Container[str] | None = None, factor: float = 1.0) -> None:
        """One step of every parameter that is trainable and has a gradient; `scale` multiplies the rates of `names`
        (None: all), `factor` those of all.
        """
        beta1, beta2 = self.betas
        for name, parameter in self.scene.params.items():
            scaled = names is None or name in names
            gradient, rate = parameter.grad, self.rates[name] * (scale if scaled else 1.0) * factor
            if gradient is None or not parameter.requires_grad or rate == 0.0 or parameter.numel() == 0:
                continue
            # without asking the device whether there is one: it would be waited for
            self._bad_gradients += ~torch.isfinite(gradient.sum())
            gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
            state = self.state[name]
            state.steps += 1
            state.mean.lerp_(gradient, _share_of_newest(beta1, state.steps, gradient))
            state.square.lerp_(gradient.square(), _share_of_newest(beta2, state.steps, gradient))
            inverse = state.square.add(self.epsilon**2).rsqrt_()
            parameter.addcmul_(state.mean, inverse, value=-rate)

    def freeze(self, names: Iterable[str]) -> None:
        """No gradients are computed for, and no steps taken on, the named parameters; their state is kept."""
        for name in names:
            self.scene.params[name].requires_grad_(False)
            self.scene.params[name].grad = None

    def unfreeze(self, names: Iterable[str]) -> None:
        """The named parameters are trained again."""
        for name in names:
            self.scene.params[name].requires_grad_(True)

    @contextmanager
    def training_only(self, names: Iterable[str]) -> Iterator[None]:
        """Within the block only the named parameters are trained; afterwards all is as it was before."""
        before = {name: parameter.requires_grad for name, parameter in self.scene.params.items()}
        wanted = set(names)
        self.freeze(before.keys() - wanted)
        self.unfreeze(wanted)
        try:
            yield
        finally:
            for name, trainable in before.items():
                (self.unfreeze if trainable else self.freeze)((name,))

    def forget(self, name: str, rows: Tensor | None = None) -> None:
        """Resets the state of a parameter, or of its `rows` (indices or mask along dim 0), as after a jump."""
        index: Tensor | slice = slice(None) if rows is None else rows
        for tensor in (self.state[name].mean, self.state[name].square, self.state[name].steps):
            tensor[index] = 0

    def _follow(self, change: Resized) -> None:
        """Re-slices the state of one parameter after the scene has replaced it; new slots start from nothing."""
        state = self.state[change.name]
        fresh = change.source < 0
        source = change.source.clamp_min(0)
        any_fresh = bool(fresh.any())

        def resliced(tensor: Tensor) -> Tensor:
            if tensor.shape[change.dim] == 0:
                shape = list(tensor.shape)
                shape[change.dim] = len(source)
                return tensor.new_zeros(shape)
            taken = tensor.index_select(change.dim, source)
            if any_fresh:
                taken.index_fill_(change.dim, fresh.nonzero().squeeze(1), 0)
            return taken

        if change.dim < COUNTED_DIMS.get(change.name, 1):
            steps = resliced(state.steps)
        else:  # wider rows (a new base, a new channel): their moments average anew, for all columns alike
            steps = torch.zeros_like(state.steps) if any_fresh else state.steps
        self.state[change.name] = AdamState(resliced(state.mean), resliced(state.square), steps)


def _share_of_newest(beta: float, steps: Tensor, like: Tensor) -> Tensor:
    """``(1 - beta) / (1 - beta^k)`` for the step counts `steps`, expanded to the shape of `like`.

    Expanded in memory on purpose: broadcasting over rows of three makes `lerp_` ten times slower.
    """
    share = ((beta - 1) / torch.expm1(steps * math.log(beta))).clamp_max(1.0)  # rounding above 1 would extrapolate
    return share.expand_as(like).contiguous()
