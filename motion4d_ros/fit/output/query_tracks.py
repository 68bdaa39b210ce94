"""Any point, any time: the trajectory of a pixel, read off the scene.

A query pixel is lifted with the *rendered* depth, taken back to the canonical frame by the motion of the Gaussians
around it, and then forward to every time. It is visible where it lands in the image and nothing is rendered in front
of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.fit.output.scene_readout import HIDDEN_SHARE
from motion4d_ros.fit.output.track_confidence import CovarianceOf, track_confidence
from motion4d_ros.fit.output.track_correction import FrameCorrections
from motion4d_ros.geometry.neighbours import nearest
from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.geometry.robust import median_of_known
from motion4d_ros.types import Camera, FloatArray, IntArray, QueryTracks

NEIGHBOURS = 8  # Gaussians whose motion a query point shares
NEAR_PX = 3  # half width of the patch whose median says how far a pixel's object is
NORMAL_PX = 2  # half width of the patch that tells how a surface lies
PIN_M = 1e-3  # length at which normals are carried along
TURNED_AWAY = 0.3  # cosine between normal and line of sight from which a surface cannot be seen, whatever the noise
EDGE_JUMP = 0.03  # a pixel's depth off by more from its neighbours of the same label is a blend of near and far


@dataclass
class Snapshot:
    """One frame as rendered, in the horizon or from the archive."""

    stamp_ns: int
    T_map_cam: FloatArray  # (4, 4)
    labels: IntArray  # (H, W)
    depth_m: FloatArray  # (H, W) NaN = nothing there
    corrections: FrameCorrections | None = None  # measured points of this frame; None once archived


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
    covariance_of: CovarianceOf = lambda label, column: None,
    metric: bool = True,
) -> QueryTracks:
    """Trajectories of (Q, 3) queries (frame index, y, x; px of `camera`) over `count` frames from `first_index`.

    `snapshot(index)` gives a frame, `gaussians(label, index)` the Gaussians of an object as of a frame (None: it does
    not move), `covariance_of(label, column)` how well its pose is known; `metric`: lengths are metres.
    """
    total = len(points_tyx)
    xyz = np.full((total, count, 3), np.nan)
    outward = np.zeros((total, count, 3))  # unit normals of the surface that was queried; 0 = unknown
    labels = np.zeros(total, np.int64)
    unknown = np.zeros(total, bool)  # nothing is rendered there: a guess
    order = np.clip(np.rint(points_tyx[:, 0]).astype(int), first_index, first_index + count - 1)
    for index in np.unique(order).tolist():
        rows = np.flatnonzero(order == index)
        uv, shot, column = points_tyx[rows, :0:-1], snapshot(index), index - first_index
        own = _at(shot.labels, uv).astype(np.int64)
        start = _lift(uv, own, shot, camera)
        normal = _normals(uv, own, shot, camera)
        xyz[rows], outward[rows] = start[:, None], normal[:, None]
        for object_id in np.unique(own[own > 0]).tolist():
            moving = gaussians(object_id, index)
            if moving is None:
                continue
            mine = np.flatnonzero(own == object_id)
            both = follow(np.concatenate([start[mine], start[mine] + PIN_M * normal[mine]]), column, moving)
            xyz[rows[mine]] = both[: len(mine)]
            outward[rows[mine]] = (both[len(mine) :] - both[: len(mine)]) / PIN_M
        labels[rows] = own
        unknown[rows] = ~np.isfinite(_at(shot.depth_m, uv))
    tracks, occluded = np.zeros((total, count, 2)), np.ones((total, count), bool)
    stamps, cameras = np.zeros(count, np.int64), np.zeros((count, 4, 4))
    for column in range(count):
        shot = snapshot(first_index + column)
        stamps[column], cameras[column] = shot.stamp_ns, shot.T_map_cam
        if shot.corrections is not None:
            xyz[:, column] = _shifted(xyz[:, column], labels, shot, shot.corrections, camera)
        tracks[:, column], occluded[:, column] = _see(xyz[:, column], outward[:, column], labels, shot, camera)
    every = np.arange(total)
    tracks[every, order - first_index] = points_tyx[:, :0:-1]
    occluded[every, order - first_index] = False
    confidence = track_confidence(xyz, occluded, labels, order - first_index, cameras, camera, covariance_of, metric)
    confidence[unknown] = 0.0
    return QueryTracks(
        points_tyx.copy(),
        tracks.astype(np.float32),
        occluded,
        xyz.astype(np.float32),
        confidence.astype(np.float32),
        stamps,
    )


def _at(image: NDArray[Any], uv_px: FloatArray) -> NDArray[Any]:
    """(P,) values of `image` (H, W) at the pixels nearest to (P, 2)."""
    row, column = _pixels(uv_px, image.shape)
    return np.asarray(image[row, column])


def _pixels(uv_px: FloatArray, shape: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns (P,) of the pixels nearest to (P, 2), inside an image of `shape`."""
    nearest_pixel = np.nan_to_num(np.rint(uv_px)).astype(np.intp)
    return np.clip(nearest_pixel[:, 1], 0, shape[0] - 1), np.clip(nearest_pixel[:, 0], 0, shape[1] - 1)


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
        closest = np.where(np.abs(after - every) < np.abs(every - before), after, before)
        filled[base] = filled[base, closest]
    return filled


