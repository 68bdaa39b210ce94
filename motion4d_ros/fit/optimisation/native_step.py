"""One gradient step in C++, for scenes on the CPU: what `Trainer` does with PyTorch, without a graph.

Pose, rasterise, losses, back, back, Adam: six calls of `raster/`, whose values and gradients are held against the
PyTorch step (`test/fit/optimisation/test_native_step.py`). In stage 2 only labels are rendered.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from motion4d_ros.config import Config
from motion4d_ros.fit.optimisation.losses import SSIM_WINDOW_PX
from motion4d_ros.fit.optimisation.targets import Target, TrackTargets
from motion4d_ros.raster_library import ImageGradientsStruct, ImagesStruct, SceneGradientsStruct, SceneStruct
from motion4d_ros.render.cpu import Pass, address, raster_backward, raster_forward
from motion4d_ros.render.output import RenderOutput
from motion4d_ros.render.step_library import (
    LOSSES,
    AdamStruct,
    FrameGradientsStruct,
    FrameStruct,
    ModelGradientsStruct,
    ModelStruct,
    PosedStruct,
    check,
    load_step_library,
)
from motion4d_ros.render.validity import NEAR_PLANE_M
from motion4d_ros.scene.bases import first_of_owner
from motion4d_ros.scene.optimizer import SceneOptimizer
from motion4d_ros.scene.scene import Scene
from motion4d_ros.types import Camera

MOST_STEPS = 1 << 15  # of a slot, after which the share of its newest gradient no longer changes in single precision


@dataclass(frozen=True)
class Task:
    """What a step is about."""

    target: Target
    camera: Camera
    labels_only: bool  # stage 2
    other: Target | None = None  # the frame that tracks lead to
    tracks: TrackTargets | None = None


@dataclass(frozen=True)
class _Rendering:
    """The scene as rendered: images (H, W, F), (H, W), (H, W), and what the rasteriser remembers."""

    model: ModelStruct
    posed: PosedStruct
    scene: SceneStruct
    memory: Pass
    features: Tensor
    alpha: Tensor
    depth_sum: Tensor


class NativeStep:
    """Steps of one scene. Working memory is kept from step to step."""

    def __init__(self, scene: Scene, optimizer: SceneOptimizer, config: Config) -> None:
        self.scene = scene
        self.optimizer = optimizer
        self.weights = config.loss
        self.options = config.fit
        self.threads = config.run.threads
        self.raster_seconds = 0.0  # in the rasteriser
        self.losses: dict[str, float] = {}  # of the newest step, unweighted
        self._memory: dict[str, Tensor] = {}
        counts = np.arange(1, MOST_STEPS)
        self._shares = [
            torch.from_numpy(np.append(1.0, np.minimum(1.0, (beta - 1) / np.expm1(counts * np.log(beta)))).astype("f4"))
            for beta in optimizer.betas
        ]

    def takes(self, task: Task) -> bool:
        """Whether this step can be done here: on the CPU, in single precision, at times of the horizon."""
        frames = [task.target] if task.other is None else [task.target, task.other]
        indices = self.scene.bases.indices
        known = len(self.scene.moving_rows) == 0 or all(frame.index in indices for frame in frames)
        return known and self.scene.device.type == "cpu" and self.scene.dtype == torch.float32

    @torch.no_grad()
    def images(self, task: Task) -> RenderOutput:
        """The frame as rendered: colours, label distribution and confidence side by side, with tensors of its own."""
        rendering = self._render(task, remember=False)
        return RenderOutput(
            rendering.features.clone(),
            rendering.alpha.clone(),
            rendering.depth_sum.clone(),
            self._memory["radii"].clone(),
        )

    @torch.no_grad()
    def gradients(self, task: Task, names: Collection[str]) -> dict[str, Tensor]:
        """Gradients of the weighted losses by the named parameters, shaped like them; valid until the next call."""
        rendering = self._render(task)
        images = self._losses(task, rendering)
        given = self._back_to_gaussians(task, rendering, images)
        return self._back_to_parameters(task, rendering, given, names)

    @torch.no_grad()
    def apply(
        self, gradients: Mapping[str, Tensor], multiplier: float, multiplied: Collection[str], factor: float = 1.0
    ) -> None:
        """One step of Adam with these gradients; `multiplier` is that of the rates of `multiplied`, `factor` of all."""
        for name, gradient in gradients.items():
            parameter, state = self.scene.params[name], self.optimizer.state[name]
            rate = self.optimizer.rates[name] * (multiplier if name in multiplied else 1.0) * factor
            if parameter.numel() == 0:
                continue
            tensors = (parameter, state.mean, state.square, state.steps, gradient, *self._shares)
            bad = ctypes.c_int32()
            sizes = (state.steps.numel(), parameter.numel() // state.steps.numel(), MOST_STEPS)
            struct = AdamStruct(*map(address, tensors), *sizes, rate, self.optimizer.epsilon, self.threads)
            check(load_step_library().m4d_adam(struct, bad))
            if bad.value:
                self.optimizer.note_bad_gradient()

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _room(self, name: str, *shape: int) -> Tensor:
        """Working memory, kept while its shape stays."""
        tensor = self._memory.get(name)
        if tensor is None or tensor.shape != shape:
            tensor = self._memory[name] = torch.empty(shape)
        return tensor

    def _posed(self, name: str, width: int) -> PosedStruct:
        count, moving = self.scene.count, len(self.scene.moving_rows)
        shapes = {"means": (3,), "quats": (4,), "scales": (3,), "opacities": (), "features": (width,)}
        rooms = [self._room(f"{name} {part}", count, *shape) for part, shape in shapes.items()]
        return PosedStruct(*map(address, rooms), address(self._room(f"{name} weights", moving, self.scene.bases.count)))

    def _model(self, task: Task) -> ModelStruct:
        scene, bases = self.scene, self.scene.bases
        rows, forbidden = scene.motion_index()
        self._kept = (rows, forbidden, first_of_owner(bases.owner))  # what the struct points to
        return ModelStruct(
            threads=self.threads,
            channels=scene.channels,
            bases=bases.count,
            times=bases.length,
            column=task.target.index - bases.first_index,
            other=-1 if task.other is None else task.other.index - bases.first_index,
            appearance=not task.labels_only,
            count=scene.count,
            moving=len(rows),
            **{name: address(parameter) for name, parameter in scene.params.items()},
            centers=address(bases.centers),
            first=address(self._kept[2]),
            rows=address(rows),
            forbidden=address(forbidden),
        )

    def _render(self, task: Task, remember: bool = True) -> _Rendering:
        camera, model = task.camera, self._model(task)
        width = self.scene.channels + (0 if task.labels_only else 4 + (0 if task.other is None else 3))
        posed = self._posed("posed", width)
        check(load_step_library().m4d_pose(model, posed))
        pose = task.target.T_cam_map.double()  # checked when the target was made
        scene = SceneStruct(
            width=camera.width,
            height=camera.height,
            channels=width,
            threads=self.threads,
            count=self.scene.count,
            fx=camera.fx,
            fy=camera.fy,
            cx=camera.cx,
            cy=camera.cy,
            near_plane=NEAR_PLANE_M,
            T_cam_map=(ctypes.c_double * 12)(*pose.flatten()[:12].tolist()),
            **{name: getattr(posed, name) for name in ("means", "quats", "scales", "opacities", "features")},
        )
        features = self._room("image", *camera.size, width)
        alpha, depth_sum = self._room("alpha", *camera.size), self._room("depth_sum", *camera.size)
        begun = time.perf_counter()
        places = (features, alpha, depth_sum, self._room("radii", self.scene.count))
        memory = raster_forward(scene, ImagesStruct(*map(address, places)), remember)
        self.raster_seconds += time.perf_counter() - begun
        return _Rendering(model, posed, scene, memory, features, alpha, depth_sum)

    def _losses(self, task: Task, rendering: _Rendering) -> FrameGradientsStruct:
        target, camera = task.target, task.camera
        frame = self._weighted(task, rendering)
        for name in ("image", "known", "depth_m", "depth_weight"):
            setattr(frame, name, address(getattr(target, name)))
        frame.label = address(target.channels)
        if self.weights.ssim > 0 and min(camera.size) >= SSIM_WINDOW_PX and not task.labels_only:
            frame.window_mean, frame.window_square = map(address, target.local_means())
        if task.tracks is not None and task.other is not None:
            other, tracks = task.other, task.tracks
            frame.points = len(tracks.weight)
            frame.T_other = (ctypes.c_double * 12)(*other.T_cam_map.double().flatten()[:12].tolist())
            frame.uv_source, frame.uv_target = address(tracks.uv_source), address(tracks.uv_target)
            frame.track_weight = address(tracks.weight)
            frame.image_there, frame.label_there = address(other.image), address(other.channels)
        result = FrameGradientsStruct(
            address(self._room("by image", *rendering.features.shape)),
            address(self._room("by alpha", *camera.size)),
            address(self._room("by depth_sum", *camera.size)),
        )
        check(load_step_library().m4d_frame_losses(frame, result))
        self.losses = dict(zip(LOSSES, result.losses, strict=True))
        return result

    def _weighted(self, task: Task, rendering: _Rendering) -> FrameStruct:
        """What is rendered and what it weighs, without targets."""
        weights, camera = self.weights, task.camera
        return FrameStruct(
            width=camera.width,
            height=camera.height,
            threads=self.threads,
            channels=self.scene.channels,
            features=rendering.features.shape[-1],
            appearance=not task.labels_only,
            trusting=self.options.confidence,
            rgb=weights.rgb,
            ssim=weights.ssim,
            mask=weights.semantic if task.labels_only else weights.mask,
            depth=weights.depth,
            track=weights.track,
            confidence=weights.confidence,
            confidence_color=self.options.confidence_color,
            fx=camera.fx,
            fy=camera.fy,
            cx=camera.cx,
            cy=camera.cy,
            rendered=address(rendering.features),
            alpha=address(rendering.alpha),
            depth_sum=address(rendering.depth_sum),
            scratch=address(self._room("scratch", 12, *camera.size)),
        )

    def _back_to_gaussians(self, task: Task, rendering: _Rendering, images: FrameGradientsStruct) -> PosedStruct:
        result = self._posed("by posed", rendering.features.shape[-1])
        if task.labels_only:
            given, wanted = ImageGradientsStruct(images.features), SceneGradientsStruct(features=result.features)
        else:
            given = ImageGradientsStruct(images.features, images.alpha, images.depth_sum)
            names = ("means", "quats", "scales", "opacities", "features")
            wanted = SceneGradientsStruct(*(getattr(result, name) for name in names))
        begun = time.perf_counter()
        raster_backward(rendering.scene, rendering.memory, given, wanted)
        self.raster_seconds += time.perf_counter() - begun
        return result

    def _back_to_parameters(
        self, task: Task, rendering: _Rendering, given: PosedStruct, names: Collection[str]
    ) -> dict[str, Tensor]:
        params = self.scene.params
        # gradients of motions are found together with those of means
        needed = set(names) if task.labels_only else {*names, "means"}
        rooms = {name: self._room(f"by {name}", *params[name].shape) for name in needed}
        wanted = ModelGradientsStruct(
            **{name: address(room) for name, room in rooms.items()},
            scale_spread=0.0 if task.labels_only else self.weights.scale_spread,
        )
        check(load_step_library().m4d_pose_backward(rendering.model, rendering.posed, given, wanted))
        return {name: rooms[name] for name in names}
