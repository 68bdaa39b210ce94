"""What bad inputs write into the log: a bad camera must not fill the disk."""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable

from motion4d_ros.ros.pace import Pace

PERIOD_S = 5.0
MOST_KINDS = 200
MOST_LETTERS = 2000
"""Of one text: what strangers send is repeated in it."""
AT_ONCE, PER_S = 20, 0.5
"""Lines of one kind, which is what stands before the first colon: ever new nonsense hides no other kind."""


class SparseLog:
    """Writes a text at most once in `PERIOD_S` for texts that differ only in numbers, and few texts in all."""

    def __init__(self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._write, self._clock = write, clock
        self._last: dict[str, float] = {}
        self._paces: dict[str, Pace] = {}
        self._left_out = 0

    def __call__(self, text: str) -> None:
        """A line, or none if one like it was just written. Control characters are left out: terminals obey them."""
        key, now = re.sub(r"[\d.e+-]+", "#", text[:200])[:60], self._clock()
        kind = key.partition(":")[0]
        if now - self._last.get(key, float("-inf")) < PERIOD_S:
            return
        if kind not in self._paces and len(self._paces) >= MOST_KINDS:
            kind = ""  # all that come later share one
        if not self._paces.setdefault(kind, Pace(AT_ONCE, PER_S, self._clock)).take():
            self._left_out += 1
            return
        if len(self._last) > MOST_KINDS:
            self._last.clear()
        self._last[key] = now
        if self._left_out:
            self._write(f"too much to say: {self._left_out} lines were left out")
            self._left_out = 0
        self._write("".join(letter for letter in text[:MOST_LETTERS] if letter.isprintable() or letter == "\n"))


def surviving(callback: Callable[[], None], log: Callable[[str], object]) -> Callable[[], None]:
    """The callback of a timer, whose exception is logged instead of ending the executor."""

    def run() -> None:
        try:
            callback()
        except Exception:
            log(f"exception in a timer, survived:\n{traceback.format_exc()}")

    return run
