"""One row per recording, kept on the disk until the end: many recordings need no more memory than few."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

COLUMNS = (
    "input", "folder", "state", "reason", "frames", "objects", "seconds", "top_speed", "unit", "seconds_per_frame",
    "cpu_seconds", "peak_mib", "node", "attempts",
)  # fmt: skip
"""Of the summaries. What is not known is null, or empty."""
_NONE = -1


class Rows:
    """Rows by number, written once or more; read in the order of their numbers."""

    def __init__(self, count: int) -> None:
        self._file = tempfile.TemporaryFile("w+b")  # noqa: SIM115 (closed by `close`)
        self._offsets = array("q", [_NONE]) * count

    def put(self, number: int, row: Mapping[str, Any]) -> None:
        """Sets one; the newest counts."""
        self._offsets[number] = self._file.seek(0, 2)
        kept = {name: row.get(name) for name in COLUMNS}
        self._file.write(json.dumps(kept).encode() + b"\n")

    def __contains__(self, number: int) -> bool:
        return self._offsets[number] != _NONE

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for offset in self._offsets:
            if offset != _NONE:
                self._file.seek(offset)
                yield json.loads(self._file.readline())

    def close(self) -> None:
        """Forgets all."""
        self._file.close()


@dataclass(frozen=True)
class Totals:
    """Counts over all rows."""

    states: dict[str, int]
    frames: int
    objects: int
    seconds: float
    cpu_seconds: float


def totals(rows: Rows) -> Totals:
    """Adds up; only what ended well counts as frames and objects."""
    states = {"ok": 0, "failed": 0, "open": 0}
    frames, objects, seconds, cpu = 0, 0, 0.0, 0.0
    for row in rows:
        states[row["state"]] = states.get(row["state"], 0) + 1
        seconds, cpu = seconds + (row["seconds"] or 0.0), cpu + (row["cpu_seconds"] or 0.0)
        if row["state"] == "ok":
            frames, objects = frames + (row["frames"] or 0), objects + (row["objects"] or 0)
    return Totals(states, frames, objects, round(seconds, 2), round(cpu, 2))
