"""Is it a bag? Names say so, else the first bytes do. Cheap: nothing that reads bags is imported for it."""

from __future__ import annotations

from pathlib import Path

_MAGIC = {b"\x89MCAP0\r\n": ".mcap", b"SQLite format 3\0": ".db3", b"#ROSBAG V2.0\n": ".bag"}
_PACKERS = {b"\x28\xb5\x2f\xfd": "zstd -d", b"\x04\x22\x4d\x18": "lz4 -d", b"\x1f\x8b": "gunzip"}
_PACKED_SUFFIXES = frozenset({".zst", ".zstd", ".lz4", ".gz"})
_MOST_FILES = 64
"""Files of a folder that are looked into."""


def storage_kind(file: Path) -> str | None:
    """The suffix that a file's content deserves, `.mcap`, `.db3` or `.bag`; None for anything else."""
    head = _head(file)
    return next((suffix for magic, suffix in _MAGIC.items() if head.startswith(magic)), None)


def holds_bag(path: Path) -> bool:
    """Whether a file or folder is a bag. Other files than bags beside it make a folder something else."""
    if path.is_dir():
        if (path / "metadata.yaml").exists() or any(any(path.glob(kind)) for kind in ("*.mcap*", "*.db3*")):
            return True
        inside = sorted(path.iterdir())
        return 0 < len(inside) <= _MOST_FILES and all(file.is_file() and storage_kind(file) for file in inside)
    suffixes = path.suffixes
    if suffixes and suffixes[-1].lower() in _PACKED_SUFFIXES:
        suffixes = suffixes[:-1]
    named = suffixes and suffixes[-1].lower() in _MAGIC.values()
    return bool(named) or path.name.endswith(".bag.active") or storage_kind(path) is not None


def storage_files(folder: Path) -> list[Path]:
    """The files of a bag's folder that hold messages, by name, else by content."""
    named = sorted([*folder.glob("*.mcap"), *folder.glob("*.db3")])
    return named or [file for file in _files(folder) if storage_kind(file)]


def how_to_unpack(path: Path) -> str:
    """What to do about a file that was compressed as a whole (or such a file in a folder); "" where none was."""
    for file in _files(path) if path.is_dir() else [path]:
        head = _head(file)
        for magic, command in _PACKERS.items():
            if head.startswith(magic):
                return f"{command} {file.name}, then give what comes out"
    return ""


def _files(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir())[:_MOST_FILES] if file.is_file()]


def _head(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(16)
    except OSError:
        return b""
