"""Says of frames that what is taken for still may itself move (`priors/masks/discovery/still_ground.py`)."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from motion4d_ros.config import Config
from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.priors.interfaces import TrackSource
from motion4d_ros.priors.masks.discovery.still_ground import EVERY, TOLD, StillGround
from motion4d_ros.types import NO_GROUND, Scale


class StillGroundCheck:
    """Looks at every frame once it has its flow. Nothing to do where poses and masks are given."""

    def __init__(self, config: Config) -> None:
        visual = config.pose.source == "visual"
        found = ["poses"] if visual else []
        found += ["depth"] if visual and config.depth.source == "geometry" else []
        found += ["masks"] if config.finder == "motion" else []
        self._text = f"{NO_GROUND}: {', '.join(found)} are doubtful"
        self._ground = StillGround() if found else None
        self._claims = visual  # metres rest on the camera's path, unless depth brings its own
        self._since: int | None = None  # first frame of the present doubt
        self.told: dict[str, int] = {}  # the warning, and of how many frames it was said

    @property
    def doubt(self) -> str:
        """What is doubtful about the newest frame, in words; empty if nothing speaks for it."""
        return "" if self._since is None else self._text

    def reset(self) -> None:
        """A new scene begins."""
        self._since = None
        if self._ground is not None:
            self._ground.reset()

    def look(self, state: FrameState, before: FrameState | None, tracks: TrackSource) -> None:
        """Judges the newest frame, whose flow to the one `before` (None: the first of a scene) `tracks` has."""
        if self._ground is None:
            return
        gray = np.asarray(cv2.cvtColor(state.image, cv2.COLOR_RGB2GRAY), np.uint8)
        if before is None:
            self._ground.start(gray)
            return
        missing = self._ground.push(gray, *tracks.flow(state.index, before.index))
        if not missing:
            self._since = None
        elif self._since is None:
            self._since = state.index - TOLD * EVERY  # it has been so for as long as it took to notice
        self.mark([state])

    def mark(self, states: Iterable[FrameState]) -> None:
        """Says so of those of the frames that the present doubt is about; metres that rest on it are none."""
        for state in states:
            if self._since is None or state.index < self._since:
                continue
            if self._text not in state.warnings:
                state.warnings.append(self._text)
                self.told[self._text] = self.told.get(self._text, 0) + 1
            if self._claims and state.scale is Scale.METRIC and not state.own_metres:
                state.scale = Scale.RELATIVE
