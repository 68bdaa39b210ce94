"""Objects that are not rigid: several bodies, each with a motion of its own, blended in between.

When one rigid motion leaves too many points of an object unexplained, the points are divided by where they are on the
object (k-means), each group is adjusted on its own, points go over to the group whose motion explains them best, and
so on: a few rounds of expectation and maximisation. The groups become motion bases of the object (Shape of Motion,
sec. 3.2); what lies between them follows their blend, so bars bend and hinges turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from motion4d_ros.fit.motion.bundle_adjustment import Body, BundleOptions, Observations, residual_px, solve
from motion4d_ros.geometry.neighbours import nearest
from motion4d_ros.geometry.robust import median_radius
from motion4d_ros.types import FloatArray

ROUNDS = 2
MIN_PART_POINTS = 24  # a group of fewer points has no motion of its own
NEIGHBOURS = 6
JOINED = 1.0  # median distances of a part's points from their middle
UNEXPLAINED_PX = 0.7  # a point whose mean distance is larger is not explained


@dataclass
class Split:
    """Groups of points and the body of each."""

    assignment: NDArray[np.intp]  # (N,) group of every point
    bodies: list[Body]
    rows: list[NDArray[np.intp]]  # rows of the points of each body, in its order


def unexplained(body: Body, seen: Observations) -> float:
    """Share of the points whose mean reprojection error exceeds `UNEXPLAINED_PX`."""
    return float((mean_residual(body, seen) > UNEXPLAINED_PX).mean()) if len(body.points) else 0.0


def mean_residual(body: Body, seen: Observations) -> FloatArray:
    """(N,) mean reprojection error of every point, px, trimmed at 8 px; 0 for points never seen."""
    residual = np.minimum(residual_px(body, seen), 8.0)
    count = np.isfinite(residual).sum(1)
    return np.nansum(residual, axis=1) / np.maximum(count, 1)


def split(body: Body, seen: Observations, groups: int, options: BundleOptions, seed: int) -> Split | None:
    """Divides the points of `body` into `groups` bodies; None when one of them would be too small, or lies apart: masks
    that swap two objects for a few frames give each points of the other.
    """
    spread = body.points - body.points.mean(0)
    assignment = kmeans2(spread, groups, minit="++", seed=seed)[1].astype(np.intp)
    result: Split | None = None
    for _ in range(ROUNDS):
        result = _adjust_each(body, seen, assignment, groups, options)
        if result is None:
            return None
        errors = np.stack([mean_residual(_whole(part, body), seen) for part in result.bodies], 1)
        assignment = _smoothed(body.points, errors.argmin(1), groups)
    result = _adjust_each(body, seen, assignment, groups, options)
    return result if result is not None and hang_together([part.points for part in result.bodies]) else None


def hang_together(parts: list[FloatArray]) -> bool:
    """Whether each of the `parts`, (N_k, 3) m, lies within `JOINED` radii of the largest of another one."""
    reach = JOINED * median_radius(max(parts, key=len))
    for number, part in enumerate(parts):
        others = np.concatenate([*parts[:number], *parts[number + 1 :]])
        if nearest(others, part, 1)[0].min() > reach:
            return False
    return True


def _adjust_each(
    body: Body, seen: Observations, assignment: NDArray[np.intp], groups: int, options: BundleOptions
) -> Split | None:
    bodies, rows = [], []
    reference = int(seen.visible.sum(0).argmax())
    for group in range(groups):
        chosen = np.flatnonzero(assignment == group)
        if len(chosen) < MIN_PART_POINTS:
            return None
        part = Body(
            body.center,
            body.R.copy(),
            body.t.copy(),
            body.points[chosen].copy(),
            body.depth_scale.copy(),
            body.depth_offset.copy(),
        )
        solve(part, select(seen, chosen), options)
        _coincide(part, body, reference)
        bodies.append(part)
        rows.append(chosen)
    return Split(assignment, bodies, rows)


def select(seen: Observations, rows: NDArray[np.intp]) -> Observations:
    """The observations of some of the points."""
    return Observations(
        seen.uv_px[rows],
        seen.sigma_px[rows],
        seen.visible[rows],
        seen.inverse_depth[rows],
        seen.T_cam_map,
        seen.seconds,
        seen.camera,
    )


def _whole(part: Body, body: Body) -> Body:
    """All points of `body`, moved by the motion of `part`."""
    return Body(part.center, part.R, part.t, body.points, part.depth_scale, part.depth_offset)


def _coincide(part: Body, body: Body, reference: int) -> None:
    """Changes the canonical frame of `part` so that at the reference time it moves exactly as `body` does."""
    R = part.R[reference].T @ body.R[reference]  # X = R (X' - c) + c + g, so that both agree at the reference
    g = part.R[reference].T @ (body.t[reference] - part.t[reference])
    part.points = (part.points - part.center - g) @ R + part.center
    part.t = part.t + part.R @ g
    part.R = part.R @ R


def _smoothed(points: FloatArray, assignment: NDArray[np.intp], groups: int) -> NDArray[np.intp]:
    """Every point goes with the majority of its neighbours: parts are connected."""
    _, index = nearest(points, points, 8)
    votes = np.stack([(assignment[index] == group).sum(1) for group in range(groups)], 1)
    return votes.argmax(1)


def shares(xyz: FloatArray, places: list[FloatArray]) -> FloatArray:
    """(M, K) share of every group in the points `xyz` (M, 3), by the nearest points of the groups at the same time."""
    owner = np.concatenate([np.full(len(group), k) for k, group in enumerate(places)])
    distance, index = nearest(np.concatenate(places), xyz, NEIGHBOURS)
    weight = 1.0 / (distance + 0.25 * distance.mean(1, keepdims=True) + 1e-6)
    result = np.stack([(weight * (owner[index] == k)).sum(1) for k in range(len(places))], 1)
    return result / result.sum(1, keepdims=True)
