"""`motion4d benchmark`: a public data set, analysed and scored, beside what others published."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from motion4d_ros.files import write_text
from motion4d_ros.offline.command import add_config_options, read_config
from motion4d_ros.options import no_such_path
from motion4d_ros.types import Motion4DError

if TYPE_CHECKING:
    from motion4d_ros.evaluation.benchmarks.driver import MapSequences, Outcome, Task
    from motion4d_ros.evaluation.benchmarks.interfaces import Benchmark

TABLE_WIDTH = 140  # columns, where the output is no terminal
EXAMPLES = """\
examples:
  motion4d benchmark davis2017 --root ~/DAVIS --out out/davis2017            first frame given
  motion4d benchmark davis2016 --root ~/DAVIS --out out/u --given nothing    what moves is found by itself
  motion4d benchmark tapvid-davis --root ~/tapvid_davis --out out/tap        queries first and strided
  motion4d benchmark bonn --root ~/rgbd_bonn --only rgbd_bonn_balloon --limit 200 --out out/bonn

A sequence that is done is left alone, so the same command goes on where it was stopped. DIR then holds results.md and
results.json, and every analysis in NAME/result."""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds `benchmark` to the command line."""
    from motion4d_ros.evaluation.benchmarks.interfaces import FIRST_MASK, GIVEN
    from motion4d_ros.evaluation.benchmarks.registry import BENCHMARKS

    known = "\n".join(f"  {each.name:<13} {each.title}; DIR holds {each.layout}" for each in BENCHMARKS.values())
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "benchmark",
        help="score a public data set by its own protocol",
        description="Analyses the sequences of a public data set, each in a process of its own, scores them by its\n"
        "own protocol, and prints what others published beside.",
        epilog=f"{EXAMPLES}\n\nbenchmarks:\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", metavar="NAME", help="which one (list below)")
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="where the data set lies")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for results; left out: out/benchmark/NAME")
    parser.add_argument("--only", metavar="A,B", help="these sequences")
    parser.add_argument(
        "--limit", type=_frames, metavar="N", help="the first N frames of each, which the row then says"
    )
    parser.add_argument("--given", choices=GIVEN, default=FIRST_MASK, help="DAVIS: what is shown of the truth")
    parser.add_argument("--again", action="store_true", help="do again what is done")
    parser.add_argument("--list", action="store_true", dest="listing", help="name the sequences, and end")
    add_config_options(parser.add_argument_group("settings, as of `motion4d analyze`"))
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace, map_sequences: MapSequences | None = None) -> int:
    """Does the sequences and prints the table; exit status 0, or 1 where one has no figures. Raises `Motion4DError`.

    `map_sequences` applies a function to tasks, on whatever machines; left out: one by one, here.
    """
    from motion4d_ros.evaluation.benchmarks.driver import check_unchanged, forget, one_by_one, perform

    benchmark = _benchmark(arguments.name)
    names = _sequences(benchmark, arguments.root, arguments.only)
    if arguments.listing:
        sys.stdout.write("".join(f"{name}\n" for name in names))
        return 0
    read_config(arguments)  # what is wrong with the settings is told now
    out = arguments.out or Path("out") / "benchmark" / benchmark.name
    tasks = _tasks(benchmark, arguments, out, names)
    if arguments.again:
        forget(tasks)
    check_unchanged(tasks)
    outcomes: list[Outcome] = []
    for outcome in (map_sequences or one_by_one)(perform, tasks):
        outcomes.append(outcome)
        _say(outcome, len(outcomes), len(tasks))
    outcomes.sort(key=lambda outcome: names.index(outcome.name))
    _report(benchmark, outcomes, _label(arguments), out)
    return int(any(outcome.failure for outcome in outcomes))


def _benchmark(name: str) -> Benchmark:
    import difflib

    from motion4d_ros.evaluation.benchmarks.registry import BENCHMARKS

    if name not in BENCHMARKS:
        near = difflib.get_close_matches(name, BENCHMARKS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(BENCHMARKS)}"
        raise Motion4DError(f"there is no benchmark {name!r}: {hint}")
    return BENCHMARKS[name]


def _sequences(benchmark: Benchmark, root: Path, only: str | None) -> list[str]:
    if not root.exists():
        raise no_such_path(root)
    names = benchmark.sequences(root)
    if not names:
        raise Motion4DError(f"{root}: holds no {benchmark.title}: expected {benchmark.layout}")
    wanted = [name.strip() for name in only.split(",") if name.strip()] if only else names
    if not wanted:
        raise Motion4DError(f"--only {only}: names no sequence; --list names them")
    for name in wanted:
        if name not in names:
            raise Motion4DError(f"--only {name}: not a sequence of {root}; --list names them")
    return wanted


def _tasks(benchmark: Benchmark, arguments: argparse.Namespace, out: Path, names: list[str]) -> list[Task]:
    from motion4d_ros.evaluation.benchmarks.driver import Task
    from motion4d_ros.evaluation.benchmarks.interfaces import Place

    words = [word for setting in arguments.settings for word in ("--set", setting)]
    words += ["--preset", arguments.preset] if arguments.preset else []
    words += ["--config", str(arguments.config.resolve())] if arguments.config else []
    root = arguments.root.resolve()
    return [
        Task(
            benchmark.name,
            Place(root, name, arguments.limit, arguments.given),
            (out / _folder_name(name)).resolve(),
            tuple(words),
        )
        for name in names
    ]


def _folder_name(name: str) -> str:
    """A name in a list of sequences may be anything; its folder lies in that of all results."""
    clean = name.replace("/", "_").replace("\0", "_")
    return f"_{clean}" if clean in ("", ".", "..") else clean


def _label(arguments: argparse.Namespace) -> str:
    """What our row is called: everything that makes it another row."""
    parts = [f"preset {arguments.preset}" if arguments.preset else ""]
    parts += [f"config {arguments.config.name}" if arguments.config else "", *arguments.settings]
    parts += ["nothing given" if arguments.given == "nothing" else ""]
    parts += [f"first {arguments.limit} frames" if arguments.limit else ""]
    said = ", ".join(part for part in parts if part)
    return f"ours ({said})" if said else "ours"


def _say(outcome: Outcome, number: int, count: int) -> None:
    """A line when a sequence is through."""
    if outcome.failure:
        text = f"no figures: {outcome.failure}"
    else:
        figures = ", ".join(f"{name} {value:.3f}" for name, value in list(outcome.figures.items())[:3])
        text = f"{figures} ({'done before' if outcome.again else f'{outcome.seconds:.0f} CPU s'})"
    sys.stderr.write(f"{number}/{count} {outcome.name}: {text}\n")
    sys.stderr.flush()


def _report(benchmark: Benchmark, outcomes: list[Outcome], label: str, out: Path) -> None:
    from motion4d_ros.evaluation.benchmarks.tables import as_json, markdown, remarks, terminal_table

    console = Console()
    if not console.is_terminal:
        console = Console(width=TABLE_WIDTH)
    write_text(out / "results.json", json.dumps(as_json(benchmark, outcomes, label), indent=2) + "\n")
    write_text(out / "results.md", markdown(benchmark, outcomes, label))
    console.print(terminal_table(benchmark, outcomes, label))
    for remark in remarks(benchmark, outcomes):
        console.print(remark, highlight=False, markup=False, soft_wrap=True)


def _frames(text: str) -> int:
    try:
        count = int(text)
    except ValueError:
        count = 0
    if count < 3:
        raise argparse.ArgumentTypeError(f"{text}: a number of frames, 3 at least")
    return count
