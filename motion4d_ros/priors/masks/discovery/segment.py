"""What is remembered of one moving body from frame to frame."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.types import BoolArray, FloatArray

ASTRAY = 30.0  # px off the expected place that is nothing unusual


@dataclass(eq=False)
class Segment:
    """One moving body."""

    object_id: int
    soft: NDArray[np.float32]  # (h, w) probability in the newest segmented frame
    colors: FloatArray  # histogram, as it looked while it moved
    size: float = 0.0  # px, largest of late
    seen: int = 0  # frames
    moved: int = 0  # frames in which it moved
    hidden: bool = False
    proved: bool = False  # has moved for long enough to be shown
    place: FloatArray = field(default_factory=lambda: np.zeros(2))  # px, its middle when it was last seen
    pace: FloatArray = field(default_factory=lambda: np.zeros(2))  # px a frame, of late
    index: int = 0  # frame in which it was last seen

    def expected(self, index: int) -> tuple[FloatArray, float]:
        """Where it would be in frame `index` if it had gone on, px, and how far off that may well be."""
        ahead = index - self.index
        return self.place + ahead * self.pace, ASTRAY + float(np.linalg.norm(self.pace)) * ahead

    def seen_at(self, index: int, mask: BoolArray) -> None:
        """Notes where it is in frame `index`."""
        place = np.argwhere(mask).mean(0)[::-1]
        if self.seen and index > self.index:
            self.pace = 0.7 * self.pace + 0.3 * (place - self.place) / (index - self.index)
        self.place, self.index = place, index
