"""Puts `report.html` together: numbers become sentences, charts, a table, a video and a 3D view."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from motion4d_ros.files import write_text
from motion4d_ros.offline.report import charts, words
from motion4d_ros.offline.report.charts import Line
from motion4d_ros.offline.report.overlay import data_uri, make_overlay
from motion4d_ros.offline.report.scene_data import pack_scene, plan_axes
from motion4d_ros.offline.results.frame_log import FrameLog
from motion4d_ros.offline.results.metrics import Timeline
from motion4d_ros.offline.results.renders import RenderEntry, RenderLog
from motion4d_ros.offline.sources import SourceReport
from motion4d_ros.types import NO_GROUND, FloatArray, Motion4DError, ObjectPhase, ObjectState, QueryTracks, StaticPoints
from motion4d_ros.viewer import palette

MAX_RENDERS = 8
_SAID_ELSEWHERE = (
    "ended before the end of the input",
    "interrupted after",
    "no --intrinsics:",
    "only one frame:",
    "camera pose lost in",
    NO_GROUND,
)
_HERE = Path(__file__).parent
_PARTS = ("page.html.j2", "style.css", "viewer.js")
_PHASE_STRENGTH = {ObjectPhase.TRACKED: 1.0, ObjectPhase.NEW: 0.75, ObjectPhase.OCCLUDED: 0.4, ObjectPhase.LOST: 0.12}


@dataclass
class ReportInput:
    """Everything the page is about."""

    metrics: dict[str, Any]
    log: FrameLog
    tracks: QueryTracks
    T_map_cams: dict[int, FloatArray]
    static: StaticPoints
    renders: RenderLog
    timeline: Timeline
    source: SourceReport
    newest_start: int = 0  # first frame of the newest scene: earlier ones have another origin, and are not drawn


def check_page() -> None:
    """Raises `Motion4DError` when a part of the page is not installed."""
    if missing := [name for name in _PARTS if not (_HERE / name).is_file()]:
        raise Motion4DError(f"{', '.join(missing)} of the report are not in {_HERE}: reinstall the package")


def write_report(path: Path, data: ReportInput) -> None:
    """Writes the page; it needs no other file and no network."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((_HERE / "page.html.j2").read_text(encoding="utf-8"))
    write_text(path, template.render(**_content(data, path)))


def _content(data: ReportInput, path: Path) -> dict[str, Any]:
    metrics, log = data.metrics, data.log
    unit = words.unit(metrics["scale"])
    rate = metrics["input"]["frames_per_second"] or 10.0
    overlay = make_overlay(log, data.tracks, log.picture(0).parent, rate)
    page = {
        "rate": overlay.rate,
        "frameRate": rate,
        "pictures": overlay.pictures,
        "pictureFrames": overlay.frames,
        "startAt": 0.6,
    }
    plan, has_camera = _plan(data, unit)
    source = Path(metrics["input"]["path"])
    return {
        "title": "/".join(source.resolve().parts[-2:]),
        "subtitle": "{width}×{height} px, {duration_seconds:.1f} s".format(**metrics["input"]),
        "stats": _stats(metrics),
        "used": [f"{part}: {what}" for part, what in metrics["input"]["used"].items()],
        "priors": words.sources(metrics["configuration"]),
        "missing": metrics["input"]["missing"],
        "scale_sentence": words.scale_sentence(metrics["scale"]),
        "distrust": words.distrust(metrics),
        "warnings": [w for w in metrics["warnings"] if not w.startswith(_SAID_ELSEWHERE)],
        "aspect": "{width} / {height}".format(**metrics["input"]),
        "overlay": overlay,
        "objects": [_object_row(i, states, log, unit) for i, states in sorted(log.objects().items())],
        "plan": plan,
        "plan_has_camera": has_camera,
        "unit": unit,
        "speed_chart": charts.lines(_speeds(log), "s", f"{unit}/s"),
        "confidence_chart": charts.lines(_confidences(log), "s", "confidence", height=150),
        "confidence_note": words.confidence_note([log.facts[i].mean_confidence for i in range(log.finished)]),
        "renders": [_render(entry) for entry in _chosen(data.renders.entries)],
        "stage_chart": charts.bars(_stages(metrics)),
        "raster_share": _percent(metrics["timings"]["raster_share"]),
        "growth_chart": charts.lines(_pace(data.timeline), "frames", "s a frame", height=150),
        "memory_chart": charts.lines(_memory(data.timeline), "frames", "peak MiB", height=150),
        "settings": list(metrics["configuration"].items()),
        "versions": list(metrics["versions"].items()),
        "version": metrics["motion4d"]["version"],
        "scene_json": _safe_json(pack_scene(log, data.tracks, data.T_map_cams, data.static, data.newest_start)),
        "page_json": _safe_json(page),
        "style": (_HERE / "style.css").read_text(encoding="utf-8"),
        "script": (_HERE / "viewer.js").read_text(encoding="utf-8"),
    }


