"""Where an object may be by its features: SIFT (Lowe 2004) on its mask, matched to a keyframe that saw it well.

Both frames have depth, so a match is a pair of 3D points, and three matches are a rigid motion; the one that most
matches agree on (RANSAC) is a hypothesis. Whether the object looks so there, `appearance` says.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.geometry.rigid import fit_rigid, transform_points
from motion4d_ros.types import BoolArray, FloatArray

MOST_FEATURES = 400  # of an object in one frame
RATIO = 0.85  # Lowe's ratio test; RANSAC does the rest
ENLARGE = 2  # objects are small; SIFT is not
TRIALS = 300  # of three matches: of 25 % right ones, with 99 % probability one trial has only such


@dataclass
class Features:
    """SIFT features of one object in one frame, with their map positions."""

    xyz_map: FloatArray  # (M, 3) m
    descriptors: NDArray[np.float32]  # (M, 128)


def describe(state: FrameState, label: int) -> Features | None:
    """Features on the pixels of `label` that have depth; None without any."""
    mask = (state.labels == label) & np.isfinite(state.depth_m)
    left, top, width, height = cv2.boundingRect(cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)))
    if width == 0:
        return None
    part = (slice(top, top + height), slice(left, left + width))
    gray = cv2.cvtColor(state.image[part], cv2.COLOR_RGB2GRAY)
    large = cv2.resize(gray, None, fx=ENLARGE, fy=ENLARGE, interpolation=cv2.INTER_CUBIC)
    inner = cv2.resize(mask[part].astype(np.uint8), large.shape[::-1], interpolation=cv2.INTER_NEAREST)
    keypoints, descriptors = cv2.SIFT.create(MOST_FEATURES).detectAndCompute(large, inner)
    if descriptors is None:
        return None
    uv = (np.array([point.pt for point in keypoints]) + 0.5) / ENLARGE - 0.5 + np.array([left, top])
    column, row = np.clip(np.rint(uv).astype(int), 0, np.array(mask.shape[::-1]) - 1).T
    xyz_cam = state.frame.camera.unproject(uv, state.depth_m[row, column].astype(np.float64))
    finite = np.isfinite(xyz_cam).all(1)
    return Features(transform_points(state.T_map_cam, xyz_cam[finite]), np.asarray(descriptors, np.float32)[finite])


def hypothesis(before: Features, now: Features, tolerance_m: float, random: np.random.Generator) -> FloatArray | None:
    """(4, 4) rigid motion, map frame, that most features agree with on their way from `before` to `now`, to
    `tolerance_m`; None where there are fewer than three matches, or none that three agree with.
    """
    pairs = _match(before.descriptors, now.descriptors)
    if len(pairs) < 3:
        return None
    source, target = before.xyz_map[pairs[:, 0]], now.xyz_map[pairs[:, 1]]
    inliers = _consensus(source, target, tolerance_m, random)
    return None if inliers.sum() < 3 else fit_rigid(source[inliers], target[inliers], tolerance_m)


def _match(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.intp]:
    """(K, 2) pairs that are each other's nearest and clearly nearer than the second."""
    matcher = cv2.BFMatcher(cv2.NORM_L2)
    forward = {
        m[0].queryIdx: m[0].trainIdx
        for m in matcher.knnMatch(a, b, k=2)
        if len(m) == 2 and m[0].distance < RATIO * m[1].distance
    }
    backward = {m.queryIdx: m.trainIdx for m in matcher.match(b, a)}
    return np.array([pair for pair in forward.items() if backward.get(pair[1]) == pair[0]], np.intp).reshape(-1, 2)


def _consensus(source: FloatArray, target: FloatArray, tolerance: float, random: np.random.Generator) -> BoolArray:
    """(K,) the largest set of pairs that one rigid motion explains."""
    best = np.zeros(len(source), bool)
    for _ in range(TRIALS):
        chosen = random.choice(len(source), 3, replace=False)
        sides = [np.linalg.norm(points[chosen] - points[chosen[[1, 2, 0]]], axis=1) for points in (source, target)]
        if np.abs(sides[0] - sides[1]).max() > 2 * tolerance or sides[0].min() < tolerance:
            continue  # not congruent, or too close together to fix a rotation
        T = fit_rigid(source[chosen], target[chosen], tolerance=np.inf, iterations=1)
        inliers = np.asarray(np.linalg.norm(transform_points(T, source) - target, axis=1) < tolerance)
        if inliers.sum() > best.sum():
            best = inliers
    return best
