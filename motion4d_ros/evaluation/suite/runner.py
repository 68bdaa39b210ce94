"""Runs one analysis in a process of its own, so that its memory is its own and a crash costs one row."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from motion4d_ros.children import environment, module_command
from motion4d_ros.evaluation.suite.cases import Case
from motion4d_ros.evaluation.suite.overlay import write_overlay
from motion4d_ros.types import Motion4DError

VARIANTS: dict[str, list[str]] = {
    "full": [],
    "no sequential stage": ["fit.sequential=false"],
    "no global stage": ["fit.global_stage=false"],
    "no 3D confidence": ["fit.confidence=false"],
    "no resampling": ["fit.resampling=false"],
    "no final remeasure": ["fit.final_remeasure=false"],
    "no semantic refinement": ["fit.semantic_refinement=false"],
}


def run_case(case: Case, variant: str, place: Path, settings: list[str], with_inputs: bool) -> dict[str, Any]:
    """Analyses `case` and measures it; everything is left below `place`.

    Returns the record of the run: "scores" by name, "cost", "command", "date", "revision", and "error" ("" if none).
    """
    inputs = place / "inputs" / case.name
    inputs.mkdir(parents=True, exist_ok=True)
    case.prepare(inputs)
    out = place / "runs" / case.name / variant.replace(" ", "_")
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    plain = ["--preset", "motion4d"]  # figures must not depend on which networks lie in the cache
    words = ["analyze", *case.arguments(inputs), *plain, "--out", str(out)]
    for setting in [*VARIANTS[variant], *settings]:
        words += ["--set", setting]
    record: dict[str, Any] = {
        "command": "motion4d " + shlex.join(words),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "revision": _revision(),
        "error": "",
        "scores": {},
        "cost": {},
    }
    log = out.parent / f"{out.name}.log"
    begin, load = time.perf_counter(), os.getloadavg()[0]
    with log.open("w") as stream:
        command = module_command("motion4d_ros.cli", *words)
        status = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=environment()).returncode
    record["cost"] = {"seconds": round(time.perf_counter() - begin, 1), "load_before": round(load, 1)}
    if status != 0:
        record["error"] = _last_line(log) or f"exit status {status}"
        return record
    record["cost"] |= _cost(out / "metrics.json")
    try:
        if with_inputs:
            alone = case.inputs_alone(inputs)
            record["scores"] |= {} if alone is None else {"priors": alone}
        record["scores"] |= case.measure(inputs, out)
        write_overlay(out, case.arguments(inputs)[0], out.parent / f"{out.name}.png")
    except Motion4DError as error:
        record["error"] = str(error)
    return record


def _revision() -> str:
    """The commit in the working directory, marked if files differ from it; empty where git cannot say."""
    try:
        found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return found.stdout.strip()


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _cost(path: Path) -> dict[str, float]:
    metrics = json.loads(path.read_text())
    timings, counts = metrics["timings"], metrics["counts"]
    cost = {
        "seconds_per_frame": timings["engine_seconds_per_frame"],
        "raster_share": timings["raster_share"],
        "peak_mib": metrics["memory"]["peak_mib"],
        "gaussians": counts["gaussians_static"] + counts["gaussians_dynamic"],
        "frames": counts["frames"],
    }
    stages = {f"stage {name}": seconds for name, seconds in timings["stages_seconds"].items()}
    return {name: value for name, value in {**cost, **stages}.items() if value is not None}
