"""`motion4d analyze`: a recording in, a folder of results out, through the same engine as the live node.

result = analyze(AnalyzeOptions(input=Path("bag"), out=Path("out"), source=SourceOptions(depth="/camera/depth")))
"""

from __future__ import annotations

import resource
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from motion4d_ros.config import Config
from motion4d_ros.offline.bag_output import write_output_bag
from motion4d_ros.offline.framelog import FrameLog, write_objects_csv, write_trajectory
from motion4d_ros.offline.interrupt import Interrupt
from motion4d_ros.offline.metrics import Timeline, build_metrics, write_metrics
from motion4d_ros.offline.queries import OnlineTracks, check_queries, read_queries, save_tracks
from motion4d_ros.offline.renders import RenderLog
from motion4d_ros.offline.report.build import ReportInput, write_report
from motion4d_ros.offline.scenes import Scenes
from motion4d_ros.offline.sources import FrameSource, SourceOptions, SourceReport, open_source
from motion4d_ros.offline.sources.base import NOTHING
from motion4d_ros.offline.sources.files import read_labels
from motion4d_ros.offline.trajectory import pose_matrix
from motion4d_ros.offline.workspace import Workspace
from motion4d_ros.types import Estimate, FloatArray, Frame, IntArray, Motion4DError, PoseStatus, Prompt

if TYPE_CHECKING:
    from motion4d_ros.pipeline import Motion4D


@dataclass
class AnalyzeOptions:
    """Everything `motion4d analyze` can be told."""

    input: Path
    out: Path
    source: SourceOptions = field(default_factory=SourceOptions)
    config: Config = field(default_factory=Config)
    explicit: frozenset[str] = frozenset()  # settings the user named himself: no option overrides them
    queries: Path | None = None  # (Q, 3) t, y, x
    prompt_mask: Path | None = None  # label image of the first frame
    limit: int | None = None  # frames at most
    overwrite: bool = False


@dataclass(frozen=True)
class Progress:
    """How far an analysis has come."""

    frames: int
    total: int | None
    doing: str  # "frames", "last window", "writing …"


@dataclass
class AnalysisResult:
    """What came out."""

    out: Path
    files: list[Path]
    frames: int
    metrics: dict[str, Any]
    warnings: list[str]
    interrupted: bool = False
    failure: str = ""  # why the recording could not be read to its end, "" if it could


def analyze(
    options: AnalyzeOptions,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    engine_factory: Callable[[Config], Motion4D] | None = None,
    interrupt: Interrupt | None = None,
) -> AnalysisResult:
    """Pushes every frame of the input through the engine and writes every file of the contract to `options.out`.

    After Ctrl-C, or when the input breaks off with an error after windows have been closed, the finished frames are
    written all the same; the result says so. Raises `Motion4DError` when there is nothing to write; `out` is then as it
    was before.
    """
    config = effective_config(options)
    queries = None if options.queries is None else read_queries(options.queries)
    prompt_labels = None if options.prompt_mask is None else _read_prompt_mask(options.prompt_mask)
    tell = on_progress or (lambda progress: None)
    with Workspace(options.out, overwrite=options.overwrite) as work:
        source = open_source(options.input, _with_config(options.source, config))
        config = with_found_inputs(config, options.explicit, source.report)
        try:
            with interrupt or Interrupt() as stop:
                engine = _make_engine(config) if engine_factory is None else engine_factory(config)
                run = _Run(options, config, source, engine, work, tell, stop)
                run.read(queries, prompt_labels)
                return run.write()
        finally:
            source.close()


def _make_engine(config: Config) -> Motion4D:
    """The real one, imported only now: PyTorch takes seconds, and bad input should be told before."""
    from motion4d_ros.pipeline import Motion4D

    return Motion4D(config)


