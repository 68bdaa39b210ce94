"""Where a camera goes: as it went, smoothed, or about what it looked at; and at which time it sees the scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from motion4d_ros.geometry.rigid import inverse_pose, transform_points
from motion4d_ros.offline.novel_views.saved_scene import SavedScene
from motion4d_ros.types import FloatArray, Motion4DError
from motion4d_ros.viewer.drawn import up_direction

GIVEN, ORBIT, STABILISED = "given", "orbit", "stabilised"
PATHS = (GIVEN, STABILISED, ORBIT)
FULL_TURN = 360.0  # degrees
FROZEN_SECONDS = 4.0  # how long one instant is looked at
SEEN_OPACITY = 0.1  # Gaussians fainter than this are not looked at


@dataclass(frozen=True)
class Step:
    """One picture to take: from where, and when."""

    T_map_cam: FloatArray  # (4, 4) camera to map, m; optical frame (x right, y down, z forward)
    time: float  # (fractional) frame index, within `SavedScene.frames`


@dataclass(frozen=True)
class PathOptions:
    """Which way, and when."""

    path: str = GIVEN
    freeze: float | None = None  # this instant alone
    degrees: float = 40.0  # how far an orbit swings; `FULL_TURN`: all the way round
    smooth_s: float = 0.5  # standard deviation of the smoothing, s


def plan(saved: SavedScene, options: PathOptions, rate: float) -> list[Step]:
    """The pictures to take, in order; frozen orbits last `FROZEN_SECONDS` at `rate` pictures a second.

    Raises `Motion4DError` for instants that the scene does not hold, and where there is no trajectory to follow.
    """
    frozen = None if options.freeze is None else saved.check_time(options.freeze)
    if options.path == ORBIT:
        frames = [float(index) for index in saved.frames]
        times = frames if frozen is None else [frozen] * max(2, round(FROZEN_SECONDS * rate))
        return [
            Step(T, time) for T, time in zip(_orbit(saved, len(times), frozen, options.degrees), times, strict=True)
        ]
    if not saved.T_map_cams:
        raise Motion4DError(
            f"--path {options.path} needs trajectory.tum and metrics.json beside the scene: try --path orbit"
        )
    indices = sorted(saved.T_map_cams)
    poses = np.stack([saved.T_map_cams[index] for index in indices])
    if options.path == STABILISED:
        poses = stabilised(poses, options.smooth_s * saved.rate)
    return [Step(T, float(index) if frozen is None else frozen) for index, T in zip(indices, poses, strict=True)]


def stabilised(poses: FloatArray, sigma: float) -> FloatArray:
    """(T, 4, 4) poses smoothed over time by a Gaussian of `sigma` frames: positions, and sign-aligned quaternions."""
    if sigma <= 0:
        return poses
    quats = Rotation.from_matrix(poses[:, :3, :3]).as_quat()
    for k in range(1, len(quats)):
        quats[k] *= 1.0 if quats[k] @ quats[k - 1] >= 0 else -1.0
    smooth = np.tile(np.eye(4), (len(poses), 1, 1))
    smooth[:, :3, :3] = Rotation.from_quat(gaussian_filter1d(quats, sigma, axis=0, mode="nearest")).as_matrix()
    smooth[:, :3, 3] = gaussian_filter1d(poses[:, :3, 3], sigma, axis=0, mode="nearest")
    return smooth


def _orbit(saved: SavedScene, count: int, frozen: float | None, degrees: float) -> list[FloatArray]:
    """`count` poses about the middle of what the camera saw: round, or to one side, to the other, and back.

    A camera that came along one side has not seen the other: only a full turn goes there.
    """
    T, time = _vantage(saved, frozen)
    middle = _middle(saved, T, time)
    axis = up_direction(saved.T_map_cams) if saved.T_map_cams else np.array([0.0, 0.0, 1.0])
    share = np.arange(count) / count
    angles = FULL_TURN * share if degrees >= FULL_TURN else 0.5 * degrees * np.sin(2 * np.pi * share)
    poses: list[FloatArray] = []
    for angle in angles:
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_rotvec(np.radians(angle) * axis).as_matrix()
        turn[:3, 3] = middle - turn[:3, :3] @ middle
        poses.append(turn @ T)
    return poses


def _vantage(saved: SavedScene, frozen: float | None) -> tuple[FloatArray, float]:
    """The pose from which an orbit starts, and its time: the camera's at the frozen instant, or halfway."""
    if saved.T_map_cams:
        indices = sorted(saved.T_map_cams)
        wanted = float(np.median(indices)) if frozen is None else frozen
        index = min(indices, key=lambda i: abs(i - wanted))
        return saved.T_map_cams[index], float(index)
    time = float(saved.frames[len(saved.frames) // 2]) if frozen is None else frozen
    xyz = _opaque(saved, time)
    low, high = np.percentile(xyz, [2, 98], axis=0)
    size = float(np.linalg.norm(high - low))
    T = np.eye(4)  # along the map's x axis, level
    T[:3, :3] = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    T[:3, 3] = (low + high) / 2 - np.array([size, 0.0, 0.0])
    return T, time


def _middle(saved: SavedScene, T_map_cam: FloatArray, time: float) -> FloatArray:
    """(3,) the point straight ahead, as far off as half of what is in view: nothing jumps when the orbit begins."""
    xyz_cam = transform_points(inverse_pose(T_map_cam), _opaque(saved, time))
    uv, camera = saved.camera.project(xyz_cam), saved.camera
    inside = np.isfinite(uv).all(1) & (uv >= 0).all(1) & (uv < [camera.width, camera.height]).all(1)
    ahead = xyz_cam[inside, 2] if inside.any() else xyz_cam[xyz_cam[:, 2] > 0, 2]
    depth = float(np.median(ahead)) if len(ahead) else 1.0
    return np.asarray(T_map_cam[:3, 3] + depth * T_map_cam[:3, 2])


def _opaque(saved: SavedScene, time: float) -> FloatArray:
    """(P, 3) places of the Gaussians that can be seen at a time."""
    posed = saved.scene.at(time)
    xyz = posed.means.detach().double().cpu().numpy()
    return np.asarray(xyz[(posed.opacities.detach().cpu().numpy() > SEEN_OPACITY) & np.isfinite(xyz).all(1)])
