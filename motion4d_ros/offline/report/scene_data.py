"""The 3D view's data, packed small: 16-bit coordinates in a common box, thinned to what a page can carry."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from motion4d_ros.offline.queries import objects_of_queries
from motion4d_ros.offline.results.frame_log import FrameLog
from motion4d_ros.types import FloatArray, QueryTracks, StaticPoints
from motion4d_ros.viewer import palette
from motion4d_ros.viewer.drawn import thin_static, up_direction

MAX_MOVING_TOTAL = 220_000  # over all keyframes
MAX_KEYFRAMES = 200
MAX_TRAILS = 120
SIZE_STEPS = 32  # steps of a point's size up to the typical one


def plan_axes(T_map_cams: dict[int, FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Two (3,) horizontal unit vectors (right, forward) for a map from above, right-handed with up."""
    up = up_direction(T_map_cams)
    if up[2] == 1.0:
        return np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])
    forward = next(iter(T_map_cams.values()))[:3, 2]
    forward = forward - up * (forward @ up)
    forward /= max(float(np.linalg.norm(forward)), 1e-9)
    return np.cross(forward, up), forward


def pack_scene(
    log: FrameLog, tracks: QueryTracks, T_map_cams: dict[int, FloatArray], static: StaticPoints, first: int = 0
) -> dict[str, Any]:
    """Everything the viewer draws, from frame number `first` on, as plain JSON with base64 arrays (little endian)."""
    last = log.finished - 1
    T_map_cams = {i: T for i, T in T_map_cams.items() if i >= first}
    count = min(last + 1 - first, MAX_KEYFRAMES)
    keyframes = np.unique(np.linspace(first, last, count).round().astype(int)).tolist()
    xyz, colours = thin_static(static)
    sizes, size_unit = _sizes(xyz)
    box_of = _Box(_interesting(log, T_map_cams, xyz, keyframes))
    moving, rgb, ids, counts = _moving(log, keyframes)
    return {
        "low": box_of.low.tolist(),
        "step": box_of.step.tolist(),
        "up": up_direction(T_map_cams).tolist(),
        "keyframes": keyframes,
        "seconds": [(log.stamps_ns[i] - log.stamps_ns[0]) / 1e9 for i in keyframes],
        "static": {"xyz": box_of.pack(xyz), "rgb": _b64(colours), "size": _b64(sizes)},
        "moving": {"xyz": box_of.pack(moving), "rgb": _b64(rgb), "id": _b64(ids.astype("<u2")), "counts": counts},
        "objects": _objects(log, keyframes),
        "trails": _trails(log, tracks, keyframes),
        "cameras": [_pose(T_map_cams.get(i)) for i in keyframes],
        "view": _frustum(log),
        "sizeUnit": size_unit,
        "movingSize": _sizes(log.points(keyframes[len(keyframes) // 2]).xyz_map.astype(float))[1] * 0.6 * SIZE_STEPS,
    }


class _Box:
    """Quantisation of coordinates to 16 bits."""

    def __init__(self, points: FloatArray) -> None:
        points = points[np.isfinite(points).all(1)] if len(points) else np.zeros((1, 3))
        if not len(points):
            points = np.zeros((1, 3))
        self.low = points.min(0)
        self.step = np.maximum(points.max(0) - self.low, 1e-6) / 65535.0

    def pack(self, xyz: FloatArray) -> str:
        """(P, 3) -> base64 of uint16."""
        scaled = np.nan_to_num((xyz - self.low) / self.step)
        return _b64(np.clip(np.round(scaled), 0, 65535).astype("<u2"))


def _interesting(
    log: FrameLog, T_map_cams: dict[int, FloatArray], static: FloatArray, keyframes: list[int]
) -> FloatArray:
    """Points whose bounding box is worth showing: the bulk of the scene, all objects and cameras."""
    parts: list[FloatArray] = [np.zeros((0, 3))]
    if len(static):
        inside = np.percentile(static, [1, 99], axis=0)
        margin = 0.1 * (inside[1] - inside[0])
        parts.append(np.stack([inside[0] - margin, inside[1] + margin]))
    parts += [T_map_cams[i][:3, 3][None] for i in keyframes if i in T_map_cams]
    for index in keyframes:
        parts += [
            state.T_map_object[:3, 3][None] + s * np.max(state.size_m)
            for state in log.facts[index].estimate.objects
            for s in (-1, 1)
        ]
    return np.concatenate(parts)


def _sizes(xyz: FloatArray) -> tuple[NDArray[np.uint8], float]:
    """How large each point is drawn so that neighbours close to a surface: (P,) steps, and the length of one step.

    Points lie as densely as the image saw them, so far surfaces need larger ones.
    """
    if len(xyz) < 4 or not np.isfinite(xyz).all():
        return np.full(len(xyz), SIZE_STEPS, np.uint8), 0.01 / SIZE_STEPS
    distances, _ = cKDTree(xyz).query(xyz, k=4)
    own = np.asarray(distances)[:, 1:].mean(1)
    step = max(float(np.median(own)), 1e-6) / SIZE_STEPS
    alone = own > 3.0 * SIZE_STEPS * step  # strays belong to no surface
    steps = np.where(alone, SIZE_STEPS // 2, np.clip(np.round(own / step), 1, 2 * SIZE_STEPS))
    return steps.astype(np.uint8), step


def _moving(log: FrameLog, keyframes: list[int]) -> tuple[FloatArray, NDArray[np.uint8], NDArray[np.uint32], list[int]]:
    """Moving points of every keyframe, one after the other, with their number per keyframe."""
    per_frame = max(100, MAX_MOVING_TOTAL // max(1, len(keyframes)))
    xyz, rgb, ids, counts = [np.zeros((0, 3))], [np.zeros((0, 3), np.uint8)], [np.zeros(0, np.uint32)], []
    for index in keyframes:
        points = log.points(index)
        rows: NDArray[Any] = np.arange(len(points.point_id))
        if len(rows) > per_frame:
            rows = np.linspace(0, len(rows) - 1, per_frame).round().astype(int)
        xyz.append(points.xyz_map[rows].astype(float))
        rgb.append(points.rgb[rows])
        ids.append(points.object_id[rows])
        counts.append(len(rows))
    return np.concatenate(xyz), np.concatenate(rgb), np.concatenate(ids), counts


def _objects(log: FrameLog, keyframes: list[int]) -> list[dict[str, Any]]:
    position = {index: k for k, index in enumerate(keyframes)}
    found = []
    for object_id, states in sorted(log.objects().items()):
        boxes: list[list[float] | None] = [None] * len(keyframes)
        phases = [""] * len(keyframes)
        for index, state in states:
            if index in position:
                T = state.T_map_object
                boxes[position[index]] = _rounded([*T[:3, :3].reshape(-1), *T[:3, 3], *state.size_m])
                phases[position[index]] = state.phase.value
        label = next((state.label for _, state in reversed(states) if state.label), "")
        found.append(
            {"id": object_id, "label": label, "colour": list(palette.rgb(object_id)), "boxes": boxes, "phases": phases}
        )
    return found


def _trails(log: FrameLog, tracks: QueryTracks, keyframes: list[int]) -> list[dict[str, Any]]:
    """3D tracks of moving query points: those whose visible positions spread beyond their noise."""
    if not len(tracks.query_points) or not log.finished:
        return []
    xyz = np.asarray(tracks.tracks_xyz[:, : log.finished], float)
    span = np.nan_to_num(
        np.nanmax(xyz, 1, initial=-np.inf, where=np.isfinite(xyz))
        - np.nanmin(xyz, 1, initial=np.inf, where=np.isfinite(xyz)),
        neginf=0.0,
    )
    reach = np.linalg.norm(span, axis=1)
    moving = np.flatnonzero(reach > max(0.02, 0.1 * float(np.percentile(reach, 98))))
    rows = (
        moving[np.unique(np.linspace(0, len(moving) - 1, min(MAX_TRAILS, len(moving))).round().astype(int))]
        if len(moving)
        else moving
    )
    found = []
    ids = objects_of_queries(tracks.query_points[rows], log.masks, log.finished)
    for row, object_id in zip(rows, ids, strict=True):
        path = [_rounded(p.tolist()) if np.isfinite(p).all() else None for p in xyz[row, keyframes]]
        found.append({"colour": list(palette.rgb(object_id)) if object_id else [150, 150, 145], "path": path})
    return found


def _pose(T: FloatArray | None) -> list[float] | None:
    return None if T is None else _rounded([*T[:3, :3].reshape(-1), *T[:3, 3]])


def _frustum(log: FrameLog) -> list[float]:
    """Half width and half height of the image at distance 1."""
    camera = log.facts[0].estimate.camera
    return [camera.width / 2 / camera.fx, camera.height / 2 / camera.fy]


def _rounded(values: list[float]) -> list[float]:
    return [round(float(value), 4) if np.isfinite(value) else 0.0 for value in values]


def _b64(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
