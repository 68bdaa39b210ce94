"""``python -m motion4d_ros.evaluation.calibration``: are covariances and probabilities true?

Plays scenes whose truth is known and prints three tables: NEES (squared error by stated variance, per axis; 1 is
honest, more is overconfident) of pose and twist by stage and state, how probabilities compare with what came true, and
how often rendered depth is off by no more than its standard deviation. Scenes
are NAME or NAME:SEED, of `motion4d_ros.evaluation.synthetic` or ``../shared/data/scenes``. What was played gathers in
OUT, one file a scene, so that scenes can be run one by one.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from motion4d_ros.evaluation.calibration.consistency import QUANTITIES, Row, band, consistency, geometric_mean
from motion4d_ros.evaluation.calibration.plots import draw
from motion4d_ros.evaluation.calibration.recording import record
from motion4d_ros.evaluation.calibration.reliability import Forecasts, depth_misses, forecasts
from motion4d_ros.evaluation.score import Truth, load_truth
from motion4d_ros.evaluation.suite.cases import shared_data
from motion4d_ros.evaluation.suite.tables import fill_page
from motion4d_ros.evaluation.synthetic import PRESETS, make_scene
from motion4d_ros.failures import guarded
from motion4d_ros.files import write_text
from motion4d_ros.types import FloatArray, Motion4DError

KEPT_FORECASTS = 4000  # of each kind and scene


def main(words: list[str] | None = None) -> int:
    """Exit status 0; 2 after one line on what the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m motion4d_ros.evaluation.calibration", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="NAME[:SEED]", help="this scene; repeatable")
    parser.add_argument("--frames", type=int, default=48, metavar="N", help="of each scene")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="for all runs")
    parser.add_argument("--shared", type=Path, default=shared_data(), metavar="DIR", help="default: ../shared/data")
    parser.add_argument("--out", type=Path, default=Path("out/calibration"), metavar="DIR")
    parser.add_argument("--tables", action="store_true", help="play nothing, only show what OUT holds")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="page whose tables are renewed")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="where reliability.png and nees.png are drawn")
    options = parser.parse_args(words)
    try:
        return _run(options)
    except (Motion4DError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _run(options: argparse.Namespace) -> int:
    names = options.only or [*(["tabletop", "static_camera"]), *PRESETS]
    settings = dict(text.split("=", 1) for text in options.settings if "=" in text)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in [] if options.tables else names:
        truth = _truth(name, options.frames, options.shared)
        if truth is None:
            print(f"{name}: left out, {options.shared}/scenes/{name} is absent")
            continue
        print(f"{name} …", flush=True)
        _store(options.out / f"{name.replace(':', '_')}.json", name, truth, settings)
    rows, probabilities, misses = _load(options.out, options.only)
    tables = {
        "calibration": nees_table(rows),
        "reliability": reliability_table(probabilities),
        "depth": depth_table(misses),
    }
    for text in tables.values():
        print(f"\n{text}")
    if options.docs is not None:
        fill_page(options.docs, tables)
    if options.plots is not None:
        draw(rows, probabilities, options.plots)
    return 0


def _truth(name: str, frames: int, shared: Path) -> Truth | None:
    """Of an own scene by name and seed, or of a shared one; None where that is absent."""
    title, _, seed = name.partition(":")
    if title in PRESETS:
        scene = make_scene(title, int(seed or 0), frames)
        return {**scene.truth(), "in_depth": scene.in_depth_m}  # as exact as it is played elsewhere
    folder = shared / "scenes" / title
    return load_truth(folder) if (folder / "gt.npz").is_file() else None


def _store(path: Path, name: str, truth: Truth, settings: dict[str, str]) -> None:
    recording = record(truth, settings)
    rng = np.random.default_rng(0)
    content: dict[str, Any] = {"rows": [asdict(row) for row in consistency(name, truth, recording)], "forecasts": {}}
    for kind, each in forecasts(truth, recording).items():
        chosen = rng.choice(len(each.true), min(KEPT_FORECASTS, len(each.true)), replace=False)
        content["forecasts"][kind] = [
            each.probability[chosen].round(4).tolist(),
            each.true[chosen].astype(int).tolist(),
        ]
    content["depth"] = {name: each.round(3).tolist() for name, each in depth_misses(truth, recording).items()}
    write_text(path, json.dumps(content))


def _load(folder: Path, only: list[str]) -> tuple[list[Row], dict[str, Forecasts], dict[str, FloatArray]]:
    rows: list[Row] = []
    probabilities: dict[str, Forecasts] = {}
    misses: dict[str, FloatArray] = {}
    for path in sorted(folder.glob("*.json")):
        if only and path.stem not in [name.replace(":", "_") for name in only]:
            continue
        content = json.loads(path.read_text())
        rows += [Row(**row) for row in content["rows"]]
        for kind, (probability, true) in content["forecasts"].items():
            new = Forecasts(np.array(probability, float), np.array(true, bool))
            probabilities[kind] = probabilities[kind].joined(new) if kind in probabilities else new
        for name, each in content["depth"].items():
            misses[name] = np.concatenate([misses.get(name, np.zeros(0)), np.array(each, float)])
    if not rows:
        raise Motion4DError(f"{folder} holds no scene: run without --tables first")
    return rows, probabilities, misses


def nees_table(rows: list[Row]) -> str:
    """Geometric means over objects of NEES, and the share of errors within 95 % intervals, by stage and state."""
    head = ["stage", "state", "objects", *(f"NEES {name}" for name in QUANTITIES), "honest", "within 95 %"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for stage in ("live", "window", "global"):
        for state in ("tracked", "occluded", "returned"):
            mine = [row for row in rows if (row.stage, row.state) == (stage, state)]
            if not mine:
                continue
            low, high = band(mine)
            covered = " ".join(f"{np.mean([row.coverage[name] for row in mine]):.2f}" for name in QUANTITIES)
            values = [f"{geometric_mean(mine, name):.2f}" for name in QUANTITIES]
            cells = [stage, state, str(len(mine)), *values, f"{low:.2f}–{high:.2f}", covered]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def reliability_table(probabilities: dict[str, Forecasts]) -> str:
    """Mean probability, share that came true and ECE of each kind."""
    lines = ["| what | forecasts | mean probability | came true | ECE |", "|---|---|---|---|---|"]
    for kind, each in sorted(probabilities.items()):
        mean, true = each.probability.mean(), each.true.mean()
        lines.append(f"| {kind} | {len(each.true)} | {mean:.3f} | {true:.3f} | {each.error:.3f} |")
    return "\n".join(lines)


def depth_table(misses: dict[str, FloatArray]) -> str:
    """Share of pixels whose depth is within one and two standard deviations (normal errors: .68 and .95)."""
    lines = ["| depth of | pixels | within 1 σ | within 2 σ |", "|---|---|---|---|"]
    for name, each in sorted(misses.items()):
        if len(each):
            lines.append(f"| {name} | {len(each)} | {np.mean(each <= 1):.2f} | {np.mean(each <= 2):.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(guarded("calibration", main))
