"""Progress of a batch for people: a bar on a terminal, a line now and then elsewhere, and a line per failure."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

LINE_EVERY_S = 30.0
_BAR_EVERY_S = 0.5


def pace(ended: int, seconds: float, left: int) -> str:
    """Rate and time left in words; "" before the first has ended."""
    if not ended or seconds <= 0:
        return ""
    each = seconds / ended
    rate = f"{60.0 / each:.1f} a minute" if each < 60.0 else f"{3600.0 / each:.1f} an hour"
    return f"{rate}, {duration(each * left)} left" if left else rate


def duration(seconds: float) -> str:
    """`95` → `1 min 35 s`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"


class BatchProgress:
    """Counts what has ended, and says it. A stream that fails is written to no more."""

    def __init__(self, stream: TextIO, total: int, bar: RichProgress | None, clock: Callable[[], float]) -> None:
        self._stream, self._total, self._bar, self._clock = stream, total, bar, clock
        self._task = bar.add_task("recordings", total=total, told="") if bar is not None else None
        self._started = self._last = clock()
        self.ended = self.failed = 0

    def say(self, text: str) -> None:
        """One line."""
        with contextlib.suppress(OSError, ValueError):
            if self._bar is not None:
                self._bar.console.print(f"motion4d: {text}", markup=False, highlight=False, soft_wrap=True)
            else:
                self._stream.write(f"motion4d: {text}\n")
                self._stream.flush()

    def count(self, *, failed: bool) -> None:
        """One recording more has come to its end."""
        self.ended += 1
        self.failed += failed
        self.tick(always=self.ended == self._total)

    def tick(self, *, always: bool = False) -> None:
        """Shows how far things are, if it is time to."""
        now = self._clock()
        if not always and now - self._last < (LINE_EVERY_S if self._bar is None else _BAR_EVERY_S):
            return
        self._last = now
        told = pace(self.ended, now - self._started, self._total - self.ended)
        told = ", ".join(part for part in (told, f"{self.failed} failed" if self.failed else "") if part)
        if self._bar is None or self._task is None:
            self.say(f"{self.ended}/{self._total} recordings{', ' if told else ''}{told}")
        else:
            with contextlib.suppress(OSError, ValueError):
                self._bar.update(self._task, completed=self.ended, told=told)


@contextmanager
def batch_progress(stream: TextIO, total: int, clock: Callable[[], float] = time.monotonic) -> Iterator[BatchProgress]:
    """Shows progress on `stream` while the block runs."""
    if not stream.isatty() or os.environ.get("TERM", "") in ("dumb", "unknown", ""):
        yield BatchProgress(stream, total, None, clock)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = RichProgress(*columns, TextColumn("{task.fields[told]}"), console=Console(file=stream), transient=True)
    progress = BatchProgress(stream, total, bar, clock)
    with contextlib.suppress(OSError, ValueError):
        bar.start()
    try:
        yield progress
    finally:
        with contextlib.suppress(OSError, ValueError):
            bar.stop()
