"""What bad inputs write into the log: a bad camera must not fill the disk."""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable

PERIOD_S = 5.0
MOST_KINDS = 200
MOST_LETTERS = 2000
"""Of one text: what strangers send is repeated in it."""


class SparseLog:
    """Writes a text at most once in `PERIOD_S` for texts that differ only in numbers."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._last: dict[str, float] = {}

    def __call__(self, text: str) -> None:
        """A line, or none if one like it was just written. Control characters are left out: terminals obey them."""
        key, now = re.sub(r"[\d.e+-]+", "#", text)[:60], time.monotonic()
        if now - self._last.get(key, float("-inf")) < PERIOD_S:
            return
        if len(self._last) > MOST_KINDS:
            self._last.clear()
        self._last[key] = now
        self._write("".join(letter for letter in text[:MOST_LETTERS] if letter.isprintable() or letter == "\n"))


def surviving(callback: Callable[[], None], log: Callable[[str], object]) -> Callable[[], None]:
    """The callback of a timer, whose exception is logged instead of ending the executor."""

    def run() -> None:
        try:
            callback()
        except Exception:
            log(f"exception in a timer, survived:\n{traceback.format_exc()}")

    return run
