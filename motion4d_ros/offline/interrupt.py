"""Ctrl-C as a wish, not as an accident: the first one asks to finish, the second one gives up."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from motion4d_ros.failures import Stopped


class Interrupt:
    """Within the block, `requested()` tells whether Ctrl-C, SIGTERM or SIGHUP came; `number` is the signal's.

    Until `hold()` is called there is nothing to keep, and a signal ends the program at once (`Stopped`). Outside of the
    main thread, where Python delivers no signals, `requested()` stays False unless `request()` is called. SIGHUP stays
    ignored where it is (`nohup`).
    """

    def __init__(self) -> None:
        self.number: int = signal.SIGINT
        self._requested = False
        self._holding = False
        self._previous: dict[int, Any] = {}

    def requested(self) -> bool:
        """Whether to come to an end."""
        return self._requested

    def request(self, number: int = signal.SIGINT) -> None:
        """The same as Ctrl-C, or another signal."""
        self._requested, self.number = True, number

    def hold(self) -> None:
        """From now on the first signal is a wish."""
        self._holding = True

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._requested or not self._holding:
            raise Stopped(number)
        self.request(number)
