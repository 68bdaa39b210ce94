"""A benchmark's sequences, one after the other or however a caller wants: each analysed in a process of its own, and
scored.

A sequence's folder holds `done.json` when it is through, written last. It is left alone from then on, unless what it
was made with has changed, which is refused.
"""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from motion4d_ros.children import environment, module_command
from motion4d_ros.evaluation.benchmarks.interfaces import Figures, Place
from motion4d_ros.evaluation.benchmarks.registry import BENCHMARKS
from motion4d_ros.failures import describe
from motion4d_ros.files import write_text
from motion4d_ros.offline.report.words import sources
from motion4d_ros.offline.resources import package_version
from motion4d_ros.types import Motion4DError

DONE = "done.json"
RESULT = "result"  # in a sequence's folder: what the analysis wrote
INPUT = "input"  # beside it, while it is worked on: what the analysis was given
VERSION = 1  # of how benchmarks are read and scored


@dataclass(frozen=True)
class Task:
    """One sequence to do. Plain data: it may travel to another process or machine."""

    benchmark: str
    place: Place
    folder: Path  # where everything of this sequence goes
    words: tuple[str, ...]  # settings, as of `motion4d analyze`

    @property
    def key(self) -> str:
        """What the figures depend on, as a hash: another key is another result."""
        place = {name: str(value) for name, value in asdict(self.place).items() if name != "root"}
        content = [self.benchmark, place, list(self.words), package_version(), VERSION]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Outcome:
    """What came of a task."""

    name: str
    figures: Figures
    frames: int = 0
    seconds: float = 0.0  # of computing, all cores together
    priors: tuple[str, ...] = ()  # what the analysis rested on, in words
    failure: str = ""  # why there are no figures
    again: bool = False  # it had been done before


MapSequences: TypeAlias = Callable[[Callable[[Task], Outcome], Sequence[Task]], Iterable[Outcome]]
"""How a function is applied to tasks: outcomes in any order, as they come."""


def one_by_one(perform: Callable[[Task], Outcome], tasks: Sequence[Task]) -> Iterator[Outcome]:
    """In this process, in order."""
    return map(perform, tasks)


def perform(task: Task) -> Outcome:
    """Does one sequence, unless it is done. Never raises for what is wrong with the sequence: that is its `failure`."""
    try:
        done = _read_done(task)
        return done if done is not None else _do(task)
    except Exception as error:  # a damaged data set may fail in any way
        return Outcome(task.place.name, {}, failure=" ".join(describe(error).split()))


def check_unchanged(tasks: Iterable[Task]) -> None:
    """Raises `Motion4DError` where a folder holds a sequence that was done with other settings, or by another
    version.
    """
    for task in tasks:
        key = _content(task.folder / DONE).get("key")
        if key is not None and key != task.key:
            raise Motion4DError(
                f"{task.folder} was made with other settings, frames or version: name another --out, or say --again"
            )


def forget(tasks: Iterable[Task]) -> None:
    """Takes away what was done of these sequences."""
    for task in tasks:
        if (task.folder / DONE).is_file():
            (task.folder / DONE).unlink()
            shutil.rmtree(task.folder / RESULT, ignore_errors=True)


def _do(task: Task) -> Outcome:
    benchmark = BENCHMARKS[task.benchmark]
    given, result = task.folder / INPUT, task.folder / RESULT
    shutil.rmtree(given, ignore_errors=True)
    given.mkdir(parents=True)
    words = [*benchmark.prepare(task.place, given), "--out", str(result)]
    words += ["--limit", str(task.place.limit)] if task.place.limit else []
    words += task.words  # after the benchmark's own settings: what a person says wins
    seconds = _analysed(words, task.folder / "log.txt")
    figures = benchmark.score(task.place, result)
    metrics = _content(result / "metrics.json")
    priors = tuple(sources(metrics.get("configuration", {})))
    outcome = Outcome(task.place.name, figures, int(metrics["counts"]["frames"]), seconds, priors)
    shutil.rmtree(given, ignore_errors=True)
    known = {name: value for name, value in figures.items() if value == value}  # JSON has no NaN
    content = {"key": task.key, **asdict(outcome), "figures": known, "words": words}
    write_text(task.folder / DONE, json.dumps(content, indent=2) + "\n")
    return outcome


def _analysed(words: Sequence[str], log: Path) -> float:
    """Runs `motion4d analyze` in a process of its own; CPU seconds. Raises `Motion4DError` with its last line."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with log.open("w", encoding="utf-8") as said:
        done = subprocess.run(
            module_command("motion4d_ros.cli", "analyze", *words),
            stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, env=environment(), check=False,
        )  # fmt: skip
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing was said"]
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        raise Motion4DError(f"{lines[-1].removeprefix('motion4d: error: ')} ({how}; {log})")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def _read_done(task: Task) -> Outcome | None:
    content = _content(task.folder / DONE)
    if content.get("key") != task.key:
        return None
    try:
        figures = {str(name): float(value) for name, value in content["figures"].items()}
        frames, seconds = int(content["frames"]), float(content["seconds"])
        priors = tuple(str(text) for text in content["priors"])
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        raise Motion4DError(f"{task.folder / DONE} is damaged: remove it, or say --again") from None
    return Outcome(task.place.name, figures, frames, seconds, priors, again=True)


def _content(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