def _stats(metrics: dict[str, Any]) -> list[tuple[str, str]]:
    counts, timings = metrics["counts"], metrics["timings"]
    gaussians = counts["gaussians_static"] + counts["gaussians_dynamic"]
    return [
        (str(counts["frames"]), "frames"),
        *([("partial", "state")] if metrics["state"] != "complete" else []),
        (str(counts["objects"]), "object" if counts["objects"] == 1 else "objects"),
        (metrics["scale"], "scale"),
        (f"{timings['engine_seconds_per_frame']:.2f} s", "a frame"),
        (f"{gaussians / 1000:.1f} k" if gaussians >= 1000 else str(gaussians), "Gaussians"),
        (str(counts["queries"]), "tracks"),
        (f"{metrics['memory']['peak_mib'] or 0:.0f} MiB", "peak memory"),
    ]


def _object_row(object_id: int, states: list[tuple[int, ObjectState]], log: FrameLog, unit: str) -> dict[str, Any]:
    known = [(i, s) for i, s in states if s.phase is not ObjectPhase.LOST]
    counted = known or states
    speeds = np.array([np.linalg.norm(s.twist[:3]) for _, s in counted])
    centres = np.array([s.T_map_object[:3, 3] for _, s in counted])
    path = float(np.linalg.norm(np.diff(centres, axis=0), axis=1).sum()) if len(centres) > 1 else 0.0
    size = np.median([s.size_m for _, s in counted], axis=0)
    seen = sum(s.phase in (ObjectPhase.TRACKED, ObjectPhase.NEW) for _, s in states)
    start = log.stamps_ns[0]
    first, last = ((states[k][1].first_seen_ns - start, states[k][1].last_seen_ns - start) for k in (0, -1))
    return {
        "id": object_id,
        "label": next((s.named for _, s in reversed(states) if s.label), ""),
        "colour": palette.css(object_id),
        "phases": _phase_bar(object_id, dict(states), log.finished),
        "seen": f"{seen} frames",
        "span": f"{first[0] / 1e9:.1f} … {last[1] / 1e9:.1f} s",
        "mean_speed": f"{speeds.mean():.2f} {unit}/s",
        "top_speed": f"{np.percentile(speeds, 95):.2f} {unit}/s",
        "path": f"{path:.2f} {unit}",
        "size": " × ".join(f"{value:.2f}" for value in sorted(size, reverse=True)) + f" {unit}",
        "existence": f"{100 * states[-1][1].existence:.0f} %",
        "sure": _how_sure(counted, unit),
    }


def _how_sure(states: list[tuple[int, ObjectState]], unit: str) -> str:
    """One standard deviation of position and velocity, the middle of an object's frames."""
    position, velocity = (
        float(np.median([np.sqrt(np.trace(covariance(s)[:3, :3]) / 3) for _, s in states]))
        for covariance in (lambda s: s.pose_covariance, lambda s: s.twist_covariance)
    )
    length = f"{1e3 * position:.0f} mm" if unit == "m" else f"{position:.3f} {unit}"
    return f"{length}, {velocity:.2f} {unit}/s"


def _phase_bar(object_id: int, states: dict[int, ObjectState], frames: int) -> list[tuple[float, str, str]]:
    """Runs of equal phase as (width in %, colour, title)."""
    phases = [states[i].phase if i in states else None for i in range(frames)]
    runs: list[tuple[float, str, str]] = []
    begin = 0
    red, green, blue = palette.rgb(object_id)
    for i in range(1, frames + 1):
        if i < frames and phases[i] == phases[begin]:
            continue
        phase = phases[begin]
        strength = _PHASE_STRENGTH.get(phase, 0.0) if phase is not None else 0.0
        name = phase.value if phase is not None else "not known"
        title = f"{name}, frames {begin} to {i - 1}"
        runs.append((100.0 * (i - begin) / frames, f"rgba({red},{green},{blue},{strength})", title))
        begin = i
    return runs


