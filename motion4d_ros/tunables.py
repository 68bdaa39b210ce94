"""How a tunable is declared once and becomes a ROS parameter, a YAML key and a command-line option.

A section of the configuration is a dataclass whose fields are made by :func:`tunable`. Everything else (descriptions,
ranges, parsing, checking, documentation tables) is derived from that one declaration.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from motion4d_ros.types import Motion4DError

Changes = Literal["live", "unconfigured", "never"]
"""When a tunable may change: while the node is active, while it is unconfigured, or never: what leads to files."""

MOST_LETTERS = 4096
"""Of a text: as long as a path may be."""


@dataclass(frozen=True)
class Tunable:
    """One declared tunable. `path` is its dotted name, such as ``window.length``."""

    path: str
    type: type  # bool, int, float, str
    default: Any
    meaning: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    changes: Changes = "unconfigured"
    former: Mapping[str, str] = field(default_factory=dict)  # values of earlier versions -> what says the same now

    @property
    def live(self) -> bool:
        """Whether it may change while the node is active."""
        return self.changes == "live"

    @property
    def fixed(self) -> bool:
        """Whether it is given when the node starts, and never changes."""
        return self.changes == "never"

    @property
    def range_text(self) -> str:
        """The allowed values in words, for tables and messages."""
        if self.choices:
            return ", ".join(self.choices)
        if self.minimum is None and self.maximum is None:
            return "true, false" if self.type is bool else ""
        low, high = (
            "" if bound is None else str(int(bound)) if self.type is int else f"{bound:g}"
            for bound in (self.minimum, self.maximum)
        )
        return f"{low} .. {high}".strip()

    def parse(self, value: Any) -> Any:
        """`value` (text or already typed) as this tunable's type; raises `Motion4DError` with the reason."""
        try:
            parsed = self._convert(value)
        except (TypeError, ValueError):
            raise Motion4DError(f"{self.path}={value!r} is not {self._type_name()}") from None
        if parsed in self.former:
            raise Motion4DError(f"{self.path}={parsed}: is now {self.former[parsed]}")
        if self.choices and parsed not in self.choices:
            raise Motion4DError(f"{self.path}={parsed!r}: choose one of {', '.join(self.choices)}")
        if self.type in (int, float):
            below = self.minimum is not None and parsed < self.minimum
            above = self.maximum is not None and parsed > self.maximum
            if below or above or parsed != parsed:
                raise Motion4DError(f"{self.path}={parsed}: must lie in {self.range_text} {self.unit}".rstrip())
        return parsed

    def _convert(self, value: Any) -> Any:
        if self.type is bool:
            if isinstance(value, bool):
                return value
            text = str(value).strip().lower()
            if text not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
                raise ValueError
            return text in ("true", "1", "yes", "on")
        if self.type is int:
            if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
                raise ValueError
            return int(value)
        if self.type is float:
            if isinstance(value, bool):
                raise ValueError
            return float(value)
        if not isinstance(value, str):
            raise ValueError
        if len(value) > MOST_LETTERS:
            raise Motion4DError(f"{self.path}: text of {len(value)} characters, at most {MOST_LETTERS}")
        return value

    def _type_name(self) -> str:
        return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[self.type]


def tunable(
    default: Any,
    meaning: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    changes: Changes = "unconfigured",
    former: Mapping[str, str] | None = None,
) -> Any:
    """A dataclass field that carries its own documentation."""
    metadata = {
        "meaning": meaning,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "changes": changes,
        "former": former or {},
    }
    return dataclasses.field(default=default, metadata=metadata)


def section(cls: type) -> Any:
    """A dataclass field that holds a nested section."""
    return dataclasses.field(default_factory=cls)


def walk(config: Any, prefix: str = "") -> Iterator[Tunable]:
    """Every tunable below `config` (a section instance), in order of declaration."""
    hints = _hints(config.__class__)
    for item in dataclasses.fields(config):
        path = f"{prefix}{item.name}"
        if dataclasses.is_dataclass(getattr(config, item.name)):
            yield from walk(getattr(config, item.name), f"{path}.")
            continue
        kind = hints[item.name]
        if isinstance(kind, types.UnionType):  # no optional tunables: a value that means "off" is part of the range
            raise TypeError(f"{path}: a tunable has exactly one type")
        yield Tunable(path=path, type=kind, default=item.default, **item.metadata)


@functools.cache
def _hints(section_type: type) -> dict[str, Any]:
    """The types of a section's fields; resolving them takes far longer than everything else here."""
    return typing.get_type_hints(section_type)


def get(config: Any, path: str) -> Any:
    """The value at the dotted `path`."""
    for name in path.split("."):
        config = getattr(config, name)
    return config


def put(config: Any, path: str, value: Any) -> None:
    """Sets the already parsed `value` at the dotted `path`."""
    *parents, name = path.split(".")
    for parent in parents:
        config = getattr(config, parent)
    setattr(config, name, value)
