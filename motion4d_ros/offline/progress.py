"""Progress for people: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text

from motion4d_ros.logs import told

if TYPE_CHECKING:
    from motion4d_ros.offline.analyze import Progress

LINE_EVERY_S = 10.0


@contextmanager
def progress_display(stream: TextIO) -> Iterator[Callable[[Progress], None]]:
    """A callback that shows `Progress` on `stream` while the block runs.

    Where `stream` is no terminal, or one that understands no control codes (`TERM=dumb`), lines are written. A stream
    that fails is written to no more: nobody's analysis ends because nobody looks.
    """
    if not stream.isatty() or os.environ.get("TERM", "") in ("dumb", "unknown", ""):
        with told(lambda level, text: _write_line(stream, text)):
            yield _unless_it_fails(_Lines(stream).show)
        return
    bar = RichProgress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(file=stream),
        transient=True,
    )
    with _Bar(bar) as show, told(lambda level, text: _print(bar, text)):
        yield show


class _Bar:
    """A bar on a terminal that may go away."""

    def __init__(self, bar: RichProgress) -> None:
        self._bar = bar
        self._task = bar.add_task("frames", total=None)

    def __enter__(self) -> Callable[[Progress], None]:
        self._bar.start()
        return _unless_it_fails(self._show)

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._bar.stop()

    def _show(self, progress: Progress) -> None:
        self._bar.update(self._task, completed=progress.frames, total=progress.total, description=progress.doing)


def _unless_it_fails(show: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """`show`, until it fails for the first time."""
    failed = False

    def guarded(progress: Progress) -> None:
        nonlocal failed
        if not failed:
            try:
                show(progress)
            except (OSError, ValueError):
                failed = True

    return guarded


class _Rate(ProgressColumn):
    """Frames per second, or seconds per frame where that reads better."""

    def render(self, task: Task) -> Text:
        return Text(_rate(task.completed, task.elapsed or 0.0), style="cyan")


class _Lines:
    """At most one line in `LINE_EVERY_S`, and one for each new kind of work."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._start = self._last = clock()
        self._doing = ""

    def show(self, progress: Progress) -> None:
        now = self._clock()
        if progress.doing == self._doing and now - self._last < LINE_EVERY_S and progress.frames != progress.total:
            return
        self._last, self._doing = now, progress.doing
        elapsed = now - self._start
        total = "?" if progress.total is None else str(progress.total)
        line = f"{progress.doing}: {progress.frames}/{total}"
        if progress.doing == "frames" and progress.frames > 1:  # the first tells nothing about the pace
            line += f", {_rate(progress.frames, elapsed)}"
            if progress.total:
                line += f", {elapsed / progress.frames * (progress.total - progress.frames):.0f} s left"
        _write_line(self._stream, line)


def _print(bar: RichProgress, text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        bar.console.print(text, markup=False, highlight=False)


def _write_line(stream: TextIO, text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
        stream.write(text + "\n")
        stream.flush()


def _rate(frames: float, seconds: float) -> str:
    if frames <= 0 or seconds <= 0:
        return "…"
    return f"{frames / seconds:.1f} frames/s" if frames >= seconds else f"{seconds / frames:.2f} s/frame"
