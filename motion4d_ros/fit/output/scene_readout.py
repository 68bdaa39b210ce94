"""What the fitted scene says about a frame: masks, tracked points and observations of objects."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from motion4d_ros.fit.optimisation.mapper import Mapper
from motion4d_ros.fit.optimisation.trainer import View
from motion4d_ros.fit.semantics.mask_fusion import scene_labels
from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.fit.window.scene_scale import sight_of
from motion4d_ros.geometry.label_images import resize_labels, resize_planes
from motion4d_ros.geometry.pose_covariance import PoseCovariance
from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.geometry.sight import Sight
from motion4d_ros.objects.observation import ObjectObservation
from motion4d_ros.scene.deformation import deformation
from motion4d_ros.types import Camera, FloatArray, TrackedPoints

HIDDEN_SHARE = 0.04  # something rendered nearer than a Gaussian by this share hides it
MIN_VISIBLE_OPACITY = 0.1


def rendered_labels(mapper: Mapper, view: View, output: Camera) -> NDArray[np.uint16]:
    """(H, W) object ids at the size of `output`: the most probable label, probabilities enlarged where needed."""
    shown = scene_labels(mapper.channel_of, view)
    return shown.names.astype(np.uint16)[resize_planes(shown.probability, output.size).argmax(-1)]


def masks(mapper: Mapper, view: View, state: FrameState, output: Camera) -> NDArray[np.uint16]:
    """(H, W) object ids as they were published last, at the size of `output`; as rendered where nothing was yet."""
    concluded = state.concluded
    if concluded is None:
        return rendered_labels(mapper, view, output)
    return resize_labels(np.maximum(concluded, 0), output.size).astype(np.uint16)


@torch.no_grad()
def tracked_points(mapper: Mapper, index: float) -> TrackedPoints:
    """All Gaussians of objects at a (fractional) frame index; beyond the horizon at constant velocity.

    An object that shows too few points to tell its motion stays where it was seen.
    """
    scene = mapper.scene
    opaque = scene.params["opacity_logits"].sigmoid() > MIN_VISIBLE_OPACITY
    chosen = ((scene.object_id > 0) & opaque).nonzero().squeeze(1)
    if len(chosen) == 0 or scene.bases.length == 0:
        return TrackedPoints.empty()
    positions = scene.means_at([index])[chosen, 0]
    velocities = torch.zeros(scene.count, 3, dtype=positions.dtype, device=positions.device)
    velocities[scene.moving_rows] = scene.velocities_at(index)
    velocity = velocities[chosen]
    colors = scene.params["colors"][chosen].clamp(0, 1)
    return TrackedPoints(
        scene.ids[chosen].cpu().numpy().astype(np.uint32),
        scene.object_id[chosen].cpu().numpy().astype(np.uint32),
        positions.float().cpu().numpy(),
        velocity.float().cpu().numpy(),
        (colors * 255).round().to(torch.uint8).cpu().numpy(),
        scene.params["confidence_logits"][chosen].sigmoid().float().cpu().numpy(),
    )


def told_points(points: TrackedPoints, sight: Sight | None) -> TrackedPoints:
    """Points without the velocity that can't be told where lengths are not metres (see `Sight.told`)."""
    if sight is None or len(points.point_id) == 0:
        return points
    xyz, velocity = points.xyz_map.astype(np.float64), points.velocity.astype(np.float64)
    return replace(points, velocity=sight.told(xyz, velocity).astype(np.float32))


def points_ahead(
    points: TrackedPoints, sight: Sight, seconds: float, T_map_now: FloatArray, seen: Collection[int]
) -> TrackedPoints:
    """Points `seconds` after they were fitted, and seen by `sight`; the camera has come to `T_map_now` (4, 4), and has
    those of the objects `seen` before it.
    """
    if len(points.point_id) == 0:
        return points
    xyz, velocity = points.xyz_map.astype(np.float64), points.velocity.astype(np.float64)
    there, moved = sight.onward(xyz, velocity, seconds)
    before = np.isin(points.object_id, list(seen))
    there[before] = sight.onward(xyz[before], velocity[before], seconds, T_map_now)[0]
    return replace(points, xyz_map=there.astype(np.float32), velocity=moved.astype(np.float32))


def observations(
    mapper: Mapper, state: FrameState, points: TrackedPoints, shown: NDArray[np.uint16], depth_m: FloatArray
) -> list[ObjectObservation]:
    """One observation per object of the scene in one frame.

    `shown` (H, W) are the rendered ids and `depth_m` (H, W) the rendered depth at working size; which of an object's
    points are in view and unhidden follows from them.
    """
    result = []
    camera = state.frame.camera
    T = state.T_cam_map
    for object_id in mapper.scene.objects():
        mine = points.object_id == object_id
        xyz = points.xyz_map[mine].astype(np.float64)
        if len(xyz) == 0:
            continue
        xyz_cam = transform_points(T, xyz)
        uv = camera.project(xyz_cam)
        inside = (
            np.isfinite(uv).all(1) & (uv >= 0).all(1) & (uv[:, 0] <= camera.width - 1) & (uv[:, 1] <= camera.height - 1)
        )
        pixel = np.rint(np.nan_to_num(uv[inside])).astype(int)
        front = depth_m[pixel[:, 1], pixel[:, 0]]
        covered = shown[pixel[:, 1], pixel[:, 0]]
        hidden = (front > 0) & (front < (1 - HIDDEN_SHARE) * xyz_cam[inside, 2]) & (covered != object_id)
        visible = int((shown == object_id).sum())
        share = float(hidden.mean()) if len(hidden) else 0.0
        expected = round(visible / max(0.05, 1.0 - share)) if visible else int(inside.sum())
        result.append(
            ObjectObservation(
                object_id=object_id,
                points_map=xyz,
                point_weights=np.maximum(points.confidence[mine].astype(np.float64), 1e-3),
                T_map_base=mapper.scene.object_pose(object_id, state.index),
                visible_pixels=visible,
                expected_pixels=max(expected, visible),
                hidden_share=share,
                in_view=bool(inside.any()),
                pose_covariance=pose_covariance(mapper, object_id, state.index),
                sight=sight_of(state, object_id),
            )
        )
    return result


def pose_covariance(mapper: Mapper, object_id: int, index: int) -> PoseCovariance | None:
    """How well the pose of an object is known in a frame: what bends is as uncertain as it bends."""
    motion = mapper.geometry.motions.get(object_id)
    known = motion.covariance(index) if motion is not None else None
    bent = deformation(mapper.scene, object_id, index)
    if known is None or bent is None:
        return known
    return known.about(bent.place).plus(bent.pose, bent.twist)


def known_motion(mapper: Mapper, label: int, index: int) -> PoseCovariance | None:
    """How well an object's motion is known in a frame; not how it bends, as points follow their own part of it."""
    motion = mapper.geometry.motions.get(label)
    return None if motion is None else motion.covariance(index)
