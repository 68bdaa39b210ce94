"""What the 2D priors alone give: the given masks, and points followed by chained flow and lifted by the given depth."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.types import BoolArray, FloatArray

FORWARD_BACKWARD_PX = 1.5  # a chain is given up once the flow there and back disagrees by more


def follow_by_flow(images: NDArray[np.uint8], queries: FloatArray) -> tuple[NDArray[np.float64], BoolArray]:
    """Follows (Q, 3) queries t, y, x forwards through (T, H, W, 3) images by chained DIS flow.

    Returns tracks (Q, T, 2) x, y px and occluded (Q, T): from the first doubt on. Before the query a point stays where
    it was asked for, occluded.
    """
    length, height, width = images.shape[:3]
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    forward = [flow.calc(a, b, None) for a, b in pairwise(grey)]
    backward = [flow.calc(b, a, None) for a, b in pairwise(grey)]
    start = queries[:, 0].astype(int)
    tracks = np.repeat(queries[:, None, [2, 1]].astype(float), length, axis=1)
    occluded = np.ones((len(queries), length), bool)
    occluded[np.arange(len(queries)), start] = False
    for t in range(length - 1):
        alive = start <= t
        here = tracks[alive, t]
        there = here + sample(forward[t], here)
        back = there + sample(backward[t], there)
        sure = np.linalg.norm(back - here, axis=-1) < FORWARD_BACKWARD_PX
        sure &= (there > 0).all(-1) & (there[:, 0] < width - 1) & (there[:, 1] < height - 1)
        tracks[alive, t + 1] = there
        occluded[alive, t + 1] = occluded[alive, t] | ~sure
    return tracks, occluded


def sample(image: NDArray, xy: FloatArray) -> FloatArray:
    """Bilinear look-up of (H, W) or (H, W, C) at (N, 2) x, y px; the edge continues outside."""
    x, y = (np.ascontiguousarray(xy[:, None, c], np.float32) for c in (0, 1))
    return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]


def priors_alone(truth: Mapping[str, NDArray]) -> tuple[NDArray, NDArray, NDArray, BoolArray]:
    """Masks (T, H, W), tracks_xy (Q, T, 2), tracks_xyz (Q, T, 3) and occluded (Q, T) of the priors in a ``gt.npz``."""
    tracks, occluded = follow_by_flow(truth["images"], truth["queries"])
    depth, K, poses = truth["in_depth"].astype(np.float32), truth["K"], truth["T_wc"]
    _, height, width = depth.shape
    xyz = np.zeros((*tracks.shape[:2], 3))
    for t, T in enumerate(poses):
        xy = np.clip(tracks[:, t], 0, [width - 1, height - 1])
        z = sample(depth[t], xy)
        cam = np.stack([(xy[:, 0] - K[0, 2]) / K[0, 0] * z, (xy[:, 1] - K[1, 2]) / K[1, 1] * z, z], -1)
        xyz[:, t] = transform_points(T, cam)
    return truth["in_masks"], tracks, xyz, occluded
