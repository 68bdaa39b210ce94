"""Where `~/save_scene` may write: below one folder given at the start, under names that lead nowhere else."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from motion4d_ros.types import Motion4DError

MIB = 2**20
BLOCK = 4096
"""Bytes that a file or folder takes at least."""
MOST_PARTS = 4
"""Folders within one another that a name may consist of."""
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_UNFINISHED = ".unfinished-"
HOW = "start the node with the parameter save_root: a folder below which it may write"


class SaveRoot:
    """Writes below `root` (empty: nowhere), at most `room_mib` in all."""

    def __init__(self, root: str, room_mib: int) -> None:
        self._root, self._room = root.strip(), room_mib * MIB

    @property
    def allowed(self) -> bool:
        """Whether there is a folder to write below."""
        return bool(self._root)

    @property
    def room(self) -> int:
        """Bytes that may lie there in all."""
        return self._room

    def folder(self, name: str) -> Path:
        """The folder that `name` means. Raises `Motion4DError` for a name that leads out of the root, or no root."""
        if not self._root:
            raise Motion4DError(f"save_scene is not allowed here: {HOW}")
        if not name.strip():
            raise Motion4DError("folder is empty: name a folder below save_root")
        parts = name.strip().rstrip("/").split("/")
        if len(parts) > MOST_PARTS or not all(_PART.fullmatch(part) for part in parts):
            raise Motion4DError(
                f"folder {name[:80]!r}: give the name of a folder below save_root, made of letters, digits and _ . - "
                f"(no .., no leading / or dot, at most {MOST_PARTS} folders within one another)"
            )
        root = Path(self._root).expanduser().resolve()
        folder = root.joinpath(*parts)
        if folder.resolve() != folder:
            raise Motion4DError(f"folder {name!r}: a link leads out of it; name another one")
        return folder

    def save(self, name: str, write: Callable[[str], list[str]]) -> list[str]:
        """Has `write(folder)` write its files, which then go to the folder that `name` means, each whole.

        The absolute paths. Raises `Motion4DError` when they are not allowed, do not fit, or cannot be written; nothing
        is left of them then.
        """
        target = self.folder(name)
        return self._write(target, write, lambda files, temporary: self._place(files, temporary, target))

    def keep(self, name: str, write: Callable[[str], None]) -> None:
        """Has `write(path)` write a file of the node's own, right in the root, under a name that no caller can give.

        Raises `Motion4DError` as `save` does; a file that was there is then still there.
        """
        root = Path(self._root).expanduser().resolve()

        def file_below(folder: str) -> list[str]:
            write(str(Path(folder) / name))
            return [str(Path(folder) / name)]

        self._write(root, file_below, lambda files, temporary: [str(files[0].replace(root / name))])

    def kept(self, name: str) -> Path | None:
        """The file that `keep` has left, if there is one; a link is none."""
        path = Path(self._root).expanduser() / name
        return path if self._root and path.is_file() and not path.is_symlink() else None

    def remove(self, name: str) -> None:
        """Removes the file that `keep` has left."""
        path = self.kept(name)
        if path is not None:
            path.unlink(missing_ok=True)

    def _write(
        self, target: Path, write: Callable[[str], list[str]], place: Callable[[list[Path], Path], list[str]]
    ) -> list[str]:
        """Has `write(folder)` write into a folder of its own, looks whether there is room, and calls `place`."""
        root = Path(self._root).expanduser().resolve()
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._sweep(root)
            used = _size(root)
            if used >= self._room:
                raise Motion4DError(self._full(root, used))
            temporary = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=root))
            try:
                files = [Path(path) for path in write(str(temporary))]
                replaced = sum(_size(target / file.name) for file in files)
                used = _size(root)
                if used - replaced > self._room:
                    raise Motion4DError(self._full(root, used))
                return place(files, temporary)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        except OSError as error:
            raise Motion4DError(f"{target}: cannot be written ({error.strerror or error}): free some space") from None

    @staticmethod
    def _place(files: list[Path], temporary: Path, target: Path) -> list[str]:
        places = [target / file.relative_to(temporary) for file in files]
        for file, place in zip(files, places, strict=True):
            place.parent.mkdir(parents=True, exist_ok=True)
            if target.resolve() != target:
                raise Motion4DError(f"{target}: a link leads out of it; name another folder")
            file.replace(place)
        return [str(place) for place in places]

    @staticmethod
    def _sweep(root: Path) -> None:
        """Removes what a node that died in mid-save has left."""
        for left in root.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(left, ignore_errors=True)

    def _full(self, root: Path, used: int) -> str:
        return (
            f"{root}: {used / MIB:.0f} MiB would lie there, save_room is {self._room // MIB}: remove scenes that are "
            "no longer needed, or start the node with a larger save_room"
        )


def _size(path: Path) -> int:
    """Bytes of a file, or of all that lies below a folder; links are not followed."""
    return sum(max(BLOCK, entry.lstat().st_size) for entry in _all(path))


def _all(path: Path) -> Iterator[Path]:
    if not path.is_symlink() and path.is_dir():
        for folder, folders, files in os.walk(path):
            yield from (Path(folder) / name for name in (*folders, *files))
    elif os.path.lexists(path):
        yield path
