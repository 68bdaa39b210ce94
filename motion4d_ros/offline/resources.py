"""The files that are not Python (`msg/`, `config/`, …): from the wheel, the source tree or the ROS install space."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from motion4d_ros.errors import Motion4DError

PACKAGE = "motion4d_ros"
_MANIFEST = "package.xml"


def find_files(folder: str, pattern: str) -> list[Path]:
    """The shared files in `folder` (`msg`, `srv`, `config`, `launch`) that match `pattern`; [] if there are none."""
    share = _share()
    return sorted((share / folder).glob(pattern)) if share else []


def preset(name: str) -> Path:
    """The YAML file of a preset. Raises `Motion4DError` that lists the presets."""
    presets = {path.stem: path for path in find_files("config", "*.yaml")}
    if not presets:
        raise Motion4DError(f"--preset {name}: the presets of {PACKAGE} are not installed beside it: reinstall it")
    if name not in presets:
        raise Motion4DError(f"--preset {name}: there is no such preset; choose one of {', '.join(sorted(presets))}")
    return presets[name]


def package_version() -> str:
    """The version that stands in `package.xml`; "unknown" where only the modules were copied somewhere."""
    share = _share()
    text = (share / _MANIFEST).read_text(encoding="utf-8") if share else ""
    return text.partition("<version>")[2].partition("</version>")[0].strip() or "unknown"


@cache
def _share() -> Path | None:
    """The folder with `package.xml`, `msg/`, `srv/`, `config/` and `launch/`; None if there is none.

    A wheel holds it as package data. In a source tree (also an editable install) it is the folder above the package; in
    a ROS install space it is `share/motion4d_ros` of the prefix that the package lies in, wherever that was moved to.
    """
    package = Path(str(files(PACKAGE)))
    prefixes = [parent / "share" / PACKAGE for parent in package.parents]
    places = (package / "share", package.parent, *prefixes)
    return next((place for place in places if (place / _MANIFEST).is_file()), None)
