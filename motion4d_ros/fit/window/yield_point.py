"""Where the fit yields: a window takes seconds, and whoever owns the engine must not be deaf meanwhile.

The fit calls a `YieldPoint` between two of its steps. What runs there is lent by the caller of
`Motion4D.process_window`: the node's worker takes in the frames that have come. Without a loan nothing happens, so
offline runs are what they were.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class YieldPoint:
    """Call it where the scene is consistent and nothing of it is held in local variables that a new frame changes."""

    def __init__(self) -> None:
        self.seconds = 0.0  # spent in what was lent, in all: not part of the fit's own time
        self._between: Callable[[], None] | None = None
        self._inside = False

    def __call__(self) -> None:
        """Runs what was lent, if anything was; never within itself. Its exceptions go through: the fit is abandoned."""
        if self._between is None or self._inside:
            return
        started = time.perf_counter()
        self._inside = True
        try:
            self._between()
        finally:
            self._inside = False
            self.seconds += time.perf_counter() - started

    @property
    def taken(self) -> bool:
        """Whether the fit is pausing right now."""
        return self._inside

    @contextmanager
    def lent(self, between: Callable[[], None] | None) -> Iterator[None]:
        """Inside, every call runs `between`."""
        before, self._between = self._between, between
        try:
            yield
        finally:
            self._between = before
