"""Points that were measured and adjusted, as witnesses for points that were not.

A query pixel's depth comes from the rendering and its path from the motion of its object. Around it are points whose
depth was adjusted over many frames and whose place was measured in this very frame: what the rendering and the motion
get wrong on them, they get wrong on the query, too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.fit.initialisation.geometry import Geometry
from motion4d_ros.fit.window.horizon import Horizon
from motion4d_ros.geometry.neighbours import nearest
from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.types import FloatArray, IntArray

REACH_PX = 14.0  # witnesses farther away say nothing
NEIGHBOURS = 8
DOUBT = 1.0  # weight, in witnesses, of "nothing is wrong"
MAX_RATIO = 0.06  # a larger correction of depth is a mistake
MAX_SHIFT_PX = 6.0


@dataclass
class FrameCorrections:
    """The adjusted points seen in one frame."""

    labels: NDArray[np.int64]  # (M,)
    seen_px: FloatArray  # (M, 2) where they were measured
    expected_px: FloatArray  # (M, 2) where the scene has them
    depth_m: FloatArray  # (M,) as adjusted

    def depth_ratio(self, uv_px: FloatArray, labels: IntArray, rendered: FloatArray) -> FloatArray:
        """(P,) factors that mend the depth of pixels `uv_px` (P, 2); `rendered` (H, W) m is what they were lifted
        with.
        """
        column = np.clip(np.rint(self.seen_px[:, 0]).astype(int), 0, rendered.shape[1] - 1)
        row = np.clip(np.rint(self.seen_px[:, 1]).astype(int), 0, rendered.shape[0] - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = self.depth_m / rendered[row, column] - 1.0
        usable = np.isfinite(error) & (np.abs(error) < MAX_RATIO)
        return 1.0 + self._average(uv_px, labels, self.seen_px, error[:, None], usable)[:, 0]

    def shift(self, uv_px: FloatArray, labels: IntArray) -> FloatArray:
        """(P, 2) what to add to expected positions `uv_px` (P, 2), px."""
        error = self.seen_px - self.expected_px
        usable = np.isfinite(error).all(1) & (np.linalg.norm(error, axis=1) < MAX_SHIFT_PX)
        return self._average(uv_px, labels, self.expected_px, error, usable)

    def _average(
        self, uv_px: FloatArray, labels: IntArray, places: FloatArray, values: FloatArray, usable: NDArray[np.bool_]
    ) -> FloatArray:
        """(P, D) mean of `values` (M, D) over the nearest witnesses of the same label; 0 where there are none."""
        result = np.zeros((len(uv_px), values.shape[1]))
        for label in np.unique(labels):
            witnesses = np.flatnonzero(usable & (self.labels == label))
            mine = np.flatnonzero((labels == label) & np.isfinite(uv_px).all(1))
            if len(witnesses) == 0 or len(mine) == 0:
                continue
            distance, index = nearest(places[witnesses], uv_px[mine], NEIGHBOURS, REACH_PX)
            weight = np.where(
                np.isfinite(distance), np.exp(-0.5 * (np.minimum(distance, 1e3) / (REACH_PX / 2)) ** 2), 0.0
            )
            chosen = values[witnesses][index]
            result[mine] = (weight[..., None] * chosen).sum(1) / (weight.sum(1) + DOUBT * 0.25)[:, None]
        return result


class TrackCorrections:
    """All adjusted points of the horizon."""

    def __init__(self, geometry: Geometry, horizon: Horizon) -> None:
        self.geometry = geometry
        self.horizon = horizon
        table = geometry.table
        known: dict[int, tuple[int, int, FloatArray]] = {
            k: (0, 0, X) for k, X in geometry.alignment.static_points.items()
        }
        for label, motion in geometry.motions.items():
            for number, body in enumerate(motion.bodies):
                known.update({k: (label, number, X) for k, X in body.points.items()})
        rows = [row for row, k in enumerate(table.ids.tolist()) if k in known]
        self.table = table.select(np.array(rows, np.intp))
        found = [known[k] for k in self.table.ids.tolist()]
        self.labels = np.array([entry[0] for entry in found], np.int64)
        self.bodies = np.array([entry[1] for entry in found], np.int64)
        self.points = np.array([entry[2] for entry in found]).reshape(-1, 3)

    def at(self, index: int) -> FrameCorrections:
        """Those seen in frame `index` of the horizon."""
        state = self.horizon.get(index)
        rows = np.flatnonzero(self.table.seen[:, index - self.horizon.first_index])
        labels, xyz = self.labels[rows], self.points[rows].copy()
        for label in np.unique(labels[labels > 0]).tolist():
            for number, body in enumerate(self.geometry.motions[label].bodies):
                mine = (labels == label) & (self.bodies[rows] == number)
                T = body.matrix(index)
                xyz[mine] = transform_points(T, xyz[mine])
        T = state.T_cam_map
        xyz_cam = transform_points(T, xyz)
        seen = self.table.uv_px[rows, index - self.horizon.first_index].astype(np.float64)
        return FrameCorrections(labels, seen, self.horizon.camera.project(xyz_cam), xyz_cam[:, 2])
