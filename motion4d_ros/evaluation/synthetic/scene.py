"""A rendered synthetic scene: images, exact truth, and the degraded inputs a pipeline is given."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.evaluation.synthetic.degrade import degrade_depth, degrade_masks
from motion4d_ros.evaluation.synthetic.motion import Trajectory
from motion4d_ros.evaluation.synthetic.raycast import Part, camera_rays, cast, shade
from motion4d_ros.files import write_atomically
from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.types import BoolArray, Camera, FloatArray, Frame

FIRST_STAMP_NS = 1_700_000_000_000_000_000
FRAME_PERIOD_NS = 100_000_000
QUERY_EVERY = 8  # frames
QUERIES_PER_OBJECT = 24
QUERIES_STATIC = 12
QUERY_MARGIN_PX = 3  # from outlines, where nobody can say what a pixel shows; what the recorded scenes keep, too
_SUBPIXELS = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))
_TOUCH_M = 4e-3  # a point this near to the first hit is that hit
_SENSOR_NOISE = 1.2  # grey levels


@dataclass
class World:
    """What there is to see, and from where: the input of `render_scene`."""

    name: str
    parts: list[Part]
    camera_path: Trajectory


@dataclass
class SyntheticScene:
    """T frames of H x W pixels with exact truth, and Q query points with exact tracks."""

    name: str
    camera: Camera
    images: NDArray[np.uint8]  # (T, H, W, 3) RGB
    masks: NDArray[np.uint16]  # (T, H, W) true object ids, 0 background
    depth_m: NDArray[np.float32]  # (T, H, W) true depth along z, m
    T_map_cam: FloatArray  # (T, 4, 4) camera to map, m
    stamps_ns: NDArray[np.int64]  # (T,)
    queries: FloatArray  # (Q, 3) t, y, x: frame number, px
    query_object: NDArray[np.int64]  # (Q,) object id, 0 static
    tracks_xyz: NDArray[np.float32]  # (Q, T, 3) m, map frame
    tracks_yx: NDArray[np.float32]  # (Q, T, 2) px; y first
    visible: BoolArray  # (Q, T) inside the image and not occluded
    in_masks: NDArray[np.uint16]  # (T, H, W) degraded, as 2D networks' are
    in_depth_m: NDArray[np.float32]  # (T, H, W) degraded, m

    def frames(self) -> list[Frame]:
        """The input of a pipeline: images and poses exact, masks and depth degraded."""
        return [
            Frame(
                stamp_ns=int(self.stamps_ns[t]),
                image=self.images[t],
                camera=self.camera,
                T_map_cam=self.T_map_cam[t],
                depth_m=self.in_depth_m[t],
                masks=self.in_masks[t].astype(np.int32),
                frame_id="camera_optical",
            )
            for t in range(len(self.images))
        ]

    def truth(self) -> dict[str, NDArray]:
        """The arrays of ``gt.npz``: what `motion4d evaluate` scores against."""
        return {
            "images": self.images,
            "masks": self.masks,
            "depth": self.depth_m.astype(np.float16),
            "T_wc": self.T_map_cam,
            "K": self.camera.K,
            "stamps": (self.stamps_ns - self.stamps_ns[0]) * 1e-9,
            "queries": self.queries,
            "tracks_xyz": self.tracks_xyz,
            "tracks_yx": self.tracks_yx,
            "visible": self.visible,
            "query_object": self.query_object,
            "in_masks": self.in_masks,
            "in_depth": self.in_depth_m.astype(np.float16),
        }

    def save_npz(self, path: Path) -> None:
        """Writes ``gt.npz`` to `path` and the query points to ``queries.npy`` beside it. Raises `OSError`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, Any] = dict(self.truth())
        write_atomically(path, lambda stream: np.savez_compressed(stream, **arrays))
        write_atomically(path.with_name("queries.npy"), lambda stream: np.save(stream, self.queries))


def render_scene(world: World, camera: Camera, frames: int, seed: int) -> SyntheticScene:
    """Renders `frames` images at 10 Hz with 2x2 samples a pixel, and everything that is true about them."""
    times = np.arange(frames) * FRAME_PERIOD_NS * 1e-9
    poses = np.stack([world.camera_path(t) for t in times])
    rngs = [np.random.default_rng([seed, zlib.crc32(world.name.encode()), k]) for k in range(4)]
    images, masks, depth = [], [], []
    for t, T_map_cam in zip(times, poses, strict=True):
        images.append(_image(world.parts, camera, T_map_cam, t, rngs[0]))
        hits = cast(world.parts, T_map_cam[:3, 3], camera_rays(camera, T_map_cam), t)
        ids = np.array([part.object_id for part in world.parts] + [0])
        masks.append(ids[hits.part].reshape(camera.size).astype(np.uint16))
        depth.append(np.where(np.isfinite(hits.multiple), hits.multiple, 0).reshape(camera.size))
    scene = SyntheticScene(
        name=world.name,
        camera=camera,
        images=np.stack(images),
        masks=np.stack(masks),
        depth_m=np.stack(depth).astype(np.float32),
        T_map_cam=poses,
        stamps_ns=FIRST_STAMP_NS + np.arange(frames, dtype=np.int64) * FRAME_PERIOD_NS,
        queries=np.zeros((0, 3)),
        query_object=np.zeros(0, np.int64),
        tracks_xyz=np.zeros((0, frames, 3), np.float32),
        tracks_yx=np.zeros((0, frames, 2), np.float32),
        visible=np.zeros((0, frames), bool),
        in_masks=degrade_masks(np.stack(masks), rngs[1]),
        in_depth_m=degrade_depth(np.stack(depth), rngs[2]),
    )
    return _with_tracks(scene, world.parts, times, rngs[3])


