"""From several callbacks to one consumer, without anybody waiting for a lock."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Handover(Generic[Item]):
    """Calls `sink(item)` for every item, in the order of their arrival and never two at a time.

    Whoever brings an item works off what is there, unless somebody else is already at it, who then takes this one, too.
    With a lock instead, one callback that the system (or Python's own lock) puts to sleep in mid-work would hold up all
    others: that, not their work, made callbacks last for milliseconds on a busy machine.

    An exception of `sink` is given to `failed`; the next item is not affected.
    """

    def __init__(self, sink: Callable[[Item], None], failed: Callable[[Exception], None]) -> None:
        self._sink = sink
        self._failed = failed
        self._items: deque[Item] = deque()
        self._at_it = threading.Lock()

    def put(self, item: Item) -> None:
        """Brings an item. It may be consumed in this thread, or in another that is just consuming."""
        self._items.append(item)
        self._work_off_alone()

    def exclusively(self, action: Callable[[], None]) -> None:
        """Runs `action` when what came before it is consumed, and while nothing is being consumed."""
        with self._at_it:
            self._work_off()
            action()
        self._work_off_alone()

    def _work_off_alone(self) -> None:
        """Works off what is there, unless somebody is at it."""
        while self._items and self._at_it.acquire(blocking=False):
            # Asked again after each release: an item that came after the last look would find nobody.
            try:
                self._work_off()
            finally:
                self._at_it.release()

    def _work_off(self) -> None:
        while self._items:
            try:
                self._sink(self._items.popleft())
            except Exception as error:
                self._failed(error)