def effective_config(options: AnalyzeOptions) -> Config:
    """The configuration with what the given inputs imply: `--masks` means `masks.source=topic`, and so on.

    Settings in `options.explicit` stay as they are. Raises `Motion4DError` for contradictions.
    """
    config, source = options.config.copy(), options.source

    def imply(path: str, value: str) -> None:
        if path not in options.explicit:
            config.set(path, value)

    imply("budget.mode", "lossless")
    if config.budget.mode != "lossless":
        raise Motion4DError("budget.mode=realtime leaves frames out, an analysis uses them all: leave it at lossless")
    imply("run.archive", "true")  # points are followed through the whole recording, not only the horizon
    if source.masks is not None:
        imply("masks.source", "topic")
    elif options.prompt_mask is not None and config.masks.source not in ("sam2", "sam_onnx"):
        imply("masks.source", "prompt")
    depth = None if source.depth == NOTHING else source.depth
    if depth is not None:
        imply("depth.source", "topic")
    if source.depth_units_per_metre:
        imply("depth.units_per_metre", str(source.depth_units_per_metre))
    if source.odometry is not None or source.poses is not None:
        imply("pose.source", "odometry")
    wants = {"masks.source": (source.masks, "--masks"), "depth.source": (depth, "--depth")}
    for path, (given, option) in wants.items():
        if config.get(path) == "topic" and given is None:
            raise Motion4DError(f"{path}=topic needs {option}")
    if config.masks.source == "prompt" and options.prompt_mask is None:
        raise Motion4DError("masks.source=prompt needs --prompt-mask FILE.png")
    if config.pose.source == "odometry" and source.odometry is None and source.poses is None:
        raise Motion4DError(
            "pose.source=odometry needs --odometry TOPIC (bags) or --poses FILE.tum (videos and folders)"
        )
    return config


def with_found_inputs(config: Config, explicit: frozenset[str], report: SourceReport) -> Config:
    """The configuration with what the recording brought along by itself: its depth is used as if asked for, and so are
    its poses. Settings in `explicit` stay as they are.
    """
    config = config.copy()
    for part, path, value in (("depth", "depth.source", "topic"), ("poses", "pose.source", "odometry")):
        if part in report.found and path not in explicit:
            config.set(path, value)
    return config


