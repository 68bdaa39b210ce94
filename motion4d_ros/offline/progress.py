"""Progress for people: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

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
    """A callback that shows `Progress` on `stream` while the block runs."""
    if not stream.isatty():
        with told(lambda level, text: _write_line(stream, text)):
            yield _Lines(stream).show
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
    with bar, told(lambda level, text: bar.console.print(text, markup=False, highlight=False)):
        task = bar.add_task("frames", total=None)
        yield lambda progress: bar.update(
            task, completed=progress.frames, total=progress.total, description=progress.doing
        )


class _Rate(ProgressColumn):
    """Frames per second, or seconds per frame where that reads better."""

    def render(self, task: Task) -> Text:
        return Text(_rate(task.completed, task.elapsed or 0.0), style="cyan")


class _Lines:
    """At most one line in `LINE_EVERY_S`, and one for each new kind of work."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._start = self._last = clock()
        self._doing = "frames"

    def show(self, progress: Progress) -> None:
        now = self._clock()
        if progress.doing == self._doing and now - self._last < LINE_EVERY_S and progress.frames != progress.total:
            return
        self._last, self._doing = now, progress.doing
        elapsed = now - self._start
        total = "?" if progress.total is None else str(progress.total)
        line = f"{progress.doing}: {progress.frames}/{total}"
        if progress.doing == "frames":
            line += f", {_rate(progress.frames, elapsed)}"
            if progress.total and progress.frames:
                line += f", {elapsed / progress.frames * (progress.total - progress.frames):.0f} s left"
        _write_line(self._stream, line)


def _write_line(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()


def _rate(frames: float, seconds: float) -> str:
    if frames <= 0 or seconds <= 0:
        return "…"
    return f"{frames / seconds:.1f} frames/s" if frames >= seconds else f"{seconds / frames:.2f} s/frame"
