"""From the scene to estimates: what is told to the world about every frame."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from motion4d_ros.config import Config
from motion4d_ros.fit.frontend.intake import Intake
from motion4d_ros.fit.optimisation.mapper import Mapper
from motion4d_ros.fit.output.scene_readout import (
    MIN_VISIBLE_OPACITY,
    known_motion,
    observations,
    points_ahead,
    told_points,
    tracked_points,
)
from motion4d_ros.fit.output.track_confidence import point_confidence
from motion4d_ros.fit.semantics.mask_fusion import Fused, scene_labels
from motion4d_ros.fit.window.horizon import FrameState, Horizon
from motion4d_ros.fit.window.scene_scale import sight_of
from motion4d_ros.geometry.label_images import PackedLabels, resize_labels
from motion4d_ros.geometry.pose_covariance import PoseCovariance
from motion4d_ros.objects.classes import ClassBook
from motion4d_ros.objects.observation import ObjectObservation
from motion4d_ros.objects.tracker import ObjectTracker
from motion4d_ros.scene.bases import MotionBases
from motion4d_ros.scene.frozen_points import FrozenPoints
from motion4d_ros.types import Estimate, ObjectPhase, ObjectState, Scale, Stage, StaticPoints, TrackedPoints


class EstimateBuilder:
    """Keeps the objects' life stories and writes estimates."""

    def __init__(self, config: Config) -> None:
        self.tracker = ObjectTracker(config.objects)
        self.classes = ClassBook()
        self._newest: FrameState | None = None  # the newest frame that was fitted

    def live(self, mapper: Mapper, fused: Fused, state: FrameState) -> Estimate:
        """A frame before it is fitted, or that never will be: objects moved by their motion, labels `fused` from
        what was seen so far.
        """
        bases = mapper.scene.bases
        fitted = bases.length > 0
        objects = self.tracker.predict(state.frame.stamp_ns, state.T_map_cam) if fitted else []
        points = TrackedPoints.empty()
        if fitted:
            points = points_at(bases, partial(tracked_points, mapper), self._newest or state, state, objects)
        return live_estimate(state, fused, points, named(objects, self.classes.best))

    def frozen(self, mapper: Mapper) -> LiveScene:
        """What live estimates take from the scene and its objects as they are now, apart from them."""
        points = FrozenPoints(mapper.scene, MIN_VISIBLE_OPACITY) if mapper.scene.bases.length else None
        return LiveScene(self.tracker.frozen(), copy.deepcopy(self.classes), points, self._newest)

    def forget(self, object_id: int) -> None:
        """An object was deleted."""
        self.tracker.remove(object_id)
        self.classes.forget(object_id)

    def report(
        self, mapper: Mapper, intake: Intake, horizon: Horizon, frames: Sequence[int], stage: Stage
    ) -> list[Estimate]:
        """Estimates of fitted frames; frames that were reported before are told anew, smoothed over all of them."""
        history: list[tuple[int, list[ObjectObservation]]] = []
        parts = []
        states_of = [horizon.get(index) for index in frames]
        views = []
        for state in states_of:
            mapper.yield_point()
            views.append(mapper.view(state))
        positions = [index - horizon.first_index for index in frames]
        scene = {p: scene_labels(mapper.channel_of, view) for p, view in zip(positions, views, strict=True)}
        mapper.yield_point()
        fused = mapper.geometry.fusion.fuse(horizon.frames, intake.tracks.flows, positions, scene)
        for index, state, view in zip(frames, states_of, views, strict=True):
            mapper.yield_point()
            told = fused[index - horizon.first_index]
            state.published = PackedLabels.pack(told.labels)
            shown = resize_labels(told.labels, state.frame.camera.size).astype(np.uint16)
            points = told_points(tracked_points(mapper, index), sight_of(state))
            seen = observations(mapper, state, points, shown, view.output.depth.cpu().numpy())
            history.append((state.frame.stamp_ns, seen))
            parts.append((state, told, _judged(points, partial(known_motion, mapper, index=index), state)))
            if index == horizon.frames[-1].index:
                self._newest = state
        intake.look_again()
        states = self.tracker.replay(history)
        for each in horizon.frames:  # detections may come long after their frame
            self.classes.observe(each.index, each.labels, each.frame.detections)
        return [
            _estimate(state, stage, told, points, named(objects, self.classes.best))
            for (state, told, points), objects in zip(parts, states, strict=True)
        ]

    def static_points(self, mapper: Mapper) -> StaticPoints:
        """Centres of the static Gaussians."""
        scene = mapper.scene
        rows = (~scene.dynamic).nonzero().squeeze(1)
        rgb = scene.params["colors"].detach()[rows].clamp(0, 1)
        return StaticPoints(
            scene.params["means"].detach()[rows].float().cpu().numpy(),
            (rgb * 255).round().cpu().numpy().astype(np.uint8),
            scene.params["confidence_logits"].detach()[rows].sigmoid().float().cpu().numpy(),
        )


