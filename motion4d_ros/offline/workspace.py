"""The output folder: everything is written beside the old content and moved into place only when it is complete."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from motion4d_ros.types import Motion4DError

MARKER = "metrics.json"
"""A folder with this file, written by us, is a former analysis and may be replaced."""


class Workspace:
    """`DIR/.partial-*` while the analysis runs; `DIR/*` once it is published.

        with Workspace(out, overwrite=False) as work:
            (work.products / "a.txt").write_text("…")
            work.publish()

    Leaving the block without `publish` removes every trace, and `DIR` too if it did not exist before.
    """

    def __init__(self, out: Path, *, overwrite: bool = False) -> None:
        """Raises `Motion4DError` when `out` holds something that is not ours."""
        if out.exists() and not out.is_dir():
            raise Motion4DError(f"--out {out}: is a file, a folder is needed")
        foreign = [] if not out.exists() else [p.name for p in out.iterdir() if not p.name.startswith(".partial-")]
        if foreign and not overwrite and not is_analysis(out):
            raise Motion4DError(
                f"--out {out}: is not empty and no former analysis; choose another folder or add --overwrite"
            )
        self._out = out
        self._created: list[Path] = []
        self._folder: Path | None = None

    def __enter__(self) -> Workspace:
        missing = [self._out, *self._out.parents]
        self._created = [folder for folder in missing if not folder.exists()]
        try:
            self._out.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=self._out))
            self.products.mkdir()
            self.spool.mkdir()
        except OSError as error:
            raise Motion4DError(f"--out {self._out}: cannot be written ({error.strerror})") from None
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        for folder in self._created:
            if folder.exists() and not any(folder.iterdir()):
                folder.rmdir()

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

    def publish(self) -> list[Path]:
        """Moves the products into place and returns them; a former analysis goes as a whole, other files stay."""
        assert self._folder is not None
        old = self._folder / "old"
        old.mkdir()
        names = sorted(
            (path.name for path in self.products.iterdir()), key=lambda name: name == MARKER
        )  # it comes last
        former = {MARKER, *PRODUCTS} if is_analysis(self._out) else set()
        for name in sorted(former | set(names), key=lambda name: name != MARKER):  # and goes first
            if (self._out / name).exists():
                (self._out / name).replace(old / name)
        for name in names:
            (self.products / name).replace(self._out / name)
        return [self._out / name for name in names]


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


def is_analysis(folder: Path) -> bool:
    """Whether the folder holds a finished analysis."""
    try:
        content = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and "motion4d" in content
