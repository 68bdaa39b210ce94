"""The second half of an analysis: every file of the contract, each written by itself, then all into place at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from motion4d_ros.config import Config
from motion4d_ros.failures import is_users
from motion4d_ros.offline.carriers import AnalysisResult, Progress
from motion4d_ros.offline.queries import save_tracks
from motion4d_ros.offline.reading import Reading, peak_memory_mib
from motion4d_ros.offline.report.build import ReportInput, write_report
from motion4d_ros.offline.results.bag_output import write_output_bag
from motion4d_ros.offline.results.frame_log import write_objects_csv, write_trajectory
from motion4d_ros.offline.results.metrics import bare_metrics, build_metrics, write_metrics
from motion4d_ros.offline.results.workspace import PRODUCTS, Workspace
from motion4d_ros.types import FloatArray, Health, Motion4DError, PoseStatus, QueryTracks, StaticPoints

Answer = TypeVar("Answer")


class Results:
    """What a reading found, on its way to the disk."""

    def __init__(self, reading: Reading, config: Config, work: Workspace) -> None:
        self._reading, self._config, self._work = reading, config, work
        self._engine_failures: list[str] = []
        self._defect = reading.broken

    def write(self) -> AnalysisResult:
        """Writes what can be written, and publishes it. Raises `Motion4DError` when not even `metrics.json` can be."""
        reading, work = self._reading, self._work
        log, engine = reading.log, reading.engine
        work.spare.append(log.drop_pictures)
        self._say("tracks")
        online = reading.online.result(log.stamps_ns)
        tracks = self._ask("tracks", lambda: reading.online.final(engine, log.stamps_ns), online)
        self._write("tracks.npz", lambda path: save_tracks(path, tracks))
        self._write("online/tracks.npz", lambda path: save_tracks(path, online))
        self._say("objects and trajectory")
        self._write("objects.csv", lambda path: write_objects_csv(path, log))
        no_poses: dict[int, FloatArray] = {}
        T_map_cams = reading.scenes.T_map_cams | self._ask("camera poses", lambda: engine.T_map_cams, no_poses)
        self._write("trajectory.tum", lambda path: write_trajectory(path, log, T_map_cams))
        self._say("the scene")
        self._write_scene()
        work.spare.clear()
        static = self._ask("the static map", lambda: engine.static_points(), _no_static_points())
        if reading.show is not None:
            reading.show.end(reading, tracks, static, T_map_cams)
        health = self._ask("the engine's counters", lambda: engine.status(), Health())
        self._say("the bag")
        topics = self._write("output.mcap", lambda path: self._write_bag(path, static, health)) or {}
        warnings = self._warnings(health.warnings)
        metrics = self._metrics(health, tracks, warnings, topics)
        result = AnalysisResult(
            work.out, [], log.finished, metrics, warnings, reading.interrupted,
            reading.stopped_by, reading.failure, work.failed,
        )  # fmt: skip
        self._say("the report")
        self._note_state(result)
        self._write("report.html", lambda path: self._write_report(path, result, tracks, T_map_cams, static))
        return self._finish(result)

    def _finish(self, result: AnalysisResult) -> AnalysisResult:
        """`metrics.json`, which tells of everything else; then all into place."""
        timeline, metrics, work = self._reading.timeline, result.metrics, self._work
        metrics["timings"]["writing_seconds"] = round(timeline.seconds_since_end_of("fitting"), 3)
        metrics["memory"]["peak_mib"] = peak_memory_mib()
        self._note_state(result)
        work.release_reserve()
        self._write("metrics.json", lambda path: write_metrics(path, metrics))
        if reason := work.failed.get("metrics.json"):
            raise Motion4DError(f"{reason}: nothing could be kept; choose another --out")
        result.full = self._reading.full or any(reason.startswith("no space left") for reason in work.failed.values())
        result.out = work.publish(complete=result.complete)
        result.files = [result.out / name for name in PRODUCTS if (result.out / name).exists()]
        return result

    def _note_state(self, result: AnalysisResult) -> None:
        result.defect = self._defect
        result.metrics["state"] = "complete" if result.complete else "partial"
        result.metrics["interrupted"], result.metrics["failure"] = result.interrupted, result.failure
        result.metrics["failed"] = dict(result.failed)

    def _write(self, name: str, write: Callable[[Path], Answer]) -> Answer | None:
        def noting_defects(path: Path) -> Answer:
            try:
                return write(path)
            except Exception as error:
                self._defect |= not is_users(error)
                raise

        return self._work.write(name, noting_defects)

    def _ask(self, what: str, ask: Callable[[], Answer], instead: Answer) -> Answer:
        """The engine's last word; a failing answer costs what it is about, and nothing else."""
        try:
            return ask()
        except Exception as error:
            self._defect |= not is_users(error)
            self._engine_failures.append(f"{what} of the finished scene could not be had: {self._work.reason(error)}")
            return instead

    def _write_scene(self) -> None:
        """`scene.ply` and `scene/`: the engine writes one after the other, each in one step."""
        kept = self._work.spool / "scene"

        def save(ply: Path) -> None:
            kept.mkdir(exist_ok=True)
            self._reading.engine.save_scene(str(kept))
            (kept / "scene.ply").replace(ply)

        def keep(folder: Path) -> None:
            if not any(kept.glob("*")):
                raise Motion4DError(self._work.failed["scene.ply"])
            kept.replace(folder)

        self._write("scene.ply", save)
        self._write("scene", keep)

    def _metrics(
        self, health: Health, tracks: QueryTracks, warnings: list[str], topics: dict[str, int]
    ) -> dict[str, Any]:
        reading, log = self._reading, self._reading.log
        try:
            metrics = build_metrics(
                reading.options, reading.source.report, self._config, health, log, tracks, reading.timeline,
                warnings,
            )  # fmt: skip
            metrics["counts"]["bag_messages"] = topics
            metrics["scenes"] = reading.scenes.as_metrics(log)
        except Exception as error:
            self._defect = True
            warnings.append(f"metrics.json lacks most figures: {self._work.reason(error)}")
            return bare_metrics(log, tracks, warnings)
        return metrics

    def _write_bag(self, path: Path, static: StaticPoints, health: Health) -> dict[str, int]:
        ros = self._config.ros
        frame = ros.map_frame or "map"
        return write_output_bag(
            path, self._reading.log, static, health, frame, publish_tf=ros.publish_tf, trail=ros.trail
        )

    def _write_report(
        self,
        path: Path,
        result: AnalysisResult,
        tracks: QueryTracks,
        T_map_cams: dict[int, FloatArray],
        static: StaticPoints,
    ) -> None:
        reading = self._reading
        if not reading.log.has_pictures:
            raise Motion4DError(f"no space left on {self._work.out}: its pictures made room for the other files")
        page = ReportInput(
            result.metrics, reading.log, tracks, T_map_cams, static, reading.renders, reading.timeline,
            reading.source.report, reading.scenes.newest_start(reading.log),
        )  # fmt: skip
        write_report(path, page)

    def _warnings(self, engine_warnings: dict[str, int]) -> list[str]:
        reading, log = self._reading, self._reading.log
        report, limit, count = reading.source.report, reading.options.limit, reading.source.count
        if "image" in report.used and limit is not None and count is not None and log.finished < count:
            report.used["image"] += f", of which the first {log.finished} were used"
        found = report.sentences()
        found += [text if count == 1 else f"{text} ({count} times)" for text, count in engine_warnings.items()]
        statuses = [log.facts[i].estimate.pose_status for i in range(log.finished)]
        if lost := statuses.count(PoseStatus.LOST):
            found.append(f"camera pose lost in {lost} of {len(statuses)} frames: nothing in 3D holds there")
        found += reading.scenes.sentences(log)
        if log.finished == 1:
            found.append("only one frame: nothing is known about motion")
        found += self._engine_failures
        if reading.interrupted:
            found.insert(0, f"interrupted after {log.finished} frames: the last global refinement is missing or short")
        if reading.failure:
            found.insert(0, f"ended before the end of the input: {reading.failure}")
        return found

    def _say(self, what: str) -> None:
        self._reading.tell(Progress(self._reading.log.finished, self._reading.total, f"writing {what}"))


def _no_static_points() -> StaticPoints:
    return StaticPoints(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), np.zeros(0, np.float32))
