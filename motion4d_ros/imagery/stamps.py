"""The order of images in a recording: by their stamps, whatever order they were recorded in, each once.

order = StampOrder(report.warn)
order.add(stamp_ns, recorded_ns, message)
for stamp_ns, message in order.ready(now_ns): ...   # ascending; at the end order.rest()
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")

HOLD_NS = 500_000_000
"""Recording time for which an image waits for one that was recorded after it but taken before."""
MOST_HELD = 32
"""Images that wait at most: they are whole pictures."""
PLAUSIBLE_STEP_NS = 10_000_000_000
"""A longer step forward is looked into: a pause, a clock that was set, or one wrong stamp."""
ENOUGH = 3
"""Images in a row with stamps of another time that make it the present time."""
TWICE_NS = 1_000_000_000
"""Recording time within which the same stamp is the same image, recorded twice; later it is a clock that was set."""


_OTHER_TIME = "an image has a stamp of quite another time than those around it: left out"


@dataclass(order=True)
class _Held(Generic[Item]):
    stamp_ns: int
    number: int
    recorded_ns: int = field(compare=False)
    item: Item = field(compare=False)


class StampOrder(Generic[Item]):
    """Images in, in the order of recording; images out, in strictly ascending order of stamps. All else is said.

    An image whose stamp has come before is left out, and so is one that comes too late or whose stamp is of another
    time than those around it. A clock that is set forward leaves its gap; after one that is set back, stamps go on by
    the time of recording.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._numbers = itertools.count()
        self._held: list[_Held[Item]] = []  # a heap
        self._strays: list[_Held[Item]] = []  # in a row, of another time
        self._handed_out: deque[int] = deque(maxlen=MOST_HELD)  # times of recording of the last ones, ns
        self._recorded_at: dict[int, int] = {}  # stamp -> time of recording, both ns, of what was taken
        self._newest: tuple[int, int] | None = None  # the largest plausible stamp and its time of recording
        self._last_ns: int | None = None  # of what was handed out
        self._taken = 0
        self._shift_ns = 0

    def add(self, stamp_ns: int, recorded_ns: int, item: Item) -> None:
        """An image as it was recorded."""
        held = _Held(stamp_ns + self._shift_ns, next(self._numbers), recorded_ns, item)
        self._drop_early(held)
        seen = self._recorded_at.get(held.stamp_ns)
        if seen is not None and abs(recorded_ns - seen) <= TWICE_NS:
            self._say("an image has the stamp of another (recorded or published twice): left out")
            return
        if self._is_of_this_time(held):
            self._drop_strays()
            self._take(held)
            return
        if self._strays and not 0 < held.stamp_ns - self._strays[-1].stamp_ns <= PLAUSIBLE_STEP_NS:
            self._drop_strays()
        self._strays.append(held)
        if len(self._strays) == ENOUGH:
            self._follow_strays()

    def ready(self, now_ns: int) -> Iterator[tuple[int, Item]]:
        """(stamp, image) that nothing earlier can come before any more, at `now_ns` of the recording."""
        while self._held and (self._held[0].recorded_ns + HOLD_NS <= now_ns or len(self._held) > MOST_HELD):
            yield from self._hand_out()

    def rest(self) -> Iterator[tuple[int, Item]]:
        """What is left at the end of the recording."""
        self._drop_strays()
        while self._held:
            yield from self._hand_out()

    def _is_of_this_time(self, held: _Held[Item]) -> bool:
        if self._newest is None:
            return True
        if self._last_ns is not None and held.stamp_ns <= self._last_ns:
            return False
        step_ns, recorded_step_ns = held.stamp_ns - self._newest[0], held.recorded_ns - self._newest[1]
        if step_ns > PLAUSIBLE_STEP_NS:
            return abs(step_ns - recorded_step_ns) <= 0.5 * step_ns  # nothing was recorded meanwhile
        return step_ns >= -PLAUSIBLE_STEP_NS

    def _take(self, held: _Held[Item]) -> None:
        if self._newest is not None and held.stamp_ns - self._newest[0] > PLAUSIBLE_STEP_NS:
            gap_s = (held.stamp_ns - self._newest[0]) * 1e-9
            self._say(f"no images for {gap_s:.1f} s in the middle of the recording: it stays a gap")
        if self._newest is None or held.stamp_ns > self._newest[0]:
            self._newest = (held.stamp_ns, held.recorded_ns)
        self._taken += 1
        self._recorded_at[held.stamp_ns] = held.recorded_ns
        heapq.heappush(self._held, held)

    def _hand_out(self) -> Iterator[tuple[int, Item]]:
        first = heapq.heappop(self._held)
        if sum(recorded_ns > first.recorded_ns + HOLD_NS for recorded_ns in self._handed_out) >= ENOUGH:
            self._say(_OTHER_TIME)  # many that were recorded well after it have earlier stamps
            return
        self._last_ns = first.stamp_ns
        self._handed_out.append(first.recorded_ns)
        yield first.stamp_ns, first.item

    def _drop_early(self, held: _Held[Item]) -> None:
        """One that has waited too long for those before it must not take the place of one with the same stamp."""
        for other in self._held:
            if other.stamp_ns == held.stamp_ns and held.recorded_ns > other.recorded_ns + HOLD_NS:
                self._held.remove(other)
                heapq.heapify(self._held)
                del self._recorded_at[held.stamp_ns]
                self._say(_OTHER_TIME)
                return

    def _follow_strays(self) -> None:
        """The clock was set: its new time is the time from now on."""
        assert self._newest is not None
        strays, self._strays = self._strays, []
        if self._taken < ENOUGH and self._last_ns is None:  # it was the beginning that was wrong
            for _ in range(len(self._held)):
                del self._recorded_at[self._held[0].stamp_ns]
                self._say_stray(heapq.heappop(self._held).stamp_ns, strays[0].stamp_ns)
        elif strays[0].stamp_ns > self._newest[0]:
            jump_s = (strays[0].stamp_ns - self._newest[0]) * 1e-9
            self._say(
                f"the stamps jump forward by {jump_s:.1f} s while the recording goes on (was a clock set?): "
                "it stays a gap"
            )
        else:
            behind_ns = self._newest[0] - strays[0].stamp_ns
            passed_ns = max(1, strays[0].recorded_ns - self._newest[1])
            self._shift_ns += behind_ns + passed_ns
            self._say(
                f"the stamps jump back by {behind_ns * 1e-9:.1f} s (was a clock set, or a recording played again?): "
                "from there on they are continued by the time of recording"
            )
            for stray in strays:
                stray.stamp_ns += behind_ns + passed_ns
        for stray in strays:
            self._newest = (stray.stamp_ns, stray.recorded_ns)
            self._taken += 1
            self._recorded_at[stray.stamp_ns] = stray.recorded_ns
            heapq.heappush(self._held, stray)

    def _drop_strays(self) -> None:
        strays, self._strays = self._strays, []
        for stray in strays:
            assert self._newest is not None
            self._say_stray(stray.stamp_ns, self._newest[0])

    def _say_stray(self, stamp_ns: int, present_ns: int) -> None:
        if stamp_ns in self._recorded_at:
            self._say("an image has the stamp of another (recorded or published twice): left out")
        elif abs(stamp_ns - present_ns) <= PLAUSIBLE_STEP_NS:
            self._say(f"an image was recorded more than {HOLD_NS * 1e-9:g} s late, out of order: left out")
        else:
            self._say(_OTHER_TIME)
