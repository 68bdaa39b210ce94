"""Whom to trust with an object's outline: the scene, the vote, or the 2D source itself.

Usually the scene, which has seen the object from everywhere. But where depth or camera motion are poor, a mask source
that agrees with itself from frame to frame knows better. Both can be measured without any truth: how well the
source's masks agree with the vote of their neighbours along the flow, and how well the rendered ones do.

    scene    the source flickers, leaks or swaps; rendering agrees with the vote about as well or better
    vote     rendering agrees with the vote by clearly less than the source does: over time, or badly so in one frame
    source   the source hardly ever differs from the vote: what is left is its finer outline, at the input's size; if it
             draws in cells coarser than the pixels that the scene is fitted to, two against one decide there
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.geometry.label_images import resize_labels
from motion4d_ros.types import IntArray

MARGIN = 0.03  # the scene is believed unless it agrees with the vote by so much less than the source does
STEADY = 0.93  # agreement with the vote from which a source's own outline is the best there is
ROUGH = 0.9  # agreement below which outlines are better averaged than voted on
DISPUTED = 0.3  # share of an object's pixels that the scene gives to others, from which identities were swapped
SLACK = 0.02  # by which agreed outlines may overlap the scene less than the vote of pixels does
SAME = 0.8  # overlap with the vote below which a steady source has failed in this one frame
UNCOVERED = 0.8  # share of the vote below which a rendering has missed the object, unless the source shows even less
MEMORY = 0.75  # of what was measured in earlier windows
MIN_PIXELS = 30


@dataclass
class MaskSelection:
    """Running agreement with the vote, per object."""

    of_source: dict[int, float] = field(default_factory=dict)
    of_scene: dict[int, float] = field(default_factory=dict)

    def measure(self, states: list[FrameState], rendered: list[NDArray[np.uint16]]) -> None:
        """Updates both agreements from some frames and their rendered labels (H, W), working size."""
        source: dict[int, list[float]] = {}
        scene: dict[int, list[float]] = {}
        for state, shown in zip(states, rendered, strict=True):
            if state.voted is None:
                continue
            said = resize_labels(state.source_labels(), state.frame.camera.size)
            for label in np.unique(state.voted[state.voted > 0]).tolist():
                mask = state.voted == label
                if mask.sum() < MIN_PIXELS:
                    continue
                if (said == label).any():  # a source that is silent for a frame is not wrong, but absent
                    source.setdefault(label, []).append(overlap(said == label, mask))
                scene.setdefault(label, []).append(overlap(shown == label, mask))
        for table, new in ((self.of_source, source), (self.of_scene, scene)):
            for label, values in new.items():
                mean = float(np.mean(values))
                table[label] = MEMORY * table.get(label, mean) + (1 - MEMORY) * mean

    def forget(self, label: int) -> None:
        """Drops what was measured of an object."""
        self.of_source.pop(label, None)
        self.of_scene.pop(label, None)

    def trusts_source(self, label: int) -> bool:
        """Whether the source, or the vote on what it says, is to be published instead of the scene."""
        return self.of_scene.get(label, 1.0) < self.of_source.get(label, 0.0) - MARGIN

    def is_steady(self, label: int) -> bool | None:
        """Whether the source's own outline of an object is to be published; None if nothing was measured yet."""
        return self.of_source[label] >= STEADY if label in self.of_source else None

    def _scene_is_good(self, label: int) -> bool:
        """Whether the scene is known to agree with the vote about as well as the source does."""
        return label in self.of_scene and not self.trusts_source(label)

    @staticmethod
    def _overruled(source: IntArray, voted: IntArray, rendered: IntArray, labels: list[int]) -> IntArray:
        """(H, W) what the source says, but two against one: vote and scene, where they agree about the objects
        `labels`.
        """
        concerned = np.isin(source, labels) | np.isin(voted, labels)
        return np.where(concerned & (rendered == voted), voted, source)

    def best_vote(self, voted: IntArray, agreed: IntArray | None, rendered: IntArray) -> IntArray:
        """(H, W) the vote of pixels, but `agreed` outlines (see `consensus`) for objects whose source is rough, where
        the scene, `rendered` (H, W), does not speak against them: things that leave the image have no neighbours.
        """
        if agreed is None:
            return voted
        rough = [
            label
            for label in self.rough()
            if overlap(rendered == label, agreed == label) >= overlap(rendered == label, voted == label) - SLACK
            and not _disputed(label, agreed, rendered)
        ]
        if not rough:
            return voted
        return np.where(np.isin(agreed, rough), agreed, np.where(np.isin(voted, rough), 0, voted))

    def any_steady(self) -> bool:
        """Whether some object's source is steady."""
        return any(agreement >= STEADY for agreement in self.of_source.values())

    def unsteady(self) -> list[int]:
        """Objects whose source is known not to be steady."""
        return [label for label, agreement in self.of_source.items() if agreement < STEADY]

    def rough(self) -> list[int]:
        """Objects whose source is rough."""
        return [label for label, agreement in self.of_source.items() if agreement < ROUGH]

    def settle(
        self,
        rendered: NDArray[np.uint16],
        voted: IntArray | None,
        source: IntArray | None = None,
        *,
        coarse: bool = False,
    ) -> NDArray[np.uint16]:
        """(H, W) labels of one frame from those rendered, voted and said by the source, all of one size.

        A steady source that draws its outlines in `coarse` cells is overruled, pixel by pixel, where a good scene and
        the vote both say otherwise.
        """
        if voted is None:
            return rendered
        labels = {int(label) for image in (rendered, voted) for label in np.unique(image) if label > 0}
        finer = [] if source is None else [label for label in labels if self._follows(label, source, voted)]
        if source is not None and coarse:
            source = self._overruled(source, voted, rendered, [label for label in finer if self._scene_is_good(label)])
        voting = [
            label
            for label in labels
            if label not in finer and (self.trusts_source(label) or _scene_failed(label, rendered, voted, source))
        ]
        if not finer and not voting:
            return rendered
        result = np.where(np.isin(rendered, finer + voting), 0, rendered)
        result = np.where(np.isin(voted, voting), voted, result)
        if source is not None:
            result = np.where(np.isin(source, finer), source, result)
        return result.astype(np.uint16)

    def settle_live(self, predicted: IntArray, source: IntArray) -> NDArray[np.uint16]:
        """(H, W) labels of a frame that waits for its window, from those carried into it and those the source says."""
        return self.settle(np.clip(predicted, 0, None).astype(np.uint16), predicted, source)

    def _follows(self, label: int, source: IntArray, reference: IntArray) -> bool:
        """Whether the source's outline of an object is taken in a frame for which `reference` is the safe word."""
        return self.is_steady(label) is not False and overlap(source == label, reference == label) >= SAME


def _scene_failed(label: int, rendered: NDArray[np.uint16], voted: IntArray, source: IntArray | None) -> bool:
    """Whether one frame's rendering of an object covers so little of the vote that it must be elsewhere.

    What it shows beyond the vote says nothing against it: sources lose parts of half-hidden things.
    """
    mask = voted == label
    if source is None or mask.sum() < MIN_PIXELS or _disputed(label, voted, rendered):
        return False
    covered = float((rendered == label)[mask].mean())
    return covered < UNCOVERED and float((source == label)[mask].mean()) > covered


def _disputed(label: int, said: IntArray, rendered: IntArray) -> bool:
    """Whether the scene has other objects where `said` (H, W) has this one: sources swap identities, it hardly does."""
    there = rendered[said == label]
    return len(there) > 0 and float(((there > 0) & (there != label)).mean()) > DISPUTED


def overlap(a: NDArray[np.bool_] | IntArray, b: NDArray[np.bool_] | IntArray) -> float:
    """Intersection over union of two masks; 1 when both are empty."""
    union = int((a | b).sum())
    return float((a & b).sum()) / union if union else 1.0