def _image(
    parts: list[Part], camera: Camera, T_map_cam: FloatArray, time_s: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, anti-aliased, with a little sensor noise."""
    total = np.zeros((camera.height * camera.width, 3), np.float32)
    for shift in _SUBPIXELS:
        rays = camera_rays(camera, T_map_cam, shift)
        hits = cast(parts, T_map_cam[:3, 3], rays, time_s)
        total += shade(parts, hits, T_map_cam[:3, 3], rays, time_s, pixel_angle=0.7 / camera.fx)
    grey = total / len(_SUBPIXELS) * 255 + rng.normal(0, _SENSOR_NOISE, total.shape)
    return np.clip(np.round(grey), 0, 255).astype(np.uint8).reshape(*camera.size, 3)


def _with_tracks(
    scene: SyntheticScene, parts: list[Part], times: FloatArray, rng: np.random.Generator
) -> SyntheticScene:
    """The scene with query points on every object and the background, and where they are at every time."""
    queries = _choose_queries(scene.masks, rng)
    camera, count = scene.camera, len(queries)
    owner = np.full(count, -1)
    material: list[FloatArray] = [np.zeros(0)] * count
    for t in np.unique(queries[:, 0]).astype(int):
        rows = np.flatnonzero(queries[:, 0] == t)
        T = scene.T_map_cam[t]
        rays = camera.unproject(queries[rows][:, [2, 1]], np.ones(len(rows))) @ T[:3, :3].T
        hits = cast(parts, T[:3, 3], rays, times[t])
        points = T[:3, 3] + np.where(np.isfinite(hits.multiple), hits.multiple, 0)[:, None] * rays
        owner[rows] = hits.part
        for row, k, point in zip(rows, hits.part, points, strict=True):
            pose = parts[k].trajectory(times[t])
            local = (point - pose[:3, 3]) @ pose[:3, :3]
            material[row] = parts[k].shape.material(local[None], times[t])[0]
    xyz = np.zeros((count, len(times), 3))
    visible = np.zeros((count, len(times)), bool)
    yx = np.zeros((count, len(times), 2))
    for t, time_s in enumerate(times):
        for k in np.unique(owner):
            rows = np.flatnonzero(owner == k)
            pose = parts[k].trajectory(time_s)
            local = parts[k].shape.place(np.stack([material[row] for row in rows]), time_s)
            xyz[rows, t] = transform_points(pose, local)
        yx[:, t], visible[:, t] = _seen(parts, camera, scene.T_map_cam[t], xyz[:, t], time_s)
    objects = np.array([part.object_id for part in parts], np.int64)[owner]
    return replace(
        scene,
        queries=queries,
        query_object=objects,
        tracks_xyz=xyz.astype(np.float32),
        tracks_yx=yx.astype(np.float32),
        visible=visible,
    )


def _choose_queries(masks: NDArray[np.uint16], rng: np.random.Generator) -> FloatArray:
    """(Q, 3) t, y, x at whole pixels: some on every object (if it is in sight) and some on the background.

    They keep `QUERY_MARGIN_PX` from outlines, but for objects that never show enough pixels so far inside.
    """
    size = 2 * QUERY_MARGIN_PX + 1
    margin = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    wanted = {i: QUERIES_PER_OBJECT if i else QUERIES_STATIC for i in np.unique(masks).tolist()}
    pickable = {}
    for i, count in wanted.items():
        own = masks[::QUERY_EVERY] == i
        inside = np.stack([cv2.erode(mask.astype(np.uint8), margin, borderValue=0) > 0 for mask in own])
        pickable[i] = inside if (inside.sum((1, 2)) >= 4 * count).any() else own
    chosen = []
    for k, t in enumerate(range(0, len(masks), QUERY_EVERY)):
        for i, count in wanted.items():
            rows, columns = np.nonzero(pickable[i][k])
            if len(rows) < 4 * count:
                continue
            picked = rng.choice(len(rows), count, replace=False)
            chosen.append(np.stack([np.full(count, t), rows[picked], columns[picked]], -1))
    return np.concatenate(chosen).astype(float)


def _seen(
    parts: list[Part], camera: Camera, T_map_cam: FloatArray, xyz_map: FloatArray, time_s: float
) -> tuple[FloatArray, BoolArray]:
    """Projections (Q, 2) y, x px of map points (Q, 3), and whether nothing stands before them."""
    origin = T_map_cam[:3, 3]
    xyz_cam = (xyz_map - origin) @ T_map_cam[:3, :3]
    uv = np.nan_to_num(camera.project(xyz_cam), nan=-1e4)
    inside = (uv >= 0).all(-1) & (uv[:, 0] <= camera.width - 1) & (uv[:, 1] <= camera.height - 1)
    hits = cast(parts, origin, xyz_map - origin, time_s)
    gap_m = (1 - hits.multiple) * np.linalg.norm(xyz_map - origin, axis=-1)
    return uv[:, ::-1], inside & (gap_m < _TOUCH_M)
