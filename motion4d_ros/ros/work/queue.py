"""The bounded queue between the subscriptions and the worker, and the books kept on every image that ever arrived.

``received = processed + dropped + rejected + queued`` holds at every moment another thread can look: each frame is in
exactly one of the four, and moves between them under one lock.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Generic, TypeVar

Item = TypeVar("Item")

RECENT = 32  # items over which their period is measured
FEW = 4  # gaps that tell a period
PAUSE_S = 3.0  # a longer gap is a source that stopped, not its period


@dataclass(frozen=True)
class Counts:
    """A consistent snapshot of the books."""

    received: int = 0
    processed: int = 0
    queued: int = 0
    dropped: dict[str, int] = field(default_factory=dict)  # reason -> how many
    rejected: dict[str, int] = field(default_factory=dict)

    @property
    def dropped_total(self) -> int:
        """Frames that were fine, but given up."""
        return sum(self.dropped.values())

    @property
    def rejected_total(self) -> int:
        """Frames that could not be used."""
        return sum(self.rejected.values())

    @property
    def balanced(self) -> bool:
        """The invariant."""
        return self.received == self.processed + self.dropped_total + self.rejected_total + self.queued


class FrameQueue(Generic[Item]):
    """Keeps the newest `capacity` items. Producers never wait: the oldest item gives way and is counted.

    An item is `queued` from its arrival until its fate is known: while it waits for partners in the synchroniser
    (`arrive`), in the queue (`put`), and in the worker's hands (`take`, then `finish`).
    """

    def __init__(self, capacity: int, room: int = 0, weigh: Callable[[Item], int] = lambda item: 0) -> None:
        """`weigh` says how many bytes an item holds; those that wait hold at most `room`, or are one. 0: no limit."""
        self._capacity, self._room, self._weigh = capacity, room, weigh
        self._bytes = 0
        self._arrivals: deque[float] = deque(maxlen=RECENT)
        self._items: deque[Item] = deque()
        self._in_hand = 0
        self._waiting = 0  # arrived, but not put yet
        self._received = 0
        self._processed = 0
        self._dropped: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._changed = threading.Condition()

    def arrive(self) -> None:
        """An image came in; nothing else is known of it yet."""
        with self._changed:
            self._received += 1
            self._waiting += 1

    def put(self, item: Item) -> int:
        """Queues an image that has arrived; how many were dropped for it (0 or 1)."""
        with self._changed:
            self._waiting -= 1
            self._arrivals.append(time.monotonic())
            self._items.append(item)
            self._bytes += self._weigh(item)
            lost = 0
            while len(self._items) > self._capacity or (len(self._items) > 1 and self._bytes > self._room > 0):
                self._pop()
                self._dropped["queue full"] += 1
                lost += 1
            self._changed.notify_all()
            return lost

    def drop_waiting(self, reason: str, count: int = 1) -> None:
        """Images that arrived, but will never be put (no partner within the slop, out of order, …)."""
        with self._changed:
            self._waiting -= count
            self._dropped[reason] += count

    def reject_waiting(self, reason: str) -> None:
        """An image that arrived and is unusable."""
        with self._changed:
            self._waiting -= 1
            self._rejected[reason] += 1

    def take(self, timeout_s: float) -> Item | None:
        """The oldest item, now in the caller's hands (call `finish_*`); None after `timeout_s` or `wake`."""
        with self._changed:
            if not self._items:
                self._changed.wait(timeout_s)
            if not self._items:
                return None
            self._in_hand += 1
            return self._pop()

    def wait(self, timeout_s: float) -> None:
        """Returns once an item is there, after `timeout_s`, or upon `wake`."""
        with self._changed:
            if not self._items:
                self._changed.wait(timeout_s)

    def _pop(self) -> Item:
        item = self._items.popleft()
        self._bytes -= self._weigh(item)
        return item

    def finish_processed(self) -> None:
        """The item in hand went through the pipeline."""
        with self._changed:
            self._in_hand -= 1
            self._processed += 1

    def finish_rejected(self, reason: str) -> None:
        """The item in hand was unusable."""
        with self._changed:
            self._in_hand -= 1
            self._rejected[reason] += 1

    def finish_dropped(self, reason: str) -> None:
        """The item in hand was fine, but given up."""
        with self._changed:
            self._in_hand -= 1
            self._dropped[reason] += 1

    def clear(self, reason: str) -> int:
        """Drops everything that waits here; how many."""
        with self._changed:
            count = len(self._items)
            self._items.clear()
            self._bytes = 0
            if count:
                self._dropped[reason] += count
            return count

    def abandon(self, reason: str) -> None:
        """Drops whatever a dead worker still held."""
        with self._changed:
            if self._in_hand:
                self._dropped[reason] += self._in_hand
                self._in_hand = 0

    def wake(self) -> None:
        """Lets a waiting `take` look again."""
        with self._changed:
            self._changed.notify_all()

    @property
    def period_s(self) -> float | None:
        """Mean time between the last items, those included that were dropped since, s; None while too few have come.

        Pauses of the source are left out.
        """
        with self._changed:
            times = list(self._arrivals)
        gaps = [after - before for before, after in pairwise(times) if after - before < PAUSE_S]
        return sum(gaps) / len(gaps) if len(gaps) >= FEW else None

    def __len__(self) -> int:
        return len(self._items)

    def counts(self) -> Counts:
        """The books at this moment."""
        with self._changed:
            queued = len(self._items) + self._in_hand + self._waiting
            return Counts(self._received, self._processed, queued, dict(self._dropped), dict(self._rejected))
