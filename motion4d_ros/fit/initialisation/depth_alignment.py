"""Depth of every frame, aligned to the static scene.

Depth from networks breathes: each frame has a scale and an offset of its own. Static points, seen in many frames from
poses that are known, say which (Shape of Motion takes medians; here it is a bundle adjustment without free poses).
Where there is no parallax, the frames still have to agree with each other, and their mean is believed.
"""

from __future__ import annotations

import numpy as np

from motion4d_ros.config import Config, GeometryConfig
from motion4d_ros.fit.initialisation.affine_depth import anchor_disparity
from motion4d_ros.fit.motion.bundle_adjustment import Body, BundleOptions, Observations, solve
from motion4d_ros.fit.tracks.point_table import PointTable
from motion4d_ros.fit.window.horizon import Horizon
from motion4d_ros.geometry.robust import median_of_known
from motion4d_ros.types import UNSCALED_DISTANCE, FloatArray

DISTRUST = 30.0  # parallax that contradicts metric depth is believed so many times less


class DepthAlignment:
    """Scale and offset of the depth of every frame in the horizon."""

    def __init__(self, options: GeometryConfig) -> None:
        self.options = options
        self.scale: dict[int, float] = {}  # frame index -> a_k
        self.offset: dict[int, float] = {}  # frame index -> b_k, 1/m
        self.static_points: dict[int, FloatArray] = {}  # point id -> map position (3,), m
        self.line: tuple[float, float] | None = None  # of the newest frame whose disparity had neither scale nor offset
        self.conflict = 0.0  # logarithm of the ratio between metric depth and what parallax says
        self.doubt = np.inf  # how far off `conflict` may be because parallax is small

    def align(self, horizon: Horizon, static: PointTable) -> None:
        """Adjusts scales, offsets and the `static` points together, and sets the frames' `depth_m`."""
        if any(state.loose for state in horizon.frames):
            self.line = anchor_disparity(horizon, static, self.line)
        if static.count >= 8:
            self._adjust(horizon, static)
        for state in horizon.frames:
            scale, offset = self.scale.get(state.index, 0.0), self.offset.get(state.index, 0.0)
            inverse = np.exp(scale) * state.raw_inverse_depth + offset
            with np.errstate(divide="ignore", invalid="ignore"):
                state.depth_m = np.where(inverse > 1e-6, 1.0 / inverse, np.nan).astype(np.float32)

    @property
    def contradicted(self) -> bool:
        """Whether parallax contradicts metric depth by more than is believable, and is large enough to say so."""
        return bool(abs(self.conflict) > np.hypot(self.options.scale_conflict, self.doubt))

    def forget_before(self, index: int) -> None:
        """Drops what is older than frame `index`."""
        for table in (self.scale, self.offset):
            for old in [k for k in table if k < index]:
                del table[old]

    def _adjust(self, horizon: Horizon, static: PointTable) -> None:
        seen = static.observations(horizon, mended=False)
        indices = [state.index for state in horizon.frames]
        a, b = (self._start(table, indices) for table in (self.scale, self.offset))
        count = len(horizon)
        still = np.tile(np.eye(3), (count, 1, 1))
        points = self._start_points(static, horizon, seen, np.exp(a), b)
        body = Body(np.zeros(3), still, np.zeros((count, 3)), points.copy(), a.copy(), b.copy())
        options = BundleOptions(
            free_poses=False,
            free_offset=True,
            sigma_scale=self.options.sigma_scale,
            sigma_offset=self.options.sigma_offset,
            iterations=self.options.iterations,
        )
        solve(body, seen, options)
        self.conflict = float(np.median(body.depth_scale))
        self.doubt = parallax_doubt(body.points, seen)
        if abs(self.conflict) > self.options.scale_conflict:  # wrong intrinsics or poses, or too little parallax
            body.points, body.depth_scale, body.depth_offset = points, a, b
            seen.sigma_px = seen.sigma_px * DISTRUST
            solve(body, seen, options)
            body.depth_scale = body.depth_scale - np.median(body.depth_scale)
            body.depth_offset = body.depth_offset - np.median(body.depth_offset)
        self.static_points = dict(zip(static.ids.tolist(), body.points, strict=True))
        self.scale.update(zip(indices, body.depth_scale.tolist(), strict=True))
        self.offset.update(zip(indices, body.depth_offset.tolist(), strict=True))

    @staticmethod
    def _start(known: dict[int, float], indices: list[int]) -> FloatArray:
        """(T,) values as known; new frames start where the newest known ones stand."""
        newest = [known[k] for k in indices if k in known][-4:]
        guess = float(np.mean(newest)) if newest else 0.0
        return np.array([known.get(k, guess) for k in indices])

    def _start_points(
        self, points: PointTable, horizon: Horizon, seen: Observations, scale: FloatArray, offset: FloatArray
    ) -> FloatArray:
        """(N, 3) map points: as known, else lifted at the median of what the frames report."""
        inverse = scale * seen.inverse_depth + offset
        uv = seen.uv_px
        with np.errstate(divide="ignore", invalid="ignore"):
            xyz_cam = horizon.camera.unproject(uv, 1.0 / inverse)
        T = horizon.T_map_cam
        xyz = np.einsum("tij,ntj->nti", T[:, :3, :3], xyz_cam) + T[:, :3, 3]
        xyz[~points.seen | ~(inverse > 1e-6)] = np.nan
        start = median_of_known(xyz, axis=1)
        for row, point_id in enumerate(points.ids.tolist()):
            if point_id in self.static_points:
                start[row] = self.static_points[point_id]
        lost = ~np.isfinite(start).all(1)
        if lost.any():  # no depth anywhere: somewhere along the first ray
            first = points.seen[lost].argmax(1)
            ray = horizon.camera.unproject(uv[lost, first], np.full(int(lost.sum()), UNSCALED_DISTANCE))
            start[lost] = np.einsum("nij,nj->ni", T[first, :3, :3], ray) + T[first, :3, 3]
        return start


