"""Bundle adjustment: camera poses and points together, by Levenberg-Marquardt with the Schur complement.

Poses are ``T_cam_map`` and are updated from the left by ``exp(delta)``, delta = (translation, rotation vector).
Residuals are in normalised image coordinates divided by `sigma`, robust by Geman and McClure's loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from scipy.sparse import bsr_matrix, coo_matrix

from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.types import BoolArray, FloatArray, IntArray

OUTLIER = 1.5  # standard deviations; beyond it the weight of an observation falls off fast


@dataclass
class BundleResult:
    """What :func:`bundle_adjust` found."""

    T_cam_map: FloatArray  # (F, 4, 4)
    xyz_map: FloatArray  # (P, 3)
    error: FloatArray  # (M,) length of each residual, in units of sigma; inf behind the camera


def rotation_exp(omega: FloatArray) -> FloatArray:
    """(..., 3) rotation vectors -> (..., 3, 3) matrices (Rodrigues)."""
    angle = np.linalg.norm(omega, axis=-1)[..., None, None]
    K = skew(omega)
    small = angle < 1e-8
    safe = np.where(small, 1.0, angle)
    return (
        np.eye(3)
        + np.where(small, 1.0, np.sin(safe) / safe) * K
        + np.where(small, 0.5, (1 - np.cos(safe)) / safe**2) * (K @ K)
    )


def skew(v: FloatArray) -> FloatArray:
    """(..., 3) -> (..., 3, 3) cross-product matrices."""
    result = np.zeros((*v.shape, 3), v.dtype)
    result[..., 2, 1], result[..., 0, 2], result[..., 1, 0] = v[..., 0], v[..., 1], v[..., 2]
    return result - np.swapaxes(result, -1, -2)


def apply_delta(T: FloatArray, delta: FloatArray) -> FloatArray:
    """exp(delta) T for (..., 4, 4) poses and (..., 6) updates (translation, rotation).

    One Newton step towards the nearest rotation keeps rounding errors from growing over thousands of products.
    """
    R = rotation_exp(delta[..., 3:])
    out = np.array(T)
    turned = R @ T[..., :3, :3]
    out[..., :3, :3] = turned @ (1.5 * np.eye(3) - 0.5 * np.swapaxes(turned, -1, -2) @ turned)
    out[..., :3, 3] = np.einsum("...ij,...j->...i", R, T[..., :3, 3]) + delta[..., :3]
    return out


def residuals(
    T_cam_map: FloatArray, xyz_map: FloatArray, frame: IntArray, point: IntArray, xy: FloatArray, sigma: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Residuals (M, 2) in units of sigma, and the points in their cameras (M, 3)."""
    cam = np.einsum("mij,mj->mi", T_cam_map[frame, :3, :3], xyz_map[point]) + T_cam_map[frame, :3, 3]
    z = np.where(cam[:, 2] > 1e-6, cam[:, 2], np.inf)
    return (cam[:, :2] / z[:, None] - xy) / sigma[:, None], cam


def _robust(residual: FloatArray, front: BoolArray) -> tuple[FloatArray, float]:
    """Geman-McClure weights (M,) and total cost: what is far off moves or is mistaken, and has no say at all."""
    square = (residual**2).sum(-1)
    share = 1.0 / (1.0 + square / OUTLIER**2)
    return share**2 * front, float(0.5 * (square * share)[front].sum() + 0.5 * OUTLIER**2 * (~front).sum())


