"""`motion4d evaluate`: scores of an analysis against ground truth, as a table or as JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from motion4d_ros.evaluation.compare import compare
from motion4d_ros.evaluation.score import COLUMNS, Scores
from motion4d_ros.files import write_text

TABLE_WIDTH = 120  # columns, where the output is no terminal
EXAMPLES = """\
examples:
  motion4d evaluate true_masks/ out     masks alone: one PNG per frame (or for some, numbered)
  motion4d evaluate scene/gt.npz out    masks, and tracks if the analysis had --queries from the same truth"""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds `evaluate` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "evaluate",
        help="score results against ground truth",
        description="Scores the masks and tracks of an analysis against ground truth: final, online (as they stood\n"
        "when each window closed) and, where the truth holds them, what the 2D inputs alone give (priors).",
        epilog="\n".join([EXAMPLES, "", "measures:", *(f"  {name:<11}{text}" for name, text in COLUMNS.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "truth",
        type=Path,
        metavar="GT",
        help="gt.npz, or the folder that holds it; or a folder of true masks (*.png: ids, or 0 and 255 for one object)",
    )
    parser.add_argument(
        "out", type=Path, nargs="?", metavar="OUT",
        help="folder of `motion4d analyze`, or of label images; left out: the truth's own inputs only",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the scores to a JSON file")
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Prints the table; exit status 0. Raises `Motion4DError` for input that does not fit."""
    result = compare(arguments.truth, arguments.out)
    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
    console.print(score_table(result.scores))
    for remark in result.remarks:
        console.print(f"note: {remark}", highlight=False, markup=False, soft_wrap=True)
    if arguments.json is not None:
        content = dict(result.scores) | ({"remarks": result.remarks} if result.remarks else {})
        write_text(arguments.json, json.dumps(content, indent=2) + "\n")
    return 0


def score_table(scores: dict[str, Scores]) -> Table:
    """One column per result, one row per measure."""
    table = Table("measure", *scores, "meaning")
    for name, meaning in COLUMNS.items():
        if any(name in values for values in scores.values()):
            cells = (format_score(name, values[name]) if name in values else "" for values in scores.values())
            table.add_row(name, *cells, meaning)
    return table


def format_score(name: str, value: float) -> str:
    """Counts as integers, errors in m with three decimals, shares with three."""
    return f"{value:.0f}" if name in ("flips", "labels") else f"{value:.3f}"
