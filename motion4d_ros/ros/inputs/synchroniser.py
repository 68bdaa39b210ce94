"""Brings together the messages that belong to one image.

One seam: the two classes of `message_filters` where that is installed (every robot), else the stand-ins below with the
same constructor, the same `registerCallback` and the same meaning. Known defects of the original are kept at bay here:

* an exception in its callback leaves its lock held for ever: ours never raises;
* after a bag loops back in time it throws away every new message as "the oldest": a new one begins at a backward jump,
  beside the old one until all inputs have jumped;
* it forgets unmatched messages in silence: images it lost are found out and reported.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from motion4d_ros.imagery.validation import nanoseconds


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


FRUITLESS = 4
"""Times as many images as may wait, none of which was part of a group: then all that waits is given up."""


class Epoch:
    """Messages between two jumps of the clock: one synchroniser of `classes`, and the images that wait in it."""

    def __init__(
        self,
        names: Sequence[str],
        matched: Callable[[tuple[Any, ...]], None],
        slop_s: float,
        queue_size: int,
        classes: Any,
    ) -> None:
        self.waiting: set[int] = set()  # stamps of images, ns
        self.newest: dict[str, int] = {}  # input -> its newest stamp, ns
        self._image = names[0]
        self._matched = matched
        self._inputs = {name: Input() for name in names}
        self._sync: Any = None
        if len(names) == 1:
            return
        inputs = list(self._inputs.values())
        if slop_s > 0:
            self._sync = classes.ApproximateTimeSynchronizer(inputs, queue_size, slop_s)
        else:
            self._sync = classes.TimeSynchronizer(inputs, queue_size)
        self._sync.registerCallback(self._on_group)

    def distance(self, stamp: int) -> int:
        """How far a stamp is from the newest of this epoch, ns."""
        return abs(stamp - max(self.newest.values())) if self.newest else 0

    def add(self, name: str, message: Any) -> int:
        """Takes a message; how many images have lost their place among those that wait."""
        stamp = _stamp_ns(message)
        self.newest[name] = max(stamp, self.newest.get(name, stamp))
        if self._sync is None:
            self._matched((message,))
            return 0
        if name == self._image:
            self.waiting.add(stamp)
        self._inputs[name].signal(message)
        gone = self.waiting - set(self._sync.queues[0])
        self.waiting -= gone
        return len(gone)

    def _on_group(self, *messages: Any) -> None:
        # Runs inside message_filters' lock: whatever happens, it must return normally.
        self.waiting.discard(_stamp_ns(messages[0]))
        self._matched(messages)


class Synchroniser:
    """Collects one message of each of `names` (the first is the image) and hands the groups to `emit`.

    `lost(count, reason)` is told of images that will never be part of a group. `slop_s` 0 means equal stamps. All
    methods must be called from one thread at a time (a mutually exclusive callback group).

    When the clock jumps back (a looped bag), topics do not jump together: one is in the new epoch while another still
    delivers the end of the old one. Both epochs are kept until every input has arrived in the new one.
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
        self._heard: set[str] = set()
        self._alone = 0  # images since the last that was part of a group
        self._most_alone = FRUITLESS * queue_size
        self._now = self._epoch()
        self._before: Epoch | None = None

    def add(self, name: str, message: Any) -> None:
        """A (validated) message of input `name`."""
        stamp = _stamp_ns(message)
        self._heard.add(name)
        if name == self.names[0]:
            self._alone += 1
        if self._alone > self._most_alone:  # stamps of a stranger, from another time, may be what it waits for
            self._alone = 0
            self._begin_anew("no partner")
        epoch = self._epoch_of(name, stamp)
        if epoch is self._now and stamp < epoch.newest.get(name, stamp) - self._jump_ns:
            self._retire()
            self.rebuilds += 1
            self._before, self._now = self._now, self._epoch()
            epoch = self._now
        if name == self.names[0] and stamp in epoch.waiting:
            self._lost(1, "duplicate stamp")
        gone = epoch.add(name, message)
        if gone:
            self._lost(gone, "no partner")
        if self._before is not None and set(self._now.newest) == set(self.names):
            self._retire()

    def rebuild(self) -> None:
        """Forgets everything that waits: on deactivation."""
        self._retire()
        self._before, self._now = self._now, self._epoch()
        self._retire()
        self.rebuilds += 1

    def give_up(self) -> None:
        """Loses all images that wait: nothing has come for so long that their partners got lost on the way."""
        if self._before is None and not self._now.waiting:
            return
        newest = self._now.newest
        self._begin_anew("no partner")
        self._now.newest = newest  # a jump back is still to be noticed

    def _begin_anew(self, reason: str) -> None:
        """Loses all images that wait, in both epochs, and forgets what else has come."""
        self._retire(reason)
        self._before, self._now = self._now, self._epoch()
        self._retire(reason)

    def missing(self) -> list[str]:
        """Inputs from which nothing has come yet, since the (re)start."""
        return [name for name in self.names if name not in self._heard]

    def _epoch(self) -> Epoch:
        return Epoch(self.names, self._matched, self._slop_s, self._queue_size, self._classes)

    def _epoch_of(self, name: str, stamp: int) -> Epoch:
        """The epoch a message belongs to: the present one, but for inputs that lag behind a jump, and for those whose
        own jump was a single stamp gone wrong. Theirs is the one they are nearest to.
        """
        if self._before is None:
            return self._now
        newest = self._now.newest.get(name)
        if newest is not None and stamp <= newest + self._jump_ns:
            return self._now
        return min(self._now, self._before, key=lambda epoch: epoch.distance(stamp))

    def _retire(self, reason: str = "clock jump") -> None:
        """Gives up what still waits in the epoch before."""
        if self._before is not None and self._before.waiting:
            self._lost(len(self._before.waiting), reason)
        self._before = None

    def _matched(self, messages: tuple[Any, ...]) -> None:
        self._alone = 0
        try:
            self._emit(dict(zip(self.names, messages, strict=True)))
        except Exception:
            self._lost(1, "internal error")


def _stamp_ns(message: Any) -> int:
    return nanoseconds(message.header.stamp)
