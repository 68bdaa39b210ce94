"""Depth from networks has neither scale nor offset: both are found per frame, once, before anything is adjusted.

The static points that parallax places say how near things are; a robust line brings a frame's disparity to them (cf.
Shape of Motion, which takes medians). Without parallax nothing says so: then the frame before is followed, and the
first is put where its median is `UNSCALED_DISTANCE`.
"""

from __future__ import annotations

import numpy as np

from motion4d_ros.fit.tracks.point_table import PointTable
from motion4d_ros.fit.window.horizon import FrameState, Horizon
from motion4d_ros.geometry.image_warping import sample
from motion4d_ros.geometry.two_view import normalise, reproject, triangulate
from motion4d_ros.types import UNSCALED_DISTANCE, FloatArray

WELL_PLACED = 3e-3  # ratio of eigenvalues from which parallax determines a point
CLOSE_PX = 1.0  # median reprojection error of a point that is believed
LEAST_POINTS = 12
WORTH = 0.6  # an offset must bring the median residual below this share of that without
ROUNDS = 10


def anchor_disparity(horizon: Horizon, static: PointTable, before: tuple[float, float] | None) -> tuple[float, float]:
    """Brings the `raw_inverse_depth` of frames whose disparity is `loose` to the scale of the poses, in place.

    `before` is the scale and offset (1 / map unit) of the newest frame that was; returns that of the newest now.
    """
    xyz = _placed(horizon, static)
    line = before
    for column, state in enumerate(horizon.frames):
        if not state.loose:
            continue
        rows = np.flatnonzero(static.seen[:, column] & np.isfinite(xyz).all(1)) if static.count else np.zeros(0, int)
        _, depth = reproject(state.T_cam_map, xyz[rows])
        disparity = sample(state.raw_inverse_depth, static.uv_px[rows, column]).astype(float)
        good = np.isfinite(disparity) & (depth > 1e-6)
        if good.sum() >= LEAST_POINTS:
            line = robust_line(disparity[good], 1.0 / depth[good])
        elif line is None:
            known = state.raw_inverse_depth[np.isfinite(state.raw_inverse_depth)]
            line = (1.0 / (UNSCALED_DISTANCE * max(float(np.median(known)), 1e-12)), 0.0) if len(known) else None
        if line is not None:
            _apply(state, line)
    return line or (1.0, 0.0)


def robust_line(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """Slope > 0 and offset of y = a x + b over (N,) values, outliers weighed down; b = 0 where x hardly varies, or
    where an offset explains little: noise in x flattens a line.
    """
    ratio = float(np.median(y / np.maximum(x, 1e-12)))
    spread = float(np.subtract(*np.percentile(x, [90, 10]))) / max(abs(float(np.median(x))), 1e-12)
    if spread < 0.15:
        return ratio, 0.0
    weight: FloatArray = np.ones(len(x))
    slope, offset = ratio, 0.0
    for _ in range(ROUNDS):
        mean_x, mean_y = np.average(x, weights=weight), np.average(y, weights=weight)
        variance = np.average((x - mean_x) ** 2, weights=weight)
        slope = float(np.average((x - mean_x) * (y - mean_y), weights=weight) / max(variance, 1e-18))
        offset = float(mean_y - slope * mean_x)
        residual = np.abs(y - slope * x - offset)
        weight = 1.0 / (1.0 + (residual / (1.5 * float(np.median(residual)) + 1e-9)) ** 2) ** 2
    plain = float(np.median(np.abs(y - ratio * x)))
    worth_it = float(np.median(np.abs(y - slope * x - offset))) < WORTH * plain
    return (slope, offset) if worth_it and slope > 0.2 * ratio else (ratio, 0.0)


def _placed(horizon: Horizon, static: PointTable) -> FloatArray:
    """(N, 3) map positions of the points that parallax determines; NaN for the others."""
    if static.count == 0:
        return np.zeros((0, 3))
    camera, T = horizon.camera, horizon.T_cam_map
    xy = np.nan_to_num(normalise(camera, static.uv_px.astype(float)))
    xyz, ratio = triangulate(T, xy, static.seen)
    error = np.full(static.seen.shape, np.nan)
    for column, T_cam_map in enumerate(T):
        seen, depth = reproject(T_cam_map, xyz)
        distance = camera.fx * np.linalg.norm(seen - xy[:, column], axis=-1)
        error[:, column] = np.where(static.seen[:, column], np.where(depth > 1e-6, distance, np.inf), np.nan)
    known = static.seen.any(1) & (ratio > WELL_PLACED)
    close = np.zeros(static.count, bool)
    close[known] = np.nanmedian(error[known], axis=1) < CLOSE_PX
    return np.where(close[:, None], xyz, np.nan)


def _apply(state: FrameState, line: tuple[float, float]) -> None:
    inverse = line[0] * state.raw_inverse_depth + line[1]
    with np.errstate(invalid="ignore"):
        state.raw_inverse_depth = np.where(inverse > 1e-6, inverse, np.nan).astype(np.float32)
    state.loose = False