def _plan(data: ReportInput, unit: str) -> tuple[str, bool]:
    """The map of the newest scene from above as SVG, and whether the camera's path is in it."""
    T_map_cams = {i: T for i, T in data.T_map_cams.items() if i >= data.newest_start}
    right, forward = plan_axes(T_map_cams)
    axes = np.stack([right, forward], 1)
    xyz, rgb = data.static.xyz_map.astype(float), data.static.rgb
    if len(xyz) > 2500:
        rows = np.linspace(0, len(xyz) - 1, 2500).round().astype(int)
        xyz, rgb = xyz[rows], rgb[rows]
    trails = []
    for object_id, states in sorted(data.log.objects().items()):
        path = np.full((data.log.finished, 3), np.nan)
        for index, state in states:
            if state.phase is not ObjectPhase.LOST and index >= data.newest_start:
                path[index] = state.T_map_object[:3, 3]
        flat = path @ axes
        trails.append(Line(flat[:, 0], flat[:, 1], palette.css(object_id), str(object_id)))
    camera = None
    if T_map_cams:
        centres = np.stack([T_map_cams[i][:3, 3] for i in sorted(T_map_cams)]) @ axes
        camera = Line(centres[:, 0], centres[:, 1], charts.INK, "camera")
    colours = ["#{:02x}{:02x}{:02x}".format(*pixel) for pixel in rgb.tolist()]
    return charts.plan(xyz @ axes, colours, trails, camera, unit), camera is not None


def _speeds(log: FrameLog) -> list[Line]:
    seconds = _seconds(log)
    curves = []
    for object_id, states in sorted(log.objects().items()):
        speed = np.full(log.finished, np.nan)
        for index, state in states:
            if state.phase is not ObjectPhase.LOST:
                speed[index] = np.linalg.norm(state.twist[:3])
        curves.append(Line(seconds, speed, palette.css(object_id), f"object {object_id}"))
    return curves


def _confidences(log: FrameLog) -> list[Line]:
    values = [log.facts[i].mean_confidence for i in range(log.finished)]
    return [Line(_seconds(log), values, "#4a4f57", "mean confidence")]


def _seconds(log: FrameLog) -> FloatArray:
    return (np.array(log.stamps_ns[: log.finished], float) - log.stamps_ns[0]) / 1e9


def _stages(metrics: dict[str, Any]) -> list[tuple[str, float, str]]:
    """Stages of the engine, and the work around it."""
    stages = metrics["timings"]["stages_seconds"]
    around = metrics["timings"]["analysis_seconds"]
    items = [(name, seconds, "#2e86de") for name, seconds in sorted(stages.items(), key=lambda item: -item[1])]
    items += [
        (name, around[name], "#b9b7ae") for name in ("reading", "queries", "renders", "writing") if name in around
    ]
    return items


def _pace(timeline: Timeline) -> list[Line]:
    """Seconds a frame, averaged over eight frames."""
    frames, seconds = np.array([m[0] for m in timeline.marks], float), np.array([m[1] for m in timeline.marks])
    step = 8
    if len(frames) <= step:
        return []
    return [Line(frames[step:], (seconds[step:] - seconds[:-step]) / step, "#2e86de", "s a frame, mean over 8")]


def _memory(timeline: Timeline) -> list[Line]:
    return [Line([m[0] for m in timeline.marks], [m[2] for m in timeline.marks], "#8a63c9", "peak resident memory")]


def _chosen(entries: list[RenderEntry]) -> list[RenderEntry]:
    if len(entries) <= MAX_RENDERS:
        return entries
    return [entries[i] for i in np.linspace(0, len(entries) - 1, MAX_RENDERS).round().astype(int)]


def _render(entry: RenderEntry) -> dict[str, Any]:
    files = {name: data_uri(getattr(entry, name).read_bytes(), "image/jpeg") for name in ("rgb", "depth", "confidence")}
    near, far = entry.depth_range
    mean = f"{entry.mean_confidence:.2f}" if np.isfinite(entry.mean_confidence) else "unknown"
    return {**files, "index": entry.index, "near": f"{near:.2f}", "far": f"{far:.2f}", "mean": mean}


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"


def _safe_json(content: Any) -> str:
    """JSON that may stand inside a <script> element."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
