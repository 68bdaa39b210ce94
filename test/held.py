"""What hangs from an object: how many entries its containers have and how large its arrays are, by where they hang.

For tests that nothing grows over a run. It follows attributes, slots, containers, bound methods and closures, and
knows nothing of what it looks at: a container that somebody adds tomorrow is looked at, too.
"""

from __future__ import annotations

import types
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

Held = dict[str, int]
"""By path: entries of containers, and units of 64 bytes of arrays and texts, of all that hangs there."""

_PLAIN = (int, float, complex, type(None), type, types.ModuleType, np.generic, np.dtype, torch.dtype, torch.device)
_CONTAINERS = (Mapping, list, tuple, set, frozenset, deque)
_RECORD = 40  # a dict with more keys of letters is data, not a record
_UNIT = 64


def held(root: Any, name: str, *, skip: tuple[type, ...] = (), short: bool = False) -> Held:
    """What hangs from `root`, whose path is `name`; nothing of objects of the types `skip`. All is counted once.

    After a `short` run, a deque that has a bound counts as if it were full, and only its newest entry is looked into.
    """
    found: Held = defaultdict(int)
    seen: dict[int, Any] = {}  # keeps what was looked at: else an id could come twice
    waiting = [(name, root)]
    while waiting:
        path, one = waiting.pop()
        if isinstance(one, (*_PLAIN, *skip)) or id(one) in seen:
            continue
        seen[id(one)] = one
        if short and isinstance(one, deque) and one.maxlen is not None:
            found[path], one = one.maxlen, list(one)[-1:]
        else:
            found[path] += _size(one)
        waiting.extend((path + step, part) for step, part in _parts(one))
    return {path: size for path, size in found.items() if size}


def grown(before: list[Held], after: list[Held], *, share: float = 1.3, more: int = 3) -> dict[str, tuple[int, int]]:
    """Where the least held of `after` exceeds the most held of `before` by a `share` and `more`: chance does not
    exceed that, what grows with every window does soon. Path -> (most before, least after).
    """
    result = {}
    for path in {path for one in after for path in one}:
        most, least = max(one.get(path, 0) for one in before), min(one.get(path, 0) for one in after)
        if least > share * most + more:
            result[path] = (most, least)
    return result


def _size(one: Any) -> int:
    if isinstance(one, np.ndarray):
        return one.nbytes // _UNIT if one.base is None else 0
    if isinstance(one, torch.Tensor):
        return one.untyped_storage().nbytes() // _UNIT
    if isinstance(one, (str, bytes, bytearray)):
        return len(one) // _UNIT
    return len(one) if isinstance(one, _CONTAINERS) else 0


def _parts(one: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(one, (str, bytes, bytearray)):
        return
    if isinstance(one, np.ndarray):
        yield "", one.base
    elif isinstance(one, torch.Tensor):
        yield ".grad", one.grad if one.is_leaf else None
    elif isinstance(one, Mapping):
        record = len(one) < _RECORD and all(isinstance(key, str) for key in one)
        yield from ((f"[{key}]" if record else "[]", value) for key, value in list(one.items()))
    elif isinstance(one, _CONTAINERS):
        yield from (("[]", value) for value in list(one))
    elif isinstance(one, types.MethodType):
        yield "", one.__self__
    elif isinstance(one, types.FunctionType):
        names = one.__code__.co_freevars
        yield from ((f".{name}", cell) for name, cell in zip(names, one.__closure__ or (), strict=True))
    elif isinstance(one, types.CellType):
        yield "", one.cell_contents if one != types.CellType() else None
    else:
        yield from _attributes(one)


def _attributes(one: Any) -> Iterator[tuple[str, Any]]:
    yield from ((f".{name}", value) for name, value in list(getattr(one, "__dict__", {}).items()))
    for kind in type(one).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(one, name):
                yield f".{name}", getattr(one, name)
