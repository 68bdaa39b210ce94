"""How long to wait for another process: one that computes is not stuck, however slow a busy machine makes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def computes(pid: int) -> bool:
    """Whether a thread of a process runs, waits for a processor, or for a disk."""
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            state = path.read_text(errors="replace").rpartition(")")[2].split()[0]
        except (OSError, IndexError):  # the thread has just ended
            continue
        if state in "RD":
            return True
    return False


class Patience:
    """Counts the seconds in which a process had nothing to do."""

    def __init__(self, pid: int, busy: Callable[[int], bool] = computes) -> None:
        self._pid, self._busy = pid, busy
        self.restart()

    def restart(self) -> None:
        """Begins to count anew."""
        self._looked, self._idle_s = time.monotonic(), 0.0

    def idle_s(self) -> float:
        """Seconds without work since the last restart; to be asked several times a second."""
        now = time.monotonic()
        if not self._busy(self._pid):
            self._idle_s += now - self._looked
        self._looked = now
        return self._idle_s
