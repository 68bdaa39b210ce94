"""Rows of ours and of others, for a terminal, for a document and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from motion4d_ros.evaluation.benchmarks.driver import Outcome
from motion4d_ros.evaluation.benchmarks.interfaces import Benchmark, Column, Figures
from motion4d_ros.evaluation.benchmarks.published import PUBLISHED, Published


def rows(benchmark: Benchmark, outcomes: Sequence[Outcome], label: str) -> list[list[str]]:
    """Names and figures as text: each sequence, the mean, then what others published."""
    good = [outcome for outcome in outcomes if not outcome.failure]
    columns, lines = shown_columns(benchmark, outcomes), []
    for outcome in good:
        cost = f"{outcome.seconds / max(1, outcome.frames):.2f}"
        lines.append([outcome.name, *_cells(columns, outcome.figures), str(outcome.frames), cost])
    if good:
        frames, seconds = sum(outcome.frames for outcome in good), sum(outcome.seconds for outcome in good)
        mean = benchmark.mean([outcome.figures for outcome in good])
        name = f"**{label}**, {len(good)} sequence{'s' * (len(good) != 1)}"
        lines.append([name, *_cells(columns, mean), str(frames), f"{seconds / max(1, frames):.2f}"])
    lines += [[row.method, *_cells(columns, row.figures), "", ""] for row in PUBLISHED.get(benchmark.name, ())]
    return lines


def shown_columns(benchmark: Benchmark, outcomes: Sequence[Outcome]) -> list[Column]:
    """Those that anybody has a figure for."""
    theirs: Sequence[Published] = PUBLISHED.get(benchmark.name, ())
    known = {name for outcome in outcomes for name in outcome.figures} | {
        name for row in theirs for name in row.figures
    }
    return [column for column in benchmark.columns if column.name in known]


def head(benchmark: Benchmark, outcomes: Sequence[Outcome]) -> list[str]:
    """Above `rows`."""
    return ["", *(column.name for column in shown_columns(benchmark, outcomes)), "frames", "CPU s/frame"]


def terminal_table(benchmark: Benchmark, outcomes: Sequence[Outcome], label: str) -> Table:
    """For `rich`."""
    table = Table(*head(benchmark, outcomes), title=benchmark.title)
    for line in rows(benchmark, outcomes, label):
        table.add_row(*(escape(cell.replace("**", "")) for cell in line))
    return table


def markdown(benchmark: Benchmark, outcomes: Sequence[Outcome], label: str) -> str:
    """A table, and what there is to know of it."""
    lines = [head(benchmark, outcomes), ["---"] * len(head(benchmark, outcomes)), *rows(benchmark, outcomes, label)]
    cells = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    text = [f"**{benchmark.title}**", "", *("| " + " | ".join(line) + " |" for line in cells), ""]
    return "\n".join([*text, *(f"- {remark}" for remark in remarks(benchmark, outcomes))]) + "\n"


def remarks(benchmark: Benchmark, outcomes: Sequence[Outcome]) -> list[str]:
    """What the figures rest on, where those of others come from, and what failed."""
    rested: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.priors:
            rested.setdefault("; ".join(outcome.priors), []).append(outcome.name)
    every = len(rested) == 1
    said = [f"Priors{'' if every else ' of ' + ', '.join(names)}: {text}." for text, names in rested.items()]
    by_source: dict[str, list[str]] = {}
    for row in PUBLISHED.get(benchmark.name, ()):
        by_source.setdefault(row.source, []).append(row.method)
    said += [f"{', '.join(methods)}: {source}." for source, methods in by_source.items()]
    return said + [f"{outcome.name}: no figures: {outcome.failure}" for outcome in outcomes if outcome.failure]


def as_json(benchmark: Benchmark, outcomes: Sequence[Outcome], label: str) -> dict[str, Any]:
    """Everything, for programs."""
    good = [outcome for outcome in outcomes if not outcome.failure]
    return {
        "benchmark": benchmark.name,
        "label": label,
        "columns": {column.name: column.meaning for column in benchmark.columns},
        "sequences": {
            outcome.name: {"figures": _finite(outcome.figures), "frames": outcome.frames, "seconds": outcome.seconds}
            for outcome in good
        },
        "mean": _finite(benchmark.mean([outcome.figures for outcome in good])) if good else {},
        "failed": {outcome.name: outcome.failure for outcome in outcomes if outcome.failure},
        "priors": sorted({text for outcome in good for text in outcome.priors}),
        "published": [
            {"method": row.method, "figures": row.figures, "source": row.source}
            for row in PUBLISHED.get(benchmark.name, ())
        ],
    }


def _cells(columns: Sequence[Column], figures: Figures) -> list[str]:
    values = ((column, figures.get(column.name, float("nan"))) for column in columns)
    return [f"{value:.{column.digits}f}" if value == value else "" for column, value in values]


def _finite(figures: Figures) -> Figures:
    return {name: value for name, value in figures.items() if value == value}
