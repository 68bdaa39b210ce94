"""Python processes of ours, which have to find the same modules as this one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# `python -m` looks in the current folder first. There may lie a checkout, which has no messages and no C++ library.
_RUN = (
    "import sys; sys.path[:] = [path for path in sys.path if path]; sys.argv.pop(0); "
    "import runpy; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)


def module_command(module: str, *words: str) -> list[str]:
    """A command that runs a module of this package, to be started with `environment()`: never what lies in the current
    folder under the same name, unless this process runs that, too.
    """
    return [sys.executable, "-c", _RUN, module, *words]


def environment(**extra: str) -> dict[str, str]:
    """This process's environment, with its `sys.path`; `extra` only fills what is not set."""
    paths = []
    for path in sys.path:
        try:
            paths.append(str(Path(path).absolute()))  # "" is the current folder, which may be gone
        except OSError:
            continue
    return {**extra, **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
