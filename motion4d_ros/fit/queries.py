"""Any point, any time: the trajectory of a pixel, read off the scene.

A query pixel is lifted with the *rendered* depth, taken back to the canonical frame by the motion of the Gaussians
around it, and then forward to every time. It is visible where it lands in the image and nothing is rendered in front
of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.fit.anchors import FrameAnchors
from motion4d_ros.geometry.neighbours import nearest
from motion4d_ros.types import Camera, FloatArray, IntArray, QueryTracks

NEIGHBOURS = 8  # Gaussians whose motion a query point shares
HIDDEN_SHARE = 0.02  # rendered depth nearer than the point by this share: it is hidden
EDGE_JUMP = 0.03  # a pixel's depth off by more from its neighbours of the same label is a blend of near and far


@dataclass
class Snapshot:
    """One frame as rendered, in the horizon or from the archive."""

    stamp_ns: int
    T_map_cam: FloatArray  # (4, 4)
    labels: IntArray  # (H, W)
    depth_m: FloatArray  # (H, W) NaN = nothing there
    confidence: FloatArray | None  # (H, W); None once archived
    anchors: FrameAnchors | None = None  # measured points of this frame; None once archived


@dataclass
class MovingGaussians:
    """What queries need of the Gaussians of one object."""

    means: FloatArray  # (M, 3) canonical, m
    weights: FloatArray  # (M, B) shares of the object's bases
    motions: FloatArray  # (B, T, 3, 4) of these bases over all frames; NaN where a base did not exist


def trace(
    points_tyx: FloatArray,
    first_index: int,
    count: int,
    snapshot: Callable[[int], Snapshot],
    gaussians: Callable[[int, int], MovingGaussians | None],
    camera: Camera,
) -> QueryTracks:
    """Trajectories of (Q, 3) queries (frame index, y, x; px of `camera`) over `count` frames from `first_index`.

    `snapshot(index)` gives a frame, `gaussians(label)` the Gaussians of an object (None: it does not move).
    """
    total = len(points_tyx)
    xyz = np.full((total, count, 3), np.nan)
    labels = np.zeros(total, np.int64)
    confidence = np.full((total, count), 0.5)
    order = np.clip(np.rint(points_tyx[:, 0]).astype(int), first_index, first_index + count - 1)
    for index in np.unique(order).tolist():
        rows = np.flatnonzero(order == index)
        start, label, trust = _lift(points_tyx[rows, :0:-1], snapshot(index), camera)
        labels[rows] = label
        confidence[rows] = trust[:, None]
        for object_id in np.unique(label).tolist():
            mine = rows[label == object_id]
            moving = gaussians(object_id, index) if object_id else None
            if moving is None:
                xyz[mine] = start[label == object_id][:, None]
            else:
                xyz[mine] = follow(start[label == object_id], index - first_index, moving)
    tracks = np.zeros((total, count, 2))
    occluded = np.ones((total, count), bool)
    stamps = np.zeros(count, np.int64)
    for column in range(count):
        shot = snapshot(first_index + column)
        stamps[column] = shot.stamp_ns
        if shot.anchors is not None:
            xyz[:, column] = _shifted(xyz[:, column], labels, shot, shot.anchors, camera)
        tracks[:, column], occluded[:, column] = _see(xyz[:, column], labels, shot, camera)
    rows = np.arange(total)
    tracks[rows, order - first_index] = points_tyx[:, :0:-1]
    occluded[rows, order - first_index] = False
    return QueryTracks(
        points_tyx.copy(),
        tracks.astype(np.float32),
        occluded,
        xyz.astype(np.float32),
        confidence.astype(np.float32),
        stamps,
    )


def follow(start: FloatArray, column: int, moving: MovingGaussians) -> FloatArray:
    """(P, 3) map points at frame column `column` -> (P, T, 3): where their object takes them at every frame."""
    motions = _hold_ends(moving.motions)
    if moving.weights.shape[1] == 1 or len(moving.means) == 0:
        shares = np.full((len(start), motions.shape[0]), 1.0 / motions.shape[0])
    else:
        blended = np.einsum("mb,bij->mij", moving.weights, motions[:, column])
        now = np.einsum("mij,mj->mi", blended[..., :3], moving.means) + blended[..., 3]
        distance, index = nearest(now, start, NEIGHBOURS)
        pull = 1.0 / (distance**2 + 1e-6)
        shares = np.einsum("pk,pkb->pb", pull / pull.sum(1, keepdims=True), moving.weights[index])
    matrix = np.einsum("pb,btij->ptij", shares, motions)
    here = matrix[:, column]
    canonical = np.linalg.solve(here[..., :3], (start - here[..., 3])[..., None])[..., 0]
    return np.einsum("ptij,pj->pti", matrix[..., :3], canonical) + matrix[..., 3]


def _hold_ends(motions: FloatArray) -> FloatArray:
    """Times at which a base did not exist take the pose of the nearest time at which it did."""
    filled = motions.copy()
    for base in range(len(filled)):
        known = np.flatnonzero(np.isfinite(filled[base]).all((1, 2)))
        if len(known) == 0:
            filled[base] = np.eye(4)[:3]
            continue
        every = np.arange(filled.shape[1])
        after = known[np.clip(np.searchsorted(known, every), 0, len(known) - 1)]
        before = known[np.clip(np.searchsorted(known, every, side="right") - 1, 0, len(known) - 1)]
        nearest = np.where(np.abs(after - every) < np.abs(every - before), after, before)
        filled[base] = filled[base, nearest]
    return filled


def _lift(uv_px: FloatArray, shot: Snapshot, camera: Camera) -> tuple[FloatArray, NDArray[np.int64], FloatArray]:
    """(P, 2) pixels -> (P, 3) map points, (P,) labels, (P,) confidence."""
    height, width = shot.labels.shape
    column = np.clip(np.rint(uv_px[:, 0]).astype(int), 0, width - 1)
    row = np.clip(np.rint(uv_px[:, 1]).astype(int), 0, height - 1)
    label = shot.labels[row, column].astype(np.int64)
    around = []
    same = []
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            y, x = np.clip(row + dy, 0, height - 1), np.clip(column + dx, 0, width - 1)
            around.append(shot.depth_m[y, x])
            same.append(shot.labels[y, x] == label)
    neighbours = np.where(np.stack(same), np.stack(around), np.nan)
    with np.errstate(all="ignore"):
        median = np.nanmedian(neighbours, axis=0)
    depth = shot.depth_m[row, column]
    with np.errstate(invalid="ignore"):
        off = ~(np.abs(depth - median) < EDGE_JUMP * median)
    depth = np.where(off, median, depth)
    lost = ~np.isfinite(depth)
    if lost.any():  # nothing rendered there: the frame's typical depth, and no trust
        finite = shot.depth_m[np.isfinite(shot.depth_m)]
        depth = np.where(lost, np.median(finite) if finite.size else 1.0, depth)
    if shot.anchors is not None:
        depth = depth * shot.anchors.depth_ratio(uv_px, label, shot.depth_m)
    xyz_cam = camera.unproject(uv_px, depth)
    xyz = xyz_cam @ shot.T_map_cam[:3, :3].T + shot.T_map_cam[:3, 3]
    trust = np.full(len(uv_px), 0.5) if shot.confidence is None else shot.confidence[row, column]
    return xyz, label, np.where(lost, 0.0, trust)


def _shifted(
    xyz: FloatArray, labels: NDArray[np.int64], shot: Snapshot, anchors: FrameAnchors, camera: Camera
) -> FloatArray:
    """(Q, 3) map points, moved at their depth to where measured points around them say they are in this frame."""
    T = np.linalg.inv(shot.T_map_cam)
    xyz_cam = xyz @ T[:3, :3].T + T[:3, 3]
    uv = camera.project(xyz_cam)
    shift = anchors.shift(uv, labels)
    moved = camera.unproject(uv + shift, xyz_cam[:, 2]) @ shot.T_map_cam[:3, :3].T + shot.T_map_cam[:3, 3]
    return np.where(np.isfinite(moved).all(1, keepdims=True), moved, xyz)


def _see(
    xyz: FloatArray, labels: NDArray[np.int64], shot: Snapshot, camera: Camera
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """(Q, 3) map points in one frame: (Q, 2) pixels and (Q,) whether they are hidden."""
    T = np.linalg.inv(shot.T_map_cam)
    xyz_cam = xyz @ T[:3, :3].T + T[:3, 3]
    uv = camera.project(xyz_cam)
    height, width = shot.labels.shape
    inside = np.isfinite(uv).all(1) & (uv > -0.5).all(1) & (uv[:, 0] < width - 0.5) & (uv[:, 1] < height - 0.5)
    column = np.clip(np.nan_to_num(np.rint(uv[:, 0])).astype(int), 0, width - 1)
    row = np.clip(np.nan_to_num(np.rint(uv[:, 1])).astype(int), 0, height - 1)
    rendered = np.nan_to_num(shot.depth_m[row, column], nan=np.inf)
    hidden = rendered < (1 - HIDDEN_SHARE) * xyz_cam[:, 2]
    other = (shot.labels[row, column] != labels) & ~_label_near(shot.labels, row, column, labels)
    return np.nan_to_num(uv, nan=-1.0), ~inside | hidden | other


def _label_near(
    image: IntArray, row: NDArray[np.intp], column: NDArray[np.intp], labels: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(Q,) whether a point's label stands within one pixel of it."""
    height, width = image.shape
    near = np.zeros(len(row), bool)
    for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        near |= image[np.clip(row + dy, 0, height - 1), np.clip(column + dx, 0, width - 1)] == labels
    return near
