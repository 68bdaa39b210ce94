"""How often strangers may ask for something: a bucket of permits that fills slowly."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pace:
    """At most `at_once` permits one after another, and `per_s` a second in the long run. Used by several threads."""

    def __init__(self, at_once: int, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._per_s, self._clock = float(at_once), per_s, clock
        self._left, self._at = float(at_once), clock()
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether one more is allowed now; it then counts."""
        with self._lock:
            now = self._clock()
            self._left = min(self._most, self._left + (now - self._at) * self._per_s)
            self._at = now
            if self._left < 1.0:
                return False
            self._left -= 1.0
            return True
