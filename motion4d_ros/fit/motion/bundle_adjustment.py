"""Bundle adjustment of one body: its poses over the horizon, its points, and what its depth prior gets wrong.

A *body* is a set of tracked points that move together: the static scene (whose poses are the identity and stay so), a
rigid object, or a part of one that bends. A point `X` of the body is seen in frame `k` at

    x_map = R_k (X - c) + c + t_k,        uv = project(T_cam_map_k x_map),        1/z = exp(a_k) q + b_k,

where `q` is the inverse depth that the prior reports at that pixel. Scale error `a_k` and offset `b_k` are unknown per
frame, as monocular networks have them (Ranftl et al., "Towards Robust Monocular Depth Estimation", sec. 4). The depth
residual is a difference of logarithms: any other form shrinks when the whole scene does, and so pulls the scale.

Solved by Gauss-Newton with the points eliminated (Schur complement; Triggs et al., "Bundle Adjustment - A Modern
Synthesis", sec. 6.1), Cauchy weights against outliers, and a prior on accelerations that bridges frames in which the
body is hidden. With T frames and N points a step costs O(T^2 N): milliseconds at T = 64 and N = 400.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from motion4d_ros.fit.motion.native_adjustment import PER_FRAME as PER_FRAME
from motion4d_ros.fit.motion.native_adjustment import NativeObservations
from motion4d_ros.types import BoolArray, Camera, FloatArray

POSE = slice(0, 6)  # rotation vector (rad), translation (m)
NUISANCE = slice(POSE.stop, PER_FRAME)  # a_k, b_k


@dataclass
class Observations:
    """What was seen of N points in T frames. Invalid entries are never read."""

    uv_px: FloatArray  # (N, T, 2)
    sigma_px: FloatArray  # (N, T)
    visible: BoolArray  # (N, T)
    inverse_depth: FloatArray  # (N, T) 1/m; NaN = unknown
    T_cam_map: FloatArray  # (T, 4, 4)
    seconds: FloatArray  # (T,)
    camera: Camera


@dataclass
class Body:
    """The unknowns of one body."""

    center: FloatArray  # (3,) c, m
    R: FloatArray  # (T, 3, 3)
    t: FloatArray  # (T, 3) m
    points: FloatArray  # (N, 3) X, m, canonical (map frame at the body's reference time)
    depth_scale: FloatArray  # (T,) a_k
    depth_offset: FloatArray  # (T,) b_k, 1/m
    inliers: BoolArray = field(default_factory=lambda: np.zeros((0, 0), bool))  # (N, T) after the last solve

    def at_frames(self, points: FloatArray) -> FloatArray:
        """(N, 3) canonical points -> (N, T, 3) map points."""
        return np.einsum("tij,nj->nti", self.R, points - self.center) + self.center + self.t

    def move_center(self, center: FloatArray) -> None:
        """Says the same motion about another `center` (3,), m."""
        self.t = np.einsum("tij,j->ti", self.R, center - self.center) + self.center + self.t - center
        self.center = center

    def canonical(self, xyz_map: FloatArray, frame: int) -> FloatArray:
        """(N, 3) map points at frame column `frame` -> (N, 3) canonical points."""
        return (xyz_map - self.center - self.t[frame]) @ self.R[frame] + self.center


@dataclass(frozen=True)
class BundleOptions:
    """What is free and how much is believed."""

    free_poses: bool = True
    free_offset: bool = False
    sigma_depth: float = 0.015  # relative, per observation (its errors are correlated within a frame)
    sigma_scale: float = 0.02  # of a_k
    sigma_offset: float = 0.005  # of b_k, as a share of the median inverse depth
    sigma_acceleration: float = 4.0  # m/s^2
    sigma_angular_acceleration: float = 8.0  # rad/s^2
    cauchy: float = 2.0  # residuals beyond this many standard deviations lose weight
    iterations: int = 8
    max_step_m: float = 0.5


@dataclass
class Linearised:
    """Weighted residuals and Jacobians of all observations (three rows each: u, v, inverse depth)."""

    residual: FloatArray  # (N, T, 3), in standard deviations
    J_frame: FloatArray  # (N, T, 3, 8)
    J_point: FloatArray  # (N, T, 3, 3)
    weight: FloatArray  # (N, T, 3) robust weights, 0 where nothing was seen


def solve(body: Body, seen: Observations, options: BundleOptions, native: bool = True) -> float:
    """Adjusts `body` in place; the final robust cost per observation.

    Levenberg-Marquardt damping keeps the free gauge (a common motion of all poses and points) where it was. Sums over
    observations are made in C++ where it is there and `native`.
    """
    sums = native_sums(seen, options) if native else None
    damping, cost = 1e-4, _cost(body, seen, options, sums)
    normal: NormalEquations | None = None  # about `body` as it is; made again only after it has moved
    for _ in range(options.iterations):
        normal = normal or _normal_equations(body, seen, options, sums)
        trial = _step(body, seen, options, normal, damping)
        new_cost = _cost(trial, seen, options, sums)
        if np.isfinite(new_cost) and new_cost <= cost:
            body.R, body.t, body.points = trial.R, trial.t, trial.points
            body.depth_scale, body.depth_offset = trial.depth_scale, trial.depth_offset
            normal = None
            damping = max(damping / 5, 1e-7)
            gain, before, cost = cost - new_cost, cost, new_cost
            if gain < 1e-4 * before:
                break
        else:
            damping *= 20
            if damping > 1e4:
                break
    residual, _, _ = _residuals(body, seen, options)
    body.inliers = seen.visible & (np.abs(residual[..., :2]).max(-1) < 3.0)
    return float(cost)


def native_sums(seen: Observations, options: BundleOptions) -> NativeObservations | None:
    """What makes the sums over observations in C++; None where the library is missing."""
    if not NativeObservations.available():
        return None
    arrays = (seen.uv_px, seen.sigma_px, seen.visible, seen.inverse_depth, seen.T_cam_map)
    names = ("sigma_depth", "cauchy", "free_poses", "free_offset")
    return NativeObservations(*arrays, seen.camera, {name: getattr(options, name) for name in names})


def _unknowns(body: Body) -> dict[str, FloatArray]:
    return {
        "R": body.R,
        "t": body.t,
        "xyz": body.points,
        "depth_scale": body.depth_scale,
        "depth_offset": body.depth_offset,
        "center": body.center,
    }


def residual_px(body: Body, seen: Observations) -> FloatArray:
    """(N, T) distance between where points are and where they were seen, px; NaN where not seen."""
    xyz_cam = _to_camera(body.at_frames(body.points), seen)
    error = np.linalg.norm(seen.camera.project(xyz_cam) - seen.uv_px, axis=-1)
    return np.where(seen.visible, error, np.nan)


def corrected_inverse_depth(body: Body, q: FloatArray) -> FloatArray:
    """(N, T) inverse depths as the prior has them -> as the body's nuisances mend them, 1/m."""
    return np.maximum(np.exp(body.depth_scale) * q + body.depth_offset, 1e-6)


