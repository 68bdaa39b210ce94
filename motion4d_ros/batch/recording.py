"""The process of one recording: fetched, analysed as by `motion4d analyze`, published. What kills it costs it alone.

``python -m motion4d_ros.batch.recording``, with the task (JSON) on stdin; stdout and stderr are its log. What came out
is in `outcome.json` of its scratch folder: where that is missing, the process has died.
"""

from __future__ import annotations

import contextlib
import csv
import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from motion4d_ros.batch.carriers import DONE, FAILED, OK, Outcome, Planned, Recording, Task, outcome_of
from motion4d_ros.batch.places import Place, fetch, is_url, place_at
from motion4d_ros.batch.plan import done_text, read_done
from motion4d_ros.batch.recording_options import parse, side_paths
from motion4d_ros.errors import Motion4DError
from motion4d_ros.failures import USER_ERROR, describe, guarded, is_full, is_users
from motion4d_ros.files import write_text
from motion4d_ros.options import no_such_path

OUTCOME = "outcome.json"
LOG = "log.txt"
THUMBNAIL = "thumbnail.jpg"
_PR_SET_PDEATHSIG = 1


class _Failed(Exception):
    """Ends the attempt with a kind and a reason."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def main(words: Sequence[str]) -> int:
    """`words`: the process id of whoever watches. Analyses what stands on stdin."""
    die_with(int(words[0]))
    content = json.load(sys.stdin)
    scratch = Path(content.pop("scratch"))
    outcome = record(Task(**content), scratch)
    write_text(scratch / OUTCOME, json.dumps(vars(outcome)))
    return 0


def die_with(parent: int) -> None:
    """This process ends when the one that watches it ends: nobody would take its results."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)
    with contextlib.suppress(OSError):  # where memory runs out, this goes first, and not what watches it
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def record(task: Task, scratch: Path) -> Outcome:
    """The whole attempt; never raises."""
    outcome = Outcome(OK, node=os.uname().nodename)
    try:
        place = place_at(task.place, task.token)
        former = read_done(place, task.folder)
        if former is not None and former.get("parts") == task.key and former.get("state") == OK:
            return outcome_of(former)  # another attempt came to its end after all
        _analyze(task, place, scratch, outcome)
    except _Failed as failed:
        outcome.state, outcome.kind, outcome.reason = FAILED, failed.kind, str(failed)
    except Exception as error:
        outcome.state, outcome.reason = FAILED, " ".join(describe(error).split())
        outcome.kind = "full" if is_full(error) else "input" if is_users(error) else "defect"
    if "no space left on" in outcome.reason and outcome.kind != "transfer":
        outcome.kind = "full"
    _costs(outcome)
    return outcome


def _analyze(task: Task, place: Place, scratch: Path, outcome: Outcome) -> None:
    recording, words = _brought(task, scratch)
    results = scratch / "results"
    try:
        arguments = parse(str(recording), results, words)
    except Motion4DError as error:
        raise _Failed("input", str(error)) from None
    from motion4d_ros.offline.command import run

    status = guarded("motion4d", lambda: run(arguments))
    sys.stdout.flush()
    log = scratch / LOG
    if status == 0:
        _figures(results, outcome)
        _thumbnail(arguments, results)
    else:
        outcome.state, outcome.kind = FAILED, "input" if status == USER_ERROR else "defect"
        outcome.reason = last_error(log) or f"ended with status {status}"
        if "no space left on" in outcome.reason or not results.is_dir():
            return
        _figures(results, outcome)
    with contextlib.suppress(OSError):
        (results / LOG).write_bytes(log.read_bytes())
    kept = (read_done(place, task.folder) or {}).get("state") == OK
    if outcome.state == OK or not kept:
        _costs(outcome)
        _publish(task, place, results, outcome)


def _publish(task: Task, place: Place, results: Path, outcome: Outcome) -> None:
    planned = Planned(Recording(task.input, task.folder), task.key, task.words, task.attempt)
    write_text(results / DONE, done_text(planned, outcome.figures()))
    try:
        place.publish(results, task.folder)
    except Motion4DError as error:
        raise _Failed("transfer", str(error)) from None


def _brought(task: Task, scratch: Path) -> tuple[Path, list[str]]:
    """The recording and the words, with everything remote brought here."""
    words = list(task.words)
    if not is_url(task.input) and not Path(task.input).exists():
        raise _Failed("input", str(no_such_path(Path(task.input))))
    try:
        recording = fetch(task.input, _made(scratch / "input")) if is_url(task.input) else Path(task.input)
        for number, text in side_paths(words):
            if is_url(text):
                words[number] = str(fetch(text, _made(scratch / f"option{number}")))
    except Motion4DError as error:
        raise _Failed("full" if is_full(error) else "transfer", str(error)) from None
    return recording, words


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _figures(results: Path, outcome: Outcome) -> None:
    """What the page tells, from the files of the analysis; what is missing is left out."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        metrics: dict[str, Any] = json.loads((results / "metrics.json").read_text(encoding="utf-8"))
        outcome.frames, outcome.objects = metrics["counts"]["frames"], metrics["counts"]["objects"]
        outcome.unit = "m" if metrics.get("scale") == "metric" else "units"
        outcome.seconds_per_frame = metrics["timings"].get("engine_seconds_per_frame")
    with contextlib.suppress(OSError, ValueError, KeyError):
        outcome.top_speed = top_speed(results / "objects.csv")


def top_speed(path: Path) -> float | None:
    """Of the fastest object: the 95th percentile of the frames in which it was not lost; None without objects."""
    speeds: dict[str, list[float]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["state"] != "lost":
                speeds[row["id"]].append(float(row["speed"]))
    return max((round(float(np.percentile(values, 95)), 4) for values in speeds.values()), default=None)


def _thumbnail(arguments: Any, results: Path) -> None:
    """A picture for the page. It is a nicety: where it cannot be made there is none."""
    from motion4d_ros.batch.thumbnail import make_thumbnail

    with contextlib.suppress(Exception):
        (results / THUMBNAIL).write_bytes(make_thumbnail(arguments, results))


def _costs(outcome: Outcome) -> None:
    """Of this process, from its very beginning: to import PyTorch takes its time, too."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    outcome.seconds = round(max(0.0, time.time() - psutil.Process().create_time()), 2)
    outcome.cpu_seconds = round(own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime, 2)
    outcome.peak_mib = round(own.ru_maxrss / 1024)


def last_error(log: Path) -> str:
    """The last line in which the command said what was wrong."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    marks = ("motion4d: error: ", "motion4d: ")
    return next((line.removeprefix(mark) for line in reversed(lines) for mark in marks if line.startswith(mark)), "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
