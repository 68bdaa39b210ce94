#!/usr/bin/env python3
"""Measures `motion4d batch`: against a shell loop, on one and two Ray nodes of one core; memory over many recordings.

    tools/measure_batch.py throughput --count 40
    tools/measure_batch.py memory --count 10000

`throughput` analyses made-up recordings of a few small frames, so that what surrounds an analysis shows. On a machine
that others use, processor seconds and the share of time in which the nodes were busy say more than the clock.
Every figure of docs/how-to/batch.md names its command.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from motion4d_ros.batch.carriers import Needs, Outcome
from motion4d_ros.children import environment, module_command

SIZE = 48, 64  # px
QUICK = ["--preset", "fast", "--set", "masks.source=none", "--set", "run.threads=1", "--fps", "10"]
MIB = 2**20


def make_recordings(folder: Path, count: int, frames: int) -> list[Path]:
    """Folders of small images in which a square moves."""
    found = []
    for number in range(count):
        images = folder / f"clip{number:03d}" / "images"
        images.mkdir(parents=True)
        ground = np.random.default_rng(number).integers(0, 255, (12, 16, 3)).astype(np.uint8)
        ground = cv2.resize(ground, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
        for index in range(frames):
            image = ground.copy()
            image[16:32, 6 + 3 * index : 22 + 3 * index] = (30, 40, 220)
            cv2.imwrite(str(images / f"{index:03d}.png"), image)
        found.append(images)
    return found


@dataclass
class Cost:
    """Of a way to analyse all recordings."""

    wall_s: float
    cpu_s: float
    busy: float = 1.0  # share of the nodes' time in which they worked on a recording


def children_cpu() -> float:
    """Processor seconds of the processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def shell_loop(recordings: Sequence[Path], out: Path) -> Cost:
    """`for r in …; do motion4d analyze $r --out out/$r; done`."""
    started, before = time.monotonic(), children_cpu()
    for recording in recordings:
        words = ["analyze", str(recording), "--out", str(out / recording.parent.name), *QUICK]
        command = module_command("motion4d_ros.cli", *words)
        subprocess.run(command, env=environment(), check=True, capture_output=True)
    return Cost(time.monotonic() - started, children_cpu() - before)


def on_nodes(recordings: Sequence[Path], out: Path, nodes: int) -> Cost:
    """`motion4d batch` on a Ray cluster of so many nodes with one core each."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_worker_niceness="0", PYTHONPATH=environment()["PYTHONPATH"])
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=1)
        started, before, ray = time.monotonic(), children_cpu(), tree_cpu()
        words = ["batch", *map(str, recordings), "--out", str(out), "--address", cluster.address, *QUICK]
        subprocess.run(module_command("motion4d_ros.cli", *words), env=environment(), check=True, capture_output=True)
        wall, cpu = time.monotonic() - started, children_cpu() - before + tree_cpu() - ray
    finally:
        cluster.shutdown()
    rows = json.loads((out / "summary.json").read_text())["recordings"]
    seconds = sum(row["seconds"] for row in rows)
    return Cost(wall, cpu + sum(row["cpu_seconds"] for row in rows), seconds / (nodes * wall))


def tree_cpu() -> float:
    """Processor seconds of the processes below this one that still run: those of the cluster."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def throughput(arguments: argparse.Namespace) -> None:
    """A table of three ways."""
    with tempfile.TemporaryDirectory(prefix="measure-batch-") as folder:
        work = Path(folder)
        recordings = make_recordings(work / "in", arguments.count, arguments.frames)
        costs = {"shell loop": shell_loop(recordings, work / "loop")}
        for nodes in (1, 2):
            costs[f"batch, {nodes} node{'s' if nodes > 1 else ''}"] = on_nodes(recordings, work / f"n{nodes}", nodes)
    loop = costs["shell loop"]
    print(f"{arguments.count} recordings of {arguments.frames} frames, {SIZE[1]}x{SIZE[0]} px; load {os.getloadavg()}")
    print(f"{'':16}{'wall, s':>10}{'CPU, s':>10}{'each':>12}{'more than loop':>16}{'nodes busy':>12}{'x loop':>8}")
    for name, cost in costs.items():
        more = (cost.cpu_s - loop.cpu_s) / arguments.count
        print(
            f"{name:16}{cost.wall_s:10.1f}{cost.cpu_s:10.1f}{cost.cpu_s / arguments.count:12.2f}{more:16.2f}"
            f"{100 * cost.busy:11.0f}%{loop.wall_s / cost.wall_s:8.2f}",
            flush=True,
        )


def simulated(task: dict[str, Any]) -> dict[str, Any]:
    """In place of an attempt: the answer of one."""
    figures = {"frames": 100, "objects": 3, "seconds": 9.9, "cpu_seconds": 9.5, "top_speed": 1.5, "unit": "m"}
    return {"state": "ok", "node": "simulated", **figures}


def memory(arguments: argparse.Namespace) -> None:
    """Resident memory of the driver and of the process that speaks with Ray, as recordings come to their end."""
    from motion4d_ros.batch.command import Batch, run_batch
    from motion4d_ros.batch.launchers.ray_launcher import RayLauncher

    class Counting(RayLauncher):
        """Counts what has come to its end."""

        ended = 0

        def collect(self, wait_s: float) -> list[tuple[int, Outcome]]:
            found = super().collect(wait_s)
            self.ended += len(found)
            return found

    marks: list[tuple[int, float, float]] = []
    ended = threading.Event()
    needs = Needs(cpus=0.25)  # several at once: they only answer
    launcher = Counting(needs, function="measure_batch:simulated")

    def watch() -> None:
        own = psutil.Process()
        while not ended.wait(0.2):
            other = 0
            with contextlib.suppress(psutil.Error):  # it has ended
                speakers = [child for child in own.children() if "ray_process" in " ".join(child.cmdline())]
                other = sum(child.memory_info().rss for child in speakers)
            marks.append((launcher.ended, own.memory_info().rss / MIB, other / MIB))

    with tempfile.TemporaryDirectory(prefix="measure-batch-") as folder:
        inputs = Path(folder) / "in"
        inputs.mkdir()
        for number in range(arguments.count):
            (inputs / f"ride{number:06d}.mp4").touch()
        threading.Thread(target=watch, daemon=True).start()
        started = time.monotonic()
        batch = Batch([f"{inputs}/*.mp4"], f"{folder}/out", [], needs)
        status = run_batch(batch, launcher)
        ended.set()
        page = (Path(folder) / "out" / "index.html").stat().st_size
    print(f"status {status}, {time.monotonic() - started:.0f} s, index.html {page / MIB:.1f} MiB")
    print(f"{'ended':>8}{'driver, MiB':>14}{'Ray process, MiB':>18}")
    for wanted in np.linspace(0, arguments.count, 11).astype(int).tolist():
        if seen := [mark for mark in marks if mark[0] >= wanted and mark[2] > 0]:
            print("{:8d}{:14.1f}{:18.1f}".format(*seen[0]))
    print(f"largest after the last: driver {marks[-1][1]:.1f} MiB")


def main() -> int:
    """Runs what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for function, count in ((throughput, 40), (memory, 10_000)):
        command = commands.add_parser(function.__name__)
        command.add_argument("--count", type=int, default=count)
        command.add_argument("--frames", type=int, default=3)
        command.set_defaults(run=function)
    arguments = parser.parse_args()
    arguments.run(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
