"""A window on its way through the fit: which frames it holds, and what is to be remembered of it until it is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class OpenWindow:
    """Frames are named by their indices; times are of the engine's own clock, which stands still in pauses."""

    again: list[int]  # frames fitted anew, because the camera's motion has become known
    frames: list[int]  # all that are fitted: those, and the ones that waited
    started: float  # s
    iterations: int  # of the trainer, before the window
    step_seconds: float  # s spent in them
    revised: int | None = None  # the first frame whose masks the source has revised
    prepared: float = 0.0  # s: when the first step can be taken