class _Run:
    """One analysis under way."""

    def __init__(
        self,
        options: AnalyzeOptions,
        config: Config,
        source: FrameSource,
        engine: Motion4D,
        work: Workspace,
        tell: Callable[[Progress], None],
        stop: Interrupt,
    ) -> None:
        self._options, self._config, self._source, self._engine = options, config, source, engine
        self._work, self._tell, self._stop = work, tell, stop
        self._log = FrameLog(work.products, work.spool)
        self._renders = RenderLog(work.spool)
        self._timeline = Timeline()
        self._total = source.count
        if options.limit is not None:
            self._total = min(options.limit, source.count or options.limit)
        self._online = OnlineTracks(None)
        self._scenes = Scenes()
        self._failure = ""
        self._broken = False  # the engine has failed in a way nobody foresaw: it is asked for nothing new
        self._interrupted = False

    def read(self, queries: FloatArray | None, prompt_labels: IntArray | None) -> None:
        """Frames in, until the input ends, breaks off, or Ctrl-C comes."""
        self._online = OnlineTracks(queries)
        with self._keeping_what_is_finished():
            self._read_frames(queries, prompt_labels)
        if not (self._stop.requested() or self._broken):
            self._tell(Progress(len(self._log.stamps_ns), self._total, "last window and global refinement"))
            with self._keeping_what_is_finished():
                with self._timeline.timed("fitting"):
                    estimates = self._engine.flush(self._stop.requested)
                self._take(estimates)
        self._interrupted = self._stop.requested()
        self._log.drop_unfinished()
        if not self._log.finished:
            raise Motion4DError("interrupted before the first window was fitted: nothing to keep")
        if queries is not None and not (self._interrupted or self._failure or self._options.limit):
            check_queries(queries, self._log.facts[0].estimate.camera.size, self._log.finished)

    def write(self) -> AnalysisResult:
        """Every file of the contract, then all of them into place at once."""
        log, products, engine = self._log, self._work.products, self._engine
        self._say("tracks")
        tracks = self._online.final(engine, log.stamps_ns)
        save_tracks(products / "tracks.npz", tracks)
        save_tracks(products / "online" / "tracks.npz", self._online.result(log.stamps_ns))
        self._say("objects and trajectory")
        write_objects_csv(products / "objects.csv", log)
        T_map_cams = self._scenes.T_map_cams | engine.T_map_cams
        write_trajectory(products / "trajectory.tum", log, T_map_cams)
        self._say("the scene")
        self._save_scene()
        static, health = engine.static_points(), engine.status()
        self._say("the bag")
        map_frame = self._config.ros.map_frame or "map"
        ros = self._config.ros
        topics = write_output_bag(
            products / "output.mcap", log, static, health, map_frame, publish_tf=ros.publish_tf, trail=ros.trail
        )
        warnings = self._warnings(health.warnings)
        used, count = self._source.report.used, self._source.count
        if "image" in used and self._options.limit is not None and count is not None and self._log.finished < count:
            used["image"] += f", of which the first {self._log.finished} were used"
        metrics = build_metrics(
            self._options.input,
            self._source.report,
            self._config,
            health,
            log,
            tracks,
            self._timeline,
            warnings,
            topics,
        )
        metrics["scenes"] = self._scenes.as_metrics(log)
        metrics["interrupted"], metrics["failure"] = self._interrupted, self._failure
        self._say("the report")
        report = ReportInput(
            metrics,
            log,
            tracks,
            T_map_cams,
            static,
            self._renders,
            self._timeline,
            self._source.report,
            self._scenes.newest_start(log),
        )
        try:
            write_report(products / "report.html", report)
        except Exception as error:  # the page is for people; the data beside it must not be lost with it
            traceback.print_exc()
            warnings.append(f"report.html could not be written ({type(error).__name__}: {error}); please report it")
        metrics["timings"]["writing_seconds"] = round(self._timeline.seconds_since_end_of("fitting"), 3)
        metrics["memory"]["peak_mib"] = peak_memory_mib()
        write_metrics(products / "metrics.json", metrics)
        files = self._work.publish()
        return AnalysisResult(
            self._options.out, files, log.finished, metrics, warnings, self._interrupted, self._failure
        )

    def _read_frames(self, queries: FloatArray | None, prompt_labels: IntArray | None) -> None:
        for count, frame in enumerate(self._timeline.timed_iteration("reading", self._source)):
            if self._stop.requested() or (self._options.limit is not None and count >= self._options.limit):
                break
            if count == 0 and queries is not None:
                check_queries(queries, frame.camera.size, None if self._options.limit else self._total)
            self._push(frame, prompt_labels if count == 0 else None)
            self._tell(Progress(count + 1, self._total, "frames"))

    @contextmanager
    def _keeping_what_is_finished(self) -> Iterator[None]:
        """Once a window has been closed, an error ends the reading and is reported, but costs no finished work."""
        try:
            yield
        except Motion4DError as error:
            if not self._log.finished:
                raise
            self._failure = str(error)
        except Exception as error:  # a defect of ours must not cost the user hours
            if not self._log.finished:
                raise
            traceback.print_exc()
            self._broken = True
            self._failure = f"internal error ({type(error).__name__}: {error}); please report it"

    def _push(self, frame: Frame, prompt_labels: IntArray | None) -> None:
        if reason := self._engine.reason_to_restart(frame):
            self._close_scene(reason)
        with self._timeline.timed("accepting"):
            live = self._engine.accept(frame)
        self._log.add_frame(frame, live)
        if prompt_labels is not None:
            self._prompt(frame, prompt_labels)
        with self._timeline.timed("fitting"):
            estimates = self._engine.advance(self._stop.requested)
        self._take(estimates)
        self._timeline.mark(len(self._log.stamps_ns), peak_memory_mib())

    def _close_scene(self, reason: str) -> None:
        """The engine is about to forget its scene: its last word is asked for first."""
        with self._timeline.timed("fitting"):
            estimates = self._engine.flush(self._stop.requested)
        self._take(estimates)
        frames = len(self._log.stamps_ns)
        with self._timeline.timed("queries"):
            self._online.close_scene(self._engine, frames)
        self._scenes.close(self._engine, frames, reason)

    def _take(self, estimates: list[Estimate]) -> None:
        with self._timeline.timed("writing"):
            closed = self._log.add(estimates)
        if closed:
            with self._timeline.timed("queries"):
                self._online.close_window(self._engine, closed)
            with self._timeline.timed("renders"):
                self._renders.add(self._engine, max(estimate.index for estimate in closed))

    def _prompt(self, frame: Frame, labels: IntArray) -> None:
        """One prompt for every id in the label image of the first frame."""
        if labels.shape != frame.camera.size:
            raise Motion4DError(
                f"--prompt-mask is {labels.shape[1]}x{labels.shape[0]} px, the images are "
                f"{frame.camera.width}x{frame.camera.height}"
            )
        for object_id in np.unique(labels[labels > 0]).tolist():
            self._engine.prompt(Prompt(frame.stamp_ns, object_id=int(object_id), mask=labels == object_id))

    def _save_scene(self) -> None:
        folder = self._work.products / "scene"
        folder.mkdir()
        self._engine.save_scene(str(folder))
        inside = folder / "scene.ply"
        if inside.exists():
            inside.replace(self._work.products / "scene.ply")

    def _warnings(self, engine_warnings: dict[str, int]) -> list[str]:
        found = self._source.report.sentences()
        found += [text if count == 1 else f"{text} ({count} times)" for text, count in engine_warnings.items()]
        statuses = [self._log.facts[i].estimate.pose_status for i in range(self._log.finished)]
        if lost := statuses.count(PoseStatus.LOST):
            found.append(f"camera pose lost in {lost} of {len(statuses)} frames: nothing in 3D holds there")
        found += self._scenes.sentences(self._log)
        if self._log.finished == 1:
            found.append("only one frame: nothing is known about motion")
        if self._interrupted:
            found.insert(
                0, f"interrupted after {self._log.finished} frames: the last global refinement is missing or short"
            )
        if self._failure:
            found.insert(0, f"the input could not be read to its end: {self._failure}")
        return found

    def _say(self, what: str) -> None:
        self._tell(Progress(self._log.finished, self._total, f"writing {what}"))


