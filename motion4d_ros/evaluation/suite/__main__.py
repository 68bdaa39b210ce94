"""``python -m motion4d_ros.evaluation.suite``: analyses everything there is, scores it and prints the tables.

Results gather in OUT/results.json, so that recordings can be run one by one; `--docs` puts the tables into a page.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console

from motion4d_ros.evaluation.suite.cases import ABLATION_CASES, Case, all_cases, shared_data
from motion4d_ros.evaluation.suite.runner import VARIANTS, run_case
from motion4d_ros.evaluation.suite.tables import fill_page, render_tables
from motion4d_ros.failures import guarded
from motion4d_ros.files import write_text
from motion4d_ros.offline.results.metrics import versions
from motion4d_ros.types import Motion4DError


def main(words: list[str] | None = None) -> int:
    """Exit status 0; 1 if an analysis failed; 2 after one line on what the user can mend."""
    options = _parser().parse_args(words)
    console = Console()
    try:
        return _run(options, console)
    except Motion4DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m motion4d_ros.evaluation.suite", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this recording only; repeatable")
    parser.add_argument("--quick", action="store_true", help="16 frames of each: a smoke test, not a measurement")
    parser.add_argument(
        "--ablation", action="store_true", help=f"also with each part off in turn: {', '.join(ABLATION_CASES)}"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help="for all runs")
    parser.add_argument("--shared", type=Path, default=shared_data(), metavar="DIR", help="default: ../shared/data")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: out/eval, with --quick out/eval_quick")
    parser.add_argument(
        "--docs", type=Path, metavar="FILE", help="page whose tables are renewed, docs/explanation/evaluation.md"
    )
    parser.add_argument("--tables", action="store_true", help="run nothing, only show the tables of OUT/results.json")
    return parser


def _run(options: argparse.Namespace, console: Console) -> int:
    if options.quick and options.docs is not None:
        raise Motion4DError("--quick measures nothing worth a page: leave out --docs or --quick")
    options.out = options.out or Path("out/eval_quick" if options.quick else "out/eval")
    cases = all_cases(options.shared, options.quick)
    chosen = _choose(cases, options.only)
    options.out.mkdir(parents=True, exist_ok=True)
    store = options.out / "results.json"
    records = _load(store)
    failed = 0
    for case, variant in [] if options.tables else _plan(chosen, options.ablation):
        if reason := case.missing():
            console.print(f"{case.name}: left out, {reason}")
            continue
        console.print(f"{case.name}, {variant} …")
        record = run_case(case, variant, options.out, options.settings, with_inputs=variant == "full")
        if record["error"]:
            failed += 1
            console.print(f"  failed: {record['error']}", markup=False)
        records.setdefault(case.name, {})[variant] = record
        write_text(store, json.dumps(records, indent=1))
    tables = render_tables(records, {case.name: case.group for case in cases})
    for name, text in tables.items():
        console.print(f"\n{name}\n\n{text}", markup=False, soft_wrap=True)
    if options.docs is not None:
        fill_page(options.docs, {**tables, "provenance": _provenance()})
    return 1 if failed else 0


def _choose(cases: list[Case], only: list[str]) -> list[Case]:
    names = [case.name for case in cases]
    for name in only:
        if name not in names:
            raise Motion4DError(f"--only {name}: choose among {', '.join(names)}")
    return [case for case in cases if not only or case.name in only]


def _plan(cases: list[Case], ablation: bool) -> list[tuple[Case, str]]:
    plan = [(case, "full") for case in cases]
    if ablation:
        plan += [
            (case, variant)
            for case in cases
            if case.name in ABLATION_CASES
            for variant in VARIANTS
            if variant != "full"
        ]
    return plan


def _load(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except ValueError:
        raise Motion4DError(f"{path}: damaged; remove it to start anew") from None


def _provenance() -> str:
    found = {**versions(), "cpu": _processor(), "cores": str(os.cpu_count())}
    date = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    words = ", ".join(f"{name} {value}" for name, value in found.items())
    return f"Tables written {date} by `python -m motion4d_ros.evaluation.suite {' '.join(sys.argv[1:])}`; {words}."


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    sys.exit(guarded("suite", main))
