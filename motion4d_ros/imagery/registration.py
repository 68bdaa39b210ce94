"""Depth of one camera, seen from another: aligned where both calibrations and the transform between them are known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.imagery.camera import Rectifier
from motion4d_ros.types import Camera, FloatArray

SAME_PIXELS = 0.01
"""Share of the focal length by which two calibrations of one view may differ and still be called the same."""
SAME_PLACE_M = 1e-4
SAME_DIRECTION = 1e-4
"""Transforms below these (m, rad) move no depth pixel."""


@dataclass(frozen=True)
class Registration:
    """How depth images come to lie on their colour images: both calibrations, and (4, 4) T_image_depth, both raw
    (unrectified) optical frames.
    """

    depth: Rectifier
    image: Rectifier
    T_image_depth: FloatArray

    @property
    def is_needless(self) -> bool:
        """Whether both cameras see the same: depth then lies on the image as it is, apart from its size."""
        moved = np.linalg.norm(self.T_image_depth[:3, 3]) > SAME_PLACE_M
        turned = np.linalg.norm(self.T_image_depth[:3, :3] - np.eye(3)) > SAME_DIRECTION
        return not (moved or turned) and same_view(self.depth, self.image)

    def apply(self, depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """(h, w) m of the depth camera, unrectified -> (H, W) m of the image's *rectified* camera, 0 where unknown."""
        straight = np.asarray(self.depth.rectify(depth_m, nearest=True), np.float32)
        T = np.eye(4)
        T[:3, :3] = self.image.rotation @ self.T_image_depth[:3, :3] @ self.depth.rotation.T
        T[:3, 3] = self.image.rotation @ self.T_image_depth[:3, 3]
        return register_depth(straight, self.depth.camera, T, self.image.camera)


def same_view(one: Rectifier, other: Rectifier) -> bool:
    """Whether two calibrations are those of one camera, at whatever size."""
    a, b = one.camera, other.camera
    scale_x, scale_y = b.width / a.width, b.height / a.height
    scaled = np.array([a.fx * scale_x, a.fy * scale_y, (a.cx + 0.5) * scale_x - 0.5, (a.cy + 0.5) * scale_y - 0.5])
    near = np.abs(scaled - (b.fx, b.fy, b.cx, b.cy)).max() <= SAME_PIXELS * max(b.fx, b.fy)
    return bool(near and one.same_distortion(other))


def register_depth(
    depth_m: NDArray[np.float32], depth_camera: Camera, T_image_depth: FloatArray, camera: Camera
) -> NDArray[np.float32]:
    """(h, w) m along `depth_camera`'s axis -> (H, W) m along `camera`'s axis; the nearest wins, 0 where nothing lies.

    Where `camera` has the finer pixels, each depth pixel is cut into as many, so that no gaps open between them.
    """
    cut = max(1, math.ceil(max(camera.fx / depth_camera.fx, camera.fy / depth_camera.fy)))
    rows, columns = np.nonzero(depth_m > 0)
    z = depth_m[rows, columns].astype(np.float64)
    out = np.full(camera.width * camera.height, np.inf, np.float32)
    R, t = T_image_depth[:3, :3], T_image_depth[:3, 3]
    for part in range(cut * cut):
        dy, dx = divmod(part, cut)
        u = columns + (dx + 0.5) / cut - 0.5
        v = rows + (dy + 0.5) / cut - 0.5
        points = np.stack([(u - depth_camera.cx) / depth_camera.fx * z, (v - depth_camera.cy) / depth_camera.fy * z, z])
        x, y, ahead = R @ points + t[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            column = np.rint(camera.fx * x / ahead + camera.cx)
            row = np.rint(camera.fy * y / ahead + camera.cy)
            seen = (ahead > 0) & (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
        index = row[seen].astype(np.int64) * camera.width + column[seen].astype(np.int64)
        np.minimum.at(out, index, ahead[seen].astype(np.float32))
    return np.where(np.isfinite(out), out, np.float32(0)).reshape(camera.height, camera.width)
