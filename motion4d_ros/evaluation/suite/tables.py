"""Records of runs -> Markdown tables, put between markers of a page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from motion4d_ros.evaluation.command import format_score
from motion4d_ros.evaluation.suite.cases import ABLATION_CASES
from motion4d_ros.evaluation.suite.runner import VARIANTS
from motion4d_ros.files import write_text
from motion4d_ros.types import Motion4DError

SCENE_COLUMNS = ("J", "F", "flips", "EPE", "d05", "d10", "AJ", "davg", "OA", "EPE_static")
ABLATION_COLUMNS = ("J", "flips", "EPE", "d10", "AJ", "OA")
CLIP_COLUMNS = ("J", "F", "JF", "flips", "labels")
VIEW_COLUMNS = ("PSNR", "SSIM", "AbsRel", "RMSE", "d1", "covered")
AIMS: dict[str, dict[str, float]] = {
    "tabletop": {"J": 0.91, "flips": 0, "EPE": 0.018, "d10": 0.99, "AJ": 0.70},
    "static_camera": {"J": 0.96, "flips": 0, "EPE": 0.016, "AJ": 0.85},
}
Records = Mapping[str, Mapping[str, dict[str, Any]]]  # case -> variant -> record of `run_case`


def render_tables(records: Records, groups: Mapping[str, str]) -> dict[str, str]:
    """Name of the marker -> Markdown. `groups`: case -> "scenes", "clips" or "rgbd"; cases keep this order."""
    full = {name: records[name]["full"] for name in groups if "full" in records.get(name, {})}
    tables = {
        "scenes": _score_table(full, groups, "scenes", SCENE_COLUMNS, AIMS),
        "clips": _score_table(full, groups, "clips", CLIP_COLUMNS, {}),
        "rgbd": _score_table(full, groups, "rgbd", VIEW_COLUMNS, {}),
        "cost": _cost_table(full),
        "ablation": _ablation_table(records),
        "commands": _commands(full),
    }
    return {name: text for name, text in tables.items() if text}


def _score_table(
    full: Mapping[str, dict[str, Any]],
    groups: Mapping[str, str],
    group: str,
    columns: Sequence[str],
    aims: Mapping[str, Mapping[str, float]],
) -> str:
    rows = []
    for name, record in full.items():
        if groups[name] != group:
            continue
        for label, scores in record["scores"].items():
            rows.append([name, label, *(_cell(column, scores) for column in columns)])
        if name in aims:
            rows.append([name, "*aim*", *(_cell(column, aims[name]) for column in columns)])
        if record["error"]:
            rows.append([name, f"failed: {_escape(record['error'])}", *("" for _ in columns)])
    return _table(["recording", "output", *columns], rows)


def _cost_table(full: Mapping[str, dict[str, Any]]) -> str:
    rows = []
    for name, record in full.items():
        cost = record["cost"]
        if "seconds_per_frame" not in cost:
            continue
        share = cost.get("raster_share")
        rows.append(
            [
                name,
                f"{cost['frames']:.0f}",
                f"{cost['seconds_per_frame']:.2f}",
                "" if share is None else f"{100 * share:.0f} %",
                f"{cost['peak_mib']:.0f}",
                f"{cost['gaussians']:.0f}",
                f"{cost['load_before']:.1f}",
            ]
        )
    head = ["recording", "frames", "s/frame", "in the rasteriser", "peak MiB", "Gaussians", "load before"]
    return _table(head, rows)


def _ablation_table(records: Records) -> str:
    cases = [name for name in ABLATION_CASES if len(records.get(name, {})) > 1]
    rows = []
    for variant in VARIANTS:
        for label in ("online", "final"):
            found = [records[name].get(variant, {}).get("scores", {}).get(label) for name in cases]
            scores = [values for values in found if values]
            if not cases or len(scores) < len(cases):
                continue  # a mean over fewer recordings would not compare
            flips = sum(values["flips"] for values in scores)
            means = {column: f"{np.mean([values[column] for values in scores]):.3f}" for column in ABLATION_COLUMNS}
            shown = {**means, "flips": f"{flips:.0f}"}
            rows.append([variant, label, *(shown[column] for column in ABLATION_COLUMNS)])
    title = f"Means over {', '.join(cases)} (flips: sum).\n\n"
    table = _table(["variant", "output", *ABLATION_COLUMNS], rows)
    return title + table if table else ""


def _commands(full: Mapping[str, dict[str, Any]]) -> str:
    lines = [f"{record['date']} {record.get('revision', '')}  {record['command']}" for record in full.values()]
    return "```text\n" + "\n".join(lines) + "\n```" if lines else ""


def _cell(column: str, scores: Mapping[str, float]) -> str:
    value = scores.get(column)
    if value is None or value != value:
        return ""
    return f"{value:.2f}" if column == "PSNR" else format_score(column, value)


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"| {' | '.join(head)} |", "|" + "---|" * len(head), *body]) if body else ""


def fill_page(path: Path, texts: Mapping[str, str]) -> None:
    """Replaces what stands between ``<!-- NAME -->`` and ``<!-- /NAME -->`` in the page, for every name given.

    Raises `Motion4DError` for a page that is missing or lacks a marker.
    """
    try:
        page = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Motion4DError(f"{path}: cannot be read ({error.strerror})") from None
    for name, text in texts.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(page):
            raise Motion4DError(f"{path}: lacks the markers <!-- {name} --> and <!-- /{name} -->")
        page = pattern.sub(_between(text), page)
    write_text(path, page)


def _between(text: str) -> Callable[[re.Match[str]], str]:
    return lambda match: f"{match[1]}{text}\n{match[2]}"
