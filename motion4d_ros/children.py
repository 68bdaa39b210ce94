"""The environment of a Python process of ours that has to find the same modules as this one."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def environment(**extra: str) -> dict[str, str]:
    """This process's environment, with its `sys.path`; `extra` only fills what is not set."""
    paths = []
    for path in sys.path:
        try:
            paths.append(str(Path(path).absolute()))  # "" is the current folder, which may be gone
        except OSError:
            continue
    return {**extra, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
