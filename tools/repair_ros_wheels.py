"""Makes the ROS 2 wheels usable for building: run with the Python of the virtual environment that holds them.

The CMake files that the wheels export name the include folders of the image they were built in (such as
``/opt/python/cp311-cp311/include/python3.11``). They are replaced by those of this environment. Run again it changes
nothing.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from pathlib import Path

import numpy

BUILD_IMAGE = re.compile(r"/opt/python/cp\d+-cp\d+/(?P<rest>[^;\"\s)]*)")


def local_folder(rest: str) -> str:
    """The folder of this environment that stands for `rest` of the build image's Python prefix."""
    if rest.startswith("include/"):
        return sysconfig.get_path("include")
    if rest.endswith(("numpy/_core/include", "numpy/core/include")):
        return numpy.get_include()
    return f"{sys.prefix}/{rest}"


def repair(prefix: Path) -> int:
    """Rewrites the exported CMake files below `prefix`; how many were changed."""
    changed = 0
    for path in sorted((prefix / "share").glob("*/cmake/*.cmake")):
        before = path.read_text(encoding="utf-8")
        after = BUILD_IMAGE.sub(lambda match: local_folder(match["rest"]), before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed += 1
    return changed


if __name__ == "__main__":
    print(f"repaired the include folders in {repair(Path(sys.prefix))} exported CMake files")