def _to_camera(xyz_map: FloatArray, seen: Observations) -> FloatArray:
    R, t = seen.T_cam_map[:, :3, :3], seen.T_cam_map[:, :3, 3]
    return np.einsum("tij,ntj->nti", R, xyz_map) + t


def _residuals(body: Body, seen: Observations, options: BundleOptions) -> tuple[FloatArray, FloatArray, BoolArray]:
    """(N, T, 3) residuals in standard deviations, (N, T, 3) camera points, (N, T, 3) which are real."""
    xyz_cam = _to_camera(body.at_frames(body.points), seen)
    z = np.maximum(xyz_cam[..., 2], 1e-3)
    camera = seen.camera
    u = camera.fx * xyz_cam[..., 0] / z + camera.cx
    v = camera.fy * xyz_cam[..., 1] / z + camera.cy
    ratio = np.log(z * corrected_inverse_depth(body, seen.inverse_depth)) / options.sigma_depth
    residual = np.stack([(u - seen.uv_px[..., 0]) / seen.sigma_px, (v - seen.uv_px[..., 1]) / seen.sigma_px, ratio], -1)
    real = np.repeat(seen.visible[..., None], 3, -1) & np.isfinite(residual)
    return np.where(real, residual, 0.0), xyz_cam, real


def linearise(body: Body, seen: Observations, options: BundleOptions) -> Linearised:
    """All observations about `body` as it is."""
    residual, xyz_cam, real = _residuals(body, seen, options)
    camera = seen.camera
    x, y, z = xyz_cam[..., 0], xyz_cam[..., 1], np.maximum(xyz_cam[..., 2], 1e-3)
    sigma = np.where(np.isfinite(seen.sigma_px), seen.sigma_px, 1.0)
    q = np.nan_to_num(seen.inverse_depth, nan=1.0)
    mended = corrected_inverse_depth(body, q)
    zero = np.zeros_like(x)
    by_cam = np.stack(  # d residual / d xyz_cam
        [
            np.stack([camera.fx / z, zero, -camera.fx * x / z**2], -1) / sigma[..., None],
            np.stack([zero, camera.fy / z, -camera.fy * y / z**2], -1) / sigma[..., None],
            np.stack([zero, zero, 1.0 / z], -1) / options.sigma_depth,
        ],
        -2,
    )
    by_map = by_cam @ seen.T_cam_map[None, :, :3, :3]
    by_point = by_map @ body.R[None]
    J_frame = np.zeros((*residual.shape, PER_FRAME))
    if options.free_poses:
        arm = np.einsum("tij,nj->nti", body.R, body.points - body.center)  # R (X - c): what a small rotation turns
        J_frame[..., 0:3] = np.cross(arm[..., None, :], by_map)  # d(w x arm) . g = w . (arm x g)
        J_frame[..., 3:6] = by_map
    J_frame[..., 2, 6] = np.exp(body.depth_scale) * q / mended / options.sigma_depth
    if options.free_offset:
        J_frame[..., 2, 7] = 1.0 / mended / options.sigma_depth
    scale = np.ones(3) * options.cauchy
    size = np.stack([np.hypot(residual[..., 0], residual[..., 1])] * 2 + [np.abs(residual[..., 2])], -1)
    weight = np.where(real, 1.0 / (1.0 + (size / scale) ** 2), 0.0)
    return Linearised(residual, J_frame, by_point, weight)