def _lift(uv_px: FloatArray, label: NDArray[np.int64], shot: Snapshot, camera: Camera) -> FloatArray:
    """(P, 2) pixels, taken to show the objects `label` (P,) -> (P, 3) map points."""
    row, column = _pixels(uv_px, shot.labels.shape)
    neighbours = []
    for dy in range(-NEAR_PX, NEAR_PX + 1):
        for dx in range(-NEAR_PX, NEAR_PX + 1):
            y = np.clip(row + dy, 0, shot.labels.shape[0] - 1)
            x = np.clip(column + dx, 0, shot.labels.shape[1] - 1)
            neighbours.append(np.where(shot.labels[y, x] == label, shot.depth_m[y, x], np.nan))
    median = median_of_known(np.stack(neighbours), axis=0)
    depth = shot.depth_m[row, column]
    with np.errstate(invalid="ignore"):
        off = ~(np.abs(depth - median) < EDGE_JUMP * median) | (shot.labels[row, column] != label)
    depth = np.where(off, median, depth)
    lost = ~np.isfinite(depth)
    if lost.any():  # nothing rendered there: the frame's typical depth
        finite = shot.depth_m[np.isfinite(shot.depth_m)]
        depth = np.where(lost, np.median(finite) if finite.size else 1.0, depth)
    if shot.corrections is not None:
        depth = depth * shot.corrections.depth_ratio(uv_px, label, shot.depth_m)
    xyz_cam = camera.unproject(uv_px, depth)
    return np.asarray(xyz_cam @ shot.T_map_cam[:3, :3].T + shot.T_map_cam[:3, 3])


def _shifted(
    xyz: FloatArray, labels: NDArray[np.int64], shot: Snapshot, corrections: FrameCorrections, camera: Camera
) -> FloatArray:
    """(Q, 3) map points, moved at their depth to where measured points around them say they are in this frame."""
    T = np.linalg.inv(shot.T_map_cam)
    xyz_cam = transform_points(T, xyz)
    uv = camera.project(xyz_cam)
    shift = corrections.shift(uv, labels)
    moved = camera.unproject(uv + shift, xyz_cam[:, 2]) @ shot.T_map_cam[:3, :3].T + shot.T_map_cam[:3, 3]
    return np.where(np.isfinite(moved).all(1, keepdims=True), moved, xyz)


def _normals(uv_px: FloatArray, label: NDArray[np.int64], shot: Snapshot, camera: Camera) -> FloatArray:
    """(P, 3) unit normals, towards the camera, of the surface at (P, 2) pixels, map frame: a plane through the depth
    around them; 0 where too little of it is known.
    """
    row, column = _pixels(uv_px, shot.labels.shape)
    offsets = np.arange(-NORMAL_PX, NORMAL_PX + 1)
    dy, dx = np.meshgrid(offsets, offsets, indexing="ij")
    y = np.clip(row[:, None] + dy.ravel(), 0, shot.labels.shape[0] - 1)
    x = np.clip(column[:, None] + dx.ravel(), 0, shot.labels.shape[1] - 1)
    depth = np.where(shot.labels[y, x] == label[:, None], shot.depth_m[y, x], np.nan)
    middle = median_of_known(depth.T, axis=0)
    with np.errstate(invalid="ignore"):
        good = np.abs(depth - middle[:, None]) < EDGE_JUMP * middle[:, None]
    points = camera.unproject(np.stack([x, y], -1).astype(float), np.where(good, depth, 0.0))
    weight = good.astype(float)[..., None]
    total = np.maximum(weight.sum(1), 1e-9)
    centered = (points - ((points * weight).sum(1) / total)[:, None]) * weight
    normal = np.linalg.eigh(np.einsum("pki,pkj->pij", centered, centered))[1][..., 0]
    ray = camera.unproject(uv_px, np.ones(len(uv_px)))
    normal = -normal * np.sign((normal * ray).sum(1, keepdims=True))
    normal = np.where((good.sum(1) >= NORMAL_PX * (2 * NORMAL_PX + 1))[:, None], normal, 0.0)
    return np.asarray(normal @ shot.T_map_cam[:3, :3].T)


def _see(
    xyz: FloatArray, outward: FloatArray, labels: NDArray[np.int64], shot: Snapshot, camera: Camera
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """(Q, 3) map points with normals (Q, 3) in one frame: (Q, 2) pixels and (Q,) whether they are hidden."""
    T = np.linalg.inv(shot.T_map_cam)
    xyz_cam = transform_points(T, xyz)
    uv = camera.project(xyz_cam)
    height, width = shot.labels.shape
    inside = np.isfinite(uv).all(1) & (uv > -0.5).all(1) & (uv[:, 0] < width - 0.5) & (uv[:, 1] < height - 0.5)
    rendered = np.nan_to_num(_at(shot.depth_m, uv), nan=np.inf)
    hidden = rendered < (1 - HIDDEN_SHARE) * xyz_cam[:, 2]
    away = ((outward @ T[:3, :3].T) * xyz_cam).sum(1) / np.maximum(np.linalg.norm(xyz_cam, axis=1), 1e-9)
    hidden |= away > TURNED_AWAY  # behind its own object's limb, where depth differs too little to tell
    other = np.ones(len(xyz), bool)
    for label in np.unique(labels).tolist():
        mine = labels == label
        other[mine] = ~_label_near(shot.labels, uv[mine], label)
    return np.nan_to_num(uv, nan=-1.0), ~inside | hidden | other


def _label_near(image: IntArray, uv_px: FloatArray, label: int) -> NDArray[np.bool_]:
    """(P,) whether `label` stands at the pixels (P, 2) or beside them."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    return np.asarray(_at(cv2.dilate((image == label).astype(np.uint8), cross), uv_px) > 0)
