"""Where the files that are not Python lie (`msg/`, `config/`): source tree, ROS install space or wheel."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from motion4d_ros.errors import Motion4DError

PACKAGE = "motion4d_ros"


def find_files(folder: str, pattern: str) -> list[Path]:
    """Files of the package's `folder` that match `pattern`, from the first place that has any; [] if none has."""
    for place in _places():
        found = sorted((place / folder).glob(pattern))
        if found:
            return found
    return []


def preset(name: str) -> Path:
    """The YAML file of a preset. Raises `Motion4DError` that lists the presets."""
    presets = {path.stem.removeprefix("preset_"): path for path in find_files("config", "*.yaml")}
    if name not in presets:
        raise Motion4DError(
            f"--preset {name}: there is no such preset; choose one of {', '.join(sorted(presets)) or 'none'}"
        )
    return presets[name]


def package_version() -> str:
    """The version that stands in `package.xml`."""
    for place in _places():
        manifest = place / "package.xml"
        if manifest.exists():
            text = manifest.read_text(encoding="utf-8")
            return text.partition("<version>")[2].partition("</version>")[0].strip() or "unknown"
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(PACKAGE)
    except PackageNotFoundError:
        return "unknown"


def _places() -> list[Path]:
    here = Path(__file__).resolve().parents[1]  # the Python package
    prefixes = [*here.parents, *map(Path, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)), Path(sys.prefix)]
    shares = [prefix / "share" / PACKAGE for prefix in prefixes]
    source_tree = [here.parent] if (here.parent / "package.xml").exists() else []
    return [*source_tree, *[share for share in shares if share.is_dir()], here / "share", here]