def _with_config(source: SourceOptions, config: Config) -> SourceOptions:
    """The source options with what the node and the offline analysis both take from the configuration."""
    from dataclasses import replace

    extrinsic = source.extrinsic
    if extrinsic is None and config.ros.base_to_camera.strip():
        fields = config.ros.base_to_camera.replace(",", " ").split()
        try:
            values = [float(value) for value in fields]
            if len(values) != 7:
                raise ValueError
        except ValueError:
            raise Motion4DError("ros.base_to_camera: expected 'x y z qx qy qz qw'") from None
        extrinsic = pose_matrix(tuple(values[:3]), tuple(values[3:]))
    return replace(
        source,
        extrinsic=extrinsic,
        use_tf=config.pose.source == "tf",
        map_frame=config.ros.map_frame or "map",
        slop_s=config.ros.slop,
        depth_frame=config.depth.frame,
        depth_units_per_metre=config.depth.units_per_metre,
    )


def _read_prompt_mask(path: Path) -> IntArray:
    """(H, W) ids of the first frame's objects."""
    if not path.exists():
        raise Motion4DError(f"--prompt-mask {path}: no such file")
    labels = read_labels(path)
    if not (labels > 0).any():
        raise Motion4DError(f"--prompt-mask {path}: marks no object (all 0)")
    return labels


def peak_memory_mib() -> float:
    """Largest resident memory of this process so far, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024.0 * 1024.0 if sys.platform == "darwin" else 1024.0), 1)


__all__ = ["AnalysisResult", "AnalyzeOptions", "Progress", "analyze", "effective_config"]
