"""The node's books as messages: `PipelineStatus` and `/diagnostics`."""

from __future__ import annotations

import sys
from collections import deque
from typing import Any

import numpy as np
import psutil
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from motion4d_ros.msg import PipelineStatus
from motion4d_ros.ros.diagnostics import Finding, Level, Snapshot
from motion4d_ros.ros.work.queue import Counts
from motion4d_ros.types import Health, Stage

GROUPS = ("input", "pipeline", "scene")
SANE_AGE_S = 60.0
"""A stamp further than this from the node's clock belongs to another clock (a bag without use_sim_time)."""


class Meters:
    """Rates and latencies over the last 100 frames."""

    def __init__(self, keep: int = 100) -> None:
        self._arrivals: deque[float] = deque(maxlen=keep)
        self._latencies: dict[Stage, deque[float]] = {stage: deque(maxlen=keep) for stage in Stage}

    def arrived(self, now_s: float) -> None:
        """An image came in at `time.monotonic()` `now_s`."""
        self._arrivals.append(now_s)

    def published(self, stage: Stage, age_s: float, since_arrival_s: float) -> None:
        """An estimate went out; `age_s` of its stamp, which only counts if its clock is the node's."""
        self._latencies[stage].append(age_s if 0.0 <= age_s < SANE_AGE_S else since_arrival_s)

    @property
    def newest_arrival_s(self) -> float:
        """`time.monotonic()` of the newest image; minus infinity = none."""
        return self._arrivals[-1] if self._arrivals else float("-inf")

    @property
    def rate_hz(self) -> float:
        """Images per second."""
        if len(self._arrivals) < 2:
            return 0.0
        span = self._arrivals[-1] - self._arrivals[0]
        return (len(self._arrivals) - 1) / span if span > 0 else 0.0

    def latency(self, stage: Stage, percentile: float) -> float:
        """Seconds; 0 while nothing was published."""
        values = list(self._latencies[stage])
        return float(np.percentile(values, percentile)) if values else 0.0


def status_message(
    head: Any, counts: Counts, meters: Meters, health: Health, before: Health, uptime_s: float
) -> PipelineStatus:
    """The books; `before` is the engine's health at activation."""
    stage_names = sorted(health.stage_seconds)
    return PipelineStatus(
        header=head,
        received=counts.received,
        processed=counts.processed,
        live_only=max(0, health.live_only - before.live_only),
        stride=health.stride,
        dropped=counts.dropped_total,
        rejected=counts.rejected_total,
        queued=counts.queued,
        drop_reasons=list(counts.dropped),
        drop_counts=list(counts.dropped.values()),
        reject_reasons=list(counts.rejected),
        reject_counts=list(counts.rejected.values()),
        input_rate=meters.rate_hz,
        latency_live=meters.latency(Stage.LIVE, 50),
        latency_live_p95=meters.latency(Stage.LIVE, 95),
        latency_window=meters.latency(Stage.WINDOW, 50),
        latency_window_p95=meters.latency(Stage.WINDOW, 95),
        stage_names=stage_names,
        stage_seconds=[max(0.0, health.stage_seconds[n] - before.stage_seconds.get(n, 0.0)) for n in stage_names],
        raster_seconds=max(0.0, health.raster_seconds - before.raster_seconds),
        uptime=uptime_s,
        windows=max(0, health.windows - before.windows),
        refinements=max(0, health.refinements - before.refinements),
        gaussians_static=health.gaussians_static,
        gaussians_dynamic=health.gaussians_dynamic,
        bases=health.bases,
        objects=health.objects,
        horizon=health.horizon,
        memory_rss=psutil.Process().memory_info().rss,
        memory_gpu=gpu_memory(),
        scale=health.scale.value,
        pose_status=health.pose_status.value,
        live_consistency=health.live_consistency,
        device=health.device,
        warnings=list(health.warnings),
        warning_counts=list(health.warnings.values()),
    )


def gpu_memory() -> int:
    """Bytes that torch holds on the GPU; 0 without one, or while torch is not even loaded."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return 0
    return int(torch.cuda.memory_reserved())


def diagnostic_array(
    head: Any, node_name: str, state: str, snapshot: Snapshot, findings: list[Finding]
) -> DiagnosticArray:
    """One status per group: the worst finding's text, all others and the numbers as values (REP-107)."""
    counts, health = snapshot.counts, snapshot.health
    numbers: dict[str, dict[str, object]] = {
        "input": {
            "received": counts.received, "rejected": counts.rejected_total, "image topic": snapshot.image_topic,
            "publishers": snapshot.image_publishers, "camera_info": "ok" if snapshot.has_camera else "missing",
            "adapted": "; ".join(snapshot.misfits) or "nothing",
            "callback p50 ms": f"{1e3 * snapshot.callback_p50_s:.2f}",
            "callback p99 ms": f"{1e3 * snapshot.callback_p99_s:.2f}",
        },
        "pipeline": {
            "processed": counts.processed, "live only": health.live_only, "frames per fit": health.stride,
            "dropped": counts.dropped_total, "queued": counts.queued,
            "windows": health.windows, "refinements": health.refinements, "restarts": snapshot.restarts,
        },
        "scene": {
            "objects": health.objects, "gaussians static": health.gaussians_static,
            "gaussians dynamic": health.gaussians_dynamic, "scale": health.scale.value,
            "pose": health.pose_status.value,
            "live consistency": f"{health.live_consistency:.2f}",
            "saved scene": health.resumed or "none",
        },
    }  # fmt: skip
    statuses = []
    for group in GROUPS:
        mine = [finding for finding in findings if finding.rule.group == group]
        values = [KeyValue(key=key, value=str(value)) for key, value in numbers[group].items()]
        values += [KeyValue(key=finding.rule.code, value=finding.text) for finding in mine]
        level = max((finding.rule.level for finding in mine), default=Level.OK)
        text = mine[0].text if mine else ("all well" if snapshot.active else f"node is {state}")
        statuses.append(
            DiagnosticStatus(
                level=bytes([level]), name=f"{node_name}: {group}", message=text, hardware_id=node_name, values=values
            )
        )
    return DiagnosticArray(header=head, status=statuses)
