"""Command lines whose mistakes are told in one line, with the nearest word that would have been right."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from motion4d_ros.errors import Motion4DError


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises `Motion4DError` instead of printing its usage; so do its subcommands."""

    def error(self, message: str) -> NoReturn:
        """Refuses the command line."""
        raise Motion4DError(f"{message} ({self.prog} --help)")


def check_words(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Raises `Motion4DError` for the first unknown command or option among `words`, and names the nearest known one.

    `argparse` alone would complain about what is missing before it complains about what is misspelt.
    """
    subcommands = _subcommands(parser)
    known = _options(parser)
    for word in words:
        if word == "--":
            return
        if word.startswith("--"):
            name = word.partition("=")[0]
            if not any(option.startswith(name) for option in known):
                raise Motion4DError(f"there is no option {name}{_nearest(name, known)} ({parser.prog} --help)")
        elif subcommands and not word.startswith("-"):
            if word not in subcommands:
                raise Motion4DError(_unknown_command(parser, word, list(subcommands)))
            parser = subcommands[word]
            known, subcommands = [*known, *_options(parser)], _subcommands(parser)


def no_such_path(path: Path, what: str = "") -> Motion4DError:
    """The error for a path that does not exist; names its nearest neighbour, if there is one like it."""
    if path.is_symlink():
        return Motion4DError(f"{what} {path}: is a link to {path.readlink()}, which leads nowhere".strip())
    try:
        found = difflib.get_close_matches(path.name, [other.name for other in path.parent.iterdir()], 1)
    except OSError:
        found = []
    hint = f"; did you mean {path.parent / found[0]}?" if found else ""
    return Motion4DError(f"{what} {path}: no such file or folder{hint}".strip())


def _unknown_command(parser: argparse.ArgumentParser, word: str, names: list[str]) -> str:
    if Path(word).exists() and "analyze" in names:  # `motion4d clip.mp4`
        return f"{word} is no command; did you mean {parser.prog} analyze {word} --out DIR?"
    nearest = _nearest(word, names)
    return f"there is no command {word!r}{nearest or '; choose one of ' + ', '.join(names)} ({parser.prog} --help)"


def _nearest(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(known), 1)
    return f": did you mean {found[0]}?" if found else ""


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
