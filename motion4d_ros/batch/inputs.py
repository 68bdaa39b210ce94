"""INPUTS… → recordings: paths, URLs, globs of both, lists (.txt) and manifests with options (.csv, .json)."""

from __future__ import annotations

import csv
import glob
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from motion4d_ros.batch.carriers import Recording
from motion4d_ros.batch.places import filesystem, is_url
from motion4d_ros.batch.recording_options import words_of_row
from motion4d_ros.errors import Motion4DError
from motion4d_ros.options import no_such_path

LISTS = (".csv", ".json", ".txt")
"""What no recording is called."""
_MAGIC = set("*?[")


def read_inputs(inputs: Sequence[str], common: Sequence[str]) -> list[Recording]:
    """Every recording that is named, in order; `common`: options for all of them, which a manifest's own follow.

    What is wrong with one is noted in it (`problem`). Raises `Motion4DError` for a list that cannot be read.
    """
    found: list[Recording] = []
    for text in inputs:
        if Path(text).suffix.lower() in LISTS and not is_url(text):
            found += _read_list(Path(text), common)
        else:
            found += [Recording(name, words=tuple(common), origin=text) for name in _expand(text)]
    if not found:
        raise Motion4DError(f"{', '.join(inputs)}: names no recording")
    return found


def _expand(text: str) -> list[str]:
    """What a path or URL stands for: itself, or what a pattern matches."""
    if is_url(text):
        if not _MAGIC & set(text.partition("://")[2]) or text.startswith(("http://", "https://")):
            return [text]
        files, path = filesystem(text)
        names = sorted(str(files.unstrip_protocol(name)) for name in files.glob(path))
    elif not text.strip():
        raise Motion4DError("an INPUT is empty: name a recording, a pattern or a list")
    else:
        names = _expand_path(text)
    if not names:
        raise Motion4DError(f"{text}: nothing matches")
    return names


def _beside(text: str, folder: Path) -> str:
    return text if text.startswith("~") else str(folder / text)


def _expand_path(text: str) -> list[str]:
    try:
        path = str(Path(text).expanduser().absolute())
        if Path(path).exists() or not _MAGIC & set(path):
            return [_absolute(path)]
        return [_absolute(name) for name in sorted(glob.glob(path, recursive=True))]  # noqa: PTH207 (absolute patterns)
    except (OSError, ValueError, RuntimeError) as error:  # too long, not allowed, a NUL, somebody's home
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:100]
        raise Motion4DError(f"{text[:80]!r}: is no path ({reason})") from None


def _absolute(path: str) -> str:
    """Without `..` and links, so that the same recording has one name; what is not there keeps its name."""
    return str(Path(path).resolve())


def _read_list(path: Path, common: Sequence[str]) -> Iterator[Recording]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise no_such_path(path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Motion4DError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'})") from None
    kind = path.suffix.lower()
    rows = {".csv": _csv_rows, ".json": _json_rows, ".txt": _text_rows}[kind](path, text)
    folder = path.absolute().parent
    for place, row in rows:
        yield from _recordings(f"{path.name}:{place}", row, folder, common)


def _recordings(origin: str, row: Mapping[str, Any], folder: Path, common: Sequence[str]) -> Iterator[Recording]:
    options = {name: value for name, value in row.items() if name not in ("input", "name")}
    text, name = str(row.get("input") or "").strip(), str(row.get("name") or "").strip()
    if not text:
        yield Recording("", origin=origin, problem="has no input")
        return
    try:
        words = (*common, *words_of_row(options, folder))
        inputs = _expand(text if is_url(text) else _beside(text, folder))
    except Motion4DError as error:
        yield Recording(text, name, tuple(common), origin, str(error))
        return
    yield from (Recording(item, name, words, origin) for item in inputs)


def _csv_rows(path: Path, text: str) -> list[tuple[int, Mapping[str, Any]]]:
    try:
        reader = csv.DictReader(text.splitlines(), strict=True)
        names = [name.strip() for name in reader.fieldnames or []]
        if "input" not in names:
            other = any(mark in name for name in names for mark in ";\t")
            hint = " (columns are parted by commas)" if other else ""
            raise Motion4DError(f"{path}: its first line must name the columns, and one of them `input`{hint}")
        if twice := next((name for name in names if name and names.count(name) > 1), None):
            raise Motion4DError(f"{path}: has two columns `{twice}`")
        reader.fieldnames = names
        rows: list[tuple[int, Mapping[str, Any]]] = []
        for row in reader:
            if None in row:
                raise Motion4DError(f"{path}:{reader.line_num}: has more fields than columns")
            rows.append((reader.line_num, row))
        return rows
    except csv.Error as error:
        raise Motion4DError(f"{path}: is no CSV ({error})") from None


def _json_rows(path: Path, text: str) -> list[tuple[int, Mapping[str, Any]]]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Motion4DError(f"{path}: is no JSON ({error})") from None
    rows = content.get("recordings") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise Motion4DError(f'{path}: expected a list of recordings, [{{"input": "a.mp4", "fps": 30}}, …]')
    found: list[tuple[int, Mapping[str, Any]]] = []
    for number, row in enumerate(rows, 1):
        row = {"input": row} if isinstance(row, str) else row
        if not isinstance(row, dict):
            raise Motion4DError(f'{path}:{number}: expected a recording, {{"input": …}}')
        found.append((number, row))
    return found


def _text_rows(_: Path, text: str) -> list[tuple[int, Mapping[str, Any]]]:
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, {"input": line}) for number, line in lines if line and not line.startswith("#")]
