"""A saved scene waits until the camera has shown that it is what is there: then it is taken into use, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch

from motion4d_ros.config import Config
from motion4d_ros.fit.checkpoint.comparison import Pictured, Verdict, compare, objects_in_place, pictured
from motion4d_ros.fit.checkpoint.saved import WIDTHS, Checkpoint
from motion4d_ros.fit.optimisation.densification import SEMANTIC_LOGIT
from motion4d_ros.fit.optimisation.mapper import Mapper
from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.scene.gaussians import GaussianBatch
from motion4d_ros.types import BACKGROUND, BoolArray, Prompt

MOST_WINDOWS = 4
"""Windows in which it is looked for; then it is given up."""
MOST_MISFITS = 2
"""Windows that contradict it, after which it is given up at once."""


class Resumption:
    """Looks at one window's frames after another, until there is a verdict."""

    def __init__(self, saved: Checkpoint, config: Config, device: torch.device) -> None:
        self.saved = saved
        self.mapped = bool(saved.pose_map)  # whether the camera is looked for in the map that was saved
        self._config, self._device = config, device
        self._windows = self._misfits = 0
        self._best: tuple[FrameState, Pictured] | None = None  # the newest frame that shows it

    def look(self, states: Sequence[FrameState]) -> Verdict:
        """What the frames of a window say: FITS take it into use, MISFIT give it up, UNKNOWN wait for the next."""
        if self.saved.camera is not None and not self.saved.camera.is_like(states[-1].output_camera):
            return Verdict.MISFIT
        verdicts = [self._compare(state) for state in states]
        fitting, misfits = verdicts.count(Verdict.FITS), verdicts.count(Verdict.MISFIT)
        if fitting > misfits:
            return Verdict.FITS
        self._windows += 1
        self._misfits += misfits > 0
        given_up = self._windows >= MOST_WINDOWS or self._misfits >= MOST_MISFITS
        return Verdict.MISFIT if given_up else Verdict.UNKNOWN

    def _compare(self, state: FrameState) -> Verdict:
        picture = pictured(self.saved, state, self._device, self._config.run.threads)
        verdict = compare(picture, state)
        if verdict is Verdict.FITS:
            self._best = (state, picture)
        return verdict

    def adopt(self, mapper: Mapper) -> dict[int, BoolArray]:
        """Puts what still is in place into the scene, under its ids; the (H, W) masks of its objects, at working size,
        in the frame `shown`. Only after a verdict FITS.
        """
        assert self._best is not None
        state, picture = self._best
        least_px, change = self._config.objects.min_pixels, self._config.fit.confidence_color
        masks = objects_in_place(picture, state, least_px, change)
        rows = np.isin(self.saved.object_id, [BACKGROUND, *masks])
        batch = self._batch(mapper, rows)
        mapper.scene.append(batch, state.index, torch.as_tensor(self.saved.ids[rows]))
        return masks

    @property
    def shown(self) -> FrameState:
        """The newest frame that shows the saved scene."""
        assert self._best is not None
        return self._best[0]

    def prompt(self, label: int, mask: BoolArray) -> Prompt:
        """What tells a mask source that an object is there: its (H, W) `mask` in the frame `shown`."""
        camera = self.shown.output_camera
        size = (camera.width, camera.height)
        whole = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT) > 0
        return Prompt(self.shown.frame.stamp_ns, label, mask=whole)

    def _batch(self, mapper: Mapper, rows: BoolArray) -> GaussianBatch:
        owner = self.saved.object_id[rows]
        channels = np.array([mapper.channel(int(label)) for label in owner], np.int64)
        semantics = torch.zeros(len(owner), mapper.scene.channels)
        semantics[torch.arange(len(owner)), torch.as_tensor(channels)] = SEMANTIC_LOGIT
        values = {name: torch.as_tensor(self.saved.gaussians[name][rows]) for name in WIDTHS}
        labels = torch.as_tensor(owner)
        return GaussianBatch(**values, semantics=semantics, object_id=labels, dynamic=labels > 0)


def within_budget(saved: Checkpoint, config: Config) -> Checkpoint:
    """As much of a saved scene as there may be now: the most opaque of the still and of the moving Gaussians."""
    keep = np.zeros(saved.count, bool)
    for moving, most in ((False, config.budget.max_static), (True, config.budget.max_dynamic)):
        rows = np.flatnonzero((saved.object_id > 0) == moving)
        keep[rows[np.argsort(-saved.gaussians["opacity_logits"][rows], kind="stable")[:most]]] = True
    gaussians = {name: array[keep] for name, array in saved.gaussians.items()}
    return replace(saved, gaussians=gaussians, ids=saved.ids[keep], object_id=saved.object_id[keep])
