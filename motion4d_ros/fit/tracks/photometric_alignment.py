"""Registration of an object that is nearly where it is expected: the rigid motion that is still missing.

Dense flow says where every pixel belongs, but takes back too little: it is smooth, what stands still is beside the
object, and of a turn it leaves a quarter to two fifths. Grey values, compared under the six unknowns of a rigid motion,
have no smoothness to pay for, but are only comparable within a pixel or so. So flow comes first (a pose from 2D-3D
matches), grey values second (Lucas and Kanade, "An Iterative Image Registration Technique", IJCAI 1981; Gauss-Newton,
robust).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.bundle import apply_delta, refine_pose
from motion4d_ros.geometry.image_warping import sample
from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.types import BoolArray, Camera, FloatArray

FLOW_SIGMA_PX = 0.5  # one standard deviation
FLOW_STEPS = 4  # of Gauss-Newton
GREY_STEPS = 8
MOST_REFINED_PX = 1.5  # median shift by which grey values may correct what flow says
DAMPING = 1e-3
FEWEST_PIXELS = 60
BLUR_PX = 0.7  # before slopes are taken
LIGHT_PX = 4.0  # scale above which differences in brightness are left to the light
FAINT = 1.0  # grey levels of texture that noise alone may have


def align_photometrically(
    warped: NDArray[np.uint8],
    image: NDArray[np.uint8],
    flow: NDArray[np.float32],
    known: BoolArray,
    uv_px: FloatArray,
    xyz_cam: FloatArray,
    camera: Camera,
) -> FloatArray:
    """(4, 4) rigid motion T, camera frame, that brings `warped` (H, W), an object as it is expected, to `image` (H, W).

    What the image shows at the pixels `uv_px` (N, 2) is expected at ``project(T xyz_cam)``: `xyz_cam` (N, 3) m are the
    points of these pixels. `flow` (H, W, 2) says the same from image to expectation, and `known` (H, W) where the
    expectation is one.
    """
    column, row = uv_px.astype(int).T
    rays = camera.unproject(uv_px + flow[row, column], np.ones(len(uv_px)))[:, :2]
    sigma = np.full(len(uv_px), FLOW_SIGMA_PX / camera.fx)
    by_flow, _, _ = refine_pose(np.eye(4), xyz_cam, rays, sigma, FLOW_STEPS)
    by_grey = _by_grey(by_flow, warped, image, known, uv_px, xyz_cam, camera)
    shift = np.linalg.norm(moved_px(by_grey, xyz_cam, camera) - moved_px(by_flow, xyz_cam, camera), axis=1)
    return by_grey if np.median(shift) < MOST_REFINED_PX else by_flow


def moved_px(T: FloatArray, xyz_cam: FloatArray, camera: Camera) -> FloatArray:
    """(N, 2) pixels of the points `xyz_cam` (N, 3), moved by `T` (4, 4)."""
    return camera.project(transform_points(T, xyz_cam))


def _by_grey(
    T: FloatArray,
    warped: NDArray[np.uint8],
    image: NDArray[np.uint8],
    known: BoolArray,
    uv_px: FloatArray,
    xyz_cam: FloatArray,
    camera: Camera,
) -> FloatArray:
    """The motion among the steps of Gauss-Newton, begun at `T`, at which grey values agree best."""
    expectation, seen = _without_light(warped), _without_light(image)
    slopes = [cv2.Sobel(expectation, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1))]
    inside = cv2.erode(known.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.float32)
    there = np.stack([expectation, *slopes, inside], -1)  # one image: read at once
    goal = sample(seen, uv_px)
    best, least = T, np.inf
    for _ in range(GREY_STEPS):
        xyz = transform_points(T, xyz_cam)
        at = camera.project(xyz)
        read = sample(there, at)
        usable = (read[:, 3] > 0.99) & (xyz[:, 2] > 0)
        if usable.sum() < FEWEST_PIXELS:
            break
        error = (read[:, 0] - goal).astype(np.float64)
        size = np.abs(error[usable])
        cost = float(np.mean(np.minimum(size, 1.0)))
        if cost < least:
            best, least = T, cost
        spread = 1.4826 * float(np.median(size))
        weight = usable / (1 + (error / (2 * spread + 1e-6)) ** 2) ** 2
        J = _by_motion(read[:, 1:3], xyz, camera)
        H = (J * weight[:, None]).T @ J
        H[np.diag_indices(6)] *= 1 + DAMPING
        T = apply_delta(T, -np.linalg.solve(H + 1e-9 * np.eye(6), J.T @ (weight * error)))
    return best


def _by_motion(slope: FloatArray, xyz_cam: FloatArray, camera: Camera) -> FloatArray:
    """(N, 6) how grey values change with the motion (translation, rotation) of points `xyz_cam` (N, 3), where they
    change by `slope` (N, 2) per pixel.
    """
    x, y, z = np.where(xyz_cam[:, 2:] > 0, xyz_cam, 1.0).T
    across, down = slope[:, 0] * camera.fx / z, slope[:, 1] * camera.fy / z
    away = -(across * x + down * y) / z
    x, y, z = xyz_cam.T
    turning = (y * away - z * down, z * across - x * away, x * down - y * across)  # the cross product
    return np.stack([across, down, away, *turning], 1)


def _without_light(gray: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W) zero mean and unit spread around every pixel: light that falls on an object does not turn with it."""
    smooth = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), BLUR_PX)
    detail = smooth - cv2.GaussianBlur(smooth, (0, 0), LIGHT_PX)
    spread = np.sqrt(cv2.GaussianBlur(detail**2, (0, 0), LIGHT_PX)) + FAINT
    return np.asarray(detail / spread, np.float32)
