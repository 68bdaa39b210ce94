"""What the demo says while it runs: bars on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

LINE_EVERY_S = 20.0
PLAIN_WIDTH = 120
"""Columns of tables where no terminal tells its width."""


class Terminal:
    """Output for a person (a terminal) or for a log (anything else)."""

    def __init__(self) -> None:
        interactive = sys.stdout.isatty()
        self._console = Console(width=None if interactive else PLAIN_WIDTH)
        self._errors = Console(stderr=True)

    def show(self, what: Any) -> None:
        """A table, or a sentence; long lines are left to the terminal, so that paths stay whole."""
        self._console.print(what, highlight=False, markup=False, soft_wrap=isinstance(what, str))

    def complain(self, text: str) -> None:
        """Why it did not work, in red where there is colour."""
        self._errors.print(f"demo: {text}", style="red", highlight=False, markup=False, soft_wrap=True)

    def busy(self, text: str) -> AbstractContextManager[Any]:
        """Says what is going on while the block runs."""
        if self._console.is_terminal:
            return self._console.status(text)
        self.show(text)
        return _Nothing()

    @contextmanager
    def progress(self, total: int) -> Iterator[Callable[[int, int], None]]:
        """A callback that takes how many frames were received and processed, of `total`."""
        if not self._console.is_terminal:
            yield _Lines(self.show, total)
            return
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}"))
        with Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True) as bars:
            played = bars.add_task("received", total=total)
            done = bars.add_task("processed", total=total)

            def update(received: int, processed: int) -> None:
                bars.update(played, completed=received)
                bars.update(done, completed=processed)

            yield update


class _Nothing(AbstractContextManager[None]):
    def __exit__(self, *_: object) -> None:
        return None


class _Lines:
    """At most one line in `LINE_EVERY_S`, and one when all is processed."""

    def __init__(self, say: Callable[[str], None], total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._total, self._clock = say, total, clock
        self._last = clock()
        self._said = (0, 0)

    def __call__(self, received: int, processed: int) -> None:
        now = self._clock()
        complete = processed >= self._total
        if (received, processed) == self._said or (now - self._last < LINE_EVERY_S and not complete):
            return
        self._last, self._said = now, (received, processed)
        self._say(f"{received} of {self._total} images received, {processed} processed")
