"""The output folder: everything is written beside the old content and moved into place when it is ready.

Each file of the results is written by itself. One that fails is named, leaves nothing behind, and costs no other.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from motion4d_ros.failures import describe, is_full
from motion4d_ros.types import Motion4DError

MARKER = "metrics.json"
"""A folder with this file, written by us, is a former analysis and may be replaced."""
PARTIAL = "partial"
"""Where an incomplete analysis goes, if a complete one is there and would be lost."""
PRODUCTS = (
    "masks",
    "online",
    "tracks.npz",
    "objects.csv",
    "trajectory.tum",
    "output.mcap",
    "scene",
    "scene.ply",
    "report.html",
    "metrics.json",
)
"""Every name an analysis may leave in its folder."""
RESERVE_BYTES = 256 * 1024
"""Kept free from the start, so that `metrics.json` (some tens of kB) can tell of a disk that has become full."""
_PREFIX = ".partial-"

Result = TypeVar("Result")


class Workspace:
    """`DIR/.partial-*` while the analysis runs; `DIR/*` once it is published.

        with Workspace(out, overwrite=False) as work:
            work.write("a.txt", lambda path: path.write_text("…"))
            work.publish(complete=not work.failed)

    Leaving the block without `publish` removes every trace, and `DIR` too if it did not exist before.
    """

    def __init__(self, out: Path, *, overwrite: bool = False) -> None:
        """Raises `Motion4DError` when `out` holds something that is not ours, or cannot be looked at."""
        try:
            if out.exists() and not out.is_dir():
                raise Motion4DError(f"--out {out}: is a file, a folder is needed")
            foreign = [] if not out.exists() else [p.name for p in out.iterdir() if not p.name.startswith(_PREFIX)]
        except OSError as error:
            raise Motion4DError(f"--out {out}: cannot be read ({error.strerror})") from None
        if foreign and not overwrite and not is_analysis(out):
            raise Motion4DError(
                f"--out {out}: is not empty and no former analysis; choose another folder or add --overwrite"
            )
        self.failed: dict[str, str] = {}  # name of a product that could not be written -> why
        self.spare: list[Callable[[], None]] = []  # what may go when the disk is full, the last one first
        self._out = out
        self._created: list[Path] = []
        self._folder: Path | None = None
        self._lock: BinaryIO | None = None

    def __enter__(self) -> Workspace:
        missing = [self._out, *self._out.parents]
        self._created = [folder for folder in missing if not folder.exists()]
        try:
            self._out.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._out))
            self._lock = (self._folder / "lock").open("wb")
            _try_lock(self._lock)
            self.products.mkdir()
            self.spool.mkdir()
            self._old.mkdir()
            with (self._folder / "reserve").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError as error:
            self.__exit__()
            reason = f"no space left on {self._out}" if is_full(error) else f"cannot be written ({error.strerror})"
            raise Motion4DError(f"--out {self._out}: {reason}; choose another folder") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        for folder in self._created:
            try:
                folder.rmdir()
            except OSError:  # somebody else's files are in it, or it never came to be
                continue

    @property
    def out(self) -> Path:
        """The folder the user named."""
        return self._out

    @property
    def products(self) -> Path:
        """What will be published goes here."""
        assert self._folder is not None
        return self._folder / "products"

    @property
    def spool(self) -> Path:
        """Notes that are not published."""
        assert self._folder is not None
        return self._folder / "spool"

    @property
    def _old(self) -> Path:
        """What publishing takes out of the way; made at the start, because a full disk has no room for a folder."""
        assert self._folder is not None
        return self._folder / "old"

    def write(self, name: str, write: Callable[[Path], Result]) -> Result | None:
        """Lets `write` make the product `name` at the path it is given; what it returns, or None if it failed.

        On a full disk what stands in `spare` goes first, piece by piece. Nothing of a failed product stays.
        """
        place = self.products / name
        while True:
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                return write(place)
            except Exception as error:
                _remove(place)
                if is_full(error) and self.spare:
                    self.spare.pop()()
                    continue
                self.failed[name] = self.reason(error)
                return None

    def reason(self, error: BaseException) -> str:
        """An error in a line that names this folder where the disk is full."""
        return f"no space left on {self._out}" if is_full(error) else " ".join(describe(error).split())

    def release_reserve(self) -> None:
        """Gives back the room that was kept for the last, small file."""
        assert self._folder is not None
        (self._folder / "reserve").unlink(missing_ok=True)

    def publish(self, *, complete: bool = True) -> Path:
        """Moves the products into place and returns the folder; a former analysis goes as a whole, other files stay.

        An incomplete one does not replace a complete one: it goes into `DIR/partial`. All or nothing is moved.
        """
        assert self._folder is not None
        names = sorted((path.name for path in self.products.iterdir()), key=lambda name: name == MARKER)  # comes last
        aside = not complete and is_complete(self._out)
        former = {MARKER, *PRODUCTS, PARTIAL} if is_analysis(self._out) and not aside else set()
        if aside:
            going, coming = [PARTIAL], [(self.products, self._out / PARTIAL)]
        else:
            going = sorted(former | set(names), key=lambda name: name != MARKER)  # the marker goes first
            coming = [(self.products / name, self._out / name) for name in names]
        moves = [(self._out / name, self._old / name) for name in going if (self._out / name).exists()] + coming
        _move_all(moves)
        return self._out / PARTIAL if aside else self._out

    def _remove_leftovers(self) -> None:
        """What killed analyses left in the folder; those of running ones are locked."""
        for folder in self._out.glob(f"{_PREFIX}*"):
            try:
                with (folder / "lock").open("rb+") as lock:
                    if _try_lock(lock):
                        shutil.rmtree(folder, ignore_errors=True)
            except OSError:  # no lock in it, or not ours to open
                continue


def is_analysis(folder: Path) -> bool:
    """Whether the folder holds a former analysis."""
    return _read_marker(folder) is not None


def is_complete(folder: Path) -> bool:
    """Whether the folder holds an analysis that lacks nothing."""
    metrics = _read_marker(folder)
    if metrics is None:
        return False
    broken_off = bool(metrics.get("interrupted") or metrics.get("failure"))
    return bool(metrics.get("state", "partial" if broken_off else "complete") == "complete")


def _read_marker(folder: Path) -> dict[str, Any] | None:
    try:
        content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "motion4d" in content else None


def _try_lock(file: BinaryIO) -> bool:
    """Whether the file could be locked, or cannot be at all (some network file systems)."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _move_all(moves: list[tuple[Path, Path]]) -> None:
    """Renames one after the other; if one fails, those before it are undone."""
    done: list[tuple[Path, Path]] = []
    try:
        for source, goal in moves:
            source.replace(goal)
            done.append((source, goal))
    except BaseException:
        for source, goal in reversed(done):
            goal.replace(source)
        raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
