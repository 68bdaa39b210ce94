"""Does work or memory grow with the length of a run? A scene is played forth and back for as long as wanted.

python -m motion4d_ros.evaluation.endurance --frames 600 --plot docs/img/endurance.png
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import psutil

from motion4d_ros.config import Config
from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.evaluation.synthetic.scene import FRAME_PERIOD_NS
from motion4d_ros.failures import guarded
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.types import Frame


@dataclass
class Sample:
    """What one window cost."""

    frames: int  # pushed so far
    seconds: float  # of the push that closed the window
    resident_mib: float
    gaussians: int


def play(frames: Sequence[Frame], count: int, config: Config) -> list[Sample]:
    """Pushes `count` frames, the recording forth and back again and again; one sample per window."""
    engine, process, samples = Motion4D(config), psutil.Process(), []
    turn = 2 * len(frames) - 2
    for number in range(count):
        place = number % turn
        frame = frames[place if place < len(frames) else turn - place]
        started = time.perf_counter()
        engine.push(replace(frame, stamp_ns=(number + 1) * FRAME_PERIOD_NS))
        if (number + 1) % config.window.length == 0:
            health = engine.status()
            samples.append(
                Sample(
                    number + 1,
                    time.perf_counter() - started,
                    process.memory_info().rss / 2**20,
                    health.gaussians_static + health.gaussians_dynamic,
                )
            )
    return samples


def draw(samples: Sequence[Sample], path: Path) -> None:
    """Time per window, resident memory and number of Gaussians over the run."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt  # after the back end has been chosen

    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(7, 6))
    frames = [sample.frames for sample in samples]
    for axis, name, values in (
        (axes[0], "window, s", [sample.seconds for sample in samples]),
        (axes[1], "memory, MiB", [sample.resident_mib for sample in samples]),
        (axes[2], "Gaussians", [sample.gaussians for sample in samples]),
    ):
        axis.plot(frames, values)
        axis.set_ylabel(name)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[2].set_xlabel("frames")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: plays, prints first and last third, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", default="leave_return", help="preset of motion4d_ros.evaluation.synthetic")
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--size", type=int, nargs=2, default=(120, 160), metavar=("H", "W"))
    parser.add_argument("--set", dest="values", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--plot", type=Path, help="where to draw the curves (PNG)")
    arguments = parser.parse_args(argv)
    config = Config()
    config.update({"masks.source": "topic", "depth.source": "topic", "pose.source": "odometry"})
    config.update(dict(value.split("=", 1) for value in arguments.values))
    scene = make_scene(arguments.scene, size=tuple(arguments.size))
    samples = play(scene.frames(), arguments.frames, config)
    third = max(1, len(samples) // 3)
    for name, part in (("first third", samples[:third]), ("last third", samples[-third:])):
        print(
            f"{name}: {np.median([s.seconds for s in part]):.2f} s a window, "
            f"{max(s.resident_mib for s in part):.0f} MiB, {max(s.gaussians for s in part)} Gaussians"
        )
    if arguments.plot:
        draw(samples, arguments.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(guarded("endurance", main))
