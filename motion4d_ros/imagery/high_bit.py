"""Pictures of more than 8 bits, to 8 bits: one choice of black and white for a whole recording, so nothing flickers.

A camera of 10 to 14 bits sends its samples in 16, a thermal camera uses some hundred of 65536 values: a plain division
by 256 leaves black or one grey. So the range is measured on the pictures themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

CONVERTER_BITS = (8, 10, 12, 14, 16)
"""What analogue-to-digital converters of cameras give."""
WELL_USED = 0.25
"""A picture that spans this share of its converter's range is shown as it is: its exposure was chosen so."""
RARE_PERCENT = 0.1
"""Brighter and darker than all but this share of the pixels, % : single defective pixels choose no range."""
MARGIN = 0.1
"""Room left beyond what has been seen, of the span: the range need not move at once."""
SAMPLE_STRIDE_PX = 3
"""Every third pixel in both directions tells the range; odd, so that all colours of a mosaic are among them."""


class Levels:
    """Which 16-bit values become black and white. One for each recording or topic, used by one thread.

    The range begins with the first picture (or with those of `prime`) and only ever widens, in steps of `MARGIN`: for a
    recording that can be read before, it never moves.
    """

    def __init__(self) -> None:
        self._range: tuple[float, float] | None = None
        self._table: NDArray[np.uint8] | None = None

    @property
    def span(self) -> tuple[int, int] | None:
        """The values shown as black and as white; None before anything was seen."""
        return None if self._range is None else (round(self._range[0]), round(self._range[1]))

    @property
    def text(self) -> str:
        """What is done, for people; "" while there is nothing to tell."""
        if self.span is None or self.span in ((0, 65535), (0, 255)):
            return ""
        return f"16-bit pictures: values from {self.span[0]} to {self.span[1]} are shown as black to white"

    def prime(self, pictures: Iterable[NDArray[np.uint16]], *, grey: bool) -> None:
        """Widens the range to what these pictures, taken from all over the recording, hold."""
        for values in pictures:
            self._observe(values, grey)

    def to_8_bits(self, values: NDArray[Any], *, grey: bool) -> NDArray[np.uint8]:
        """(H, W[, C]) uint16 -> uint8 of the same shape. `grey`: black may lie above 0; colours keep their balance."""
        self._observe(values, grey)
        if self._table is None:
            low, high = self._range or (0.0, float(_converter_top(int(values.max(initial=0)))))
            ramp = (np.arange(65536) - low) * (255.0 / (high - low))
            self._table = np.clip(np.rint(ramp), 0, 255).astype(np.uint8)
        return np.asarray(self._table[values], np.uint8)

    def _observe(self, values: NDArray[Any], grey: bool) -> None:
        sample = values[::SAMPLE_STRIDE_PX, ::SAMPLE_STRIDE_PX]
        low, high = (float(value) for value in np.percentile(sample, (RARE_PERCENT, 100.0 - RARE_PERCENT)))
        if high <= low:  # one even value: a covered lens, a shutter
            if self._range is None:
                self._table = None  # made for this picture alone
            return
        if self._range is not None and self._range[0] <= low and high <= self._range[1]:
            return
        wanted = _wanted_range(low, high, int(values.max()), grey)
        if self._range is not None:
            wanted = (min(wanted[0], self._range[0]), max(wanted[1], self._range[1]))
        self._range, self._table = wanted, None


def _wanted_range(low: float, high: float, largest: int, grey: bool) -> tuple[float, float]:
    """The range for a picture whose values lie in `low` .. `high`, single ones at `largest`."""
    top = float(_converter_top(largest))
    if high - low >= WELL_USED * top:
        return 0.0, top
    room = MARGIN * (high - low)
    return (max(0.0, low - room) if grey else 0.0), high + room


def _converter_top(largest: int) -> int:
    """The largest value of the narrowest converter that can give `largest`."""
    return next(2**bits - 1 for bits in CONVERTER_BITS if largest < 2**bits)
