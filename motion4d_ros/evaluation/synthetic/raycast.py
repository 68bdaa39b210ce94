"""Exact ray casting of posed shapes: which part a pixel sees, how far it is, and what colour it has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.evaluation.synthetic.motion import Trajectory
from motion4d_ros.evaluation.synthetic.shapes import Shape
from motion4d_ros.evaluation.synthetic.textures import Texture
from motion4d_ros.types import Camera, FloatArray

_LIGHT = np.array([-0.45, -0.35, 0.82])  # towards the lamp, map frame
_AMBIENT = 0.55


@dataclass
class Part:
    """One shape on its way through the map. Parts with the same `object_id` are one object; 0 is background."""

    shape: Shape
    texture: Texture
    trajectory: Trajectory
    object_id: int = 0


@dataclass
class Hits:
    """What N rays hit first. `multiple` scales the direction given: with z = 1 in the camera it is the depth."""

    part: NDArray[np.int64]  # (N,) index of the part, -1 for nothing
    multiple: FloatArray  # (N,) inf for nothing


def cast(parts: list[Part], origin: FloatArray, directions: FloatArray, time_s: float) -> Hits:
    """Nearest hits of rays from `origin` (3,) along `directions` (N, 3), map frame, any length."""
    count = len(directions)
    hits = Hits(np.full(count, -1), np.full(count, np.inf))
    for k, part in enumerate(parts):
        T = part.trajectory(time_s)
        local_origin = T[:3, :3].T @ (origin - T[:3, 3])
        rows = _near_sphere(origin, directions, T[:3, 3], part.shape.radius)
        if not len(rows):
            continue
        found = part.shape.intersect(local_origin, directions[rows] @ T[:3, :3], time_s)
        closer = found < hits.multiple[rows]
        hits.multiple[rows[closer]] = found[closer]
        hits.part[rows[closer]] = k
    return hits


def _near_sphere(origin: FloatArray, directions: FloatArray, centre: FloatArray, radius: float) -> NDArray[np.int64]:
    """Indices of the rays that pass a bounding sphere; all of them from inside it."""
    to_centre = centre - origin
    distance2 = float(to_centre @ to_centre)
    if distance2 <= radius**2:
        return np.arange(len(directions))
    along = directions @ to_centre
    # angle to the centre below asin(radius/distance), without a square root per ray
    needed = distance2 - radius**2
    return np.flatnonzero((along > 0) & (along * along >= needed * (directions**2).sum(-1)))


def shade(
    parts: list[Part], hits: Hits, origin: FloatArray, directions: FloatArray, time_s: float, pixel_angle: float
) -> NDArray[np.float32]:
    """(N, 3) colours in [0, 1]: texture under one lamp and ambient light (Lambert). `pixel_angle` in rad."""
    colours = np.zeros((len(directions), 3), np.float32)
    for k in np.unique(hits.part[hits.part >= 0]):
        part, rows = parts[k], np.flatnonzero(hits.part == k)
        T = part.trajectory(time_s)
        rays = directions[rows]
        points = (origin + hits.multiple[rows, None] * rays - T[:3, 3]) @ T[:3, :3]
        normals = part.shape.normal(points, time_s) @ T[:3, :3].T
        distance = hits.multiple[rows] * np.linalg.norm(rays, axis=-1)
        facing = (normals * rays).sum(-1) / np.linalg.norm(rays, axis=-1)
        normals = normals * np.where(facing > 0, -1.0, 1.0)[:, None]
        footprint = distance * pixel_angle / np.sqrt(np.clip(np.abs(facing), 0.08, 1.0))
        albedo = part.texture.sample(part.shape.uv(part.shape.material(points, time_s)), footprint)
        light = _AMBIENT + (1 - _AMBIENT) * np.clip(normals @ _LIGHT, 0, 1)
        colours[rows] = albedo * light[:, None].astype(np.float32)
    return colours


def camera_rays(camera: Camera, T_map_cam: FloatArray, shift: tuple[float, float] = (0.0, 0.0)) -> FloatArray:
    """(H*W, 3) directions in the map, of camera depth 1, through pixel centres moved by `shift` px."""
    grid = camera.pixel_grid().reshape(-1, 2) + shift
    return camera.unproject(grid, np.ones(len(grid))) @ T_map_cam[:3, :3].T
