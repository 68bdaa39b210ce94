"""What to do when memory runs out, and what keeps it from growing over days."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from typing import Any

from motion4d_ros.config import Config


def lower_budgets(config: Config, engines: Config) -> str:
    """Takes a third off what may be held, down to the least that is allowed; what is said of it. The engine has a
    configuration of its own, or shares the other.
    """
    for each in (config,) if engines is config else (config, engines):
        least = {item.path: item.minimum for item in each.tunables()}
        for path in ("budget.max_static", "budget.max_dynamic"):
            each.set(path, max(int(least[path] or 1), int(each.get(path) * 2 / 3)))
    static, moving = config.budget.max_static, config.budget.max_dynamic
    return f"out of memory: at most {static} static and {moving} moving Gaussians from now on"


def free_gpu_memory() -> None:
    """Gives cached blocks back to the driver, if torch is there and uses a GPU."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


M_ARENA_MAX = -8
"""Of `mallopt`, as glibc's malloc.h numbers it."""
MOST_ARENAS = 2


def share_arenas() -> bool:
    """Before threads are started: lets all of them share few arenas, each of which keeps its own holes; whether the C
    library can do that. Threads that hold Python's lock hardly ever allocate at the same time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(ctypes.c_int(M_ARENA_MAX), ctypes.c_int(MOST_ARENAS)))


def forget_destroyed(node: Any) -> None:
    """The callback group of an `rclpy` node keeps a weak reference to everything that was ever created in it: those to
    what has been destroyed go.
    """
    entities = getattr(node.default_callback_group, "entities", None)  # of `rclpy` as it is today
    if isinstance(entities, set):
        entities.difference_update({each for each in entities if each() is None})


class FreedMemory:
    """Hands memory that was freed back to the system once in `every_s`.

    glibc keeps it. Arrays come and go in all sizes, so that what it keeps is full of holes before long, and a node that
    holds no more than yesterday is larger every day.
    """

    def __init__(self, every_s: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._clock = every_s, clock
        self._due = clock() + every_s

    def look(self) -> None:
        """Hands it back if it is time; takes some milliseconds then."""
        if self._clock() >= self._due:
            self._due = self._clock() + self._every_s
            release_freed_memory()


def release_freed_memory() -> bool:
    """Whether the C library can do that, and did (glibc: `malloc_trim`, for all arenas)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim is not None and bool(trim(ctypes.c_size_t(0)))
