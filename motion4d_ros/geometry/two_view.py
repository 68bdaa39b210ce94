"""Two views of a static scene: did the camera only turn, or is there parallax to triangulate from?

Image points are *normalised*: ``xy = K^-1 [u v 1]`` without the trailing one. Tolerances are in the same unit, so
``1 / fx`` is one pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from motion4d_ros.geometry.rigid import inverse_pose, pose_matrix, transform_points
from motion4d_ros.geometry.robust import estimated
from motion4d_ros.types import BoolArray, Camera, FloatArray

LEAST_MATCHES = 20
POLISHED = 3  # candidates that are refined before one is chosen
SHORT_BASELINE = np.radians(3.0)  # of parallax, below which the search starts from a mere rotation, too


@dataclass
class TwoView:
    """Relative pose of two views, up to the length of the baseline (1)."""

    T_b_a: FloatArray  # (4, 4)
    xyz_a: FloatArray  # (N, 3) points in a's frame; NaN where not triangulated
    inliers: BoolArray  # (N,)
    parallax_rad: FloatArray  # (N,) angle between the two rays
    cost: float = 0.0  # mean squared reprojection error, 0..1; 1 is twice the tolerance, or behind a camera
    noise: float = 0.0  # robust standard deviation of the inliers' reprojection error, normalised


def normalise(camera: Camera, uv_px: FloatArray) -> FloatArray:
    """(..., 2) pixels -> normalised image points."""
    return (uv_px - np.array([camera.cx, camera.cy])) / np.array([camera.fx, camera.fy])


def rays(xy: FloatArray) -> FloatArray:
    """(..., 2) normalised points -> (..., 3) unit rays."""
    full = np.concatenate([xy, np.ones((*xy.shape[:-1], 1))], -1)
    return full / np.linalg.norm(full, axis=-1, keepdims=True)


def procrustes(a: FloatArray, b: FloatArray, weight: FloatArray | None = None) -> FloatArray:
    """(..., 3, 3) rotation R that brings the (..., N, 3) rays `a` closest to `b`: b ~ R a (Kabsch)."""
    weighted = a if weight is None else a * weight[..., None]
    U, _, Vt = np.linalg.svd(np.einsum("...ni,...nj->...ij", b, weighted))
    sign = np.sign(np.linalg.det(U @ Vt))
    U[..., :, 2] *= sign[..., None]
    return U @ Vt


def rotation_between(
    a: FloatArray, b: FloatArray, tolerance: float, rng: np.random.Generator, trials: int = 100
) -> tuple[FloatArray, BoolArray]:
    """The rotation that explains most matches `a` -> `b`, (N, 2) normalised each: R (3, 3) and its inliers (N,).

    RANSAC over pairs of matches, then least squares over the inliers.
    """
    ray_a, ray_b = rays(a), rays(b)
    if len(a) < 3:
        return np.eye(3), np.zeros(len(a), bool)
    pick = rng.integers(0, len(a), (trials, 3))
    candidates = np.concatenate([np.eye(3)[None], procrustes(ray_a[pick], ray_b[pick])])
    error = np.linalg.norm(np.einsum("kij,nj->kni", candidates, ray_a) - ray_b, axis=-1)
    R = candidates[np.argmin(np.minimum(error, 2 * tolerance).sum(1))]
    inliers = np.zeros(len(a), bool)
    for _ in range(5):
        residual = np.linalg.norm(ray_a @ R.T - ray_b, axis=-1)
        inliers = residual < tolerance
        if inliers.sum() < 3:
            break
        weight = inliers / (1 + (residual / tolerance) ** 2)
        R = procrustes(ray_a, ray_b, weight)
    return R, inliers


def triangulate(T_cam_map: FloatArray, xy: FloatArray, valid: BoolArray | None = None) -> tuple[FloatArray, FloatArray]:
    """Points seen in V views with poses (V, 4, 4) at normalised `xy` (N, V, 2), by linear least squares.

    `valid` (N, V) says where a point was seen. Returns xyz_map (N, 3) (NaN when at infinity) and (N,) how well its
    depth is determined: the ratio of the smallest to the largest eigenvalue of the 3x3 normal matrix.
    """
    R, t = T_cam_map[:, :3, :3], T_cam_map[:, :3, 3]
    direction = np.einsum("vji,nvj->nvi", R, rays(xy))  # in the map
    centre = -np.einsum("vji,vj->vi", R, t)
    weight = np.ones(xy.shape[:2]) if valid is None else valid.astype(float)
    projector = np.eye(3) - direction[..., :, None] * direction[..., None, :]
    normal = np.einsum("nv,nvij->nij", weight, projector)
    right = np.einsum("nv,nvij,vj->ni", weight, projector, centre)
    eigenvalues = np.linalg.eigvalsh(normal)
    ratio = eigenvalues[:, 0] / np.maximum(eigenvalues[:, 2], 1e-12)
    safe = ratio > 1e-9
    xyz = np.full((len(xy), 3), np.nan)
    if safe.any():
        xyz[safe] = np.linalg.solve(normal[safe], right[safe][..., None])[..., 0]
    return xyz, ratio


def reproject(T_cam_map: FloatArray, xyz_map: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(N, 3) map points in one view (4, 4): normalised xy (N, 2) and depth (N,)."""
    cam = transform_points(T_cam_map, xyz_map)
    with np.errstate(divide="ignore", invalid="ignore"):
        return cam[:, :2] / cam[:, 2:], cam[:, 2]


