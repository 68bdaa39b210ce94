"""Finding an object again that nothing has linked to for a while: hidden, out of view, or too fast.

Features (SIFT; Lowe 2004) of a keyframe in which the object was well seen are matched to the new frame, on its mask;
since both frames have depth, a match is a pair of 3D points and RANSAC over rigid motions (three points each) tells
whether it is the same object, and where it went. Accepted only on enough inliers: a wrong find is worse than none.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.geometry.rigid import fit_rigid, transform_points
from motion4d_ros.types import BoolArray, FloatArray

MIN_MATCHES = 6
MIN_INLIERS = 6
MIN_INLIER_SHARE = 0.3
RATIO = 0.85  # Lowe's ratio test; RANSAC does the rest
TOLERANCE_SHARE = 0.02  # of the distance: depth noise
ENLARGE = 2.0  # objects are small; SIFT is not
TRIALS = 300


@dataclass
class Features:
    """SIFT features of one object in one frame, with their map positions."""

    xyz_map: FloatArray  # (M, 3) m
    descriptors: NDArray[np.float32]  # (M, 128)


def describe(state: FrameState, label: int) -> Features | None:
    """Features on the pixels of `label` that have depth; None if there are too few."""
    mask = (state.labels == label) & np.isfinite(state.depth_m)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return None
    top, bottom = max(0, rows[0] - 4), min(mask.shape[0], rows[-1] + 5)
    left, right = max(0, columns[0] - 4), min(mask.shape[1], columns[-1] + 5)
    gray = cv2.cvtColor(state.image[top:bottom, left:right], cv2.COLOR_RGB2GRAY)
    large = cv2.resize(gray, None, fx=ENLARGE, fy=ENLARGE, interpolation=cv2.INTER_CUBIC)
    inner = cv2.resize(
        mask[top:bottom, left:right].astype(np.uint8), (large.shape[1], large.shape[0]), interpolation=cv2.INTER_NEAREST
    )
    keypoints, descriptors = cv2.SIFT.create(400, contrastThreshold=0.02).detectAndCompute(large, inner)
    if descriptors is None or len(keypoints) < MIN_MATCHES:
        return None
    uv = np.array([point.pt for point in keypoints])
    uv = (uv + 0.5) / ENLARGE - 0.5 + np.array([left, top])
    column = np.clip(np.rint(uv[:, 0]).astype(int), 0, mask.shape[1] - 1)
    row = np.clip(np.rint(uv[:, 1]).astype(int), 0, mask.shape[0] - 1)
    xyz_cam = state.frame.camera.unproject(uv, state.depth_m[row, column].astype(np.float64))
    xyz = xyz_cam @ state.T_map_cam[:3, :3].T + state.T_map_cam[:3, 3]
    finite = np.isfinite(xyz).all(1)
    return Features(xyz[finite], np.asarray(descriptors, np.float32)[finite])


def find_motion(before: Features, now: Features, distance_m: float, random: np.random.Generator) -> FloatArray | None:
    """(4, 4) rigid motion, map frame, that takes the object from `before` to `now`; None if it is not sure.

    `distance_m` is its distance from the camera, which scales the tolerance.
    """
    pairs = _match(before.descriptors, now.descriptors)
    if len(pairs) < MIN_MATCHES:
        return None
    source, target = before.xyz_map[pairs[:, 0]], now.xyz_map[pairs[:, 1]]
    inliers = _consensus(source, target, TOLERANCE_SHARE * distance_m, random)
    if inliers.sum() < MIN_INLIERS or inliers.mean() < MIN_INLIER_SHARE:
        return None
    return fit_rigid(source[inliers], target[inliers], tolerance=TOLERANCE_SHARE * distance_m)


def _match(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.intp]:
    """(K, 2) pairs that are each other's nearest and clearly nearer than the second."""
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    forward = {
        m[0].queryIdx: m[0].trainIdx
        for m in matcher.knnMatch(a, b, k=2)
        if len(m) == 2 and m[0].distance < RATIO * m[1].distance
    }
    backward = {m.queryIdx: m.trainIdx for m in matcher.match(b, a)}
    mutual = [(i, j) for i, j in forward.items() if backward.get(j) == i]
    return np.array(mutual, np.intp).reshape(-1, 2)


def _consensus(source: FloatArray, target: FloatArray, tolerance: float, random: np.random.Generator) -> BoolArray:
    """(K,) the largest set of pairs that one rigid motion explains."""
    best = np.zeros(len(source), bool)
    for _ in range(TRIALS):
        chosen = random.choice(len(source), 3, replace=False)
        sides = [np.linalg.norm(points[chosen] - points[chosen[[1, 2, 0]]], axis=1) for points in (source, target)]
        if np.abs(sides[0] - sides[1]).max() > 2 * tolerance or sides[0].min() < tolerance:
            continue  # not congruent, or too close together to fix a rotation
        T = fit_rigid(source[chosen], target[chosen], tolerance=1e3, iterations=1)
        error = np.linalg.norm(transform_points(T, source) - target, axis=1)
        inliers = error < tolerance
        if inliers.sum() > best.sum():
            best = inliers
    return best