@dataclass(frozen=True)
class LiveScene:
    """The scene and its objects as they were at one moment: what a live estimate takes from them."""

    tracker: ObjectTracker
    classes: ClassBook
    points: FrozenPoints | None  # None: nothing has been fitted yet
    newest: FrameState | None  # the newest frame that was fitted

    def tell(self, state: FrameState, fused: Fused, *, with_points: bool) -> Estimate:
        """A frame that is not fitted; without its points unless `with_points`."""
        if self.points is None:
            return live_estimate(state, fused, TrackedPoints.empty(), [])
        objects = self.tracker.predict(state.frame.stamp_ns, state.T_map_cam)
        points = TrackedPoints.empty()
        if with_points:
            points = points_at(self.points.bases, self.points.at, self.newest or state, state, objects)
        return live_estimate(state, fused, points, named(objects, self.classes.best))


def live_estimate(state: FrameState, fused: Fused, points: TrackedPoints, objects: list[ObjectState]) -> Estimate:
    """What is said of a frame before it is fitted; points are as sure as the predicted poses of their objects."""
    known = {
        each.object_id: PoseCovariance(each.T_map_object[:3, 3], each.pose_covariance, each.pose_covariance)
        for each in objects
    }
    return _estimate(state, Stage.LIVE, fused, _judged(points, known.get, state), objects)


def named(objects: Sequence[ObjectState], best_class: Callable[[int], tuple[str, float]]) -> list[ObjectState]:
    """Objects with the classes that detectors see in them, but for those that a person has named."""
    best = {each.object_id: best_class(each.object_id) for each in objects if not each.label}
    return [
        replace(each, label=best[each.object_id][0], label_score=best[each.object_id][1])
        if each.object_id in best
        else each
        for each in objects
    ]


def points_at(
    bases: MotionBases,
    at: Callable[[float], TrackedPoints],
    newest: FrameState,
    state: FrameState,
    objects: Sequence[ObjectState],
) -> TrackedPoints:
    """Points of `objects` at a frame that is not fitted, by those `at` a frame index; their distance is held where it
    has no metres, as seen from the `newest` frame that was fitted.
    """
    when = round(bases.index_of_stamp(state.frame.stamp_ns), 6)
    sight = sight_of(newest)
    if sight is None or when <= bases.last_index:
        return told_points(at(when), sight)
    seconds = (state.frame.stamp_ns - bases.stamps_ns[-1]) * 1e-9
    seen = [each.object_id for each in objects if each.phase in (ObjectPhase.NEW, ObjectPhase.TRACKED)]
    return points_ahead(at(bases.last_index), sight, seconds, state.T_map_cam, seen)


def _judged(
    points: TrackedPoints, covariance_of: Callable[[int], PoseCovariance | None], state: FrameState
) -> TrackedPoints:
    """Points with the probability that they are right."""
    metric = state.scale is Scale.METRIC
    confidence = point_confidence(points, covariance_of, state.T_map_cam, state.output_camera, metric)
    return replace(points, confidence=confidence)


def _estimate(
    state: FrameState, stage: Stage, fused: Fused, points: TrackedPoints, objects: list[ObjectState]
) -> Estimate:
    return Estimate(
        index=state.index,
        stamp_ns=state.frame.stamp_ns,
        frame_id=state.frame.frame_id,
        stage=stage,
        camera=state.output_camera,
        T_map_cam=state.T_map_cam,
        pose_status=state.pose_status,
        scale=state.scale,
        masks=fused.labels.astype(np.uint16),
        points=points,
        objects=objects,
        warnings=tuple(state.warnings),
        mask_confidence=np.rint(255 * fused.confidence).astype(np.uint8),
    )
