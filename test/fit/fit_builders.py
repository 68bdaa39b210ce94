"""Small exact worlds for the tests of the fit."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from motion4d_ros.fit.motion.bundle_adjustment import Body, Observations
from motion4d_ros.fit.window.horizon import FrameState, Horizon
from motion4d_ros.types import Camera, FloatArray, Frame, IntArray, PoseStatus, Scale

CAMERA = Camera(60.0, 60.0, 31.5, 23.5, 64, 48)
PERIOD_NS = 100_000_000


def texture(height: int, width: int, seed: int = 0, blur: float = 1.5) -> NDArray[np.uint8]:
    """Smooth grey noise over the whole range."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), blur)
    return np.asarray(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX), np.uint8)


def pose(rotvec: tuple[float, float, float] = (0, 0, 0), t: tuple[float, float, float] = (0, 0, 0)) -> FloatArray:
    """(4, 4) rigid motion."""
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.from_rotvec(rotvec).as_matrix(), t
    return T


def move(T: FloatArray, xyz: FloatArray) -> FloatArray:
    """(N, 3) points moved by T (4, 4)."""
    return xyz @ T[:3, :3].T + T[:3, 3]


def make_state(
    index: int,
    labels: IntArray | None = None,
    depth_m: FloatArray | float = 2.0,
    image: NDArray[np.uint8] | None = None,
    T_map_cam: FloatArray | None = None,
    camera: Camera = CAMERA,
) -> FrameState:
    """A frame of the horizon; grey `image` (H, W)."""
    labels = np.zeros(camera.size, np.int32) if labels is None else labels
    depth = np.broadcast_to(np.asarray(depth_m, np.float32), camera.size).copy()
    gray = np.full(camera.size, 128, np.uint8) if image is None else image
    T = np.eye(4) if T_map_cam is None else T_map_cam
    frame = Frame((index + 1) * PERIOD_NS, np.repeat(gray[..., None], 3, -1), camera, T, index=index)
    sigma = np.full(camera.size, 0.02, np.float32)
    return FrameState(
        frame,
        camera,
        T,
        PoseStatus.OK,
        Scale.METRIC,
        labels,
        (1 / depth).astype(np.float32),
        sigma,
        labels.copy(),
        depth,
    )


def make_horizon(states: list[FrameState], limit: int = 64) -> Horizon:
    """A horizon that holds the states."""
    horizon = Horizon(limit)
    for state in states:
        horizon.append(state)
    return horizon


class UniformFlow:
    """A `TrackSource` whose flow is the same everywhere: `step_px` (x, y) per frame forward."""

    def __init__(self, size: tuple[int, int], step_px: tuple[float, float] = (0.0, 0.0), trusted: bool = True) -> None:
        self.size, self.step, self.trusted = size, np.array(step_px, np.float32), trusted

    @property
    def flows(self) -> UniformFlow:
        return self

    def between(self, first: int, second: int) -> NDArray[np.float32]:
        return np.broadcast_to(self.step * (second - first), (*self.size, 2)).astype(np.float32)

    def error(self, first: int, second: int) -> NDArray[np.float32]:
        return np.full(self.size, 0.0 if self.trusted else np.inf, np.float32)

    def flow(self, from_index: int, to_index: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return self.between(from_index, to_index), np.full(self.size, self.trusted)


def observe(
    xyz_map: FloatArray, camera: Camera, T_map_cams: FloatArray, noise_px: float = 0.0, seed: int = 0
) -> Observations:
    """Exact (or noisy) views of (N, T, 3) map points, all visible; inverse depth as it is."""
    rng = np.random.default_rng(seed)
    T_cam_map = np.linalg.inv(T_map_cams)
    xyz_cam = np.einsum("tij,ntj->nti", T_cam_map[:, :3, :3], xyz_map) + T_cam_map[:, :3, 3]
    count, length = xyz_map.shape[:2]
    uv = camera.project(xyz_cam) + noise_px * rng.standard_normal((count, length, 2))
    return Observations(
        uv,
        np.full((count, length), max(noise_px, 0.1)),
        np.ones((count, length), bool),
        1 / xyz_cam[..., 2],
        T_cam_map,
        0.1 * np.arange(length),
        camera,
    )


def turning_body(count: int = 40, length: int = 8, seed: int = 0) -> Body:
    """A ball of points two metres ahead that drifts and turns at constant rate: the truth."""
    points = np.random.default_rng(seed).uniform(-0.15, 0.15, (count, 3)) + np.array([0, 0, 2])
    R = np.stack([Rotation.from_rotvec(k * np.array([0.02, 0.1, 0.03])).as_matrix() for k in range(length)])
    t = np.arange(length)[:, None] * np.array([0.03, -0.01, 0.02])
    return Body(np.array([0.0, 0.0, 2.0]), R, t, points, np.zeros(length), np.zeros(length))


def shaken(body: Body, seed: int = 1, rotation: float = 0.05, shift: float = 0.02, points: float = 0.03) -> Body:
    """The same body, badly known."""
    rng = np.random.default_rng(seed)
    length = len(body.t)
    turn = Rotation.from_rotvec(rotation * rng.standard_normal((length, 3))).as_matrix()
    return Body(
        body.center,
        turn @ body.R,
        body.t + shift * rng.standard_normal((length, 3)),
        body.points + points * rng.standard_normal(body.points.shape),
        np.zeros(length),
        np.zeros(length),
    )
