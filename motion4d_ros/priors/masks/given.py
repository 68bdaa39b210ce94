"""Masks that come with every frame (`masks.source: topic`), or none at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from motion4d_ros.config import Config
from motion4d_ros.priors.interfaces import SceneHint
from motion4d_ros.types import UNKNOWN_LABEL, Frame, IntArray, Prompt


class GivenMasks:
    """The object ids of a topic or of files. A frame without masks has no opinion.

    Such a source takes no prompts: the rendered masks correct it instead.
    """

    accepts_prompts = False
    full_size = True

    def __init__(self, config: Config) -> None:
        self.config = config.masks

    def masks(self, frame: Frame, hint: SceneHint | None) -> IntArray:
        """(H, W) ids; `UNKNOWN_LABEL` everywhere when the frame brought none."""
        if frame.masks is None:
            return np.full(frame.camera.size, UNKNOWN_LABEL, np.int32)
        return frame.masks.astype(np.int32)

    def refresh(self, frame: Frame, prompts: Sequence[Prompt]) -> IntArray | None:
        """None: there is no network behind a topic."""
        return None

    def prompt(self, frame: Frame, prompt: Prompt) -> None:
        """Nothing to do here: the pipeline writes the prompt into the frame's labels."""

    def reset(self) -> None:
        """There is nothing to forget."""


class NoMasks(GivenMasks):
    """No objects at all: everything is background (a static scene)."""

    def masks(self, frame: Frame, hint: SceneHint | None) -> IntArray:
        """(H, W) zeros."""
        return np.zeros(frame.camera.size, np.int32)
