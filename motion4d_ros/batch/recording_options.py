"""The options of `analyze` for each of many recordings: from a manifest, and as words that any machine understands."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from motion4d_ros.batch.places import is_url
from motion4d_ros.errors import Motion4DError
from motion4d_ros.offline.command import add_recording_options, analyze_options
from motion4d_ros.options import Parser, check_words

PATHS = ("camera_info", "depth", "masks", "detections", "poses", "prompt_mask", "queries", "config")
"""Options that may name a file or folder."""
_FREE = ("run.threads",)
"""Settings that results do not depend on."""
_REPEATED_BY = ";"


def parser_of_options() -> Parser:
    """Takes what `analyze` takes for one recording, but INPUT and DIR."""
    parser = Parser(prog="motion4d batch", add_help=False)
    add_recording_options(parser)
    return parser


def words_of(arguments: argparse.Namespace) -> list[str]:
    """The options among `arguments` that are not their defaults, as words; paths are made absolute."""
    words: list[str] = []
    for action in parser_of_options()._actions:
        value = getattr(arguments, action.dest, action.default)
        if value is None or value == action.default:
            continue
        for item in value if isinstance(value, list) else [value]:
            text = ",".join(f"{number:g}" for number in item) if isinstance(item, tuple) else str(item)
            words += [action.option_strings[0], _absolute(action.dest, text)]
    return words


def words_of_row(row: Mapping[str, Any], folder: Path) -> list[str]:
    """The same of a manifest's row, {"fps": 30, "set": "a=1; b=2"}. Raises `Motion4DError` for what is no option.

    `folder`: where the manifest lies, in which its paths are looked for.
    """
    parser, words = parser_of_options(), list[str]()
    known = {action.dest: action for action in parser._actions}
    for name, value in row.items():
        dest = str(name).strip().lstrip("-").replace("-", "_")
        if value is None or str(value).strip() == "":
            continue
        action = known.get("settings" if dest == "set" else dest)
        if action is None:
            check_words(parser, [f"--{dest.replace('_', '-')}"])  # names the nearest
            raise Motion4DError(f"there is no option {name}")
        for item in _items(value) if action.dest == "settings" else [str(value).strip()]:
            text = str(folder / item) if dest in PATHS and not is_url(item) and (folder / item).exists() else item
            words += [action.option_strings[0], text]
    return words_of(parser.parse_args(words))


def _items(value: Any) -> list[str]:
    """The settings of a row: text with `;`, a list, or a table."""
    if isinstance(value, Mapping):
        return [f"{key}={item}" for key, item in value.items()]
    parts = value if isinstance(value, list) else str(value).split(_REPEATED_BY)
    return [str(part).strip() for part in parts if str(part).strip()]


def _absolute(dest: str, text: str) -> str:
    if dest in PATHS and not is_url(text) and Path(text).expanduser().exists():
        return str(Path(text).expanduser().resolve())
    return text


def side_paths(words: Iterable[str]) -> list[tuple[int, str]]:
    """Position and text of every word that names a file, a folder or a URL beside the recording."""
    flags = {f"--{name.replace('_', '-')}" for name in PATHS}
    found, before = [], ""
    for number, word in enumerate(words):
        if before in flags and (is_url(word) or Path(word).exists()):
            found.append((number, word))
        before = word
    return found


def parse(recording: str, out: Path, words: Iterable[str]) -> argparse.Namespace:
    """The command line of `analyze` for one recording. Raises `Motion4DError`."""
    parser = parser_of_options()
    arguments = parser.parse_args(list(words))
    arguments.input, arguments.out, arguments.overwrite, arguments.rerun = Path(recording), out, False, None
    return arguments


def settings_key(words: Iterable[str]) -> str:
    """A key of everything that decides results but the recording: the whole configuration, and the other options.

    Raises `Motion4DError` for bad settings, which is the time to say so.
    """
    arguments = parse("-", Path("-"), words)
    options = analyze_options(arguments)
    config = {name: value for name, value in options.config.as_dict().items() if name not in _FREE}
    others = {
        name: str(value)
        for name, value in vars(arguments).items()
        if name not in ("input", "out", "overwrite", "rerun", "settings", "config", "preset") and value is not None
    }
    content = [config, sorted(options.explicit - set(_FREE)), others, options.automatic]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def with_threads(words: list[str], cpus: float) -> list[str]:
    """Bounds the threads to the cores that a recording gets, unless the user said how many."""
    if any(word.startswith("run.threads=") for word in words):
        return words
    return [*words, "--set", f"run.threads={max(1, int(cpus))}"]
