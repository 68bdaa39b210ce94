"""Times the renderers on random scenes: ``python -m motion4d_ros.evaluation.bench_render [--device cuda]``.

A *pair* is one pixel blended with one Gaussian; passes are compared by ns per pair, since pairs are the work. Each
figure is the least of several runs, so that other work on the machine disturbs it least. Where the cores are never
free, ``--clock cpu`` counts the processor time of one thread instead of the time on the wall.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from motion4d_ros.evaluation.splat_scenes import SplatScene, random_image_gradients, random_scene
from motion4d_ros.failures import guarded
from motion4d_ros.logs import told
from motion4d_ros.render.gpu import prove_gpu
from motion4d_ros.types import Camera, Motion4DError

GAUSSIANS = (3_000, 10_000, 30_000)
CHANNELS = (3, 8, 16, 32)
SIZES = ((320, 240), (640, 480))
SIZE_M = 0.04  # largest standard deviation: about 200 pixels a Gaussian at 320x240
OPACITY = 0.5


@dataclass
class Timing:
    """One scene with one back end."""

    backend: str
    threads: int  # 0: not applicable
    count: int
    channels: int
    width: int
    height: int
    pairs: int
    forward_s: float
    backward_s: float


def bench_scene(count: int, channels: int, width: int, height: int) -> SplatScene:
    """The scene that is timed: always the same, the view angle that of a common camera."""
    camera = Camera(0.8 * width, 0.8 * width, (width - 1) / 2, (height - 1) / 2, width, height)
    return random_scene(1, count, channels, camera, size=SIZE_M, opacity=OPACITY)


def bench_scenes(quick: bool) -> Iterator[SplatScene]:
    """All scenes of the table, or only the one that others report: 10 000 Gaussians, 320x240, 3 channels."""
    if quick:
        yield bench_scene(10_000, 3, 320, 240)
        return
    for (width, height), count, channels in itertools.product(SIZES, GAUSSIANS, CHANNELS):
        yield bench_scene(count, channels, width, height)


def describe(scene: SplatScene) -> str:
    """A scene in a line."""
    count, channels = scene.features.shape
    return f"{scene.camera.width}x{scene.camera.height}, {count} Gaussians, {channels} channels"


def time_render(
    scene: SplatScene, backend: str, threads: int, pairs: int, seconds: float, clock: Callable[[], float]
) -> Timing:
    """Forward and backward of `scene`, repeated for about `seconds`; the least by `clock` (s) counts."""
    leaf = scene.requires_grad()
    given = random_image_gradients(scene, 2)
    synchronise = torch.cuda.synchronize if scene.means.is_cuda else _nothing
    forward: list[float] = []
    backward: list[float] = []
    end = time.perf_counter() + seconds
    while len(forward) < 3 or (time.perf_counter() < end and len(forward) < 200):
        synchronise()
        start = clock()
        out = leaf.render(backend, threads=threads)
        synchronise()
        between = clock()
        torch.autograd.grad([out.features, out.alpha, out.depth_sum], leaf.inputs(), list(given))
        synchronise()
        forward.append(between - start)
        backward.append(clock() - between)
    count, channels = scene.features.shape
    camera = scene.camera
    return Timing(backend, threads, count, channels, camera.width, camera.height, pairs, min(forward), min(backward))


def _nothing() -> None:
    pass


def table(timings: list[Timing]) -> str:
    """The timings as a Markdown table."""
    lines = [
        "| image | Gaussians | channels | pairs | back end | threads | forward ms | backward ms | ns/pair fwd | bwd |",
        "|---|--:|--:|--:|---|--:|--:|--:|--:|--:|",
    ]
    for t in timings:
        per_pair = 1e9 / max(t.pairs, 1)
        lines.append(
            f"| {t.width}x{t.height} | {t.count} | {t.channels} | {t.pairs / 1e6:.2f} M | {t.backend} "
            f"| {t.threads or '–'} | {1e3 * t.forward_s:.2f} | {1e3 * t.backward_s:.2f} "
            f"| {per_pair * t.forward_s:.2f} | {per_pair * t.backward_s:.2f} |"
        )
    return "\n".join(lines)


def machine() -> str:
    """What the figures were taken on, in one line."""
    from motion4d_ros.raster_library import load_library

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    load = f"load {os.getloadavg()[0]:.1f} on {len(os.sched_getaffinity(0))} cores"
    kernels = load_library().m4d_raster_isa().decode()
    return f"{cpu}, kernels {kernels}, PyTorch {torch.__version__}, {load}"


def bench_cpu(arguments: argparse.Namespace, say: Callable[[str], None]) -> list[Timing]:
    """Every scene on one thread and on `--threads`, and the reference beside the small ones."""
    timings: list[Timing] = []
    torch.set_num_threads(1)
    by_cpu = arguments.clock == "cpu"
    clock = time.process_time if by_cpu else time.perf_counter
    thread_counts = [1] if by_cpu else sorted({1, arguments.threads})
    for scene in bench_scenes(arguments.quick):
        pairs = scene.render("cpu", stats=True).pairs or 0
        for threads in thread_counts:
            timings.append(time_render(scene, "cpu", threads, pairs, arguments.seconds, clock))
        if scene.features.shape[1] == CHANNELS[0] and not arguments.skip_reference:
            timings.append(time_render(scene, "reference", 1, pairs, arguments.seconds, clock))
        say(describe(scene))
    return timings


def bench_cuda(arguments: argparse.Namespace, say: Callable[[str], None]) -> list[Timing]:
    """Every scene with gsplat on the GPU. Pairs are counted by the C++ library."""
    timings = []
    for scene in bench_scenes(arguments.quick):
        pairs = scene.render("cpu", stats=True).pairs or 0
        timings.append(time_render(scene.to("cuda"), "gsplat", 0, pairs, arguments.seconds, time.perf_counter))
        say(describe(scene))
    return timings


def verdict(timings: list[Timing]) -> str:
    """Speed-up over the reference and from threads at the reference scene: 10 000 Gaussians, 320x240, 3 channels."""

    def find(backend: str, many: bool) -> Timing | None:
        for t in timings:
            reference = (t.count, t.channels, t.width) == (10_000, 3, 320)
            if reference and t.backend == backend and (t.threads > 1) == many:
                return t
        return None

    one, more, reference = find("cpu", False), find("cpu", True), find("reference", False)
    lines = []
    if one and reference:
        ratio = (reference.forward_s + reference.backward_s) / (one.forward_s + one.backward_s)
        lines.append(f"10 000 Gaussians, 320x240, 3 channels: {ratio:.1f}x the PyTorch tile renderer on one thread")
    if one and more:
        ratio = (one.forward_s + one.backward_s) / (more.forward_s + more.backward_s)
        lines.append(f"the same on {more.threads} threads: {ratio:.2f}x one thread")
    worst = [t for t in timings if t.backend == "cpu" and t.threads == 1]
    if worst:
        forward = max(1e9 * t.forward_s / max(t.pairs, 1) for t in worst)
        backward = max(1e9 * t.backward_s / max(t.pairs, 1) for t in worst)
        lines.append(f"slowest on one thread: {forward:.1f} ns a pair forward, {backward:.1f} ns backward")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="bench_render", description="times the renderers on random scenes")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="the second thread count")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a busy machine")
    parser.add_argument("--seconds", type=float, default=1.0, help="time spent on each line of the table")
    parser.add_argument("--quick", action="store_true", help="only 10 000 Gaussians at 320x240 with 3 channels")
    parser.add_argument("--skip-reference", action="store_true", help="leave out the slow PyTorch renderer")
    arguments = parser.parse_args(argv)

    def say(text: str) -> None:
        print(text, file=sys.stderr)

    try:
        print(f"{machine()}, {'processor' if arguments.clock == 'cpu' else 'wall'} time")
        if arguments.device == "cuda":
            if not torch.cuda.is_available():
                print("SKIP: PyTorch sees no CUDA GPU, so gsplat was not timed")
                return 0
            with told(lambda level, text: say(text)):
                report = prove_gpu()
            if report.problem:
                raise Motion4DError(f"{report.problem}: {report.remedy}")
            print(f"{report.gpu}, CUDA {report.cuda}, gsplat {report.gsplat}")
            print(table(bench_cuda(arguments, say)))
            return 0
        timings = bench_cpu(arguments, say)
    except Motion4DError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(timings))
    print()
    print(verdict(timings))
    return 0


if __name__ == "__main__":
    sys.exit(guarded("bench_render", main))
