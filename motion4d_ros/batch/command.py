"""`motion4d batch`: options, and what is said."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motion4d_ros.batch.carriers import FAILED, Needs
from motion4d_ros.batch.launchers.interfaces import Launcher
from motion4d_ros.batch.places import HIDDEN, Place, is_url, place_at
from motion4d_ros.batch.plan import KEEP, REDO, REFUSE
from motion4d_ros.batch.recording_options import words_of
from motion4d_ros.errors import Motion4DError
from motion4d_ros.failures import DEFECT, Stopped, describe
from motion4d_ros.offline.command import add_recording_options, presets_text
from motion4d_ros.offline.interrupt import Interrupt
from motion4d_ros.offline.resources import package_version

EXAMPLES = """\
examples:
  motion4d batch 'clips/*.mp4' --out all --preset fast        all cores of this machine
  motion4d batch bags/ride_*/ --out all --cpus 2 --memory 4G --timeout 3600
  motion4d batch list.csv --out all                           columns: input, name, and any option: fps, depth, set, …
  motion4d batch 's3://bucket/bags/*.mcap' --out s3://bucket/results --address head:6379
  motion4d batch list.json --out /shared/all --launcher slurm --slurm partition=long --jobs 100

The same command again does what is not done: finished recordings are left alone, failed ones are tried again.
exit status: 0 all are ok; 1 some failed, or the cluster went away; 2 for you to mend; 130 Ctrl-C (done is done)"""
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Adds `batch` to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "batch",
        help="analyze many recordings, on one machine or a cluster",
        description="Analyses many recordings, each in a process of its own, on the cores of this machine or on a "
        "cluster; one folder for each in DIR, as `analyze` writes it, and a page over all (docs/how-to/batch.md).",
        epilog=f"{EXAMPLES}\n\n{presets_text()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="recordings (paths, URLs, 'patterns*'), a list (.txt) or a manifest "
        "(.csv, .json) with options for each",
    )  # fmt: skip
    parser.add_argument("--out", required=True, metavar="DIR|URL", help="folder for all results")
    parser.add_argument(
        "--changed", choices=(REFUSE, REDO, KEEP), default=REFUSE,
        help="finished results of other settings or of another version: refuse (the default), analyse again, keep",
    )  # fmt: skip
    each = parser.add_argument_group("what each recording gets")
    each.add_argument("--cpus", type=_amount, default=1.0, metavar="N", help="cores (1)")
    each.add_argument("--gpus", type=_share, default=0.0, metavar="N", help="GPUs, such as 0.5; 0: it sees none (0)")
    each.add_argument("--memory", type=_bytes, default=0, metavar="SIZE", help="such as 4G; what takes more is ended")
    each.add_argument("--timeout", type=_amount, default=0.0, metavar="S", help="seconds; what takes longer is ended")
    each.add_argument(
        "--retries", type=_count, default=1, metavar="N", help="further attempts where a process, a node, a disk or a "
        "transfer failed (1)",
    )  # fmt: skip
    where = parser.add_argument_group("where")
    where.add_argument("--launcher", choices=("ray", "slurm"), default="ray", help="ray (the default), or slurm")
    where.add_argument("--address", default="", metavar="HOST:PORT", help="head node of a Ray cluster, or auto")
    where.add_argument("--jobs", type=_count, default=0, metavar="N", help="recordings at once, at most")
    where.add_argument(
        "--slurm", action="append", default=[], metavar="KEY=VALUE", help="partition, account, …; folder=DIR: for logs"
    )
    add_recording_options(parser)
    parser.set_defaults(run=run)
    return parser


@dataclass
class Batch:
    """What the command line asks for."""

    inputs: list[str]
    out: str
    words: list[str]
    needs: Needs
    retries: int = 1
    changed: str = REFUSE


def run(arguments: argparse.Namespace) -> int:
    """Runs the batch; the exit status. Raises `Motion4DError` before anything is begun."""
    needs = Needs(arguments.cpus, arguments.gpus, arguments.memory, arguments.timeout)
    out = arguments.out if is_url(arguments.out) else str(Path(arguments.out).expanduser().resolve())
    batch = Batch(arguments.inputs, out, words_of(arguments), needs, arguments.retries, arguments.changed)
    return run_batch(batch, make_launcher(arguments, needs, out))


def make_launcher(arguments: argparse.Namespace, needs: Needs, out: str) -> Launcher:
    """Who runs the recordings. Raises `Motion4DError` for what does not fit together."""
    if arguments.launcher == "ray":
        if arguments.slurm:
            raise Motion4DError("--slurm is for --launcher slurm")
        from motion4d_ros.batch.launchers.ray_launcher import RayLauncher

        return RayLauncher(needs, arguments.address, arguments.jobs)
    if arguments.address:
        raise Motion4DError("--address is for --launcher ray")
    settings = {}
    for setting in arguments.slurm:
        key, equals, value = setting.partition("=")
        if not equals:
            raise Motion4DError(f"--slurm {setting}: expected key=value")
        settings[key.strip()] = value.strip()
    folder = settings.pop("folder", "")
    if not folder and is_url(out):
        raise Motion4DError(
            "--launcher slurm with a URL as --out needs a folder that all nodes see: --slurm folder=DIR"
        )
    from motion4d_ros.batch.launchers.slurm_launcher import SlurmLauncher

    return SlurmLauncher(needs, Path(folder or Path(out) / HIDDEN / "slurm").absolute(), settings, arguments.jobs)


def run_batch(batch: Batch, launcher: Launcher) -> int:
    """Plans, runs and sums up; the exit status."""
    from motion4d_ros.batch.driver import Driver
    from motion4d_ros.batch.inputs import read_inputs
    from motion4d_ros.batch.overview.progress import batch_progress
    from motion4d_ros.batch.plan import make_plan

    started, version = time.monotonic(), package_version()
    place = place_at(batch.out)
    with Interrupt() as stop:
        recordings = read_inputs(batch.inputs, batch.words)
        place.open()
        try:
            plan = make_plan(recordings, place, version, batch.needs.cpus, batch.changed, _say)
            before = len(plan.done)
            driver = Driver(plan, place, batch.needs, batch.retries, version)
            stop.hold()
            with batch_progress(sys.stderr, len(plan.todo)) as progress:
                if plan.todo:
                    with launcher:
                        driver.run(launcher, progress, stop.requested)
                else:
                    driver.run(_Idle(), progress, stop.requested)
            driver.close()
            return _end(driver, place, stop, before, time.monotonic() - started)
        except Stopped as stopped:  # a second Ctrl-C
            _say("interrupted: what is finished is kept, but there is no summary of it")
            return 128 + stopped.number
        finally:
            place.close()


def _end(driver: Any, place: Place, stop: Interrupt, before: int, seconds: float) -> int:
    """Writes the summaries and says how it went; the exit status."""
    from motion4d_ros.batch.overview.progress import duration
    from motion4d_ros.batch.overview.rows import totals
    from motion4d_ros.batch.overview.summary import write_summary

    about = {
        "version": package_version(), "ended": time.strftime("%Y-%m-%d %H:%M:%S"), "interrupted": driver.ended_early,
        "call_seconds": round(seconds, 2), "finished_before": before,
    }  # fmt: skip
    unwritten = ""
    try:
        write_summary(driver.rows, place, about)
    except (Motion4DError, OSError) as error:
        unwritten = " ".join(describe(error).split())
    states = totals(driver.rows).states
    driver.rows.close()
    counts = [f"{states['ok']} ok" + (f" ({before} of them before)" if before else "")]
    counts += [f"{states[name]} {word}" for name, word in ((FAILED, "failed"), ("open", "not done")) if states[name]]
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(f"{', '.join(counts)} in {duration(seconds)}\n{place.name}/index.html\n")
        sys.stdout.flush()
    if unwritten:
        _say(f"error: the summary could not be written: {unwritten}")
    if stop.requested():
        _say("interrupted: what is finished is kept, the same command goes on with the rest")
        return 128 + stop.number
    if driver.ended_early:
        _say(f"error: {driver.ended_early}")
    return DEFECT if states[FAILED] or driver.ended_early or unwritten else 0


class _Idle:
    """A `Launcher` where there is nothing to run."""

    def __enter__(self) -> _Idle:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def room(self) -> int:
        return 0

    def submit(self, number: int, task: dict[str, Any]) -> None:
        return

    def collect(self, wait_s: float) -> list[Any]:
        return []

    def avoid(self, node_id: str) -> None:
        return

    def notes(self) -> list[str]:
        return []


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"motion4d: {text}\n")
        sys.stderr.flush()


def _amount(text: str) -> float:
    value = _number(text)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number above 0")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0 on")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number") from None


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0 on")
    return int(text)


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = float(found[1]) * _UNITS[found[2].upper()] if found else 0.0
    if not 1.0 <= size < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a size such as 500M or 4G")
    return int(size)
