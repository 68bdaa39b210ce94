"""The machine: processor, memory, disk."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from motion4d_ros.doctor.rows import Row, State

GROUP = "machine"
MEMORY_NEEDED = 0.8  # GiB free; a 640x480 camera takes 0.7 (docs/explanation/performance.md)
MEMORY_GOOD = 2.0  # GiB free: larger pictures, networks, reports
DISK_NEEDED = 0.2  # GiB; results of half a minute of video
DISK_GOOD = 2.0  # GiB


def rows() -> list[Row]:
    """All of it."""
    return [
        Row(GROUP, "system", State.OK, f"{platform.platform(terse=True)}, {platform.machine()}"),
        cores_row(len(os.sched_getaffinity(0))),
        memory_row(*free_memory()),
        disk_row("disk here", Path.cwd),
        disk_row("temporary files", lambda: Path(tempfile.gettempdir())),
    ]


def cores_row(count: int) -> Row:
    """Cores that this process may use."""
    if count < 2:
        return Row(
            GROUP, "cores", State.WARN, "1", "give it two (taskset, docker --cpus=2); on one core use --preset fast"
        )
    return Row(GROUP, "cores", State.OK, str(count))


def memory_row(free: int, limit: int) -> Row:
    """`free` bytes can be had; `limit` bytes is a container's bound, 0 = none."""
    amount = free / 2**30
    text = f"{amount:.1f} GiB free" + (f", bounded to {limit / 2**30:.1f} GiB by a container" if limit else "")
    remedy = "close other programs, add swap, or raise the container's --memory; --preset fast needs least"
    if amount < MEMORY_NEEDED:
        return Row(GROUP, "memory", State.FAIL, text, remedy)
    if amount < MEMORY_GOOD:
        return Row(GROUP, "memory", State.WARN, text, remedy)
    return Row(GROUP, "memory", State.OK, text)


def free_memory(proc: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Bytes that can be had, and the bound of the container (0 = none)."""
    free = 0
    for line in _text(proc).splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    bound, used = _text(cgroup / "memory.max").strip(), _text(cgroup / "memory.current").strip()
    if not bound.isdigit():  # "max", or another kind of container
        return free, 0
    left = int(bound) - int(used) if used.isdigit() else int(bound)
    return min(free, max(left, 0)), int(bound)


def disk_row(name: str, where: Callable[[], Path]) -> Row:
    """Room in a folder, and whether files can be made there."""
    folder = Path()
    try:
        folder = where()
        room = shutil.disk_usage(folder).free / 2**30
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        remedy = "cd to a folder of yours" if name == "disk here" else "set TMPDIR to a folder of yours"
        return Row(GROUP, name, State.FAIL, f"{folder}: no files can be made ({error.strerror})", remedy)
    text = f"{room:.1f} GiB free in {folder}"
    if room < DISK_GOOD:
        state = State.FAIL if room < DISK_NEEDED else State.WARN
        return Row(GROUP, name, state, text, f"make room: du -xh {folder} | sort -h | tail")
    return Row(GROUP, name, State.OK, text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
