"""How far the depth of a rendered frame may be off: one standard deviation of every pixel.

A pixel errs as its depth source does, as far as fusing many frames does not average that out; beside an edge of depth,
by which side of it the pixel shows; and on an object as the object's pose does, and as its Gaussians lie about the
surface that they were made from. The shares are measured on scenes whose truth is known
(`python -m motion4d_ros.evaluation.calibration`).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.pose_covariance import PoseCovariance
from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.types import Camera, FloatArray, IntArray

SHARED = 0.2  # of the source's standard deviation, that all frames have in common
SURFACE = 0.009  # of the distance of an object: its Gaussians lie about so far behind what they show
EDGE = 0.3  # of the largest step of depth within two pixels, beyond what a slope explains


def depth_sigma(
    depth_m: FloatArray,
    source_sigma: FloatArray,
    labels: IntArray,
    T_map_cam: FloatArray,
    camera: Camera,
    covariance_of: Callable[[int], tuple[PoseCovariance | None, float]],
) -> NDArray[np.float32]:
    """(H, W) one standard deviation, m, of a rendered depth (H, W), m, seen by `camera` from `T_map_cam` (4, 4).

    `source_sigma` (H, W) is the relative one that the depth source states. `covariance_of` gives for each id in
    `labels` (H, W) how well the object's pose is known, and the relative sigma of its distance where no sensor tells.
    """
    variance = (SHARED * source_sigma * depth_m) ** 2 + (EDGE * _steps(depth_m)) ** 2
    for label in np.unique(labels[labels > 0]).tolist():
        known, distance_sigma = covariance_of(label)
        row, column = np.nonzero((labels == label) & (depth_m > 0))
        z = depth_m[row, column].astype(np.float64)
        variance[row, column] += (distance_sigma**2 + SURFACE**2) * z**2
        if known is None:
            continue
        xyz_cam = camera.unproject(np.stack([column, row], 1).astype(float), z)
        ray = (xyz_cam / z[:, None]) @ T_map_cam[:3, :3].T  # so that a step along it is one of depth
        spread = known.of_points(transform_points(T_map_cam, xyz_cam))
        square = np.maximum((ray * ray).sum(1), 1.0)
        variance[row, column] += np.einsum("ni,nij,nj->n", ray, spread, ray) / square**2
    return np.sqrt(variance).astype(np.float32)


def _steps(depth_m: FloatArray) -> NDArray[np.float64]:
    """(H, W) the largest second difference of a depth image within a pixel of each: 0 on planes, however steep."""
    image = np.pad(np.asarray(depth_m, np.float64), 1, mode="edge")
    image[0], image[-1] = 2 * image[1] - image[2], 2 * image[-2] - image[-3]  # a slope goes on beyond the border
    image[:, 0], image[:, -1] = 2 * image[:, 1] - image[:, 2], 2 * image[:, -2] - image[:, -3]
    bent = [np.abs(np.diff(image, 2, axis=axis)) for axis in (0, 1)]
    return np.asarray(cv2.dilate(np.maximum(bent[0][:, 1:-1], bent[1][1:-1]), np.ones((3, 3), np.uint8)))
