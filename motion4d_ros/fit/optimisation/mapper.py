"""One window's work on the scene: extend it, fill what it does not show, fit it, and prune what it does not need."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from motion4d_ros.config import Config
from motion4d_ros.fit.initialisation.geometry import Geometry
from motion4d_ros.fit.optimisation.densification import lift_pixels, pixels_to_fill
from motion4d_ros.fit.optimisation.targets import LEAST_TRACKS, DeviceTracks, Target, TrackTargets, make_target
from motion4d_ros.fit.optimisation.trainer import Trainer, View
from motion4d_ros.fit.semantics.label_votes import adopt_votes, contradicted, count_label_votes, horizon_sample
from motion4d_ros.fit.semantics.mask_fusion import MaskFusion
from motion4d_ros.fit.semantics.mask_refinement import MaskRefinement
from motion4d_ros.fit.window.horizon import FrameState, Horizon
from motion4d_ros.fit.window.yield_point import YieldPoint
from motion4d_ros.render import render
from motion4d_ros.scene.bases import ArchivedPoses
from motion4d_ros.scene.scene import Scene
from motion4d_ros.threads import torch_threads
from motion4d_ros.types import BACKGROUND, Camera, Scale

COVERED_ALPHA = 0.6  # less than this: nothing is there yet
NEARER_SHARE = 0.94  # prior depth below this share of the rendered one: something new stands in front
FORGOTTEN_LOGIT = -8.0  # semantic logit of a channel that no object has
LOOKS_BACK = 10  # frames from which the Gaussians of an object are made again
WEIGHED_FRAMES = 6  # frames in which it is weighed what each Gaussian contributes
USELESS_WEIGHT = 0.05  # pixels' worth per frame
GUESSED_SIGMA = 0.5  # relative deviation from which depth is no more than a guess
PRUNE_OPACITY = 0.03
MAX_SIZE_SHARE = 0.08  # of the distance: larger Gaussians are fog


class Mapper:
    """Owns the scene, the geometry behind it and the optimiser."""

    def __init__(
        self,
        config: Config,
        device: torch.device,
        yield_point: YieldPoint | None = None,
        fusion: MaskFusion | None = None,
    ) -> None:
        self.config = config
        self.yield_point = yield_point or YieldPoint()
        self.scene = Scene(1, device=device)
        self.geometry = Geometry(config, self.yield_point, fusion)
        self.trainer = Trainer(self.scene, config, self.yield_point)
        self.channel_of: dict[int, int] = {BACKGROUND: 0}
        self.targets: dict[int, Target] = {}
        self.seconds: dict[str, float] = {}
        self._looked_at = torch.zeros(0)  # (N,) frames of the horizon that look at each Gaussian, after `update_labels`
        self._camera: Camera | None = None
        self._free_channels: list[int] = []
        self._anew: set[int] = set()  # objects whose Gaussians are to be made again

    # -- one window ----------------------------------------------------------------------------------------------------

    def extend(self, horizon: Horizon, new: Sequence[int]) -> None:
        """Gives the scene the times, the channels and the bases that the geometry has found for the frames `new`."""
        stamps = [horizon.get(index).frame.stamp_ns for index in new]
        self.scene.extend_times(stamps, first_index=new[0])
        for label in self.geometry.motions:
            self.channel(label)
        self.adopt_motions(horizon)

    def adopt_motions(self, horizon: Horizon) -> None:
        """Takes over what the geometry has found out about motions and labels."""
        self._sync_bases(horizon)
        for state in horizon.frames:
            for label in np.unique(state.labels[state.labels > 0]).tolist():
                self.channel(int(label))
            self.targets[state.index] = make_target(state, self.channel_of, self.scene.device)
        self.trainer.set_targets(self.targets)

    def fill(self, horizon: Horizon, new: Sequence[int]) -> int:
        """Adds Gaussians for what the frames `new` show and the scene does not; how many.

        What the votes of the newest frames contradict goes first: it would stand where Gaussians of the right object
        belong, and leave a hole when it is pruned after the fit. Where depth is guessed, things are not yet where the
        newest frames show them, and contradict them for that.
        """
        added = 0
        if new and self.scene.count and _measured(horizon, new):
            self.update_labels(horizon)
        with self.clock("spawn"):
            for index in sorted(new, key=lambda k: _is_guess(horizon.get(k))):
                self.yield_point()
                added += self._fill_one(horizon.get(index))
            if self._anew:
                for state in horizon.frames[:: max(1, len(horizon) // LOOKS_BACK)]:
                    self.yield_point()
                    added += self._fill_one(state)
                self._anew.clear()
        return added

    def fit_window(self, horizon: Horizon, new: Sequence[int], refresh: MaskRefinement, scale: float = 1.0) -> None:
        """Stages 1 and 2 on the frames `new`, older ones replayed; `scale` multiplies the numbers of steps.

        Stage 1 takes longer steps where depth is measured, and does not follow a guess as fast.
        """
        fit = self.config.fit
        self.trainer.geometry_multiplier = self.config.lr.geometry_multiplier if _measured(horizon, new) else 1.0
        chosen = [self.targets[index] for index in new]
        replay = [target for index, target in self.targets.items() if index not in set(new)]
        camera, tracks = horizon.camera, self._track_source()
        motion, semantic = round(fit.motion_iterations * scale), round(fit.semantic_iterations * scale)
        if not fit.sequential:
            with self.clock("motion"):
                self.trainer.run("global", chosen, camera, motion + semantic, tracks, replay)
            return
        with self.clock("motion"):
            half = motion // 2 if fit.resampling else motion
            self.trainer.run("motion", chosen, camera, half, tracks, replay)
            if fit.resampling:
                self.resample(horizon, new)
                self.trainer.run("motion", chosen, camera, motion - half, tracks, replay)
        self._adopt_poses()
        self.update_labels(horizon)
        with self.clock("semantic"):
            rounds = 2 if fit.semantic_refinement else 1
            for turn in range(rounds):
                self.trainer.run("semantic", chosen, camera, semantic // rounds, tracks, replay)
                if fit.semantic_refinement and turn + 1 < rounds:
                    views = {}
                    for index in new:
                        self.yield_point()
                        views[index] = self.view(horizon.get(index))
                    with torch_threads(self.config.run.threads):
                        refresh(horizon, self.targets, views)

    def refine(self, horizon: Horizon, iterations: int, should_yield: Callable[[], bool] | None = None) -> int:
        """Stage 3 over the whole horizon; how many steps were done before `should_yield()`."""
        with self.clock("global"):
            targets = [self.targets[state.index] for state in horizon.frames]
            done = self.trainer.run(
                "global", targets, horizon.camera, iterations, self._track_source(), should_stop=should_yield
            )
            self._adopt_poses()
            return done

    def update_labels(self, horizon: Horizon) -> int:
        """Labels every Gaussian by the vote of the frames, and removes those the frames contradict; how many."""
        with self.clock("census"):
            witnesses = horizon_sample(self.targets, self.config.fit.label_vote_views)
            label_votes = count_label_votes(self.scene, witnesses, horizon.camera)
            adopt_votes(self.scene, label_votes, self.config.fit.label_prior_weight)
            gone = contradicted(label_votes, self._own_channels(), self.config.fit.prune_min_views)
            self._looked_at, self._camera = label_votes.looked_at[~gone], horizon.camera
            self.scene.prune(~gone)
        return int(gone.sum())

    def _own_channels(self) -> Tensor:
        """(N,) semantic channel of the object that every Gaussian belongs to."""
        table = torch.zeros(int(max(self.channel_of)) + 1, dtype=torch.int64, device=self.scene.device)
        for label, channel in self.channel_of.items():
            table[label] = channel
        return table[self.scene.object_id]

    def prune(self) -> int:
        """Removes what is invisible, what is fog, what has changed sides, and what exceeds the budget; how many."""
        scene, budget = self.scene, self.config.budget
        with torch.no_grad():
            opacity = scene.params["opacity_logits"].sigmoid()
            finite = torch.isfinite(scene.params["means"]).all(1)
            size = scene.params["log_scales"].exp().max(1).values
            keep = (opacity > PRUNE_OPACITY) & finite & (size < self._fog_size())
            voted = scene.params["semantics"].argmax(1)
            keep &= (voted == self._own_channels()) & ~self._useless()
            importance = opacity
            if len(self._looked_at) == scene.count:  # what no frame of the horizon looks at goes first
                importance = opacity * (0.05 + (self._looked_at > 0))
            for dynamic, limit in ((False, budget.max_static), (True, budget.max_dynamic)):
                rows = (keep & (scene.dynamic == dynamic)).nonzero().squeeze(1)
                if len(rows) > limit:
                    weakest = importance[rows].argsort()[: len(rows) - limit]
                    keep[rows[weakest]] = False
        removed = int((~keep).sum())
        if removed:
            scene.prune(keep)
        return removed

    def _useless(self) -> Tensor:
        """(N,) Gaussians that the horizon's frames look at without seeing them: others have taken their place."""
        useless = torch.zeros(self.scene.count, dtype=torch.bool, device=self.scene.device)
        if len(self._looked_at) != self.scene.count or self._camera is None:
            return useless
        weight = torch.zeros(self.scene.count, device=self.scene.device)
        nothing = torch.zeros(self.scene.count, 0, device=self.scene.device)
        for target in horizon_sample(self.targets, WEIGHED_FRAMES):
            posed = self.scene.at(target.index)
            output = render(posed, self._camera, target.T_cam_map, nothing, threads=self.config.run.threads, stats=True)
            if output.weight_sum is not None:
                weight += output.weight_sum
        return (self._looked_at >= self.config.fit.prune_min_views) & (weight < USELESS_WEIGHT * WEIGHED_FRAMES)

    def resample(self, horizon: Horizon, new: Sequence[int]) -> int:
        """Adaptive resampling (Motion4D, sec. 3.3): new Gaussians where colour or labels are fitted badly, at the
        *rendered* depth; they start with the motion of their object. How many.
        """
        fit = self.config.fit
        share = max(1, fit.resample_budget // max(1, len(new) // 2))
        added = 0
        for index in new[::2]:
            self.yield_point()
            state, target = horizon.get(index), self.targets[index]
            view = self.view(state)
            error = (view.rgb - target.image).abs().mean(-1)
            wrong = 1 - view.labels.gather(-1, target.channels[..., None])[..., 0]
            misfit = torch.where(error > fit.error_rgb, error, 0.0)
            on_object = target.channels > 0
            misfit = misfit + torch.where((wrong > fit.error_semantic) & on_object & (target.known > 0), wrong, 0.0)
            depth = view.output.depth
            weight = (misfit * ((view.output.alpha > 0.5) & (depth > 0))).cpu().numpy().ravel()
            count = min(share, int((weight > 0).sum()) // 4)
            if count == 0:
                continue
            chosen = self.trainer.random.choice(len(weight), count, replace=False, p=weight / weight.sum())
            pixels = np.stack(np.unravel_index(chosen, error.shape), 1)
            added += self._spawn(state, pixels, depth.cpu().numpy()[pixels[:, 0], pixels[:, 1]].astype(float))
        return added

    def remove_object(self, object_id: int) -> None:
        """Takes an object out of the scene: its Gaussians go, its motion is forgotten, its channel is free again."""
        self.scene.prune(self.scene.object_id != object_id)
        self.scene.keep_bases(self.scene.bases.owner != object_id)
        self.geometry.remove(object_id)
        self.geometry.fusion.forget(object_id)
        channel = self.channel_of.pop(object_id, None)
        if channel is not None:
            with torch.no_grad():
                self.scene.params["semantics"][:, channel] = FORGOTTEN_LOGIT
            self._free_channels.append(channel)

    def absent(self, horizon: Horizon) -> list[int]:
        """Objects that no frame of the horizon shows: what is known of them has left with the frames that did."""
        shown = set().union(*(np.unique(state.labels).tolist() for state in horizon.frames))
        return [label for label in self.channel_of if label != BACKGROUND and label not in shown]

    @torch.no_grad()
    def view(self, state: FrameState) -> View:
        """The scene as a frame's camera sees it, at working size, without gradients."""
        target = self.targets.get(state.index) or make_target(state, self.channel_of, self.scene.device)
        return self.trainer.view(target, state.frame.camera)

    def forget_before(self, index: int) -> ArchivedPoses | None:
        """Lets times before frame `index` go; the poses that leave, for the archive."""
        for old in [k for k in self.targets if k < index]:
            del self.targets[old]
        return self.scene.drop_times_before(index) if self.scene.bases.length else None

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to `seconds[name]`, without what was done for others in the pauses."""
        started, others = time.perf_counter(), self.yield_point.seconds
        try:
            yield
        finally:
            own = time.perf_counter() - started - (self.yield_point.seconds - others)
            self.seconds[name] = self.seconds.get(name, 0.0) + own

    # -- parts ---------------------------------------------------------------------------------------------------------

    def channel(self, label: int) -> int:
        """The semantic channel of an object; one that a removed object has left, or a new one."""
        if label not in self.channel_of:
            channel = self._free_channels.pop() if self._free_channels else self.scene.channels
            self.channel_of[label] = channel
            if channel == self.scene.channels:
                self.scene.grow_channels(channel + 1)
        return self.channel_of[label]

    def _sync_bases(self, horizon: Horizon) -> None:
        """The scene's bases follow the geometry: one per body of every object, its pose at every frame of the horizon.

        An object that has just been divided into parts starts anew: its Gaussians were brought to the canonical frame
        by a motion that was not theirs.
        """
        scene = self.scene
        indices = list(scene.bases.indices)
        for label, motion in self.geometry.motions.items():
            rows = (scene.bases.owner == label).nonzero().squeeze(1)
            if len(rows) not in (0, len(motion.bodies)):
                scene.prune(scene.object_id != label)
                scene.keep_bases(scene.bases.owner != label)
                self._anew.add(label)
                rows = rows[:0]
            R = np.stack([[body.poses[k][0] for k in indices] for body in motion.bodies])
            t = np.stack([[body.poses[k][1] for k in indices] for body in motion.bodies])
            flat = Rotation.from_matrix(R.reshape(-1, 3, 3)).as_quat()[:, [3, 0, 1, 2]]
            quats = torch.as_tensor(flat.reshape(*R.shape[:2], 4), dtype=scene.dtype, device=scene.device)
            trans = torch.as_tensor(t, dtype=scene.dtype, device=scene.device)
            if len(rows) == 0:
                scene.append_bases(label, torch.as_tensor(motion.center, dtype=scene.dtype), quats, trans)
                continue
            scene.revise_bases(rows, quats, trans)

    def _adopt_poses(self) -> None:
        """What the optimiser made of the bases' poses goes back to the geometry, where the next adjustment starts."""
        bases = self.scene.bases
        transforms = bases.poses_at(list(bases.indices)).transforms().detach().double().cpu().numpy()
        for label, motion in self.geometry.motions.items():
            rows = (bases.owner == label).nonzero().squeeze(1).tolist()
            for row, body in zip(rows, motion.bodies, strict=False):
                for column, index in enumerate(bases.indices):
                    T = np.eye(4)
                    T[:3] = transforms[row, column]
                    body.set_matrix(index, T)

    def _fill_one(self, state: FrameState) -> int:
        if self.scene.count == 0:
            wanted = np.ones(state.labels.shape, bool)
        else:
            view = self.view(state)
            alpha, depth = view.output.alpha.cpu().numpy(), view.output.depth.cpu().numpy()
            channels = self.targets[state.index].channels.cpu().numpy()
            shown = view.labels.argmax(-1).cpu().numpy()
            with np.errstate(invalid="ignore"):
                nearer = state.depth_m < NEARER_SHARE * depth
            unknown = ~np.isin(
                channels, self._own_channels().unique().cpu().numpy()
            )  # an object without a single Gaussian
            wanted = (alpha < COVERED_ALPHA) | (nearer & (channels > 0) & (shown != channels)) | unknown
        pixels = pixels_to_fill(state, wanted, self.config.fit.stride, self.config.fit.object_stride)
        return self._spawn(state, pixels, state.depth_m[pixels[:, 0], pixels[:, 1]].astype(float))

    def _spawn(self, state: FrameState, pixels: np.ndarray, depth_m: np.ndarray) -> int:
        if len(pixels) == 0:
            return 0
        batch = lift_pixels(
            state,
            pixels,
            depth_m,
            self.geometry,
            self.channel_of,
            self.scene,
            self.config.fit.stride,
            self.config.fit.object_stride,
        )
        self.scene.append(batch, state.index)
        return len(pixels)

    def _fog_size(self) -> float:
        depth = [float(target.depth_m.median()) for target in list(self.targets.values())[-1:]]
        return MAX_SIZE_SHARE * (depth[0] if depth else 1.0) * 3

    def _track_source(self) -> Callable[[int, int], TrackTargets | None]:
        """What gives the track targets of two frames while the table of points stays as it is."""
        if self.scene.device.type == "cpu":
            return self._tracks
        return DeviceTracks(self.geometry.table, self.scene.bases.first_index, self.scene.params["means"])

    def _tracks(self, source: int, other: int) -> TrackTargets | None:
        """What the 2D prior says between two frames: the points seen in both."""
        table, first = self.geometry.table, self.scene.bases.first_index
        a, b = source - first, other - first
        if not (0 <= a < table.seen.shape[1] and 0 <= b < table.seen.shape[1]):
            return None
        rows = np.flatnonzero(table.seen[:, a] & table.seen[:, b])
        if len(rows) < LEAST_TRACKS:
            return None

        def tensor(array: np.ndarray) -> Tensor:
            return torch.as_tensor(array, dtype=self.scene.dtype, device=self.scene.device)

        variance = table.sigma_px[rows, a] ** 2 + table.sigma_px[rows, b] ** 2
        return TrackTargets(tensor(table.uv_px[rows, a]), tensor(table.uv_px[rows, b]), tensor(1 / (0.25 + variance)))


def _measured(horizon: Horizon, indices: Sequence[int]) -> bool:
    """Whether all these frames come with lengths in metres."""
    return all(horizon.get(index).scale is Scale.METRIC for index in indices)


def _is_guess(state: FrameState) -> bool:
    """Whether a frame's depth is a guess for the most part: it then only fills what measured depth leaves open."""
    return float(np.median(state.depth_sigma)) > GUESSED_SIGMA
