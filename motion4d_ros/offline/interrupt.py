"""Ctrl-C as a wish, not as an accident: the first one asks to finish, the second one gives up."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class Interrupt:
    """Within the block, `requested()` tells whether Ctrl-C or SIGTERM came.

    Outside of the main thread, where Python delivers no signals, it stays False unless `request()` is called.
    """

    def __init__(self) -> None:
        self._requested = False
        self._previous: dict[int, Any] = {}

    def requested(self) -> bool:
        """Whether to come to an end."""
        return self._requested

    def request(self) -> None:
        """The same as Ctrl-C."""
        self._requested = True

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True
