"""What goes to a worker and what comes back: plain JSON, so that no process takes objects from another."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

OK, FAILED, OPEN = "ok", "failed", "open"
"""States of a recording; open: this call ended before its turn."""
DONE = "done.json"
AGAIN = ("crash", "lost", "full", "place", "transfer")
"""Kinds of failure that another attempt may escape; those of the recording itself, its time or memory come again."""
OF_THE_NODE = ("full", "place")
"""Kinds of failure that belong to a machine: no more work goes there."""


@dataclass(frozen=True)
class Recording:
    """One recording and how it is to be read."""

    input: str  # an absolute path, or a URL
    folder: str = ""  # name of its results within the place
    words: tuple[str, ...] = ()  # options of `analyze`
    origin: str = ""  # where the user wrote it ("list.csv:7"), for messages
    problem: str = ""  # why it cannot be analysed, known before anything is tried


@dataclass(frozen=True)
class Needs:
    """What one recording gets."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0  # bytes; 0 = not bounded
    timeout_s: float = 0.0  # 0 = not bounded


@dataclass(frozen=True)
class Task:
    """One attempt at one recording, as it is sent to a worker."""

    input: str
    folder: str
    words: list[str]
    place: str  # where results go: an absolute path, or a URL
    token: str  # what stands in the place's lock, so that a worker knows that it sees the same place; "" = URLs
    key: dict[str, str]
    version: str
    attempt: int = 1
    gpus: float = 0.0  # 0 = the process sees none
    memory: int = 0
    timeout_s: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass
class Outcome:
    """How an attempt ended. Figures are None where there is nothing to tell."""

    state: str
    kind: str = ""  # of failure: input, defect, crash, timeout, memory, full, place, transfer, version, lost
    reason: str = ""
    frames: int | None = None
    objects: int | None = None
    top_speed: float | None = None  # of the fastest object (95th percentile over its frames), `unit` per second
    unit: str = ""
    seconds: float | None = None  # of the whole attempt, with transfers
    seconds_per_frame: float | None = None  # of the engine
    cpu_seconds: float | None = None
    peak_mib: float | None = None
    node: str = ""  # host
    node_id: str = ""  # Ray's

    def figures(self) -> dict[str, Any]:
        """What `done.json` and the summaries hold."""
        kept = asdict(self)
        del kept["kind"], kept["node_id"]
        return kept


_NUMBERS = ("top_speed", "seconds", "seconds_per_frame", "cpu_seconds", "peak_mib")
_LARGEST = 2**53
"""The last whole number that every program reads as what it is."""


def checked_figures(content: dict[str, Any]) -> dict[str, Any]:
    """The same, without what is no figure or no text: files may have been edited, or damaged."""
    found = dict(content)
    for name in ("frames", "objects", "attempts", *_NUMBERS):
        value, kinds = found.get(name), (int, float) if name in _NUMBERS else (int,)
        if isinstance(value, bool) or not isinstance(value, kinds) or not -_LARGEST <= value <= _LARGEST:
            found[name] = None
    for name in ("state", "reason", "unit", "node"):
        found[name] = value if isinstance(value := found.get(name), str) else ""
    return found


def outcome_of(content: dict[str, Any]) -> Outcome:
    """From JSON; fields of other versions are left out."""
    return Outcome(**{name: value for name, value in content.items() if name in Outcome.__dataclass_fields__})


@dataclass
class Planned:
    """A recording of this batch and what is to be done about it."""

    recording: Recording
    key: dict[str, str] = field(default_factory=dict)  # input, settings, version
    words: list[str] = field(default_factory=list)
    attempts: int = 0
    kept: bool = False  # its folder holds finished results of other settings, which a failure must not replace
