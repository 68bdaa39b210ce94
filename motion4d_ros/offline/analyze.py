"""`motion4d analyze`: a recording in, a folder of results out, through the same engine as the live node.

result = analyze(AnalyzeOptions(input=Path("bag"), out=Path("out"), source=SourceOptions(depth="/camera/depth")))
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from motion4d_ros.config import Config
from motion4d_ros.models.automatic import with_best_outliner
from motion4d_ros.offline.carriers import AnalysisResult, AnalyzeOptions, Progress
from motion4d_ros.offline.interrupt import Interrupt
from motion4d_ros.offline.preflight import check_input, check_installation, check_output, read_prompt_mask
from motion4d_ros.offline.queries import read_queries
from motion4d_ros.offline.reading import Reading
from motion4d_ros.offline.results.result_files import Results
from motion4d_ros.offline.results.workspace import Workspace
from motion4d_ros.offline.sources import SourceOptions, SourceReport, open_source
from motion4d_ros.offline.sources.interfaces import NOTHING
from motion4d_ros.offline.trajectory import pose_matrix
from motion4d_ros.types import Motion4DError

if TYPE_CHECKING:
    from motion4d_ros.offline.viewing.live_show import LiveShow
    from motion4d_ros.pipeline import Motion4D


logger = logging.getLogger(__name__)


def analyze(
    options: AnalyzeOptions,
    on_progress: Callable[[Progress], None] | None = None,
    *,
    engine_factory: Callable[[Config], Motion4D] | None = None,
    interrupt: Interrupt | None = None,
) -> AnalysisResult:
    """Pushes every frame of the input through the engine and writes every file of the result to `options.out`.

    `on_progress` is called as frames are read and files are written. `engine_factory` makes the engine; None: the real
    one. `interrupt` says when to end early; None: after Ctrl-C, SIGTERM or SIGHUP, where it runs in the main thread.

    What it will need is checked first (`preflight`). After a signal, on a full disk, or when the input breaks off with
    an error after windows have been closed, the finished frames are written all the same, file by file; the result
    says what is missing. Raises `Motion4DError` when there is nothing to write, `Stopped` for a signal before that;
    `out` is then as it was before.
    """
    config = effective_config(options)
    check_input(options.input)
    if options.rerun:
        from motion4d_ros.viewer.destinations import check_target  # an extra

        check_target(options.rerun)
    check_output(options)
    queries = None if options.queries is None else read_queries(options.queries)
    prompt_labels = None if options.prompt_mask is None else read_prompt_mask(options.prompt_mask)
    with interrupt or Interrupt() as stop, Workspace(options.out, overwrite=options.overwrite) as work:
        source = open_source(options.input, with_settings(options.source, config))
        config = with_found_inputs(config, options.explicit, source.report)
        try:
            check_installation()
            make, notes = engine_factory or _make_engine, list[str]()
            if options.automatic and "masks.source" not in options.explicit:
                config, engine = with_best_outliner(config, make, notes.append, "--set masks.source=propagation")
            else:
                engine = make(config)
            reading = Reading(options, source, engine, work, stop)
            reading.tell = on_progress or reading.tell
            reading.notes = notes
            with _show(options) as reading.show:
                reading.read(queries, prompt_labels)
                return Results(reading, config, work).write()
        finally:
            source.close()


def _show(options: AnalyzeOptions) -> AbstractContextManager[LiveShow | None]:
    """Where the analysis is shown while it runs."""
    if not options.rerun:
        return nullcontext()
    from motion4d_ros.offline.viewing.live_show import live_show  # an extra

    return live_show(options.rerun, options.out.resolve().name)


def _make_engine(config: Config) -> Motion4D:
    """The real one, imported only now: PyTorch takes seconds, and bad input should be told before."""
    first = "motion4d_ros.pipeline" not in sys.modules
    with _collection_paused() if first else nullcontext():
        from motion4d_ros.pipeline import Motion4D
        from motion4d_ros.raster_library import load_library

    engine = Motion4D(config)
    if engine.device.type == "cpu":
        load_library()  # says what is wrong with it now, and not at the first window
    return engine


@contextmanager
def _collection_paused() -> Iterator[None]:
    """Imports make hundreds of thousands of objects that stay: they are not searched for garbage, now or later.

    Only for the first import: what an earlier analysis has left would stay, too.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if enabled:
            gc.enable()


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
    masks = None if source.masks == NOTHING else source.masks
    if masks is not None:
        imply("masks.source", "topic")
    elif source.detections is not None:
        imply("masks.discovery", "detections")
    elif options.prompt_mask is not None:
        imply("masks.discovery", "none")  # what is marked, and nothing else
    depth = None if source.depth == NOTHING else source.depth
    if depth is not None:
        imply("depth.source", "topic")
    if source.depth_units_per_metre:
        imply("depth.units_per_metre", str(source.depth_units_per_metre))
    poses = None if source.poses == NOTHING else source.poses
    if source.odometry is not None or poses is not None:
        imply("pose.source", "odometry")
    wants = {"masks.source": (masks, "--masks"), "depth.source": (depth, "--depth")}
    for path, (given, option) in wants.items():
        if config.get(path) == "topic" and given is None:
            raise Motion4DError(f"{path}=topic needs {option}")
    prompted = config.masks.source not in ("topic", "none") and config.finder == "none"
    if prompted and options.prompt_mask is None:
        raise Motion4DError("masks.discovery=none finds nothing by itself: it needs --prompt-mask FILE.png")
    if config.finder == "detections" and source.detections is None and config.detections.source == "given":
        raise Motion4DError(
            "masks.discovery=detections needs --detections FILE.json (or a bag's TOPIC), or detections.source=onnx"
        )
    if config.pose.source == "odometry" and source.odometry is None and poses is None:
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


def with_settings(source: SourceOptions, config: Config) -> SourceOptions:
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


__all__ = ["AnalysisResult", "AnalyzeOptions", "Progress", "analyze", "effective_config"]
