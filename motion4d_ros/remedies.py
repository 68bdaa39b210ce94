"""Commands that install what is missing, as they work for this user and this Python."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path


def apt_install(*packages: str) -> str:
    """By the system's package manager; `sudo` only for those who are not root (a container often has none)."""
    return f"{'' if os.geteuid() == 0 else 'sudo '}apt-get install -y {' '.join(packages)}"


def pip_install(requirement: str, *options: str) -> str:
    """By pip, into this Python; the system's own refuses that unless it is told twice."""
    words = [*options, *(("--user", "--break-system-packages") if externally_managed() else ()), requirement]
    return f"pip install {' '.join(words)}"


def externally_managed() -> bool:
    """Whether this is the system's Python, which leaves its packages to the system (PEP 668)."""
    if sys.prefix != sys.base_prefix:
        return False
    return (Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED").exists()
