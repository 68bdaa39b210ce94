"""A series of files: the pictures of a folder, or those that a list names with their stamps."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import cv2

from motion4d_ros.offline.sources.files.file_names import NS_PER, Keys, epoch_unit, in_order, read_keys
from motion4d_ros.offline.sources.quiet import quiet_opencv
from motion4d_ros.types import Motion4DError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2", ".avif"})
DEPTH_SUFFIXES = frozenset({".png", ".npy", ".tif", ".tiff", ".pgm", ".pfm"})
_SHOWN = 6  # names of folders or kinds that a message lists


@dataclass(frozen=True)
class Series:
    """Files in order, and what tells when or where in the recording each belongs."""

    where: str  # folder or list, for people
    files: list[Path]
    keys: Keys
    listed: bool = False  # the stamps stand in a list, not in the names
    left_out: tuple[str, ...] = ()  # names of files that look like no part of it

    def __len__(self) -> int:
        return len(self.files)


def read_series(path: Path, suffixes: frozenset[str], glob: str | None, what: str, hints: tuple[str, ...]) -> Series:
    """Files of one kind: those in the folder `path`, or those that the text file `path` lists with their stamps.

    Without a glob, a folder that holds several kinds (`frame-1.color.jpg`, `frame-1.depth.png`) is narrowed to the one
    whose name contains one of `hints`. Raises `Motion4DError` when nothing or several kinds remain.
    """
    if path.is_file():
        return _listed(path, what)
    files, left_out = _list_files(path, suffixes, glob, what, hints)
    return Series(str(path), files, read_keys([file.stem for file in files]), left_out=left_out)


def _list_files(
    folder: Path, suffixes: frozenset[str], glob: str | None, what: str, hints: tuple[str, ...]
) -> tuple[list[Path], tuple[str, ...]]:
    """Files of one kind in order of time or number, and the names of the others."""
    if not folder.is_dir():
        raise Motion4DError(f"{folder}: no such folder ({what})")
    try:
        found = [path for path in (folder.glob(glob) if glob else folder.iterdir()) if _is_plain(path)]
    except (ValueError, NotImplementedError) as error:
        raise Motion4DError(f"{glob!r}: no pattern for file names ({error})") from None
    files = [path for path in found if path.suffix.lower() in suffixes]
    if not files and suffixes == IMAGE_SUFFIXES:  # names may say nothing: the content does
        with quiet_opencv():
            files = [path for path in found if cv2.haveImageReader(str(path))]
    if not files:
        raise Motion4DError(f"{folder}: no {what} {'match ' + glob if glob else 'found'}{_instead(folder, suffixes)}")
    chosen = files if glob else _one_kind(folder, files, what, hints)
    return in_order(chosen), tuple(sorted(path.name for path in set(files) - set(chosen)))


def _is_plain(path: Path) -> bool:
    """Files, and links that lead nowhere: those are told as what cannot be read, not passed over."""
    return path.name[0] != "." and (path.is_file() or (path.is_symlink() and not path.exists()))


def _one_kind(folder: Path, files: list[Path], what: str, hints: tuple[str, ...]) -> list[Path]:
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        kinds[re.sub(r"\d+(?:\.\d+)*", "*", path.name)].append(path)
    largest = max(len(paths) for paths in kinds.values())
    series = {name: paths for name, paths in kinds.items() if len(paths) > 1 and len(paths) >= largest // 2}
    if len(series) <= 1:
        return next(iter(series.values()), files)
    hinted = {name: paths for name, paths in series.items() if any(hint in name.lower() for hint in hints)}
    if len(hinted) == 1:
        return next(iter(hinted.values()))
    option = {"images": "--image-glob", "depth files": "--depth-glob"}.get(what, "--masks-glob")
    raise Motion4DError(f"{folder}: holds several kinds of files; choose one with {option}: {_few(sorted(series))}")


def _instead(folder: Path, suffixes: frozenset[str]) -> str:
    """What a folder without the files looked for holds, so that the right one is found."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    endings = sorted({path.suffix.lower() for path in folder.iterdir() if _is_plain(path)} - suffixes - {""})
    if names:
        return f"; it holds the folders {_few(names)}: give one of them"
    if endings:
        return f" ({', '.join(sorted(suffixes))}); it holds {_few(endings)} files"
    return ": the folder is empty" if not any(folder.iterdir()) else f" ({', '.join(sorted(suffixes))})"


def _few(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _listed(path: Path, what: str) -> Series:
    """Lines of `stamp file`, as `rgb.txt` and `depth.txt` of TUM's data sets; files are relative to the list."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise Motion4DError(f"{path}: expected a folder of {what}, or a text file with lines of `stamp file`") from None
    entries = []
    for number, line in enumerate(lines, 1):
        fields = line.split("#")[0].replace(",", " ").split()
        if not fields:
            continue
        try:
            entries.append((Decimal(fields[0]), path.parent / fields[1]))
        except (InvalidOperation, IndexError):
            raise Motion4DError(f"{path}, line {number}: expected `stamp file`, got {line.strip()[:80]!r}") from None
    if not entries:
        raise Motion4DError(f"{path}: lists no {what}")
    entries.sort(key=lambda entry: entry[0])
    unit = epoch_unit(entries[0][0]) or "s"
    stamps = [int(stamp * NS_PER[unit]) for stamp, _ in entries]
    files = [file for _, file in entries]
    if not any(file.exists() for file in files):
        raise Motion4DError(f"{path}: none of its {len(files)} files exists, {files[0]} for one")
    keys = Keys([file.stem for file in files], stamps, read_keys([file.stem for file in files]).numbers,
                epoch_unit(entries[0][0]) is not None, unit)  # fmt: skip
    return Series(str(path), files, keys, listed=True)