def parallax_doubt(points: FloatArray, seen: Observations) -> float:
    """How far off the scale of `points` (N, 3 m, map) may be, as a share: noise by parallax of the middle one.

    Flow errs alike in neighbouring points: their number does not make its small systematic errors smaller, which a
    camera that hardly moves would turn into any scale. inf where nothing was seen.
    """
    R, t = seen.T_cam_map[:, :3, :3], seen.T_cam_map[:, :3, 3]
    rays = points[:, None] + np.einsum("tij,ti->tj", R, t)  # from the cameras' centres -R^T t
    rays = rays / np.maximum(np.linalg.norm(rays, axis=-1, keepdims=True), 1e-12)
    counts = seen.visible.sum(1)
    rows = np.flatnonzero(counts >= 2)
    if len(rows) == 0:
        return float("inf")
    visible, rays = seen.visible[rows], rays[rows]
    mean = (rays * visible[..., None]).sum(1) / counts[rows, None]
    apart = np.where(visible, np.linalg.norm(rays - mean[:, None], axis=-1), 0.0).max(1)
    noise_px = (seen.sigma_px[rows] * visible).sum(1) / counts[rows]
    return float(np.median(noise_px / np.maximum(2.0 * seen.camera.fx * apart, 1e-9)))


def contradiction(alignment: DepthAlignment, config: Config) -> tuple[str, float]:
    """What to say when given depth and camera motion cannot both be right (else empty), and by what share they differ.

    Depth found here is nobody's to check.
    """
    share = abs(np.expm1(alignment.conflict))
    if not alignment.contradicted or config.depth.source == "geometry":
        return "", share
    if config.pose.source == "visual":  # found here: nobody gave any that could be checked
        return (
            "depth and the camera's motion found from the images disagree: check intrinsics and depth scale; "
            "where moving things fill the picture, masks or given poses help; depth is believed"
        ), share
    return "depth and parallax disagree: check intrinsics, poses and depth scale; depth is believed", share
