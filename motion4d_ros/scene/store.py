"""Named parameters whose rows come and go, and a message to whoever keeps state beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Parameter


@dataclass(frozen=True)
class Resized:
    """Parameter `name` was replaced: along `dim`, slot k of the new tensor is slot `source[k]` of the old one.

    `source` (K,) int64 holds -1 for slots that did not exist before. Every structural change of the scene (append,
    prune, extend, drop) is one such message, so that companions (optimiser moments) need a single rule to follow.
    """

    name: str
    dim: int
    source: Tensor


class ParameterStore:
    """The scene's parameters by name. A structural change puts a *new* `Parameter` into `params`."""

    def __init__(self) -> None:
        self.params: dict[str, Parameter] = {}
        self._listeners: list[Callable[[Resized], None]] = []

    def subscribe(self, listener: Callable[[Resized], None]) -> None:
        """Calls `listener` after every structural change."""
        self._listeners.append(listener)

    def unsubscribe(self, listener: Callable[[Resized], None]) -> None:
        """Stops calling `listener`."""
        self._listeners.remove(listener)

    def append(self, name: str, fresh: Tensor, dim: int = 0) -> None:
        """Adds the slots of `fresh` behind those of parameter `name` along `dim`."""
        old = self.params[name]
        count, added = old.shape[dim], fresh.shape[dim]
        if added == 0:
            return
        value = torch.cat([old.detach(), fresh.detach().to(old)], dim)
        source = torch.cat([torch.arange(count), torch.full((added,), -1)]).to(old.device)
        self._replace(name, value, dim, source)

    def keep(self, names: Iterable[str], source: Tensor, dim: int = 0) -> None:
        """Keeps only the slots `source` (K,) int64 of the named parameters along `dim`, in that order."""
        for name in names:
            self._replace(name, self.params[name].detach().index_select(dim, source), dim, source)

    def _replace(self, name: str, value: Tensor, dim: int, source: Tensor) -> None:
        self.params[name] = Parameter(value.contiguous(), requires_grad=self.params[name].requires_grad)
        for listener in self._listeners:
            listener(Resized(name, dim, source))
