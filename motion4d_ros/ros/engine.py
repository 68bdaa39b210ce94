"""What the node needs of an engine: the part of `pipeline.Motion4D` that it uses, and how it gets the real one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from motion4d_ros.config import Config
from motion4d_ros.types import Estimate, Frame, Health, Prompt, Rendered, StaticPoints


class Engine(Protocol):
    """The part of `pipeline.Motion4D` that the node uses."""

    config: Config

    @property
    def window_is_full(self) -> bool: ...
    def accept(self, frame: Frame) -> Estimate: ...
    def feed(self, period_s: float | None, cost_s: float = 0.0) -> None: ...
    def advance(
        self, should_yield: Callable[[], bool] | None = None, between: Callable[[], None] | None = None
    ) -> list[Estimate]: ...
    def refine(
        self, should_yield: Callable[[], bool] | None = None, between: Callable[[], None] | None = None
    ) -> list[Estimate]: ...
    def flush(
        self, should_yield: Callable[[], bool] | None = None, between: Callable[[], None] | None = None
    ) -> list[Estimate]: ...
    def reset(self, reason: str) -> None: ...
    def status(self) -> Health: ...
    def prompt(self, prompt: Prompt) -> int: ...
    def render(self, index: int) -> Rendered: ...
    def static_points(self) -> StaticPoints: ...
    def save_scene(self, folder: str) -> list[str]: ...


def make_engine(config: Config) -> Engine:
    """The real thing; imported late, because PyTorch takes seconds to load."""
    from motion4d_ros.pipeline import Motion4D

    return Motion4D(config)
