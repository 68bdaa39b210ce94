"""One attempt, seen from outside: starts the recording's process, watches its time and memory, and says how it ended.

This runs where Ray or Slurm put it. It imports nothing heavy and reads nothing of the recording, so that nothing in a
recording can bring it down.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from motion4d_ros.batch.carriers import FAILED, Outcome, Task, outcome_of
from motion4d_ros.batch.places import LocalPlace, place_at
from motion4d_ros.children import environment, module_command
from motion4d_ros.errors import Motion4DError
from motion4d_ros.failures import is_full
from motion4d_ros.offline.resources import package_version

PREFIX = "motion4d-batch-"
LOOK_EVERY_S = 0.2
OUTCOME, LOG = "outcome.json", "log.txt"


def run_attempt(content: dict[str, Any]) -> dict[str, Any]:
    """A task as JSON → its outcome as JSON; never raises."""
    started = time.monotonic()
    try:
        outcome = _watched(Task(**content))
    except Motion4DError as error:
        outcome = Outcome(FAILED, "place", str(error))
    except Exception as error:
        kind = "full" if is_full(error) else "crash"
        place = f"no space left on {tempfile.gettempdir()}" if kind == "full" else f"{type(error).__name__}: {error}"
        outcome = Outcome(FAILED, kind, " ".join(place.split()))
    outcome.node = os.uname().nodename
    if outcome.seconds is None:
        outcome.seconds = round(time.monotonic() - started, 2)
    return vars(outcome)


def _watched(task: Task) -> Outcome:
    if (here := package_version()) != task.version:
        reason = f"{os.uname().nodename} has motion4d_ros {here}, not {task.version} as here: install the same there"
        return Outcome(FAILED, "place", reason)
    place = place_at(task.place, task.token)
    if isinstance(place, LocalPlace):
        place.check_same()
    with _scratch(place.scratch()) as scratch:
        how = _run(task, scratch)
        if how.reason:
            return how
        try:
            return outcome_of(json.loads((scratch / OUTCOME).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return Outcome(FAILED, *_of_last_words(scratch / LOG))


def _run(task: Task, scratch: Path) -> Outcome:
    """Waits for the process; an outcome without a reason where it came to its own end."""
    words = module_command("motion4d_ros.batch.recording", str(os.getpid()))
    with (scratch / LOG).open("wb") as log:
        child = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=scratch, start_new_session=True,
            env=_environment() if task.gpus else {**_environment(), "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
    try:
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError), child.stdin as stream:
            stream.write(json.dumps({**task.as_dict(), "scratch": str(scratch)}).encode())
        return _wait(child, task, scratch)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _wait(child: subprocess.Popen[bytes], task: Task, scratch: Path) -> Outcome:
    started, peak = time.monotonic(), 0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = child.wait(LOOK_EVERY_S)
            return Outcome("") if status >= 0 else _died(-status, scratch / LOG)
        if task.timeout_s and time.monotonic() - started > task.timeout_s:
            return Outcome(FAILED, "timeout", f"took longer than --timeout {task.timeout_s:g} s")
        if task.memory:
            peak = max(peak, _resident(child.pid))
            if peak > task.memory:
                reason = f"took {peak // 2**20} MiB of memory, more than --memory allows ({task.memory // 2**20} MiB)"
                return Outcome(FAILED, "memory", reason, peak_mib=peak // 2**20)


def _died(number: int, log: Path) -> Outcome:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "unknown"
    why = " (as the system does where memory runs out)" if number == signal.SIGKILL else ""
    return Outcome(FAILED, "crash", f"its process was ended by signal {number}, {name}{why}{_last_words(log)}")


def _of_last_words(log: Path) -> tuple[str, str]:
    """Kind and reason where the process ended without an outcome."""
    text = _last_words(log)
    if "No space left on device" in text:
        return "full", f"no space left on {log.parent.parent}"
    return "crash", f"its process ended without an answer{text}"


def _last_words(log: Path) -> str:
    try:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return f"; its last words: {' '.join(lines[-1].split())[:160]}" if lines else ""


def _resident(pid: int) -> int:
    """Bytes in memory of a process and of those that it started."""
    import psutil

    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
    return total


def _environment() -> dict[str, str]:
    """Like that of a command at a terminal: without the libraries that Ray puts before everybody's own."""
    found = environment()
    paths = [path for path in found["PYTHONPATH"].split(os.pathsep) if "thirdparty_files" not in path]
    return {**found, "PYTHONPATH": os.pathsep.join(paths), "OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}


@contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """A folder of this attempt's own, locked while it runs; those that killed attempts left are removed."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), (folder / "lock").open("rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    try:
        with (folder / "lock").open("wb") as lock:
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
