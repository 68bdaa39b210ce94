"""Where an object may be by its features: SIFT (Lowe 2004) on its mask, matched to a keyframe that saw it well.

The keyframe's depth makes of each match a 3D point and where it is seen now; the pose that most of them agree with
(PnP, RANSAC) is a hypothesis. Whether the object looks so there, `appearance` says.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.geometry.rigid import pose_matrix, transform_points
from motion4d_ros.types import FloatArray

MOST_FEATURES = 400  # of an object in one frame
RATIO = 0.85  # Lowe's ratio test; RANSAC does the rest
ENLARGE = 2  # objects are small; SIFT is not
MARGIN_PX = 4  # about a mask, for features at its outline


def step_by_features(before: FrameState, now: FrameState, label: int) -> FloatArray | None:
    """(4, 4) rigid motion, map frame, of object `label` from one frame to another; None where no features agree."""
    sources, targets = _described(before, label), _described(now, label)
    if sources is None or targets is None:
        return None
    matches = cv2.BFMatcher(cv2.NORM_L2).knnMatch(sources[1], targets[1], k=2)
    clear = [m[0] for m in matches if len(m) == 2 and m[0].distance < RATIO * m[1].distance]
    if len(clear) < 4:  # that PnP needs
        return None
    uv_before, uv = sources[0][[m.queryIdx for m in clear]], targets[0][[m.trainIdx for m in clear]]
    column, row = np.clip(np.rint(uv_before).astype(int), 0, np.array(before.labels.shape[::-1]) - 1).T
    xyz = transform_points(before.T_map_cam, before.frame.camera.unproject(uv_before, before.depth_m[row, column]))
    known = np.isfinite(xyz).all(1)
    if known.sum() < 4:
        return None
    found, turn, shift, _ = cv2.solvePnPRansac(xyz[known], uv[known], now.frame.camera.K, None, reprojectionError=2.0)
    if not found or not np.isfinite(turn).all() or not np.isfinite(shift).all():
        return None
    return np.asarray(now.T_map_cam @ pose_matrix(np.asarray(cv2.Rodrigues(turn)[0]), np.asarray(shift)))


def _described(state: FrameState, label: int) -> tuple[FloatArray, NDArray[np.float32]] | None:
    """(M, 2) pixels and (M, 128) descriptors of the features on the pixels of `label` that have depth; None without."""
    mask = ((state.labels == label) & np.isfinite(state.depth_m)).astype(np.uint8)
    left, top, width, height = cv2.boundingRect(cv2.dilate(mask, np.ones(2 * (2 * MARGIN_PX + 1,), np.uint8)))
    if width == 0:
        return None
    part = (slice(top, top + height), slice(left, left + width))
    gray = cv2.cvtColor(state.image[part], cv2.COLOR_RGB2GRAY)
    large = cv2.resize(gray, None, fx=ENLARGE, fy=ENLARGE, interpolation=cv2.INTER_CUBIC)
    inner = cv2.resize(mask[part], large.shape[::-1], interpolation=cv2.INTER_NEAREST)
    keypoints, descriptors = cv2.SIFT.create(MOST_FEATURES).detectAndCompute(large, inner)
    if descriptors is None:
        return None
    uv = (np.array([point.pt for point in keypoints]) + 0.5) / ENLARGE - 0.5 + np.array([left, top])
    return uv, np.asarray(descriptors, np.float32)
