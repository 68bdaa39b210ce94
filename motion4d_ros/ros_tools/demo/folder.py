"""The demo's folder: a former result stays until the new one is complete, and nothing but demos' results is removed."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path

from motion4d_ros.types import Motion4DError

MANIFEST = "demo.json"
"""Lists what a demo wrote beside it: only that is ever removed."""
_KEY = "written_by_motion4d_demo"


class ResultFolder:
    """`OUT.new` while the demo runs; what is in it goes to `OUT` with `publish`.

    A demo that fails leaves `OUT.new` for inspection; the next one begins it anew.
    """

    def __init__(self, out: Path) -> None:
        """Makes `OUT.new`. Raises `Motion4DError` where that is not possible."""
        self.out = out.resolve()
        self.staging = self.out.with_name(f"{self.out.name}.new")
        if self.out.exists() and not self.out.is_dir():
            raise Motion4DError(f"{self.out}: is a file, a folder is needed")
        if self.staging.exists() or self.staging.is_symlink():
            self._check_former()
            shutil.rmtree(self.staging)
        try:
            self.staging.mkdir(parents=True)
            self._list(self.staging, [])
            self._lock = (self.staging / MANIFEST).open("rb")  # held while this object lives
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Motion4DError(f"{self.staging}: cannot be written ({error.strerror})") from None

    def publish(self, keep: Path | None = None) -> list[Path]:
        """Replaces the former result by the new one; returns what was moved aside because no demo wrote it.

        `keep`: the recording that was played. Where it lies in the former result, it stays, too.
        """
        self.out.mkdir(exist_ok=True)
        new = [path.name for path in self.staging.iterdir() if path.name != MANIFEST]
        former = written_by_demo(self.out)
        played = {name for name in former if keep is not None and _within(keep, self.out / name)}
        aside = [name for name in new if _is_there(self.out / name) and (name not in former or name in played)]
        moved = [_move_aside(self.out / name) for name in aside]
        for name in set(former) - played - set(aside):
            _remove(self.out / name)
        self._list(self.out, sorted({*new, *(played - set(aside))}))
        for name in new:
            (self.staging / name).rename(self.out / name)
        shutil.rmtree(self.staging)
        return moved

    def _check_former(self) -> None:
        """Raises `Motion4DError` unless `OUT.new` is what a demo left that has ended."""
        try:
            with (self.staging / MANIFEST).open("rb") as manifest:
                fcntl.flock(manifest, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Motion4DError(f"{self.staging}: another demo is writing it; wait, or choose another --out") from None
        except OSError:
            raise Motion4DError(f"{self.staging}: is in the way; no demo left it there, so move it away") from None

    @staticmethod
    def _list(folder: Path, names: list[str]) -> None:
        (folder / MANIFEST).write_text(json.dumps({_KEY: names}, indent=1), encoding="utf-8")


def written_by_demo(folder: Path) -> list[str]:
    """Names in `folder` that a former demo wrote; [] where there was none."""
    try:
        names = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))[_KEY]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    plain = [name for name in names if isinstance(name, str) and name not in ("", ".", "..") and "/" not in name]
    return [name for name in plain if _is_there(folder / name)]


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _within(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _move_aside(path: Path) -> Path:
    number = 1
    while _is_there(aside := path.with_name(f"{path.name}.old{number}")):
        number += 1
    return path.rename(aside)
