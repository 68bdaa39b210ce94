"""What the folder of a recording's results is called: readable, legal everywhere, the same in every call."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from motion4d_ros.batch.carriers import Recording
from motion4d_ros.batch.places import is_url

LONGEST = 80
LONGEST_BYTES = 240  # file systems end at 255, and a suffix may follow
COMMON = (
    *("images", "image", "rgb", "color", "colour", "frames", "img", "image_0", "image_2"),
    *("data", "bag", "rosbag", "recording"),
)
"""Names that say nothing: the folder above says more."""
RECORDINGS = (".bag", ".mcap", ".db3", ".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".gif", ".zst")
"""Endings that are left out of a name."""


def name_folders(
    recordings: Sequence[Recording], owner: Callable[[str], str | None], note: Callable[[str], None]
) -> list[Recording]:
    """The recordings with `folder` set, each once; `owner`: whose results a folder holds already.

    The same recording twice is kept once (`note` says so), or becomes a `problem` where its options differ. Recordings
    whose names would be the same get a suffix made from their whole path, but for the one that the folder belongs to.
    """
    kept: list[Recording] = []
    seen: dict[tuple[str, str], Recording] = {}
    for recording in recordings:
        known = seen.get((recording.input, recording.folder))
        if known is None or not recording.input:
            seen[recording.input, recording.folder] = recording
            kept.append(recording)
        elif known.words == recording.words:
            note(f"{recording.input}: is named twice, and analysed once")
        else:
            kept.append(replace(recording, problem="is named twice with other options: give each row a `name`"))
    return _apart(kept, owner, note)


def _apart(
    recordings: list[Recording], owner: Callable[[str], str | None], note: Callable[[str], None]
) -> list[Recording]:
    named = [replace(r, folder=sanitised(r.folder) if r.folder else folder_name(r.input)) for r in recordings]
    groups: dict[str, list[int]] = defaultdict(list)
    for number, recording in enumerate(named):
        groups[recording.folder.casefold()].append(number)
    for members in groups.values():
        usual = named[members[0]].folder
        holder = owner(usual) if len(members) > 1 or not recordings[members[0]].folder else None
        for number in members:
            recording = named[number]
            if holder == recording.input or (holder is None and len(members) == 1):
                continue
            named[number] = replace(recording, folder=f"{recording.folder}-{_hash(recording)}")
            if len(members) > 1:
                note(f"{recording.input}: {usual} would name several recordings, so this is {named[number].folder}")
    return named


def folder_name(recording: str) -> str:
    """`/data/bear/images` → `bear`, `s3://bucket/2026/run 7.mcap` → `run_7`."""
    path = recording.partition("://")[2].partition("?")[0] if is_url(recording) else recording
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", ".", "..")]
    while len(parts) > 1 and parts[-1].casefold() in COMMON:
        parts.pop()
    name = parts[-1] if parts else ""
    ending = PurePosixPath(name).suffix
    return sanitised(name.removesuffix(ending) if ending.casefold() in RECORDINGS else name)


def sanitised(name: str) -> str:
    """Letters, digits, `_`, `-` and `.` only; never hidden, never empty, never a name that we need ourselves."""
    clean = re.sub(r"[^\w.-]+", "_", name).strip("._")[:LONGEST]
    clean = clean.encode()[:LONGEST_BYTES].decode(errors="ignore")
    reserved = clean.casefold() in ("", "index.html", "summary.json", "summary.csv", "summary.parquet")
    return f"recording_{clean}".rstrip("_") if reserved else clean


def _hash(recording: Recording) -> str:
    return hashlib.sha256(f"{recording.input}\n{recording.words}".encode()).hexdigest()[:6]
