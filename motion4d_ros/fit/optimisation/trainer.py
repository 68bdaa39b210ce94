"""The optimiser's loops: motion first, then semantics, then everything together (Motion4D, sec. 3.2-3.3).

Each iteration renders one frame once; colour, label distribution, confidence and "where will you be at t'" are all
channels of that one pass, so every loss costs one forward and one backward of the rasteriser.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from motion4d_ros.config import Config
from motion4d_ros.fit.optimisation import losses
from motion4d_ros.fit.optimisation.native_step import NativeStep, Task
from motion4d_ros.fit.optimisation.targets import Target, TrackTargets
from motion4d_ros.fit.window.yield_point import YieldPoint
from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.render.output import RenderOutput
from motion4d_ros.render.render import render_unchecked
from motion4d_ros.scene.optimizer import SceneOptimizer
from motion4d_ros.scene.scene import Scene
from motion4d_ros.types import Camera

APPEARANCE = ("means", "quats", "log_scales", "opacity_logits", "colors", "confidence_logits")
SHAPE = ("means", "quats", "log_scales", "opacity_logits")  # what outlines depend on
MOTION = ("base_quats", "base_trans", "motion_logits")
SEMANTICS = ("semantics",)


@dataclass
class View:
    """One rendered frame, split into its channels."""

    rgb: Tensor  # (H, W, 3)
    labels: Tensor  # (H, W, C) label distribution; the rest to one is "nothing there"
    confidence: Tensor  # (H, W) in [0, 1]
    later: Tensor | None  # (H, W, 3) alpha-weighted map positions at the other time
    output: RenderOutput


class Trainer:
    """Fits one scene. It owns the optimiser's state and the clock of the raster kernels."""

    def __init__(self, scene: Scene, config: Config, yield_point: YieldPoint | None = None) -> None:
        self.scene = scene
        self._yield_point = yield_point or YieldPoint()
        self.config = config.fit
        self.weights = config.loss
        self.threads = config.run.threads
        self.geometry_multiplier = config.lr.geometry_multiplier  # by which stage 1 multiplies the rates of `SHAPE`
        lr = config.lr
        self._global_rates = (lr.global_start, lr.global_end)  # by which stage 3 multiplies all rates
        self.optimizer = SceneOptimizer(
            scene,
            {
                "means": lr.means,
                "quats": lr.quats,
                "log_scales": lr.scales,
                "opacity_logits": lr.opacity,
                "colors": lr.colors,
                "semantics": lr.semantics,
                "confidence_logits": lr.confidence_logits,
                "motion_logits": lr.motion_weights,
                "base_quats": lr.bases,
                "base_trans": lr.bases,
            },
        )
        self.native: NativeStep | None = NativeStep(scene, self.optimizer, config)  # None: all steps by PyTorch
        self.raster_seconds = 0.0
        self.step_seconds = 0.0  # in all steps
        self.iterations = 0
        self.random = np.random.default_rng(config.run.seed)

    # -- stages --------------------------------------------------------------------------------------------------------

    def run(
        self,
        stage: str,
        targets: Sequence[Target],
        camera: Camera,
        iterations: int,
        tracks: Callable[[int, int], TrackTargets | None],
        replay: Sequence[Target] = (),
        should_stop: Callable[[], bool] | None = None,
    ) -> int:
        """Runs up to `iterations` steps of stage "motion", "semantic" or "global"; how many were done.

        Frames are drawn in shuffled rounds from `targets`; a share of the steps revisits `replay`, so that what was
        learnt is not forgotten. Stops early once `should_stop()`. In stage "global" steps become shorter: long ones get
        there, short ones settle there.
        """
        stages = {"motion": APPEARANCE + MOTION, "semantic": SEMANTICS, "global": APPEARANCE + MOTION + SEMANTICS}
        # what has no rate takes no step: its gradients would be computed for nothing
        trained = [name for name in stages[stage] if self.optimizer.rates[name] > 0]
        first, last = self._global_rates if stage == "global" else (1.0, 1.0)
        order: list[Target] = []
        done = 0
        with self.optimizer.training_only(trained):
            for done in range(iterations):
                self._yield_point()
                if should_stop is not None and should_stop():
                    return done
                if replay and self.random.random() < self.config.replay:
                    target = replay[int(self.random.integers(len(replay)))]
                else:
                    if not order:
                        order = [targets[i] for i in self.random.permutation(len(targets))]
                    target = order.pop()
                factor = first * (last / first) ** (done / max(1, iterations - 1))
                self._step(stage, target, camera, tracks, trained, factor)
                done += 1
        return done

    def _step(
        self,
        stage: str,
        target: Target,
        camera: Camera,
        tracks: Callable[[int, int], TrackTargets | None],
        trained: Sequence[str],
        factor: float,
    ) -> None:
        begun = time.perf_counter()
        other = self._other_time(target.index) if stage != "semantic" and self.weights.track > 0 else None
        pairs = tracks(target.index, other) if other is not None else None
        there = None if pairs is None or other is None else self._targets[other]
        task = Task(target, camera, stage == "semantic", there, pairs if there is not None else None)
        multiplier = self.geometry_multiplier if stage == "motion" else 1.0
        if self.native is not None and self.native.takes(task):
            spent = self.native.raster_seconds
            self.native.apply(self.native.gradients(task, trained), multiplier, SHAPE, factor)
            self.raster_seconds += self.native.raster_seconds - spent
        else:
            self._backward(task)
            self.optimizer.step(multiplier, SHAPE, factor)
        self.iterations += 1
        self.step_seconds += time.perf_counter() - begun

    def _backward(self, task: Task) -> None:
        """Leaves gradients at the parameters that are trained."""
        view = self.view(task.target, task.camera, None if task.other is None else task.other.index)
        loss = self._loss(task, view)
        self.optimizer.zero_grad()
        started = time.perf_counter()
        loss.backward()
        self.raster_seconds += time.perf_counter() - started

    def view(self, target: Target, camera: Camera, other: int | None = None) -> View:
        """The scene as the camera of `target` sees it; with `other`, also where everything is at that frame."""
        task = Task(target, camera, labels_only=False)
        if other is None and self.native is not None and not torch.is_grad_enabled() and self.native.takes(task):
            spent = self.native.raster_seconds
            output = self.native.images(task)
            self.raster_seconds += self.native.raster_seconds - spent
            rgb, labels, confidence = output.features.split([3, self.scene.channels, 1], -1)
            return View(rgb, labels, confidence[..., 0], None, output)
        return self._view_with_gradients(target, camera, other)

    def _view_with_gradients(self, target: Target, camera: Camera, other: int | None) -> View:
        scene = self.scene
        posed = scene.at(target.index)
        probability = scene.params["semantics"].softmax(-1)
        channels = [scene.params["colors"], probability, scene.params["confidence_logits"].sigmoid()[:, None]]
        if other is not None:
            channels.append(scene.means_at([other])[:, 0])
        features = torch.cat(channels, 1)
        started = time.perf_counter()
        pose = target.T_cam_map.to(features.dtype)  # checked when the target was made
        output = render_unchecked(posed, camera, pose, features, threads=self.threads)
        self.raster_seconds += time.perf_counter() - started
        widths = [channel.shape[1] for channel in channels]
        # split: going back, each slice would fill an image with zeros
        rgb, labels, confidence, *later = output.features.split(widths, -1)
        return View(rgb, labels, confidence[..., 0], later[0] if later else None, output)

    # -- losses --------------------------------------------------------------------------------------------------------

    def _loss(self, task: Task, view: View) -> Tensor:
        weights, target = self.weights, task.target
        semantic = losses.semantic(view.labels, target.channels, target.known, 1 - view.output.alpha)
        if task.labels_only:
            return weights.semantic * semantic
        loss = weights.rgb * losses.photometric(view.rgb, target.image, weights.ssim, target.local_means)
        loss = loss + weights.mask * semantic  # in stage 1 it keeps Gaussians of an object on the object
        w = view.confidence / view.output.alpha.detach().clamp_min(1e-3)
        trust = w.detach() if self.config.confidence else torch.ones_like(w)
        loss = loss + weights.depth * losses.depth(
            view.output.depth, target.depth_m, target.depth_weight * trust * (view.output.alpha.detach() > 0.5)
        )
        if task.tracks is not None and task.other is not None:
            loss = loss + self._track_loss(target, task.other, view, w, task.tracks, task.camera)
        loss = loss + weights.scale_spread * losses.scale_spread(self.scene.params["log_scales"])
        return loss

    def _track_loss(
        self, target: Target, there: Target, view: View, w: Tensor, pairs: TrackTargets, camera: Camera
    ) -> Tensor:
        """L_track, weighted by the learnt confidence, and L_w, which teaches it (Motion4D, eq. 6-8)."""
        assert view.later is not None
        alpha = view.output.alpha[..., None]
        stacked = torch.cat([view.later, alpha, w[..., None]], -1)
        sampled = sample_image(stacked, pairs.uv_source)
        alpha_at = sampled[:, 3:4]
        xyz_map = sampled[:, :3] / alpha_at.clamp_min(1e-3)
        xyz_cam = transform_points(there.T_cam_map, xyz_map)
        z = xyz_cam[:, 2].clamp_min(1e-2)
        uv = torch.stack([camera.fx * xyz_cam[:, 0] / z + camera.cx, camera.fy * xyz_cam[:, 1] / z + camera.cy], -1)
        trust = sampled[:, 4].detach().clamp(0, 1) if self.config.confidence else torch.ones_like(sampled[:, 4])
        weight = pairs.weight * trust * (alpha_at[:, 0].detach() > 0.5)
        loss = self.weights.track * losses.track(uv, pairs.uv_target, weight, max(camera.width, camera.height))
        if self.config.confidence:
            consistent = self._consistent(target, there, pairs.uv_source, uv.detach())
            loss = loss + self.weights.confidence * losses.confidence(sampled[:, 4], consistent, pairs.counts)
        return loss

    def _consistent(self, target: Target, there: Target, uv_source: Tensor, uv_there: Tensor) -> Tensor:
        """(P,) 1 where a pixel keeps its colour and its label where the scene says it goes (Motion4D, eq. 8)."""
        a, b = sample_image(target.image, uv_source), sample_image(there.image, uv_there)
        same_colour = (a - b).abs().mean(-1) < self.config.confidence_color
        row, column = uv_source.round().long().unbind(-1)[::-1]
        here_label = target.channels[
            row.clamp(0, target.channels.shape[0] - 1), column.clamp(0, target.channels.shape[1] - 1)
        ]
        row, column = uv_there.round().long().unbind(-1)[::-1]
        inside = (row >= 0) & (column >= 0) & (row < there.channels.shape[0]) & (column < there.channels.shape[1])
        label = there.channels[row.clamp(0, there.channels.shape[0] - 1), column.clamp(0, there.channels.shape[1] - 1)]
        return (same_colour & inside & (here_label == label)).to(a.dtype)

    # -- times ---------------------------------------------------------------------------------------------------------

    def set_targets(self, targets: dict[int, Target]) -> None:
        """All frames of the horizon, by index: what `other` times are looked up in."""
        self._targets = targets

    def _other_time(self, index: int) -> int | None:
        """A random frame of the horizon within reach, for the track loss."""
        near = [k for k in self._targets if 0 < abs(k - index) <= self.config.track_reach]
        return near[int(self.random.integers(len(near)))] if near else None


def sample_image(image: Tensor, uv_px: Tensor) -> Tensor:
    """(H, W, C) at (P, 2) pixels, bilinear, differentiable in both: (P, C)."""
    height, width = image.shape[:2]
    x, y = uv_px.unbind(-1)
    grid = torch.stack([2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1], -1)[None, None]
    values = grid_sample(image.permute(2, 0, 1)[None], grid, align_corners=True, padding_mode="border")
    return values[0, :, 0].T
