"""`metrics.json`: counts, timings, configuration and versions of one analysis."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from motion4d_ros.config import Config
from motion4d_ros.files import write_text
from motion4d_ros.offline.carriers import AnalyzeOptions
from motion4d_ros.offline.resources import package_version
from motion4d_ros.offline.results.frame_log import FrameLog
from motion4d_ros.offline.sources import SourceOptions, SourceReport
from motion4d_ros.types import NO_GROUND, Health, ObjectState, QueryTracks

Item = TypeVar("Item")


@dataclass
class Timeline:
    """Wall time by kind of work, and how time and memory grew with the frames."""

    seconds: dict[str, float] = field(default_factory=dict)
    marks: list[tuple[int, float, float]] = field(default_factory=list)  # frames, s since start, peak MiB
    _start: float = field(default_factory=time.perf_counter)
    _ended: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Adds the time spent in the block to `kind`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._ended[kind] = time.perf_counter()
            self.seconds[kind] = self.seconds.get(kind, 0.0) + self._ended[kind] - begin

    def timed_iteration(self, kind: str, items: Iterable[Item]) -> Iterator[Item]:
        """The items, with the time needed to get them added to `kind`."""
        iterator = iter(items)
        while True:
            with self.timed(kind):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def mark(self, frames: int, memory_mib: float) -> None:
        """Notes how far things are."""
        self.marks.append((frames, time.perf_counter() - self._start, memory_mib))

    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def seconds_since_end_of(self, kind: str) -> float:
        """Seconds since work of that kind last ended."""
        return time.perf_counter() - self._ended.get(kind, self._start)


def build_metrics(
    options: AnalyzeOptions,
    report: SourceReport,
    config: Config,
    health: Health,
    log: FrameLog,
    tracks: QueryTracks,
    timeline: Timeline,
    warnings: list[str],
) -> dict[str, Any]:
    """The content of `metrics.json`; everything in it is plain JSON."""
    visible = ~tracks.occluded
    return {
        "motion4d": {"version": package_version(), "format": 1},
        "input": _input(options, report, log),
        "scale": log.scale().value,
        "device": health.device,
        "counts": _counts(health, log, tracks),
        "objects": [_object(object_id, states) for object_id, states in sorted(log.objects().items())],
        "tracks": {
            "visible_share": _rounded(visible.mean()) if visible.size else None,
            "mean_confidence": _rounded(tracks.confidence[visible].mean()) if visible.any() else None,
        },
        "timings": _timings(health, timeline, log.finished),
        "memory": {
            "peak_mib": timeline.marks[-1][2] if timeline.marks else None,
            "growth": [[n, round(seconds, 3), mib] for n, seconds, mib in _thinned(timeline.marks, 200)],
        },
        "warnings": warnings,
        "configuration": config.as_dict(),
        "versions": versions(),
    }


def _object(object_id: int, states: list[tuple[int, ObjectState]]) -> dict[str, Any]:
    """What is known of one object by the last frame that knows it by name, or by its last."""
    last = next((state for _, state in reversed(states) if state.label), states[-1][1])
    label = {"label": last.label, "label_score": _rounded(last.label_score)}
    return {"id": object_id, **label, "frames": len(states), "existence": _rounded(states[-1][1].existence)}


def _input(options: AnalyzeOptions, report: SourceReport, log: FrameLog) -> dict[str, Any]:
    frames, camera = log.finished, log.facts[0].estimate.camera
    duration = (log.stamps_ns[-1] - log.stamps_ns[0]) / 1e9 if frames > 1 else 0.0
    return {
        "path": str(options.input),
        "options": _given(options.source),
        "used": dict(report.used),
        "missing": list(report.missing),
        "width": camera.width,
        "height": camera.height,
        "camera": {"fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy},
        "duration_seconds": round(duration, 6),
        "frames_per_second": round((frames - 1) / duration, 4) if duration > 0 else None,
    }


def _given(source: SourceOptions) -> dict[str, Any]:
    """How the recording was told to be read: what reads it again needs the same."""
    usual = SourceOptions()
    plain = {name: value for name, value in vars(source).items() if isinstance(value, str | int | float | tuple)}
    return {name: value for name, value in plain.items() if value != getattr(usual, name)}


def _counts(health: Health, log: FrameLog, tracks: QueryTracks) -> dict[str, Any]:
    estimates = [log.facts[i].estimate for i in range(log.finished)]
    statuses = [estimate.pose_status.value for estimate in estimates]
    return {
        "frames": log.finished,
        "windows": health.windows,
        "refinements": health.refinements,
        "gaussians_static": health.gaussians_static,
        "gaussians_dynamic": health.gaussians_dynamic,
        "bases": health.bases,
        "objects": len(log.objects()),
        "queries": len(tracks.query_points),
        "poses": {status: statuses.count(status) for status in sorted(set(statuses))},
        "frames_without_ground": sum(
            any(text.startswith(NO_GROUND) for text in estimate.warnings) for estimate in estimates
        ),
    }


def _timings(health: Health, timeline: Timeline, frames: int) -> dict[str, Any]:
    fitting = sum(health.stage_seconds.values())
    engine_seconds = timeline.seconds.get("accepting", 0.0) + timeline.seconds.get("fitting", 0.0)
    return {
        "total_seconds": round(timeline.total(), 3),
        "engine_seconds_per_frame": round(engine_seconds / frames, 4),
        "stages_seconds": {name: round(seconds, 4) for name, seconds in health.stage_seconds.items()},
        "raster_seconds": round(health.raster_seconds, 4),
        "raster_share": round(health.raster_seconds / fitting, 4) if fitting > 0 else None,
        "analysis_seconds": {kind: round(seconds, 4) for kind, seconds in timeline.seconds.items()},
    }


def versions() -> dict[str, str]:
    """Of Python, the machine and the libraries that decide results."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in ("numpy", "scipy", "torch", "opencv-python-headless", "rosbags", "gsplat"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def bare_metrics(log: FrameLog, tracks: QueryTracks, warnings: list[str]) -> dict[str, Any]:
    """What stays of `metrics.json` when its figures cannot be worked out."""
    counts = {"frames": log.finished, "objects": len(log.objects()), "queries": len(tracks.query_points)}
    return {
        "motion4d": {"version": package_version(), "format": 1},
        "scale": log.scale().value,
        "counts": counts,
        "timings": {},
        "memory": {},
        "warnings": warnings,
    }


def write_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Writes JSON; what is not finite becomes null."""
    write_text(path, json.dumps(_finite(metrics), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _rounded(value: float | np.floating) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None


def _thinned(items: list[Any], count: int) -> list[Any]:
    if len(items) <= count:
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]
