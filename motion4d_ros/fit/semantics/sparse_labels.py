"""What is said about pixels, and what they may be, stored for the few labels that are named about each pixel.

A rater names one label of a pixel, or a few where its mask was read between pixels. Rows of all labels would take as
much memory and time again for every id that masks have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.types import BoolArray


@dataclass(frozen=True)
class Said:
    """Words about n pixels: entries `start[i]` to `start[i + 1]` are about pixel i, by number of their rater."""

    raters: int
    labels: int  # K
    start: NDArray[np.int64]  # (n + 1,)
    rater: NDArray[np.uint8]  # (m,)
    named: NDArray[np.uint16]  # (m,) label
    weight: NDArray[np.float32]  # (m,) worth times share

    @property
    def pixels(self) -> int:
        """n."""
        return len(self.start) - 1

    def pixel_of(self) -> NDArray[np.intp]:
        """(m,) the pixel that each entry is about."""
        return np.repeat(np.arange(self.pixels), np.diff(self.start))

    def take(self, chosen: BoolArray) -> Said:
        """What is said about the pixels `chosen` (n,) alone."""
        return self._kept(np.repeat(chosen, np.diff(self.start)), np.diff(self.start)[chosen])

    def without(self, entries: BoolArray) -> Said:
        """All but some `entries` (m,)."""
        many = np.diff(self.start) - np.bincount(self.pixel_of()[entries], minlength=self.pixels)
        return self._kept(~entries, many)

    def _kept(self, entries: BoolArray, many: NDArray[np.int64]) -> Said:
        start = np.concatenate([[0], np.cumsum(many)]).astype(np.int64)
        return Said(self.raters, self.labels, start, self.rater[entries], self.named[entries], self.weight[entries])


@dataclass(frozen=True)
class LabelValues:
    """A value of each label that is possible at n pixels: places `first[i]` to `first[i + 1]` are those of pixel i, by
    ascending label, background always among them.
    """

    first: NDArray[np.int64]  # (n + 1,)
    possible: NDArray[np.uint16]  # (c,) label
    value: NDArray[np.float32]  # (c,)

    @property
    def pixels(self) -> int:
        """n."""
        return len(self.first) - 1

    def pixel_of(self) -> NDArray[np.intp]:
        """(c,) the pixel of each place."""
        return np.repeat(np.arange(self.pixels), np.diff(self.first))

    def background(self) -> NDArray[np.float32]:
        """(n,) the value of background."""
        return self.value[self.first[:-1]]

    def largest(self) -> NDArray[np.float32]:
        """(n,) the largest value of every pixel."""
        if not self.pixels:
            return np.zeros(0, np.float32)
        return np.asarray(np.maximum.reduceat(self.value, self.first[:-1]), np.float32)

    def best(self) -> NDArray[np.uint16]:
        """(n,) the label with the largest value, the first of those that share it."""
        places = np.flatnonzero(self.value == np.repeat(self.largest(), np.diff(self.first)))[::-1]
        found: NDArray[np.uint16] = np.zeros(self.pixels, np.uint16)
        found[self.pixel_of()[places]] = self.possible[places]  # of several, the last one stays: the first label
        return found

    def take(self, chosen: BoolArray) -> LabelValues:
        """The values at the pixels `chosen` (n,) alone."""
        many = np.diff(self.first)
        places = np.repeat(chosen, many)
        first = np.concatenate([[0], np.cumsum(many[chosen])]).astype(np.int64)
        return LabelValues(first, self.possible[places], self.value[places])

    def replaced(self, chosen: BoolArray, other: LabelValues) -> LabelValues:
        """The same with the values of `other` at the pixels `chosen` (n,), for the same labels."""
        value = self.value.copy()
        value[np.repeat(chosen, np.diff(self.first))] = other.value
        return LabelValues(self.first, self.possible, value)
