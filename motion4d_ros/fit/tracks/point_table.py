"""Tracked points as bundle adjustment wants them: where they were seen in the horizon, what depth was reported there,
and which body they belong to.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.fit.motion.bundle_adjustment import Observations
from motion4d_ros.fit.window.horizon import Horizon
from motion4d_ros.geometry.image_warping import sample
from motion4d_ros.types import BoolArray, FloatArray, PointTracks

OCCLUDER_PX = 4  # reach of flow across an occluding edge
IN_FRONT = 0.93  # share of a point's depth below which something beside it is an occluder, not its own surroundings
MIN_PURITY = 0.7  # share of its frames that must agree on a point's label


@dataclass
class PointTable:
    """N points over the T frames of the horizon."""

    ids: NDArray[np.int64]  # (N,)
    query: NDArray[np.int64]  # (N,) frame index where the point was picked
    uv_px: NDArray[np.float32]  # (N, T, 2)
    seen: BoolArray  # (N, T)
    sigma_px: NDArray[np.float32]  # (N, T)
    labels: NDArray[np.int64]  # (N,) voted object id
    purity: NDArray[np.float32]  # (N,) share of its frames that say so

    @property
    def count(self) -> int:
        """Number of points N."""
        return len(self.ids)

    def select(self, rows: NDArray[np.intp] | BoolArray) -> PointTable:
        """Only these points."""
        return PointTable(
            self.ids[rows],
            self.query[rows],
            self.uv_px[rows],
            self.seen[rows],
            self.sigma_px[rows],
            self.labels[rows],
            self.purity[rows],
        )

    def joined(self, other: PointTable) -> PointTable:
        """These points and the others."""
        return PointTable(
            *(np.concatenate([getattr(self, name), getattr(other, name)]) for name in self.__dataclass_fields__)
        )

    def vote(self, horizon: Horizon) -> None:
        """Sets `labels` and `purity` from the frames' labels where the points were seen."""
        values = np.zeros(self.seen.shape, np.int64)
        for column, state in enumerate(horizon.frames):
            rows = np.flatnonzero(self.seen[:, column])
            values[rows, column] = sample(state.labels.astype(np.float32), self.uv_px[rows, column], nearest=True)
        candidates = np.unique(values[self.seen]) if self.seen.any() else np.zeros(1, np.int64)
        counts = np.stack([((values == label) & self.seen).sum(1) for label in candidates], 1)
        self.labels = candidates[counts.argmax(1)]
        self.purity = (counts.max(1) / np.maximum(1, self.seen.sum(1))).astype(np.float32)

    def hide_beside_occluders(self, label: int, horizon: Horizon) -> None:
        """Points of object `label` no longer count as seen within a few pixels of something nearer that is not the
        object: flow follows what is in front, and would hold a vanishing object back at the edge it vanishes behind.
        """
        window = np.ones((2 * OCCLUDER_PX + 1, 2 * OCCLUDER_PX + 1), np.uint8)
        for column, state in enumerate(horizon.frames):
            rows = np.flatnonzero(self.seen[:, column])
            if len(rows) == 0:
                continue
            others = np.where((state.labels != label) & np.isfinite(state.depth_m), state.depth_m, np.inf)
            nearest = cv2.erode(others.astype(np.float32), window)
            uv = self.uv_px[rows, column]
            covered = sample(nearest, uv, nearest=True) < IN_FRONT * sample(state.depth_m, uv)
            self.seen[rows[covered], column] = False

    def observations(self, horizon: Horizon, mended: bool) -> Observations:
        """For bundle adjustment: with the inverse depth as reported, or (`mended`) as aligned to the scene so far."""
        inverse_depth = np.full(self.seen.shape, np.nan)
        for column, state in enumerate(horizon.frames):
            rows = np.flatnonzero(self.seen[:, column])
            uv = self.uv_px[rows, column]
            if mended:
                with np.errstate(divide="ignore"):
                    inverse_depth[rows, column] = 1.0 / sample(state.depth_m, uv)
            else:
                inverse_depth[rows, column] = sample(state.raw_inverse_depth, uv)
        return Observations(
            np.where(self.seen[..., None], self.uv_px, 0.0).astype(np.float64),
            np.where(self.seen, self.sigma_px, 1.0).astype(np.float64),
            self.seen,
            inverse_depth,
            horizon.T_cam_map,
            horizon.seconds,
            horizon.camera,
        )

    def pick(self, label: int, limit: int, random: np.random.Generator) -> PointTable:
        """Up to `limit` points of one label; those seen in frames where few are seen come first."""
        rows = np.flatnonzero((self.labels == label) & (self.purity > MIN_PURITY) & (self.seen.sum(1) >= 3))
        if len(rows) <= limit:
            return self.select(rows)
        seen = self.seen[rows]
        rarity = (seen / np.maximum(1, seen.sum(0))[None]).sum(1)
        key = random.random(len(rows)) ** (rarity.mean() / rarity)  # weighted sampling without replacement
        return self.select(np.sort(rows[np.argsort(-key)[:limit]]))

    @staticmethod
    def empty(length: int) -> PointTable:
        """No points over `length` frames."""
        return PointTable(
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
            np.zeros((0, length, 2), np.float32),
            np.zeros((0, length), bool),
            np.zeros((0, length), np.float32),
            np.zeros(0, np.int64),
            np.zeros(0, np.float32),
        )


def from_chains(tracks: PointTracks, drift_px: float, max_age: int) -> PointTable:
    """Chained tracks as points; their noise grows by `drift_px` per frame of age, and ends at `max_age` frames."""
    frames = tracks.first_index + np.arange(tracks.length)
    age = np.abs(frames[None] - tracks.query_index[:, None])
    sigma = np.hypot(tracks.sigma_px, drift_px * age).astype(np.float32)
    seen = tracks.visible & (age <= max_age)
    return PointTable(
        tracks.ids,
        tracks.query_index,
        tracks.uv_px,
        seen,
        sigma,
        np.zeros(tracks.count, np.int64),
        np.zeros(tracks.count, np.float32),
    )


def lift(points: PointTable, horizon: Horizon) -> FloatArray:
    """(N, T, 3) map points at the aligned depth, m; NaN where not seen or without depth."""
    xyz = np.full((*points.seen.shape, 3), np.nan)
    for column, state in enumerate(horizon.frames):
        rows = np.flatnonzero(points.seen[:, column])
        uv = points.uv_px[rows, column].astype(np.float64)
        depth = sample(state.depth_m, uv).astype(np.float64)
        xyz_cam = horizon.camera.unproject(uv, depth)
        xyz[rows, column] = xyz_cam @ state.T_map_cam[:3, :3].T + state.T_map_cam[:3, 3]
    return xyz
