"""The rows of the doctor's table, and the table as text and as JSON."""

from __future__ import annotations

import enum
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

NAME_WIDTH = 20  # columns of the rows' names
INDENT = 8 + NAME_WIDTH  # two spaces, the state, two spaces, the name
LEAST_WIDTH = 60  # narrower terminals wrap by themselves
COLOURS = {"ok": "32", "warn": "33", "fail": "31"}  # SGR codes of green, yellow, red


class State(enum.Enum):
    """How well a thing is."""

    OK = "ok"
    WARN = "warn"  # something is missing that not everybody needs, or will be slow
    FAIL = "fail"  # an analysis or the node cannot run


@dataclass(frozen=True)
class Row:
    """One thing looked at. `remedy` is what mends it: one command where there is one; empty only for OK."""

    group: str
    name: str
    state: State
    found: str
    remedy: str = ""


def worst(rows: Sequence[Row]) -> State:
    """The state of all rows together."""
    for state in (State.FAIL, State.WARN):
        if any(row.state is state for row in rows):
            return state
    return State.OK


def as_json(rows: Sequence[Row], version: str) -> str:
    """The table for programs: `{"version", "state", "rows": [{"group", "name", "state", "found", "remedy"}]}`."""
    listed = [
        {"group": row.group, "name": row.name, "state": row.state.value, "found": row.found, "remedy": row.remedy}
        for row in rows
    ]
    return json.dumps({"version": version, "state": worst(rows).value, "rows": listed}, indent=1)


def as_text(rows: Sequence[Row], width: int, *, colour: bool = False) -> str:
    """The table for people, wrapped to `width` columns; in ASCII, for whatever terminal or file it goes to."""
    width = max(width, LEAST_WIDTH)
    lines: list[str] = []
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            lines += [""] * bool(lines) + [group]
        mark = row.state.value.upper().ljust(4)
        if colour:
            mark = f"\033[{COLOURS[row.state.value]}m{mark}\033[0m"
        found = _wrapped(row.found, width - INDENT)
        if len(row.name) >= NAME_WIDTH:  # a line of its own
            lines.append(f"  {mark}  {row.name}")
        else:
            lines.append(f"  {mark}  {row.name.ljust(NAME_WIDTH)}{found.pop(0)}".rstrip())
        lines += [" " * INDENT + line for line in found]
        if row.remedy:
            lines += [
                " " * INDENT + start + line
                for start, line in zip(("-> ", *["   "] * 99), _wrapped(row.remedy, width - INDENT - 3))
            ]
    counts = ", ".join(f"{sum(row.state is state for row in rows)} {state.value.upper()}" for state in State)
    return "\n".join([*lines, "", counts]).encode("ascii", "replace").decode()


def _wrapped(text: str, width: int) -> list[str]:
    # Commands are copied: never broken inside a word.
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
