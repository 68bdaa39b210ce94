"""``python -m motion4d_ros.evaluation.cost``: processor seconds of a fixed run, beside those of a fixed piece of work.

Analyses 16 frames of an own scene with one thread. Processor seconds depend on the machine and on who else uses it;
optical flow of two fixed pictures, timed before and after, tells by how much, and is what the run is divided by. Every
run is one line of OUT/history.jsonl, so that a change shows beside what was before.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from motion4d_ros.evaluation.suite.cases import SyntheticScene
from motion4d_ros.evaluation.suite.runner import run_case
from motion4d_ros.failures import guarded
from motion4d_ros.files import write_text
from motion4d_ros.priors.flow.optical_flow import dis_flow

SCENE, FRAMES = "tabletop_like", 16
SIZE = (240, 320)  # (height, width) of the pictures of the reference
REPEATS = 12  # of which the least counts: what others take away is never negative
SHOWN = 12  # newest lines of the history that are printed


def reference_seconds() -> float:
    """Processor seconds of dense flow between two fixed pictures: the least of some."""
    random = np.random.default_rng(0)
    noise = cv2.GaussianBlur(random.uniform(0, 255, SIZE), (0, 0), 2.0)
    first = np.asarray(cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX), np.uint8)
    second = np.roll(first, (1, 3), (0, 1))
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return min(_spent(first, second) for _ in range(REPEATS))
    finally:
        cv2.setNumThreads(threads)


def _spent(first: np.ndarray, second: np.ndarray) -> float:
    begun = time.process_time()
    dis_flow(first, second)
    return time.process_time() - begun


def measured(place: Path) -> dict[str, Any]:
    """One line of the history; `error` says why there is none."""
    before, began = reference_seconds(), _children()
    record = run_case(SyntheticScene(SCENE, frames=FRAMES), "full", place, ["run.threads=1"], with_inputs=False)
    seconds = _children() - began
    reference = 0.5 * (before + reference_seconds())
    final = record["scores"].get("final", {})
    return {
        "date": record["date"],
        "revision": record["revision"],
        "error": record["error"],
        "cpu_s_per_frame": round(seconds / FRAMES, 3),
        "reference_ms": round(1e3 * reference, 2),
        "per_reference": round(seconds / FRAMES / reference, 1),
        "J": round(final.get("J", float("nan")), 3),
        "EPE_m": round(final.get("EPE", float("nan")), 4),
    }


def _children() -> float:
    """Processor seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def history(path: Path) -> list[dict[str, Any]]:
    """The lines of a history; [] where there is none."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def table(lines: list[dict[str, Any]]) -> str:
    """The newest lines, one below the other."""
    rows = ["revision          CPU s/frame  reference ms  flows/frame      J    EPE cm"]
    for line in lines[-SHOWN:]:
        rows.append(
            f"{line['revision']:18s}{line['cpu_s_per_frame']:10.2f}{line['reference_ms']:14.1f}"
            f"{line['per_reference']:13.1f}{line['J']:9.3f}{100 * line['EPE_m']:9.2f}"
        )
    return "\n".join(rows)


def main(words: list[str] | None = None) -> int:
    """Exit status 0, or 1 if the run failed."""
    parser = argparse.ArgumentParser(prog="python -m motion4d_ros.evaluation.cost", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/cost"), metavar="DIR", help="default: out/cost")
    place = parser.parse_args(words).out
    line = measured(place)
    if line["error"]:
        print(f"{SCENE}: failed: {line['error']}")
        return 1
    path = place / "history.jsonl"
    lines = [*history(path), line]
    write_text(path, "".join(json.dumps(each) + "\n" for each in lines))
    print(table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(guarded("cost", main))
