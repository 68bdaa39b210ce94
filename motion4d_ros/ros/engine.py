"""What the node needs of an engine: the part of `pipeline.Motion4D` that it uses, and how it gets the real one, or
another one in place of one that is broken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from motion4d_ros.config import Config
from motion4d_ros.types import Detection, Estimate, Frame, Health, Prompt, Rendered, StaticPoints

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What somebody would read of a live estimate."""

    labels: bool = True
    points: bool = True


class LiveView(Protocol):
    """What is told of frames apart from the engine (`fit.output.live_view`)."""

    def continues(self, frame: Frame) -> bool: ...
    def look(self, frame: Frame, *, with_labels: bool = True, with_points: bool = True) -> Estimate: ...


class Engine(Protocol):
    """The part of `pipeline.Motion4D` that the node uses."""

    config: Config

    @property
    def window_is_full(self) -> bool: ...
    @property
    def live_view(self) -> LiveView | None: ...
    def add_frame(self, frame: Frame, *, told: bool = False) -> Estimate: ...
    def keeps_next(self, waiting: int) -> bool: ...
    def count_looks(self, frames: int) -> None: ...
    def reason_to_restart(self, frame: Frame) -> str: ...
    def set_timing(self, period_s: float | None, cost_s: float = 0.0) -> None: ...
    def process_window(
        self, should_yield: Callable[[], bool] | None = None, between: Callable[[], None] | None = None
    ) -> list[Estimate]: ...
    def refine(
        self, should_yield: Callable[[], bool] | None = None, between: Callable[[], None] | None = None
    ) -> list[Estimate]: ...
    def flush(
        self, should_yield: Callable[[], bool] | None = None, between: Callable[[], None] | None = None
    ) -> list[Estimate]: ...
    def reset(self, reason: str) -> None: ...
    def inherit(self, other: Any, /) -> None: ...
    def status(self) -> Health: ...
    def detect(self, stamp_ns: int, detections: tuple[Detection, ...]) -> bool: ...
    def prompt(self, prompt: Prompt) -> int: ...
    def render(self, index: int) -> Rendered: ...
    def static_points(self) -> StaticPoints: ...
    def save_scene(self, folder: str) -> list[str]: ...
    def save_checkpoint(self, path: str) -> None: ...
    def resume(self, path: str, most_bytes: int) -> None: ...
    @property
    def ids_given(self) -> tuple[int, int]: ...


def make_engine(config: Config) -> Engine:
    """The real thing; imported late, because PyTorch takes seconds to load."""
    from motion4d_ros.pipeline import Motion4D

    return Motion4D(config)


def revived(engine: Engine, make: Callable[[], Engine]) -> Engine:
    """The engine of a worker that died, with a new scene, so that ids go on; a new one if it is past that."""
    try:
        engine.reset("the worker died")
    except Exception as error:
        logger.error("the engine cannot be reset (%s): a new one", error)
        return renewed(engine, make)
    return engine


def renewed(broken: Engine | None, make: Callable[[], Engine]) -> Engine:
    """A new engine that goes on with the ids of one that is given up, if there is one."""
    fresh = make()
    if broken is not None:
        fresh.inherit(broken)
    return fresh
