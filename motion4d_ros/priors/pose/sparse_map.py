"""The sparse map behind visual odometry: keyframes, triangulated points and the descriptors they are recognised by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from motion4d_ros.geometry.bundle import bundle_adjust
from motion4d_ros.geometry.rigid import inverse_pose
from motion4d_ros.geometry.two_view import ray_angle, reproject, triangulate
from motion4d_ros.types import BoolArray, FloatArray, IntArray

MIN_PARALLAX = np.radians(0.8)  # a point needs rays that differ by this much
RATIO = 0.85  # Lowe's test: best match against second best
MIN_SIMILARITY = 0.75  # cosine of RootSIFT descriptors
NEIGHBOURS = 6  # candidates near a predicted position


@dataclass
class Features:
    """Interest points of one frame at working size."""

    index: int
    uv_px: FloatArray  # (N, 2)
    xy: FloatArray  # (N, 2) normalised
    sigma: FloatArray  # (N,) standard deviation, normalised
    descriptor: NDArray[np.float32]  # (N, 128) RootSIFT, unit length
    point: IntArray  # (N,) row of the map point seen, -1 = none


@dataclass
class Keyframe:
    """A frame the map is built on."""

    features: Features
    T_cam_map: FloatArray  # (4, 4)


def detect(
    gray: NDArray[np.uint8], limit: int = 1200, mask: NDArray[np.uint8] | None = None
) -> tuple[FloatArray, FloatArray, NDArray[np.float32]]:
    """SIFT points of `gray` (h, w): uv_px (N, 2), size (N,), RootSIFT descriptors (N, 128).

    Arandjelovic & Zisserman, "Three things everyone should know to improve object retrieval", CVPR 2012. The strongest
    are picked cell by cell, so that one busy corner cannot take them all. `mask` (h, w) 0 = no points there.
    """
    sift = cv2.SIFT.create(nfeatures=3 * limit, contrastThreshold=0.015, edgeThreshold=12)
    found, descriptors = sift.detectAndCompute(gray, mask)
    if not found:
        return np.zeros((0, 2)), np.zeros(0), np.zeros((0, 128), np.float32)
    uv = np.array([item.pt for item in found])
    size = np.array([item.size for item in found])
    strength = np.array([item.response for item in found])
    root = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6)).astype(np.float32)
    cell = (uv / (max(gray.shape) / 8)).astype(int)
    order = np.argsort(-strength)
    rank = np.zeros(len(uv), int)
    counts: dict[tuple[int, int], int] = {}
    for k in order:
        key = (int(cell[k, 0]), int(cell[k, 1]))
        rank[k] = counts.get(key, 0)
        counts[key] = rank[k] + 1
    keep = np.lexsort((-strength, rank))[:limit]
    return uv[keep], size[keep], root[keep]


def match(
    a: NDArray[np.float32], b: NDArray[np.float32], gate: BoolArray | None = None, ratio: float = RATIO
) -> tuple[IntArray, IntArray]:
    """Mutual best matches of descriptors (N, D) and (M, D) of unit length: indices into each.

    `gate` (N, M) says which pairs are allowed.
    """
    if len(a) == 0 or len(b) < 2:
        return np.zeros(0, int), np.zeros(0, int)
    similarity = a @ b.T
    if gate is not None:
        similarity[~gate] = -1.0
    best = similarity.argmax(1)
    rows = np.arange(len(a))
    top = similarity[rows, best]
    mutual = similarity.argmax(0)[best] == rows
    similarity[rows, best] = -1.0
    second = similarity.max(1)
    distance, next_distance = np.sqrt(np.maximum(2 - 2 * top, 0)), np.sqrt(np.maximum(2 - 2 * second, 0))
    good = mutual & (top > MIN_SIMILARITY) & (distance < ratio * next_distance)
    return rows[good], best[good]


def match_near(
    a: NDArray[np.float32], xy_a: FloatArray, b: NDArray[np.float32], xy_b: FloatArray, radius: float
) -> tuple[IntArray, IntArray]:
    """Mutual best matches of descriptors (N, D) and (M, D) whose positions lie within `radius` of each other.

    Only the `NEIGHBOURS` nearest candidates of each are looked at. Indices into each.
    """
    if len(a) == 0 or len(b) == 0:
        return np.zeros(0, int), np.zeros(0, int)
    found = cKDTree(xy_b).query(xy_a, k=NEIGHBOURS, distance_upper_bound=radius)
    distance, index = np.asarray(found[0]), np.asarray(found[1])
    valid = np.isfinite(distance)
    similarity = np.einsum("nd,nkd->nk", a, b[np.where(valid, index, 0)])
    similarity[~valid] = -1.0
    rows = np.arange(len(a))
    column = similarity.argmax(1)
    top, best = similarity[rows, column], index[rows, column]
    good = top > MIN_SIMILARITY
    rows, best, top = rows[good], best[good], top[good]
    strongest = np.full(len(b), -1.0, np.float32)
    np.maximum.at(strongest, best, top)
    mutual = top >= strongest[best]
    return rows[mutual], best[mutual]


@dataclass
class SparseMap:
    """Points and keyframes in map units. Rows of points are never moved, dead ones are only marked."""

    xyz: FloatArray = field(default_factory=lambda: np.zeros((0, 3)))
    descriptor: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 128), np.float32))
    alive: BoolArray = field(default_factory=lambda: np.zeros(0, bool))
    seen: IntArray = field(default_factory=lambda: np.zeros(0, int))  # frames that recognised it
    expected: IntArray = field(default_factory=lambda: np.zeros(0, int))  # frames that should have
    keyframes: list[Keyframe] = field(default_factory=list)

    def add(self, xyz: FloatArray, descriptor: NDArray[np.float32]) -> IntArray:
        """New points (N, 3); their rows."""
        first, n = len(self.xyz), len(xyz)
        self.xyz = np.concatenate([self.xyz, xyz])
        self.descriptor = np.concatenate([self.descriptor, descriptor])
        self.alive = np.append(self.alive, np.ones(n, bool))
        self.seen = np.append(self.seen, np.full(n, 2))
        self.expected = np.append(self.expected, np.full(n, 2))
        return np.arange(first, first + n)

    def grow(self, newest: Keyframe, neighbours: int = 4, tolerance: float = 2.0) -> int:
        """Triangulates what `newest` and earlier keyframes see in common; the number of new points.

        `tolerance` is the largest reprojection error, in standard deviations of the features.
        """
        added = 0
        mine = newest.features
        for other in self.keyframes[::-1][:neighbours]:
            if other is newest:
                continue
            theirs = other.features
            free_a, free_b = np.flatnonzero(mine.point < 0), np.flatnonzero(theirs.point < 0)
            i, j = match(mine.descriptor[free_a], theirs.descriptor[free_b])
            a, b = free_a[i], free_b[j]
            if len(a) == 0:
                continue
            poses = np.stack([newest.T_cam_map, other.T_cam_map])
            xyz, _ = triangulate(poses, np.stack([mine.xy[a], theirs.xy[b]], 1))
            good = np.isfinite(xyz).all(1)
            for T, xy, sigma in ((poses[0], mine.xy[a], mine.sigma[a]), (poses[1], theirs.xy[b], theirs.sigma[b])):
                seen, depth = reproject(T, np.nan_to_num(xyz))
                with np.errstate(invalid="ignore"):
                    good &= (depth > 0) & (np.linalg.norm(seen - xy, axis=-1) < tolerance * 2 * sigma)
            centre_a, centre_b = inverse_pose(poses[0])[:3, 3], inverse_pose(poses[1])[:3, 3]
            good &= ray_angle(np.nan_to_num(xyz), centre_a, centre_b) > MIN_PARALLAX
            if good.any():  # mismatches along the epipolar line come to lie right before the camera, and pin it down
                good &= depth > 0.1 * np.median(depth[good])
            rows = self.add(xyz[good], mine.descriptor[a[good]])
            mine.point[a[good]], theirs.point[b[good]] = rows, rows
            added += len(rows)
        return added

    def adjust(self, window: int = 8, iterations: int = 6, cut: float = 4.0) -> None:
        """Bundle-adjusts the last `window` keyframes; older ones that share points hold the map in place."""
        frames = self.keyframes
        if len(frames) < 2:
            return
        active = frames[-window:]
        wanted = np.unique(np.concatenate([k.features.point[k.features.point >= 0] for k in active]))
        wanted = wanted[self.alive[wanted]]
        if len(wanted) < 20:
            return
        row_of = np.full(len(self.xyz), -1)
        row_of[wanted] = np.arange(len(wanted))
        used = []
        for keyframe in frames[-3 * window : -window]:
            seen = keyframe.features.point[keyframe.features.point >= 0]
            if (row_of[seen] >= 0).sum() > 15:
                used.append(keyframe)
        poses = [*used, *active]
        fixed = np.arange(len(poses)) < max(1, len(used))
        frame, point, xy, sigma, where = [], [], [], [], []
        for k, keyframe in enumerate(poses):
            features = keyframe.features
            index = np.flatnonzero(features.point >= 0)
            index = index[row_of[features.point[index]] >= 0]
            frame.append(np.full(len(index), k))
            point.append(row_of[features.point[index]])
            xy.append(features.xy[index])
            sigma.append(features.sigma[index])
            where.append(index)
        frames_of, points_of = np.concatenate(frame), np.concatenate(point)
        T = np.stack([k.T_cam_map for k in poses])
        before = _baseline(T)
        result = bundle_adjust(
            T, self.xyz[wanted], frames_of, points_of, np.concatenate(xy), np.concatenate(sigma), fixed, iterations
        )
        T_new, X_new = result.T_cam_map, result.xyz_map
        if len(used) < 2:  # nothing holds the scale: keep the length between first and last keyframe
            T_new, X_new = _rescale(T_new, X_new, before / max(_baseline(T_new), 1e-12))
        self.xyz[wanted] = X_new
        for keyframe, T_k in zip(poses, T_new, strict=True):
            keyframe.T_cam_map = T_k
        bad = result.error > cut
        for k, keyframe in enumerate(poses):
            mine = frames_of == k
            keyframe.features.point[where[k][bad[mine]]] = -1
        views = np.bincount(points_of[~bad], minlength=len(wanted))
        self.alive[wanted[views < 2]] = False

    def count(self, expected: IntArray, seen: IntArray) -> None:
        """Notes which rows of points one frame should have seen, and which it did."""
        self.expected = self.expected + np.bincount(expected, minlength=len(self.xyz))
        self.seen = self.seen + np.bincount(seen, minlength=len(self.xyz))

    def cull(self) -> None:
        """Marks points dead that are expected but rarely recognised."""
        self.alive &= ~((self.expected > 8) & (self.seen < 0.2 * self.expected))

    def trim(self, keyframes: int) -> None:
        """Keeps the last `keyframes` and the points they see: memory stays bounded."""
        if len(self.keyframes) <= keyframes:
            return
        self.keyframes = self.keyframes[-keyframes:]
        kept = np.zeros(len(self.xyz), bool)
        for keyframe in self.keyframes:
            kept[keyframe.features.point[keyframe.features.point >= 0]] = True
        kept &= self.alive
        new_row = np.where(kept, np.cumsum(kept) - 1, -1)
        for keyframe in self.keyframes:
            points = keyframe.features.point
            keyframe.features.point = np.where(points >= 0, new_row[points], -1)
        self.xyz, self.descriptor = self.xyz[kept], self.descriptor[kept]
        self.alive, self.seen, self.expected = self.alive[kept], self.seen[kept], self.expected[kept]

    def packed(self) -> dict[str, NDArray[Any]]:
        """The points alive and what they are recognised by: places, descriptors, how often they were."""
        alive = self.alive
        counts = np.stack([self.seen[alive], self.expected[alive]], 1)
        return {"xyz": self.xyz[alive], "descriptor": self.descriptor[alive].astype(np.float16), "counts": counts}

    @staticmethod
    def unpacked(saved: Mapping[str, NDArray[Any]]) -> SparseMap:
        """A map of the points that `packed` gave, without keyframes. Raises `ValueError` or `KeyError` for others."""
        xyz, descriptor, counts = saved["xyz"], saved["descriptor"].astype(np.float32), saved["counts"]
        count = len(xyz)
        if xyz.shape != (count, 3) or descriptor.shape != (count, 128) or counts.shape != (count, 2):
            raise ValueError("the saved map's points disagree in number")
        if not (np.isfinite(xyz).all() and np.isfinite(descriptor).all()) or counts.dtype != np.int64:
            raise ValueError("the saved map's points are not numbers")
        return SparseMap(xyz.astype(float), descriptor, np.ones(count, bool), counts[:, 0].copy(), counts[:, 1].copy())

    def rescale(self, factor: float) -> None:
        """Multiplies every length by `factor`, about the map's origin."""
        self.xyz *= factor
        for keyframe in self.keyframes:
            keyframe.T_cam_map = keyframe.T_cam_map.copy()
            keyframe.T_cam_map[:3, 3] *= factor


def _baseline(T_cam_map: FloatArray) -> float:
    """Distance between the first and the last camera of (F, 4, 4) poses."""
    centre = inverse_pose(T_cam_map)[:, :3, 3]
    return float(np.linalg.norm(centre[-1] - centre[0]))


def _rescale(T_cam_map: FloatArray, xyz: FloatArray, factor: float) -> tuple[FloatArray, FloatArray]:
    """Scales poses and points about the first camera, which stays where it is."""
    origin = inverse_pose(T_cam_map[0])[:3, 3]
    T_map_cam = inverse_pose(T_cam_map)
    T_map_cam[:, :3, 3] = origin + factor * (T_map_cam[:, :3, 3] - origin)
    return inverse_pose(T_map_cam), origin + factor * (xyz - origin)