def _jacobians(
    T_cam_map: FloatArray, frame: IntArray, cam: FloatArray, sigma: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """(M, 2, 6) by the pose and (M, 2, 3) by the point of M projections, in standard deviations."""
    inverse = 1.0 / np.maximum(cam[:, 2], 1e-6)
    x, y = cam[:, 0] * inverse, cam[:, 1] * inverse
    zero = np.zeros_like(x)
    projection = np.stack([np.stack([inverse, zero, -x * inverse], -1), np.stack([zero, inverse, -y * inverse], -1)], 1)
    projection /= sigma[:, None, None]
    pose = np.concatenate([projection, projection @ -skew(cam)], -1)  # (M, 2, 6)
    point = projection @ T_cam_map[frame, :3, :3]  # (M, 2, 3)
    return pose, point


def bundle_adjust(
    T_cam_map: FloatArray,
    xyz_map: FloatArray,
    frame: IntArray,
    point: IntArray,
    xy: FloatArray,
    sigma: FloatArray,
    fixed: BoolArray,
    iterations: int = 10,
) -> BundleResult:
    """Adjusts poses (F, 4, 4) and points (P, 3) to M observations.

    Observation m: point `point[m]` seen by `frame[m]` at normalised `xy[m]` with standard deviation `sigma[m]`. Poses
    with `fixed` (F,) stay; fix two of them, or one and accept that the scale may wander.
    """
    T: FloatArray = np.asarray(T_cam_map, float).copy()
    X: FloatArray = np.asarray(xyz_map, float).copy()
    damping = 1e-4
    residual, cam = residuals(T, X, frame, point, xy, sigma)
    weight, cost = _robust(residual, cam[:, 2] > 1e-6)
    for _ in range(iterations):
        normal = _normal_equations(_jacobians(T, frame, cam, sigma), residual, weight, frame, point, ~fixed, len(X))
        improved = False
        for _ in range(6):
            step_pose, step_point = normal.solve(damping)
            T_new, X_new = apply_delta(T, step_pose), X + step_point
            new_residual, new_cam = residuals(T_new, X_new, frame, point, xy, sigma)
            new_weight, new_cost = _robust(new_residual, new_cam[:, 2] > 1e-6)
            if new_cost < cost:
                improved = True
                break
            damping *= 8
        if not improved:
            break
        gain = (cost - new_cost) / max(cost, 1e-12)
        T, X, residual, cam, weight, cost = T_new, X_new, new_residual, new_cam, new_weight, new_cost
        damping = max(damping / 4, 1e-8)
        if gain < 1e-4:
            break
    error = np.where(cam[:, 2] > 1e-6, np.linalg.norm(residual, axis=-1), np.inf)
    return BundleResult(T, X, error)


@dataclass
class _NormalEquations:
    """Of P points and the free ones among F poses: gradients, diagonal blocks, and the blocks between the two."""

    free: BoolArray  # (F,) poses that are adjusted, f of them
    g_pose: FloatArray  # (f, 6)
    H_pose: FloatArray  # (f, 6, 6)
    g_point: FloatArray  # (P, 3)
    H_point: FloatArray  # (P, 3, 3)
    W: Any  # (6 f, 3 P) sparse

    def solve(self, damping: float) -> tuple[FloatArray, FloatArray]:
        """Steps of all poses (F, 6) and points (P, 3): the points are eliminated (Schur complement)."""
        points, free = len(self.g_point), np.flatnonzero(self.free)
        D = self.H_point + np.eye(3) * (damping * np.trace(self.H_point, axis1=1, axis2=2)[:, None, None] + 1e-9)
        D_inv = np.linalg.inv(D)
        blocks = bsr_matrix((D_inv, np.arange(points), np.arange(points + 1)), shape=(3 * points, 3 * points))
        step_pose = np.zeros((len(self.free), 6))
        if len(free):
            A = np.zeros((6 * len(free), 6 * len(free)))
            for k in range(len(free)):
                A[6 * k : 6 * k + 6, 6 * k : 6 * k + 6] = self.H_pose[k] * (1 + damping * np.eye(6)) + 1e-9 * np.eye(6)
            WD = self.W @ blocks
            A -= (WD @ self.W.T).toarray()
            right = self.g_pose.ravel() - WD @ self.g_point.ravel()
            step_pose[free] = -np.linalg.lstsq(A, right, rcond=1e-12)[0].reshape(-1, 6)
            carried = (self.W.T @ step_pose[free].ravel()).reshape(-1, 3)
        else:
            carried = np.zeros((points, 3))
        return step_pose, -np.einsum("pij,pj->pi", D_inv, self.g_point + carried)


def _normal_equations(
    jacobians: tuple[FloatArray, FloatArray],
    residual: FloatArray,
    weight: FloatArray,
    frame: IntArray,
    point: IntArray,
    free: BoolArray,
    points: int,
) -> _NormalEquations:
    """Sums over M observations; `jacobians` of their residuals by pose (M, 2, 6) and by point (M, 2, 3)."""
    J_pose, J_point = jacobians
    g_point = np.zeros((points, 3))
    H_point = np.zeros((points, 3, 3))
    np.add.at(g_point, point, np.einsum("m,mki,mk->mi", weight, J_point, residual))
    np.add.at(H_point, point, np.einsum("m,mki,mkj->mij", weight, J_point, J_point))
    poses = int(free.sum())
    column = np.full(len(free), -1)
    column[free] = np.arange(poses)
    moving = column[frame] >= 0
    g_pose, H_pose = np.zeros((poses, 6)), np.zeros((poses, 6, 6))
    at = column[frame[moving]]
    Jm, wm = J_pose[moving], weight[moving]
    np.add.at(g_pose, at, np.einsum("m,mki,mk->mi", wm, Jm, residual[moving]))
    np.add.at(H_pose, at, np.einsum("m,mki,mkj->mij", wm, Jm, Jm))
    cross = np.einsum("m,mki,mkj->mij", wm, Jm, J_point[moving])  # (m, 6, 3)
    rows = (6 * at)[:, None, None] + np.arange(6)[None, :, None] + np.zeros((1, 1, 3), int)
    cols = (3 * point[moving])[:, None, None] + np.arange(3)[None, None, :] + np.zeros((1, 6, 1), int)
    W = coo_matrix((cross.ravel(), (rows.ravel(), cols.ravel())), shape=(6 * poses, 3 * points)).tocsr()
    return _NormalEquations(free, g_pose, H_pose, g_point, H_point, W)


def refine_pose(
    T_cam_map: FloatArray, xyz_map: FloatArray, xy: FloatArray, sigma: FloatArray, iterations: int = 10
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """One pose against fixed points (N, 3) seen at normalised `xy` (N, 2) with `sigma` (N,), robustly.

    Returns T_cam_map (4, 4), its covariance (6, 6) (translation, rotation; camera frame) and the residual lengths (N,)
    in units of sigma.
    """
    T = np.array(T_cam_map, float)
    zero = np.zeros(len(xyz_map), int)
    index = np.arange(len(xyz_map))
    H = np.eye(6)
    for _ in range(iterations):
        residual, cam = residuals(T[None], xyz_map, zero, index, xy, sigma)
        weight, _ = _robust(residual, cam[:, 2] > 1e-6)
        J, _ = _jacobians(T[None], zero, cam, sigma)
        H = np.einsum("m,mki,mkj->ij", weight, J, J) + 1e-9 * np.eye(6)
        step = -np.linalg.solve(H, np.einsum("m,mki,mk->i", weight, J, residual))
        T = apply_delta(T, step)
        if np.abs(step).max() < 1e-9:
            break
    residual, cam = residuals(T[None], xyz_map, zero, index, xy, sigma)
    length = np.where(cam[:, 2] > 1e-6, np.linalg.norm(residual, axis=-1), np.inf)
    return T, np.linalg.inv(H), length


def solve_pose(
    xyz_map: FloatArray, xy: FloatArray, tolerance: float, guess: FloatArray | None = None
) -> tuple[FloatArray, BoolArray] | None:
    """Pose from 2D-3D matches with outliers (PnP, RANSAC): T_cam_map (4, 4) and inliers (N,), or None.

    `xy` normalised (N, 2), `tolerance` likewise. `guess` is tried too. The closest fit wins, not the most inliers:
    while the camera has hardly moved, a turn instead of a shift keeps as many.
    """
    if len(xyz_map) < 6:
        return None
    options: list[FloatArray] = [] if guess is None else [guess]
    cv2.setRNGSeed(0)
    try:
        found, rotation, translation, _ = cv2.solvePnPRansac(
            np.ascontiguousarray(xyz_map), np.ascontiguousarray(xy), np.eye(3), np.zeros(4),
            iterationsCount=300, reprojectionError=tolerance, confidence=0.9999, flags=cv2.SOLVEPNP_SQPNP,
        )  # fmt: skip
    except cv2.error:  # degenerate points
        found = False
    if found:
        posed = np.eye(4)
        posed[:3, :3], posed[:3, 3] = rotation_exp(np.ravel(rotation)), np.ravel(translation)
        options.append(posed)
    best: tuple[FloatArray, BoolArray] | None = None
    best_cost = 1.0
    sigma = np.full(len(xyz_map), tolerance / 3)
    for T in options:
        error = _error(T, xyz_map, xy) / tolerance
        for _ in range(2):
            inliers = error < 1.0
            if inliers.sum() >= 6:
                T, _, _ = refine_pose(T, xyz_map[inliers], xy[inliers], sigma[inliers])
                error = _error(T, xyz_map, xy) / tolerance
        cost = float((np.minimum(error, 1.0) ** 2).mean())
        if cost < best_cost:
            best, best_cost = (T, np.asarray(error < 1.0)), cost
    return best


def _error(T: FloatArray, xyz_map: FloatArray, xy: FloatArray) -> FloatArray:
    """(N,) reprojection error; inf behind the camera."""
    cam = transform_points(T, xyz_map)
    z = np.where(cam[:, 2] > 1e-6, cam[:, 2], np.nan)
    return np.nan_to_num(np.linalg.norm(cam[:, :2] / z[:, None] - xy, axis=-1), nan=np.inf)