def ray_angle(xyz: FloatArray, centre_a: FloatArray, centre_b: FloatArray) -> FloatArray:
    """(N,) angle at the points `xyz` (N, 3) between the two camera centres, rad."""
    a, b = xyz - centre_a, xyz - centre_b
    cosine = (a * b).sum(-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-12)
    return np.arccos(np.clip(cosine, -1, 1))


def two_view(a: FloatArray, b: FloatArray, tolerance: float) -> TwoView | None:
    """Relative pose of two views from matches (N, 2) normalised each, or None when there is none to be had.

    Candidates come from the essential matrix (five points, MAGSAC) and, for flat scenes where that is ambiguous, from a
    homography. The one that fits best wins: with a short baseline wrong motions, too, keep nearly all points within
    the tolerance, but not as near. The winner is polished (least squares, robust) before it is judged.
    """
    if len(a) < LEAST_MATCHES:
        return None
    cv2.setRNGSeed(0)
    candidates: list[FloatArray] = []
    E = estimated(lambda: cv2.findEssentialMat(a, b, np.eye(3), cv2.USAC_MAGSAC, 0.9999, tolerance, 2000))
    if E is not None:
        for block in np.split(E[: len(E) // 3 * 3], len(E) // 3):
            R1, R2, t = cv2.decomposeEssentialMat(block)
            candidates += [pose_matrix(R, s * t) for R in (R1, R2) for s in (1.0, -1.0)]
    H = estimated(lambda: cv2.findHomography(a, b, cv2.USAC_MAGSAC, 2 * tolerance, None, 1000, 0.999))
    if H is not None:
        _, rotations, translations, _ = cv2.decomposeHomographyMat(H, np.eye(3))
        for R, t in zip(rotations, translations, strict=True):
            length = np.linalg.norm(t)
            if length > 1e-6:
                candidates += [pose_matrix(np.asarray(R), s * np.asarray(t) / length) for s in (1.0, -1.0)]
    found = [view for T_b_a in candidates if (view := _check(T_b_a, a, b, tolerance)).inliers.sum() >= LEAST_MATCHES]
    found = sorted(found, key=lambda view: view.cost)[:POLISHED]
    starts = [(view.T_b_a, view.inliers) for view in found]
    R, _ = rotation_between(a, b, 2 * tolerance, np.random.default_rng(0))
    near = np.linalg.norm(rays(a) @ R.T - rays(b), axis=-1) < SHORT_BASELINE
    if near.sum() >= LEAST_MATCHES:  # the camera has hardly moved: any direction of the baseline may be the start
        starts += [(pose_matrix(R, axis), near) for axis in np.eye(3)]
    for T_b_a, inliers in starts:
        T_b_a = polish(T_b_a, a[inliers], b[inliers], tolerance / 3)
        back = pose_matrix(T_b_a[:3, :3], -T_b_a[:3, 3])
        found += [_check(T, a, b, tolerance) for T in (T_b_a, back)]
    found = [view for view in found if view.inliers.any()]
    return min(found, key=lambda view: view.cost) if found else None


def polish(T_b_a: FloatArray, a: FloatArray, b: FloatArray, sigma: float) -> FloatArray:
    """`T_b_a` (4, 4) with the rotation and the direction of the baseline that fit (N, 2) normalised matches best.

    Robust least squares on Sampson's distance; `sigma` is the standard deviation of the matches.
    """
    length = float(np.linalg.norm(T_b_a[:3, 3]))
    _, _, tangent = np.linalg.svd(T_b_a[None, :3, 3] / length)  # rows 1 and 2 span what is across the baseline
    a1, b1 = (np.concatenate([xy, np.ones((len(xy), 1))], -1) for xy in (a, b))

    def moved(x: FloatArray) -> FloatArray:
        t = T_b_a[:3, 3] / length + x[3:] @ tangent[1:]
        R = np.asarray(cv2.Rodrigues(np.ascontiguousarray(x[:3]))[0])
        return pose_matrix(R @ T_b_a[:3, :3], length * t / np.linalg.norm(t))

    def distance(x: FloatArray) -> FloatArray:
        T = moved(x)
        E = np.cross(T[:3, 3] / length, T[:3, :3], axisb=0, axisc=0)
        line_b, line_a = a1 @ E.T, b1 @ E
        slope = (line_b[:, :2] ** 2).sum(-1) + (line_a[:, :2] ** 2).sum(-1)
        return np.asarray((b1 * line_b).sum(-1) / np.sqrt(np.maximum(slope, 1e-18)) / sigma)

    scale = np.array([1e-3, 1e-3, 1e-3, 0.1, 0.1])
    return moved(least_squares(distance, np.zeros(5), x_scale=scale, loss="soft_l1", max_nfev=15).x)


def _check(T_b_a: FloatArray, a: FloatArray, b: FloatArray, tolerance: float) -> TwoView:
    poses = np.stack([np.eye(4), T_b_a])
    xyz, _ = triangulate(poses, np.stack([a, b], 1))
    error = np.zeros(len(a))
    front = np.ones(len(a), bool)
    for T, xy in zip(poses, (a, b), strict=True):
        seen, depth = reproject(T, xyz)
        error = np.maximum(error, np.nan_to_num(np.linalg.norm(seen - xy, axis=-1), nan=np.inf))
        front &= depth > 1e-6
    parallax = ray_angle(np.nan_to_num(xyz), np.zeros(3), inverse_pose(T_b_a)[:3, 3])
    inliers: NDArray[np.bool_] = front & (error < 2 * tolerance)
    off = np.where(front, np.minimum(error / (2 * tolerance), 1.0), 1.0)
    noise = 1.48 * float(np.median(error[inliers])) if inliers.any() else np.inf
    return TwoView(T_b_a, xyz, inliers, parallax, float((off**2).mean()), noise)
