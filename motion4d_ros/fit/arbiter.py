"""Whom to trust with an object's outline: the scene, or the 2D masks it was taught.

Usually the scene, which has seen the object from everywhere. But where depth or camera motion are poor, a mask source
that agrees with itself from frame to frame knows better. Both can be measured without any truth: how well the
source's masks agree with the vote of their neighbours along the flow, and how well the rendered ones do.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.fit.horizon import FrameState
from motion4d_ros.types import IntArray

MARGIN = 0.04  # the scene is believed unless it agrees with the vote by so much less than the source does
MEMORY = 0.75  # of what was measured in earlier windows
MIN_PIXELS = 30


@dataclass
class Arbiter:
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
            for label in np.unique(state.voted[state.voted > 0]).tolist():
                mask = state.voted == label
                if mask.sum() < MIN_PIXELS:
                    continue
                if (state.raw_labels == label).any():  # a source that is silent for a frame is not wrong, but absent
                    source.setdefault(label, []).append(overlap(state.raw_labels == label, mask))
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
        """Whether the source's outline of an object is to be published instead of the scene's."""
        return self.of_scene.get(label, 1.0) < self.of_source.get(label, 0.0) - MARGIN

    def settle(self, rendered: NDArray[np.uint16], voted: IntArray | None) -> NDArray[np.uint16]:
        """(H, W) labels of one frame: as rendered, but as voted for objects whose source is trusted more."""
        if voted is None:
            return rendered
        labels = set(np.unique(rendered).tolist()) | set(np.unique(voted).tolist())
        believed = [label for label in labels if label > 0 and self.trusts_source(int(label))]
        if not believed:
            return rendered
        result = np.where(np.isin(rendered, believed), 0, rendered)
        return np.where(np.isin(voted, believed), voted, result).astype(np.uint16)


def overlap(a: NDArray[np.bool_] | IntArray, b: NDArray[np.bool_] | IntArray) -> float:
    """Intersection over union of two masks; 1 when both are empty."""
    union = int((a | b).sum())
    return float((a & b).sum()) / union if union else 1.0
