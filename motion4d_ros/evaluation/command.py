"""`motion4d evaluate`: scores of an analysis against ground truth, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from motion4d_ros.evaluation.score import COLUMNS, Scores, load_truth, read_true_masks, score, score_video
from motion4d_ros.files import write_text
from motion4d_ros.types import Motion4DError


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds `evaluate` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "evaluate",
        help="score results against ground truth",
        description="Scores the masks and tracks of an analysis (final and online) against exact ground truth, beside "
        "what its 2D inputs alone would give.",
        epilog="measures: " + "; ".join(f"{name}: {meaning}" for name, meaning in COLUMNS.items()),
    )
    parser.add_argument(
        "truth", type=Path, metavar="GT", help="gt.npz, or the folder that holds it; or a folder of true masks, *.png"
    )
    parser.add_argument(
        "out", type=Path, nargs="?", metavar="OUT", help="folder of `motion4d analyze`; none: inputs only"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the scores to a JSON file")
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Prints the table; exit status 0. Raises `Motion4DError` for input that does not fit."""
    truth: Path = arguments.truth
    if truth.is_dir() and not (truth / "gt.npz").exists() and any(truth.glob("*.png")):
        if arguments.out is None:
            raise Motion4DError(f"{truth}: true masks score an analysis; name its folder, too")
        table = score_video(read_true_masks(truth), arguments.out)
    else:
        table = score(load_truth(truth), arguments.out)
    Console().print(score_table(table))
    if arguments.json is not None:
        write_text(arguments.json, json.dumps(table, indent=2) + "\n")
    return 0


def score_table(scores: dict[str, Scores]) -> Table:
    """One column per result, one row per measure."""
    table = Table("measure", *scores, "meaning")
    for name, meaning in COLUMNS.items():
        if all(name in values for values in scores.values()):
            table.add_row(name, *(format_score(name, values[name]) for values in scores.values()), meaning)
    return table


def format_score(name: str, value: float) -> str:
    """Counts as integers, errors in m with three decimals, shares with three."""
    return f"{value:.0f}" if name in ("flips", "labels") else f"{value:.3f}"
