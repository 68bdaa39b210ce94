"""Motion4D online: frames in, estimates out.

    engine = Motion4D(config)
    for frame in frames:
        for estimate in engine.push(frame):
            ...
    estimates = engine.flush()

A frame passes three steps. `add_frame` asks the 2D sources about it and predicts from the scene: the LIVE estimate.
When a window of frames is full, `process_window` fits them, motion first, then semantics: WINDOW estimates. Every few
windows, and whenever there is time, `refine` adjusts everything over the horizon together: GLOBAL estimates, for the
same stamps. What takes long pauses between its steps, so that frames can be added in the middle of a window.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from motion4d_ros.config import Config
from motion4d_ros.fit.checkpoint.continuation import Continuation, Decision
from motion4d_ros.fit.frontend.intake import Intake
from motion4d_ros.fit.frontend.late_detections import hear_late
from motion4d_ros.fit.frontend.skipped_frames import KeptFrame, SkippedFrames
from motion4d_ros.fit.initialisation.depth_alignment import contradiction
from motion4d_ros.fit.optimisation.mapper import Mapper
from motion4d_ros.fit.output.estimate_builder import EstimateBuilder
from motion4d_ros.fit.output.health import update_health
from motion4d_ros.fit.output.live_view import LiveView, suffices
from motion4d_ros.fit.output.scene_queries import archive_frames, query_scene, retire, scene_view, write_scene
from motion4d_ros.fit.semantics.mask_fusion import Fused
from motion4d_ros.fit.semantics.mask_refinement import MaskRefinement
from motion4d_ros.fit.tracks.final_remeasure import remeasure_final
from motion4d_ros.fit.window.archive import Archive
from motion4d_ros.fit.window.horizon import FrameState, Horizon
from motion4d_ros.fit.window.open_window import OpenWindow
from motion4d_ros.fit.window.realtime_scheduler import RealtimeScheduler
from motion4d_ros.fit.window.yield_point import YieldPoint
from motion4d_ros.render.device import choose_device
from motion4d_ros.threads import bound_threads, torch_threads
from motion4d_ros.types import (
    CAMERA_LOST,
    Detection,
    Estimate,
    FloatArray,
    Frame,
    Health,
    Motion4DError,
    Prompt,
    QueryTracks,
    Rendered,
    Stage,
    StaticPoints,
)


class Motion4D:
    """One camera's scene, grown window after window.

    `config` is copied. Estimates are in the map's frame; lengths are metres where `Estimate.scale` is METRIC.
    Not thread-safe: one thread owns it. Raises `Motion4DError` for settings that contradict each other, a device that
    is not there, and a source whose network or package is missing.
    """

    def __init__(self, config: Config) -> None:
        if config.window.horizon <= config.window.length:  # a window would have nothing to continue
            raise Motion4DError(
                f"window.horizon={config.window.horizon} must exceed window.length={config.window.length}: "
                "lengthen the horizon or shorten the window"
            )
        self.config = config.copy()
        self.device = choose_device(config.run.device)
        bound_threads(config.run.threads)
        torch.manual_seed(config.run.seed)
        self.intake = Intake(self.config)
        self.scheduler = RealtimeScheduler(self.config)
        self.yield_point = YieldPoint()
        self.health = Health(device=self.device.type)
        self._next_gaussian_id = 1
        self._start_scene()
        self._continuation = Continuation(self.config, self.device)

    def _start_scene(self) -> None:
        self._start_mapper()
        self.horizon = Horizon(self.config.window.horizon)
        self.archive = Archive()
        self.estimate_builder = EstimateBuilder(self.config)
        self.skipped_frames = SkippedFrames(self.config)
        self._poses: dict[int, FloatArray] = {}
        self.live_view: LiveView | None = None
        """What another thread can tell frames by while a window is fitted; None before the first frame, in other modes
        than realtime, and where a frame's sources say more (see `suffices`)."""

    def _start_mapper(self) -> None:
        self.mapper = Mapper(self.config, self.device, self.yield_point, self.intake.fusion)
        self.mapper.scene.next_id = self._next_gaussian_id
        self.mask_refinement = MaskRefinement(
            self.intake.masks, self.mapper.channel_of, self.intake.fusion, self.intake.tracks
        )

    # -- frames in -----------------------------------------------------------------------------------------------------

    def push(self, frame: Frame) -> list[Estimate]:
        """`add_frame`, then `process_window`: the LIVE estimate first, then those of a window that became full.

        One call takes tens of ms, or seconds where it fits a window. Raises as `add_frame` does.
        """
        return [self.add_frame(frame), *self.process_window()]

    def add_frame(self, frame: Frame, *, told: bool = False) -> Estimate:
        """Takes a frame, asks the 2D sources about it, and predicts: the LIVE estimate, within tens of ms.

        In realtime mode a frame for which there is no time is only predicted, and let go: its index is -1. One that
        was `told` by a `live_view` is kept, because `keeps_next` said so.
        Starts a new scene first, and says so in the warnings, if there is a `reason_to_restart`. `Estimate.masks` has
        the size of the frame's image.
        Raises `Motion4DError`, and does not take the frame, for a stamp that stands still, for masks of more objects
        than there may be, and for a frame that would start a new scene while the old one is being fitted (in a pause of
        `process_window`).
        """
        self._restart_if_needed(frame)
        self.intake.admit(frame)
        started = time.perf_counter()
        kept = told or self.intake.newest is None or self.scheduler.keeps(len(self.intake.pending))
        state, fused = self._take(frame) if kept else self._skip(frame)
        self.health.frames += 1
        self.scheduler.frame(frame.stamp_ns)
        estimate = self.estimate_builder.live(self.mapper, fused, state)
        if kept and suffices(self.config):
            scene = self.estimate_builder.frozen(self.mapper) if self.live_view is None else self.live_view.scene
            self.live_view = LiveView(KeptFrame(self.config, self.intake), scene)
        self.scheduler.took(time.perf_counter() - started, kept=kept)
        return estimate

    def keeps_next(self, waiting: int) -> bool:
        """Whether the next frame is to be kept for its window: for whoever tells frames by a `live_view`, of which
        `waiting` have not been added yet. May be called by that thread.
        """
        return self.scheduler.keeps(len(self.intake.pending) + waiting)

    def count_looks(self, frames: int) -> None:
        """So many more frames were told by a `live_view`, and are not kept."""
        self.health.frames += frames
        self.health.live_only += frames

    def _renew_view(self) -> None:
        """The scene has changed: live views tell what is new."""
        if self.live_view is not None:
            self.live_view = replace(self.live_view, scene=self.estimate_builder.frozen(self.mapper))

    def _restart_if_needed(self, frame: Frame) -> None:
        reason = self.reason_to_restart(frame)
        if reason and self.yield_point.taken:
            raise Motion4DError(f"{reason} in the middle of a window: abandon the window and reset first")
        if reason:
            self.reset(reason)

    def _take(self, frame: Frame) -> tuple[FrameState, Fused]:
        with torch_threads(self.config.run.threads):
            state = self.intake.take(frame)
        assert self.intake.live is not None
        self._poses[state.index] = state.T_map_cam
        return state, self.intake.live

    def _skip(self, frame: Frame) -> tuple[FrameState, Fused]:
        state, fused = self.skipped_frames.look(frame, self.intake)
        self.health.live_only += 1
        return state, fused

    def reason_to_restart(self, frame: Frame) -> str:
        """Why `frame` will start a new scene; "" if it continues the scene. Call `flush` before you push such a frame,
        if you want the final estimates of the frames so far.

        Reasons are a stamp that goes backwards, a camera that changes, and a camera that is lost for good
        (`pose.restart_after`; that can wait until a window is fitted). Raises `Motion4DError` for a stamp that stands
        still.
        """
        reason = self.intake.reason_to_restart(frame)
        if not reason and self.intake.stranded and not self.yield_point.taken:
            reason = CAMERA_LOST
        return reason

    def set_timing(self, period_s: float | None, cost_s: float = 0.0) -> None:
        """Tells realtime mode what only the caller knows, in s: the time between frames as they arrive, dropped ones
        included (None: unknown, the stamps are used), and what each frame costs the caller.
        """
        self.scheduler.set_timing(period_s, cost_s)

    @property
    def window_is_full(self) -> bool:
        """Whether enough frames wait for `process_window` to fit a window."""
        return len(self.intake.pending) >= self.config.window.length

    def process_window(
        self, should_yield: Callable[[], bool] | None = None, between: Callable[[], None] | None = None
    ) -> list[Estimate]:
        """If a window is full: fits it (stages 1 and 2) and, when due, refines globally (stage 3). Else [].

        `should_yield` ends the refinement early. `between` is called between two steps of all this, in the same
        thread; it may call `add_frame`, and nothing else of the engine. If it raises, the window is abandoned and the
        scene left half-done: `reset` must follow.
        """
        if not self.window_is_full:
            return []
        with self.yield_point.lent(between):
            estimates = self._fit_window()
            every = self.config.window.global_every
            if every and self.config.fit.global_stage and self.health.windows % every == 0:
                estimates += self._refine_round(should_yield)
        return estimates

    def flush(
        self, should_yield: Callable[[], bool] | None = None, between: Callable[[], None] | None = None
    ) -> list[Estimate]:
        """Closes the unfinished window and refines once more: estimates of that window (WINDOW), then the final ones
        of all frames in the horizon (GLOBAL, `window.horizon` at most). [] where nothing was pushed.

        The refinement stops early, keeping the gain, once `should_yield()`; `between` as in `process_window`.
        """
        estimates: list[Estimate] = []
        with self.yield_point.lent(between):
            newest = self.intake.newest_index
            self.intake.finish()
            while self.intake.pending and self.intake.pending[0].index <= newest:
                estimates += self._fit_window()
            if self.config.fit.global_stage and len(self.horizon):
                hurried = should_yield is not None and should_yield()
                if self.config.fit.final_remeasure and not hurried:
                    remeasure_final(self.mapper, self.horizon, self.intake.tracks)
                    self.mapper.fill(self.horizon, [])
                estimates += self._refine(self.config.fit.final_iterations, should_yield, whole_horizon=True)
        return estimates

    # -- the fit -------------------------------------------------------------------------------------------------------

    def _fit_window(self) -> list[Estimate]:
        """All that happens to a window, in order: the WINDOW estimates of the frames that waited."""
        decision = self._continuation.decide(self.intake, self.mapper, self.horizon)
        if decision is Decision.BEGIN_ANEW:
            self.reset("the saved scene was refused")
            return []
        if decision is Decision.PASS_OVER:
            self.intake.close_window()
            return []
        window = self._open_window()
        self._solve_geometry(window)
        self._grow_scene(window)
        self._optimise(window)
        estimates = self._tell(window)
        self._learn_costs(window)
        return estimates

    def _open_window(self) -> OpenWindow:
        """The frames that waited join the horizon, the oldest leave it; what sources have revised is adopted."""
        again = self._begin_anew() if self.intake.adopt_revised_poses(self.horizon) else []
        trainer = self.mapper.trainer
        window = OpenWindow(again, list(again), self._own_time(), trainer.iterations, trainer.step_seconds)
        for state in self.intake.close_window():
            self.horizon.append(state)
            window.frames.append(state.index)
        self._shrink()
        window.revised = self.intake.adopt_revised_masks(self.horizon)
        return window

    def _solve_geometry(self, window: OpenWindow) -> None:
        """Depth, points and the motion of every object, in closed form or by bundle adjustment: nothing is rendered."""
        with self.mapper.clock("geometry"):
            self.intake.measure_again(self.horizon, self.yield_point)
            self.mapper.geometry.update(self.horizon, self.intake.tracks, window.frames, window.revised)
        self._note_conflict()
        for state in self.horizon.frames:
            self._poses[state.index] = state.T_map_cam

    def _grow_scene(self, window: OpenWindow) -> None:
        """Objects that are gone leave the scene; new times, objects and Gaussians enter it."""
        for label in self.mapper.absent(self.horizon):
            retire(self.archive if self.config.run.archive else None, self.mapper, label)
        self.mapper.extend(self.horizon, window.frames)
        self.mapper.fill(self.horizon, window.frames)
        window.prepared = self._own_time()

    def _optimise(self, window: OpenWindow) -> None:
        """Stage 1 (motion), stage 2 (semantics), pruning; in realtime mode as many steps as there is time for."""
        share = self.scheduler.share(window.prepared - window.started)
        self.mapper.fit_window(self.horizon, window.frames, self.mask_refinement, share)
        self.mapper.prune()
        self.health.windows += 1

    def _tell(self, window: OpenWindow) -> list[Estimate]:
        """What the scene says now: GLOBAL for the frames that were fitted anew, WINDOW for the others."""
        with self.mapper.clock("report"):
            report = self.estimate_builder.report
            again, new = window.again, window.frames[len(window.again) :]
            estimates = report(self.mapper, self.intake, self.horizon, again, Stage.GLOBAL) if again else []
            estimates += report(self.mapper, self.intake, self.horizon, new, Stage.WINDOW)
            self._renew_view()
            return estimates

    def _learn_costs(self, window: OpenWindow) -> None:
        trainer = self.mapper.trainer
        steps, steps_s = trainer.iterations - window.iterations, trainer.step_seconds - window.step_seconds
        before_s, after_s = window.prepared - window.started, self._own_time() - window.prepared - steps_s
        self.scheduler.finish(before_s, steps, steps_s, after_s)

    def _begin_anew(self) -> list[int]:
        """The camera's motion has become known: what was built without it goes, the frames of the horizon are fitted
        again. Their indices; none when frames have left the horizon, whose scene can't be built again.
        """
        if self.horizon.dropped:
            return []
        self._next_gaussian_id = self.mapper.scene.next_id
        seconds = self.mapper.seconds
        self._start_mapper()
        self.mapper.seconds = seconds
        return [state.index for state in self.horizon.frames]

    def _own_time(self) -> float:
        """A clock, s, that stands still while the fit pauses for others."""
        return time.perf_counter() - self.yield_point.seconds

    def _note_conflict(self) -> None:
        """Says so when given depth and camera motion cannot both be right; depth found here is nobody's to check."""
        kind, share = contradiction(self.mapper.geometry.alignment, self.config)
        if kind:
            self.horizon.frames[-1].warnings.append(f"{kind} (off by {share:.0%})")
            self.health.warnings[kind] = self.health.warnings.get(kind, 0) + 1

    def refine(
        self, should_yield: Callable[[], bool] | None = None, between: Callable[[], None] | None = None
    ) -> list[Estimate]:
        """A global round (stage 3) over the horizon, in short slices; stops early (keeping the gain) once
        `should_yield()`. GLOBAL estimates: of all frames in the horizon, in realtime mode of the newest window.
        [] where nothing was fitted so far.

        `between` as in `process_window`.
        """
        with self.yield_point.lent(between):
            return self._refine_round(should_yield)

    def _refine_round(self, should_yield: Callable[[], bool] | None) -> list[Estimate]:
        if not len(self.horizon) or not self.config.fit.global_stage:
            return []
        iterations = self.scheduler.global_iterations(self.config.fit.global_iterations)
        if iterations == 0:
            return []
        return self._refine(iterations, should_yield, whole_horizon=False)

    def _refine(self, iterations: int, should_yield: Callable[[], bool] | None, whole_horizon: bool) -> list[Estimate]:
        done = self.mapper.refine(self.horizon, iterations, should_yield)
        if done == 0:
            return []
        self.mapper.prune()
        self.health.refinements += 1
        frames = [state.index for state in self.horizon.frames]
        if not whole_horizon and self.config.budget.mode == "realtime":
            frames = frames[-self.config.window.length :]  # what a robot can still use
        with self.mapper.clock("report"):
            estimates = self.estimate_builder.report(self.mapper, self.intake, self.horizon, frames, Stage.GLOBAL)
            self._renew_view()
            return estimates

    def _shrink(self) -> None:
        """Old times leave the horizon; what queries need of them goes to the archive."""
        dropped = self.horizon.shrink()
        if not dropped:
            return
        if self.config.run.archive:
            archive_frames(self.archive, self.mapper, dropped)
        first = self.horizon.first_index
        poses = self.mapper.forget_before(first)
        if poses is not None and self.config.run.archive:
            self.archive.add_poses(poses)
        if not self.config.run.archive:
            self._poses = {index: pose for index, pose in self._poses.items() if index >= first}
        self.intake.forget_before(first)
        self.estimate_builder.tracker.forget_before(self.horizon.frames[0].frame.stamp_ns)

    # -- everything else -----------------------------------------------------------------------------------------------

    def reset(self, reason: str) -> None:
        """Forgets scene, tracks and buffers; object and point ids go on and are never reused. `reason` is counted in
        the warnings of `status`.
        """
        self._next_gaussian_id = self.mapper.scene.next_id
        self.health.warnings[f"restarted: {reason}"] = self.health.warnings.get(f"restarted: {reason}", 0) + 1
        self._continuation.drop(reason)
        self.intake.reset()
        self._start_scene()

    def inherit(self, other: Motion4D) -> None:
        """Continues the ids of an engine that was given up, so that none is used twice. The other may still run."""
        self.intake.begin_after(set(other.intake.known_ids))
        self._next_gaussian_id = other.mapper.scene.next_id + other.config.budget.max_dynamic  # it may go on a while
        self.mapper.scene.next_id = self._next_gaussian_id

    def status(self) -> Health:
        """Counters since the start, and how the scene stands now. The same object with every call."""
        self.health.horizon, self.health.resumed = len(self.horizon), self._continuation.told
        update_health(self.health, self.mapper, self.intake, self.estimate_builder.tracker, self.scheduler)
        return self.health

    def prompt(self, prompt: Prompt) -> int:
        """A user's word on an object, in pixels of the image as it was pushed; the object's id.

        The frames since the prompt's are gone through again. Raises `Motion4DError` if its frame has left the horizon,
        if it marks nothing or something outside of the image, and for an object to remove that does not exist.
        """
        with torch_threads(self.config.run.threads):
            object_id = self.intake.prompt(prompt, self.horizon)
        if prompt.delete:
            self.mapper.remove_object(object_id)
            self.estimate_builder.forget(object_id)
        elif prompt.name:
            self.estimate_builder.tracker.rename(object_id, prompt.name)
        self._renew_view()
        return object_id

    def detect(self, stamp_ns: int, detections: tuple[Detection, ...]) -> bool:
        """What a detector says of a frame that was taken in before (see `hear_late`); whether there is such a frame.
        Detections that come with their frame stand in `Frame.detections`.
        """
        states = [*self.horizon.frames, *self.intake.pending]
        return hear_late(states, self.intake.masks, stamp_ns, detections, self.config)

    def query(self, points_tyx: FloatArray) -> QueryTracks:
        """Trajectories of (Q, 3) query points (frame index, y, x in px of the image as it was pushed) over all frames
        of the scene so far, from `QueryTracks.first_index` on (archived ones included, with `run.archive`).

        Raises `Motion4DError` for other shapes, NaN, and while no frame has been fitted.
        """
        return query_scene(points_tyx, self.mapper, self.horizon, self.archive)

    def render(self, index: int) -> Rendered:
        """The scene as seen by the camera of frame `index` (in the horizon), at that frame's time, (H, W) as its image.

        Raises `Motion4DError` for a frame that is too old or not fitted yet.
        """
        try:
            state = self.horizon.get(index)
        except KeyError:
            raise Motion4DError(f"frame {index} is not in the horizon: it is too old or not fitted yet") from None
        return scene_view(self.mapper, state)

    def static_points(self) -> StaticPoints:
        """The static map: (P, 3) centres of the Gaussians that stand still, map frame, with colours and confidence."""
        return self.estimate_builder.static_points(self.mapper)

    def save_scene(self, folder: str) -> list[str]:
        """Writes `scene.safetensors` (`open_scene` reads it) and `scene.ply` to `folder`, which is made; their paths.

        Raises `Motion4DError` where they cannot be written.
        """
        return write_scene(self.mapper, Path(folder))

    def save_checkpoint(self, path: str) -> None:
        """Keeps the scene as it lies now, and which ids were given, in one file for `resume`."""
        self._continuation.save(Path(path), self.intake, self.mapper, self.estimate_builder.tracker.names)

    def resume(self, path: str, most_bytes: int) -> None:
        """Before the first frame: goes on with the ids of a run that has ended, and with its scene if the camera shows
        it (`Health.resumed` says so). Raises `Motion4DError`, and changes nothing, if the file is no good.
        """
        self._next_gaussian_id = self._continuation.load(Path(path), most_bytes, self.intake)
        self.mapper.scene.next_id = self._next_gaussian_id
        for label, name in self._continuation.names.items():
            self.estimate_builder.tracker.rename(label, name)

    @property
    def ids_given(self) -> tuple[int, int]:
        """How many ids of points and of objects are taken: when these have grown much, a checkpoint is out of date."""
        return self.mapper.scene.next_id, len(self.intake.known_ids)

    @property
    def T_map_cams(self) -> dict[int, FloatArray]:
        """(4, 4) camera pose used for every frame of the horizon (with `run.archive`: of the run), by index."""
        return dict(self._poses)