def _cost(body: Body, seen: Observations, options: BundleOptions, sums: NativeObservations | None = None) -> float:
    if sums is None:
        residual, xyz_cam, real = _residuals(body, seen, options)
        c2 = options.cauchy**2
        flat = np.log1p((residual[..., 0] ** 2 + residual[..., 1] ** 2) / c2) + np.log1p(residual[..., 2] ** 2 / c2)
        behind = (seen.visible & (xyz_cam[..., 2] < 1e-3)).sum() * 100.0
        cost, count = float((c2 * flat).sum() + behind), int(real[..., 0].sum())
    else:
        cost, count = sums.cost(_unknowns(body))
    prior = sum(float((row.residual**2 * row.weight).sum()) for row in _prior_rows(body, seen, options))
    return (cost + prior) / max(1, count)


@dataclass
class _PriorRows:
    """Residuals that touch a few consecutive frames: sum over j of coefficient[j] * unknown[frame + j]."""

    frames: NDArray[np.intp]  # (M,)
    coefficients: FloatArray  # (M, J)
    unknowns: slice  # which of the 8 unknowns of a frame
    residual: FloatArray  # (M, D), in standard deviations
    weight: FloatArray  # (M, D)


def _prior_rows(body: Body, seen: Observations, options: BundleOptions) -> list[_PriorRows]:
    length = len(body.t)
    every = np.arange(length)
    one = np.ones((length, 1))
    offset_sigma = _offset_sigma(seen, options)
    rows = [
        _PriorRows(every, one / options.sigma_scale, slice(6, 7), body.depth_scale[:, None] / options.sigma_scale, one),
        _PriorRows(every, one / offset_sigma, slice(7, 8), body.depth_offset[:, None] / offset_sigma, one),
    ]
    if options.free_poses and length >= 3:
        gap = np.maximum(np.diff(seen.seconds), 1e-3)
        mean_gap = 0.5 * (gap[1:] + gap[:-1])
        coefficients = np.stack([1 / gap[:-1], -1 / gap[:-1] - 1 / gap[1:], 1 / gap[1:]], -1) / mean_gap[:, None]
        turn = Rotation.from_matrix(body.R[1:] @ body.R[:-1].transpose(0, 2, 1)).as_rotvec()
        spin = turn / gap[:, None]
        for unknowns, sigma, acceleration in (
            (slice(3, 6), options.sigma_acceleration, np.einsum("mj,mjd->md", coefficients, _triples(body.t))),
            (slice(0, 3), options.sigma_angular_acceleration, (spin[1:] - spin[:-1]) / mean_gap[:, None]),
        ):
            residual = acceleration / sigma
            size = np.linalg.norm(residual, axis=1, keepdims=True)
            weight = 1.0 / (1.0 + (size / 3.0) ** 2)  # heavy tails: impacts are rare, but they happen
            rows.append(
                _PriorRows(
                    every[:-2], coefficients / sigma, unknowns, residual, np.repeat(weight, residual.shape[1], 1)
                )
            )
    return rows


