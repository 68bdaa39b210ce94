"""What is to be done: recordings that are finished are left alone, changed ones are refused or done again."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from motion4d_ros.batch.carriers import DONE, FAILED, OK, Planned, Recording, checked_figures
from motion4d_ros.batch.fingerprint import input_key
from motion4d_ros.batch.folder_names import name_folders
from motion4d_ros.batch.places import Place
from motion4d_ros.batch.recording_options import settings_key, side_paths, with_threads
from motion4d_ros.errors import Motion4DError

REFUSE, REDO, KEEP = "refuse", "redo", "keep"
"""What `--changed` says about results of other settings or of another version."""
_AT_ONCE = 16  # small files that are read side by side


@dataclass
class Plan:
    """Numbers are positions in `recordings`."""

    recordings: list[Recording]
    todo: dict[int, Planned] = field(default_factory=dict)
    done: dict[int, dict[str, Any]] = field(default_factory=dict)  # finished before: what `done.json` says
    failed: dict[int, str] = field(default_factory=dict)  # cannot even be tried -> why


def whole_key(key: dict[str, str]) -> str:
    """One word for all parts of a key."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]


def read_done(place: Place, folder: str) -> dict[str, Any] | None:
    """What `done.json` says; None where there is none, or half of one. Raises `Motion4DError`."""
    text = place.read_text(f"{folder}/{DONE}")
    try:
        content = json.loads(text or "null")
    except (ValueError, RecursionError):
        return None
    whole = isinstance(content, dict) and isinstance(content.get("parts"), dict)
    return checked_figures(content) if whole else None


def make_plan(
    recordings: Sequence[Recording], place: Place, version: str, cpus: float, changed: str, note: Callable[[str], None]
) -> Plan:
    """Compares every recording with what the place holds.

    Raises `Motion4DError` where finished results of other settings lie there and `changed` is `refuse`.
    """

    def owner(folder: str) -> str | None:
        found = read_done(place, folder)
        return None if found is None else str(found.get("input"))

    _check_outside(recordings, place)
    plan = Plan(name_folders(recordings, owner, note))
    key_of = lru_cache(maxsize=None)(settings_key)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        judged = pool.map(lambda recording: _judge(recording, place, version, cpus, key_of), plan.recordings)
        stale: list[tuple[Recording, str]] = []
        for number, (recording, verdict) in enumerate(zip(plan.recordings, judged)):
            if isinstance(verdict, str):
                plan.failed[number] = verdict
                continue
            planned, former, what = verdict
            if former is not None and (not what or changed == KEEP):
                plan.done[number] = former
            else:
                plan.todo[number] = planned
                if what in ("settings", "version"):
                    stale.append((recording, what))
                elif what:
                    note(f"{recording.folder}: the recording has changed since, and is analysed again")
    if stale and changed == REFUSE:
        raise Motion4DError(_refusal(stale, place))
    return plan


def _check_outside(recordings: Sequence[Recording], place: Place) -> None:
    """Raises `Motion4DError` where results would lie in a recording, which would then change with each of them."""
    for recording in recordings:
        if recording.input and _within(place.name, recording.input):
            raise Motion4DError(f"--out {place.name}: lies in the recording {recording.input}: choose another folder")


def _within(inner: str, outer: str) -> bool:
    return f"{inner.rstrip('/')}/".startswith(f"{outer.rstrip('/')}/")


def _judge(
    recording: Recording, place: Place, version: str, cpus: float, key_of: Callable[[tuple[str, ...]], str]
) -> str | tuple[Planned, dict[str, Any] | None, str]:
    """Why it cannot be analysed; or what is to be done, its finished results, and what has changed since."""
    if recording.problem:
        return recording.problem
    goal = f"{place.name}/{recording.folder}"
    if _within(recording.input, goal):
        return f"its results would replace it, in {goal}: choose another --out"
    if place.holds_other(recording.folder):
        return f"{goal} holds something else than results: remove it, or choose another --out or `name`"
    try:
        former = read_done(place, recording.folder)
        finished = former if former is not None and former.get("state") == OK else None
        key = {"settings": key_of(recording.words), "version": version}
        try:
            beside = [text for _, text in side_paths(recording.words)]
            key["input"] = input_key(recording.input, beside)
        except Motion4DError:
            if finished is None:
                raise
            key["input"] = str(finished["parts"].get("input"))  # gone after it was analysed: that is no change
    except Motion4DError as error:
        return str(error)
    planned = Planned(recording, key, with_threads(list(recording.words), cpus), kept=finished is not None)
    if finished is None:
        return planned, None, ""
    parts = finished["parts"]
    what = next((name for name in ("settings", "version", "input") if parts.get(name) != key[name]), "")
    return planned, finished, what


def _refusal(stale: list[tuple[Recording, str]], place: Place) -> str:
    what = " and ".join(sorted({what for _, what in stale}))
    count = "1 recording has" if len(stale) == 1 else f"{len(stale)} recordings have"
    return (
        f"--out {place.name}: {count} finished results of other {what} ({stale[0][0].folder}"
        f"{', …' if len(stale) > 1 else ''}): --changed redo analyses them again, --changed keep leaves them, "
        "or choose another --out"
    )


def done_text(planned: Planned, figures: dict[str, Any]) -> str:
    """The content of `done.json`; `command` in it does the same by hand."""
    recording = planned.recording
    content = {
        "input": recording.input,
        "key": whole_key(planned.key),
        "state": figures.get("state", FAILED),
        "seconds": figures.get("seconds"),
        **figures,
        "attempts": planned.attempts,
        "parts": planned.key,
        "command": shlex.join(["motion4d", "analyze", recording.input, "--out", recording.folder, *planned.words]),
    }
    return json.dumps(content, indent=1) + "\n"
