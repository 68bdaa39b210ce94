"""The benchmarks by name."""

from __future__ import annotations

from motion4d_ros.evaluation.benchmarks.davis import Davis
from motion4d_ros.evaluation.benchmarks.dycheck import DyCheck
from motion4d_ros.evaluation.benchmarks.interfaces import Benchmark
from motion4d_ros.evaluation.benchmarks.tapvid import TapVidDavis
from motion4d_ros.evaluation.benchmarks.trajectories import RgbdDynamic, SevenScenes

_ALL: tuple[Benchmark, ...] = (
    Davis(2016),
    Davis(2017),
    TapVidDavis(),
    DyCheck(),
    RgbdDynamic("tum", "TUM RGB-D"),
    RgbdDynamic("bonn", "Bonn RGB-D Dynamic"),
    SevenScenes(),
)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}
