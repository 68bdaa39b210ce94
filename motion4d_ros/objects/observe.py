"""The scene at one time, seen by one camera, as observations for the tracker."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.objects.observation import ObjectObservation
from motion4d_ros.scene.scene import Scene
from motion4d_ros.types import BACKGROUND, BoolArray, Camera, FloatArray, IntArray

FOOTPRINT_WIDTH = 160
"""Width of the coarse image in which footprints are drawn, cells: a share of pixels is all that is asked of them."""

SOLID = 0.1
"""Gaussians less opaque than this don't count as points of an object."""

NEARER = 0.05
"""What is nearer than an object by this share of its distance hides it."""


@torch.no_grad()
def observe_scene(
    scene: Scene,
    time: float,
    camera: Camera,
    T_map_cam: FloatArray,
    masks: IntArray,
    depth_m: FloatArray | None = None,
) -> list[ObjectObservation]:
    """One observation per object of the scene, at the (fractional) frame index `time`.

    `masks` (H, W) are the object ids that were *measured* there (`UNKNOWN_LABEL` counts for nobody), `depth_m` (H, W)
    is the rendered depth, m (0 or NaN = nothing there); both at the size of `camera`. An object counts as hidden where
    the rendered depth is nearer than its own Gaussians, or where the masks show another object.
    """
    posed = scene.at(time)
    means, opacities = posed.means.double().cpu().numpy(), posed.opacities.double().cpu().numpy()
    sizes = posed.scales.double().mean(1).cpu().numpy()
    colors = scene.params["colors"].detach().double().cpu().numpy()
    owner = scene.object_id.cpu().numpy()
    T_cam_map = np.linalg.inv(T_map_cam)
    observations = []
    for object_id in scene.objects():
        rows = np.flatnonzero((owner == object_id) & (opacities > SOLID))
        points = means[rows]
        nearness = _footprint(transform_points(T_cam_map, points), sizes[rows], camera)
        covered = nearness > 0
        cells = int(covered.sum())
        hidden = _hidden(nearness, covered, object_id, masks, depth_m)
        pixels_per_cell = camera.width * camera.height / nearness.size
        observations.append(
            ObjectObservation(
                object_id=object_id,
                points_map=points,
                point_weights=opacities[rows],
                T_map_base=scene.object_pose(object_id, time),
                visible_pixels=int((masks == object_id).sum()),
                expected_pixels=round(cells * pixels_per_cell),
                hidden_share=float(hidden.sum() / cells) if cells else 0.0,
                in_view=cells > 0,
                colors=colors[rows],
            )
        )
    return observations


def _footprint(xyz_cam: FloatArray, sizes: FloatArray, camera: Camera) -> NDArray[np.float32]:
    """Coarse image of 1/depth (1/m) of an object's nearest surface, 0 where it is not: (N, 3) points of (N,) sizes, m.

    Each point fills its cell; a morphological closing as wide as the points' spacing fills the gaps between them.
    """
    small = camera.scaled(min(1.0, FOOTPRINT_WIDTH / camera.width))
    nearness = np.zeros(small.size, np.float32)
    uv = small.project(xyz_cam)
    inside = np.isfinite(uv).all(1)
    cell = np.zeros(uv.shape, int)
    cell[inside] = np.round(uv[inside]).astype(int)
    inside &= ((cell >= 0) & (cell < [small.width, small.height])).all(1)
    if not inside.any():
        return nearness
    depth = xyz_cam[inside, 2]
    np.maximum.at(nearness, (cell[inside, 1], cell[inside, 0]), 1 / depth)
    reach = int(np.clip(np.ceil(np.median(3 * sizes[inside] * small.fx / depth)), 1, 12))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return np.asarray(cv2.morphologyEx(nearness, cv2.MORPH_CLOSE, kernel, borderValue=0), np.float32)


def _hidden(
    nearness: NDArray[np.float32], covered: BoolArray, object_id: int, masks: IntArray, depth_m: FloatArray | None
) -> BoolArray:
    """Cells of the footprint where something else stands before the object."""
    size = nearness.shape[::-1]
    labels = cv2.resize(masks.astype(np.int32), size, interpolation=cv2.INTER_NEAREST)
    hidden = covered & (labels > BACKGROUND) & (labels != object_id)
    if depth_m is not None:
        depth = cv2.resize(np.nan_to_num(depth_m).astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
        own = 1 / np.where(covered, nearness, 1.0)
        hidden |= covered & (depth > 0) & (depth < (1 - NEARER) * own) & (labels != object_id)
    return hidden