def _triples(values: FloatArray) -> FloatArray:
    """(T, D) -> (T-2, 3, D) runs of three neighbours."""
    return np.stack([values[:-2], values[1:-1], values[2:]], 1)


def _offset_sigma(seen: Observations, options: BundleOptions) -> float:
    known = seen.inverse_depth[seen.visible & np.isfinite(seen.inverse_depth)]
    return options.sigma_offset * (float(np.median(known)) if len(known) else 1.0)


class NormalEquations(NamedTuple):
    """Of a step of Gauss-Newton, with what is known beforehand."""

    H_ff: FloatArray  # (8T, 8T)
    g_f: FloatArray  # (8T,)
    H_pp: FloatArray  # (N, 3, 3)
    g_p: FloatArray  # (N, 3)
    W: FloatArray  # (N, T, 8, 3)


def _normal_equations(
    body: Body, seen: Observations, options: BundleOptions, sums: NativeObservations | None = None
) -> NormalEquations:
    length = seen.visible.shape[1]
    found = _sums(linearise(body, seen, options)) if sums is None else sums.normal_equations(_unknowns(body))
    H_frames, g_frames, H_pp, g_p, W = found
    H_ff = np.zeros((length, PER_FRAME, length, PER_FRAME))
    every = np.arange(length)
    H_ff[every, :, every, :] += H_frames
    add_prior(H_ff, g_frames, body, seen, options)
    return NormalEquations(H_ff.reshape(length * PER_FRAME, -1), g_frames.ravel(), H_pp, g_p, W)


def _sums(lin: Linearised) -> tuple[FloatArray, ...]:
    """H (T, 8, 8) and g (T, 8) of the frames, H (N, 3, 3) and g (N, 3) of the points, and W (N, T, 8, 3)."""
    length = lin.residual.shape[1]
    weighted_frame = lin.J_frame * lin.weight[..., None]
    weighted_point = lin.J_point * lin.weight[..., None]
    H_frames, g_frames = _gram(
        *(
            array.swapaxes(0, 1).reshape(length, 3 * len(lin.residual), -1)
            for array in (weighted_frame, lin.J_frame, lin.residual)
        )
    )
    H_pp, g_p = _gram(
        *(array.reshape(len(array), 3 * length, -1) for array in (weighted_point, lin.J_point, lin.residual))
    )
    return H_frames, g_frames, H_pp, g_p, np.swapaxes(weighted_frame, -1, -2) @ lin.J_point


