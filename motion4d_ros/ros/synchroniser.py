"""Brings together the messages that belong to one image.

One seam: the two classes of `message_filters` where that is installed (every robot), else the stand-ins below with the
same constructor, the same `registerCallback` and the same meaning. Known defects of the original are kept at bay here:

* an exception in its callback leaves its lock held for ever: ours never raises;
* after a bag loops back in time it throws away every new message as "the oldest": it is rebuilt on a backward jump;
* it forgets unmatched messages in silence: images it lost are found out and reported.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any


class Input:
    """What a synchroniser listens to: it has `registerCallback` as a `message_filters` filter does."""

    def __init__(self) -> None:
        self._callbacks: list[tuple[Callable[..., None], tuple[Any, ...]]] = []

    def registerCallback(self, callback: Callable[..., None], *args: Any) -> int:
        """`callback(message, *args)` will be called for each message; its number."""
        self._callbacks.append((callback, args))
        return len(self._callbacks) - 1

    def signal(self, message: Any) -> None:
        """Hands a message to whoever listens."""
        for callback, args in self._callbacks:
            callback(message, *args)


class TimeSynchronizer(Input):
    """Groups messages of equal stamps. `queues[i]` maps stamp (ns) to the message of input i that waits."""

    def __init__(self, inputs: Sequence[Input], queue_size: int) -> None:
        super().__init__()
        self.queue_size = queue_size
        self.queues: list[dict[int, Any]] = [{} for _ in inputs]
        for number, source in enumerate(inputs):
            source.registerCallback(self.add, number)

    def add(self, message: Any, number: int) -> None:
        """A message came in on input `number`."""
        stamp = _stamp_ns(message)
        self.queues[number][stamp] = message
        self._trim(number)
        group = self.match(stamp, number)
        if group is not None:
            messages = [queue.pop(key) for queue, key in zip(self.queues, group, strict=True)]
            for callback, args in self._callbacks:
                callback(*messages, *args)

    def match(self, stamp: int, number: int) -> list[int] | None:
        """The stamps, one of each queue, that go with the new one; None if it is still alone."""
        return [stamp] * len(self.queues) if all(stamp in queue for queue in self.queues) else None

    def _trim(self, number: int) -> None:
        queue = self.queues[number]
        while len(queue) > self.queue_size:
            del queue[min(queue)]


class ApproximateTimeSynchronizer(TimeSynchronizer):
    """Groups messages whose stamps lie within `slop` seconds of each other, the nearest first."""

    def __init__(self, inputs: Sequence[Input], queue_size: int, slop: float) -> None:
        super().__init__(inputs, queue_size)
        self._slop_ns = round(slop * 1e9)

    def match(self, stamp: int, number: int) -> list[int] | None:
        """See `TimeSynchronizer.match`."""
        candidates = []
        for other, queue in enumerate(self.queues):
            near = [stamp] if other == number else [key for key in queue if abs(key - stamp) <= self._slop_ns]
            if not near:
                return None
            candidates.append(sorted(near, key=lambda key: abs(key - stamp)))
        for group in itertools.product(*candidates):
            if max(group) - min(group) <= self._slop_ns:
                return list(group)
        return None


def installed_classes() -> tuple[str, Any]:
    """("message_filters", that module) where it is installed, else ("stand-in", this module)."""
    try:
        import message_filters
    except ImportError:
        import sys

        return "stand-in", sys.modules[__name__]
    return "message_filters", message_filters


class Synchroniser:
    """Collects one message of each of `names` (the first is the image) and hands the groups to `emit`.

    `lost(count, reason)` is told of images that will never be part of a group. `slop_s` 0 means equal stamps. All
    methods must be called from one thread at a time (a mutually exclusive callback group).
    """

    def __init__(
        self,
        names: Sequence[str],
        emit: Callable[[dict[str, Any]], None],
        lost: Callable[[int, str], None],
        *,
        slop_s: float,
        queue_size: int,
        jump_s: float,
        classes: Any = None,
    ) -> None:
        self.names = tuple(names)
        self._emit = emit
        self._lost = lost
        self._slop_s = slop_s
        self._queue_size = queue_size
        self._jump_ns = round(jump_s * 1e9)
        self._classes = classes if classes is not None else installed_classes()[1]
        self.rebuilds = 0
        self._build()

    def add(self, name: str, message: Any) -> None:
        """A (validated) message of input `name`."""
        stamp = _stamp_ns(message)
        newest = self._newest.get(name)
        if newest is not None and stamp < newest - self._jump_ns:
            self.rebuild()
        self._newest[name] = max(stamp, self._newest.get(name, stamp))
        if len(self.names) == 1:
            self._emit({name: message})
            return
        if name == self.names[0]:
            if stamp in self._waiting:
                self._lost(1, "duplicate stamp")
            self._waiting.add(stamp)
        self._inputs[name].signal(message)
        gone = self._waiting - set(self._sync.queues[0])
        if gone:
            self._waiting -= gone
            self._lost(len(gone), "no partner")

    def rebuild(self) -> None:
        """Forgets everything that waits: after a backward jump of the clock, or on deactivation."""
        if self._waiting:
            self._lost(len(self._waiting), "clock jump")
        self.rebuilds += 1
        self._build()

    def missing(self) -> list[str]:
        """Inputs from which nothing has come yet, since the (re)start."""
        return [name for name in self.names if name not in self._newest]

    def _build(self) -> None:
        self._waiting: set[int] = set()
        self._newest: dict[str, int] = {}
        self._inputs = {name: Input() for name in self.names}
        if len(self.names) == 1:
            return
        inputs = list(self._inputs.values())
        if self._slop_s > 0:
            self._sync = self._classes.ApproximateTimeSynchronizer(inputs, self._queue_size, self._slop_s)
        else:
            self._sync = self._classes.TimeSynchronizer(inputs, self._queue_size)
        self._sync.registerCallback(self._matched)

    def _matched(self, *messages: Any) -> None:
        # Runs inside message_filters' lock: whatever happens, it must return normally.
        group = dict(zip(self.names, messages, strict=True))
        self._waiting.discard(_stamp_ns(messages[0]))
        try:
            self._emit(group)
        except Exception:
            self._lost(1, "internal error")


def _stamp_ns(message: Any) -> int:
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)
