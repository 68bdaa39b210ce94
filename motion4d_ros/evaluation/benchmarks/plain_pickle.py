"""Pickles that hold nothing but arrays and plain containers, as TAP-Vid is published; anything else is refused.

A pickle is a program: it names functions and calls them. Here it gets to name a handful, which are not NumPy's but
ours: they take numbers, strings and bytes, and make arrays of numbers of them by `np.frombuffer`. No other code runs,
whatever the file says.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np

from motion4d_ros.options import no_such_path
from motion4d_ros.types import Motion4DError

_NUMBER = re.compile(r"[biuf]\d{1,2}|\?")
_DEEPEST = 16  # containers within containers
_LARGEST = 32 * 2**30  # bytes of a file


def load_plain_pickle(path: Path) -> Any:
    """Dicts, lists, tuples, strings, numbers and arrays of numbers. Raises `Motion4DError` for anything else."""
    if not path.is_file():
        raise no_such_path(path)
    if path.stat().st_size > _LARGEST:
        raise Motion4DError(f"{path}: larger than {_LARGEST >> 30} GiB")
    try:
        with path.open("rb") as file:
            return _plain(_PlainUnpickler(file, encoding="latin1").load(), 0)
    except (_Refused, Motion4DError) as error:
        raise Motion4DError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle may fail in any way
        raise Motion4DError(f"{path}: not a readable pickle ({type(error).__name__} {error})") from None


class _Refused(pickle.UnpicklingError):
    """Something that is no array and no plain container."""


class _Kind:
    """`numpy.dtype`: what kind of number, in which order of bytes."""

    def __init__(self, name: Any = None, *_: Any) -> None:
        name = name.decode("ascii", "replace") if isinstance(name, bytes) else name
        if not isinstance(name, str) or not _NUMBER.fullmatch(name.lstrip("<>|=")):
            raise _Refused(f"it holds an array of {name!r}: only numbers are read")
        self.name, self.order = name.lstrip("<>|="), "="

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise _Refused("it holds an odd kind of array")
        if any(part not in (None, -1, 0) for part in state[2:]):  # fields, shapes within elements, flags, metadata
            raise _Refused("it holds an array of records: only numbers are read")
        self.order = state[1]

    def real(self) -> np.dtype[Any]:
        kind = np.dtype(self.name)
        return kind.newbyteorder(self.order) if self.order in "<>" else kind  # type: ignore[arg-type]


class _Array:
    """`numpy.ndarray`: filled by its state, as NumPy's own pickles do."""

    value: np.ndarray[Any, Any] | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("it holds an odd array")
        _, shape, kind, fortran, raw = state
        self.value = _filled(raw, kind, shape, "F" if fortran else "C")


def _filled(raw: Any, kind: Any, shape: Any, order: str) -> np.ndarray[Any, Any]:
    raw = raw.encode("latin1") if isinstance(raw, str) else raw  # of Python 2
    whole = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
    if not isinstance(raw, bytes | bytearray) or not isinstance(kind, _Kind) or not whole:
        raise _Refused("it holds an odd array: only numbers are read")
    return np.frombuffer(bytes(raw), kind.real()).reshape(shape, order=order)  # type: ignore[call-overload]


def _reconstruct(_kind: Any, _shape: Any, _code: Any) -> _Array:
    """`numpy.core.multiarray._reconstruct`."""
    return _Array()


def _from_buffer(raw: Any, kind: Any, shape: Any, order: Any) -> _Array:
    """`numpy.core.numeric._frombuffer`, of pickles of protocol 5."""
    array = _Array()
    array.value = _filled(raw, kind, shape, "F" if order == "F" else "C")
    return array


def _scalar(kind: Any, raw: Any) -> Any:
    """`numpy.core.multiarray.scalar`."""
    return _filled(raw, kind, (1,), "C")[0]


def _encode(text: Any, _encoding: Any = "latin1") -> bytes:
    """`_codecs.encode`: bytes in pickles of protocol 2."""
    return str(text).encode("latin1")


def _no_bytes() -> bytes:
    """`bytes()`, which is how pickles of protocol 2 say that there are none."""
    return b""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Kind,
    ("_codecs", "encode"): _encode,
    **{(builtins, "bytes"): _no_bytes for builtins in ("__builtin__", "builtins")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _PlainUnpickler(pickle.Unpickler):
    """Finds nothing but the above."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"it wants {module}.{name}: only arrays and plain containers are read") from None

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("it refers to something outside of it")


def _plain(found: Any, depth: int) -> Any:
    """The same with arrays in the place of what stood for them."""
    if depth > _DEEPEST:
        raise _Refused("its containers lie too deep within each other")
    if isinstance(found, _Array):
        if found.value is None:
            raise _Refused("it holds an array without content")
        return found.value
    if isinstance(found, dict):
        return {_plain(key, depth + 1): _plain(value, depth + 1) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return type(found)(_plain(value, depth + 1) for value in found)
    if found is None or isinstance(found, str | bytes | bool | int | float | np.number | np.bool_):
        return found
    raise _Refused(f"it holds a {type(found).__name__}: only arrays and plain containers are read")