def add_prior(H_ff: FloatArray, g_frames: FloatArray, body: Body, seen: Observations, options: BundleOptions) -> None:
    """Adds what is known beforehand to the information `H_ff` (T, P, T, P) of frames whose first unknowns are the 8 of
    this module, P >= 8, and to the gradient `g_frames` (T, P).
    """
    for rows in _prior_rows(body, seen, options):
        for i in range(rows.coefficients.shape[1]):
            g = rows.weight * rows.residual * rows.coefficients[:, i : i + 1]
            np.add.at(g_frames[:, rows.unknowns], rows.frames + i, g)
            for j in range(rows.coefficients.shape[1]):
                h = rows.weight * (rows.coefficients[:, i] * rows.coefficients[:, j])[:, None]
                for d, unknown in enumerate(range(*rows.unknowns.indices(PER_FRAME))):
                    np.add.at(H_ff[:, unknown, :, unknown], (rows.frames + i, rows.frames + j), h[:, d])


def _gram(weighted: FloatArray, J: FloatArray, residual: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(K, D, D) and (K, D): weighted^T J and weighted^T residual of K blocks (K, M, D), (K, M, D), (K, M, 1).

    As batched products of matrices: four times as fast as `einsum`.
    """
    transposed = weighted.swapaxes(1, 2)
    return transposed @ J, (transposed @ residual)[..., 0]


def _free(options: BundleOptions) -> slice:
    """Which of a frame's 8 unknowns are free."""
    return slice(0 if options.free_poses else POSE.stop, PER_FRAME if options.free_offset else PER_FRAME - 1)


def _step(body: Body, seen: Observations, options: BundleOptions, normal: NormalEquations, damping: float) -> Body:
    count, length = seen.visible.shape
    trace = np.trace(normal.H_pp, axis1=1, axis2=2) / 3.0
    inverse = np.linalg.inv(normal.H_pp + ((damping * trace + 1e-6)[:, None, None] * np.eye(3)))
    free = _free(options)
    active = np.arange(length * PER_FRAME).reshape(length, PER_FRAME)[:, free].ravel()
    A = len(active)
    flat = normal.W[:, :, free].reshape(count, A, 3)
    delta = np.zeros(length * PER_FRAME)
    try:
        root = np.linalg.cholesky(inverse)  # so that S is a product of one matrix with itself: half the work
        gain = (flat @ root).transpose(1, 0, 2).reshape(A, -1)
        S = normal.H_ff[np.ix_(active, active)] - gain @ gain.T
        S[np.arange(A), np.arange(A)] += damping * np.diag(normal.H_ff)[active] + 1e-9
        rhs = normal.g_f[active] - gain @ (normal.g_p[:, None] @ root).ravel()
        delta[active] = -np.linalg.solve(S, rhs)
    except np.linalg.LinAlgError:
        return body
    d_points = -(inverse @ (normal.g_p + delta[active] @ flat)[..., None])[..., 0]
    norm = np.linalg.norm(d_points, axis=1, keepdims=True)
    d_points *= np.minimum(1.0, options.max_step_m / np.maximum(norm, 1e-12))
    if not (np.isfinite(delta).all() and np.isfinite(d_points).all()):
        return body
    d = delta.reshape(length, PER_FRAME)
    return Body(
        body.center,
        Rotation.from_rotvec(d[:, 0:3]).as_matrix() @ body.R,
        body.t + d[:, 3:6],
        body.points + d_points,
        body.depth_scale + d[:, 6],
        body.depth_offset + d[:, 7],
    )
