"""Trajectories of objects and cameras as functions of time: seconds -> (4, 4) pose in the map (z up, metres)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from scipy.spatial.transform import Rotation

from motion4d_ros.types import FloatArray

Trajectory: TypeAlias = Callable[[float], FloatArray]
Path: TypeAlias = Callable[[float], FloatArray]  # seconds -> (3,) m
Turn: TypeAlias = Callable[[float], Rotation]

GRAVITY = 9.81  # m/s^2


def rigid(path: Path, turn: Turn) -> Trajectory:
    """A body whose centre follows `path` while it turns by `turn`."""

    def pose(time_s: float) -> FloatArray:
        T = np.eye(4)
        T[:3, :3] = turn(time_s).as_matrix()
        T[:3, 3] = path(time_s)
        return T

    return pose


def fixed(position: Sequence[float], yaw: float = 0.0) -> Trajectory:
    """A body that never moves."""
    return rigid(lambda _: np.asarray(position, float), lambda _: Rotation.from_euler("z", yaw))


def attached(parent: Trajectory, child: Trajectory) -> Trajectory:
    """A body whose pose `child` is given in the frame of another: links of an articulated thing."""
    return lambda time_s: parent(time_s) @ child(time_s)


def hinge(
    joint: Sequence[float], axis: Sequence[float], angle: Callable[[float], float], offset: Sequence[float]
) -> Trajectory:
    """A link that swings about `axis` through `joint` (parent frame); `offset` leads from the joint to its centre."""
    unit = np.asarray(axis, float) / np.linalg.norm(axis)

    def pose(time_s: float) -> FloatArray:
        rotation = Rotation.from_rotvec(unit * angle(time_s))
        T = np.eye(4)
        T[:3, :3] = rotation.as_matrix()
        T[:3, 3] = np.asarray(joint, float) + rotation.apply(np.asarray(offset, float))
        return T

    return pose


def spin(axis: Sequence[float], rate: float, start: Rotation | None = None) -> Turn:
    """Turning about a map axis at a constant rate, rad/s."""
    unit = np.asarray(axis, float) / np.linalg.norm(axis)
    first = start or Rotation.identity()
    return lambda time_s: Rotation.from_rotvec(unit * rate * time_s) * first


def spin_by(axis: Sequence[float], angle: Callable[[float], float]) -> Turn:
    """Turning about a map axis by an angle (rad) given as a function of time."""
    unit = np.asarray(axis, float) / np.linalg.norm(axis)
    return lambda time_s: Rotation.from_rotvec(unit * angle(time_s))


def waypoints(times_s: Sequence[float], points: Sequence[Sequence[float]]) -> Path:
    """Through the points at the times, eased so that it stands still at every one of them."""
    knots, values = np.asarray(times_s, float), np.asarray(points, float)

    def path(time_s: float) -> FloatArray:
        if time_s >= knots[-1]:
            return values[-1]
        k = max(0, int(np.searchsorted(knots, time_s, side="right")) - 1)
        u = np.clip((time_s - knots[k]) / (knots[k + 1] - knots[k]), 0, 1)
        return values[k] + (values[k + 1] - values[k]) * u * u * (3 - 2 * u)

    return path


def line(start: Sequence[float], velocity: Sequence[float]) -> Path:
    """Constant velocity, m/s."""
    return lambda time_s: np.asarray(start, float) + np.asarray(velocity, float) * time_s


def circle(centre: Sequence[float], radius: float, rate: float, phase: float) -> Path:
    """A horizontal circle at a constant rate, rad/s."""

    def path(time_s: float) -> FloatArray:
        angle = rate * time_s + phase
        return np.asarray(centre, float) + radius * np.array([np.cos(angle), np.sin(angle), 0.0])

    return path


def bounce(start: Sequence[float], velocity: Sequence[float], floor_z: float, restitution: float = 0.82) -> Path:
    """Free fall from `start` (m) at `velocity` (m/s) with instantaneous impacts at height `floor_z` of the centre."""
    first, pace = np.asarray(start, float), np.asarray(velocity, float)

    def path(time_s: float) -> FloatArray:
        z, speed, left = first[2], pace[2], time_s
        for _ in range(64):
            until = (speed + np.sqrt(max(0.0, speed**2 + 2 * GRAVITY * (z - floor_z)))) / GRAVITY
            if until > left or until < 1e-6:
                break
            z, speed, left = floor_z, restitution * (GRAVITY * until - speed), left - until
        height = max(floor_z, z + speed * left - 0.5 * GRAVITY * left**2)
        return np.array([first[0] + pace[0] * time_s, first[1] + pace[1] * time_s, height])

    return path


def look_at(eye: FloatArray, target: FloatArray) -> FloatArray:
    """(4, 4) `T_map_cam` of an optical frame at `eye` that looks at `target`, upright."""
    forward = target - eye
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    T = np.eye(4)
    T[:3, :3] = np.stack([right, np.cross(forward, right), forward], -1)
    T[:3, 3] = eye
    return T


def static_camera(eye: Sequence[float], target: Sequence[float]) -> Trajectory:
    """A camera on a tripod."""
    T = look_at(np.asarray(eye, float), np.asarray(target, float))
    return lambda _: T.copy()


def arc_camera(
    target: Sequence[float], radius: float, height: float, start: float, sweep: float, duration_s: float
) -> Trajectory:
    """Around `target` on a horizontal arc, from azimuth `start` through `sweep`, rad."""
    centre = np.asarray(target, float)

    def pose(time_s: float) -> FloatArray:
        angle = start + sweep * time_s / duration_s
        bob = 0.02 * np.sin(2.1 * time_s)
        eye = np.array([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle), height + bob])
        return look_at(eye, centre)

    return pose


def slide_camera(
    eye: Sequence[float], target: Sequence[float], shift: Sequence[float], duration_s: float
) -> Trajectory:
    """Looking at `target` while sliding by `shift`, m, over the whole run."""
    first, way, aim = np.asarray(eye, float), np.asarray(shift, float), np.asarray(target, float)
    return lambda time_s: look_at(first + way * time_s / duration_s, aim)


def pan_camera(eye: Sequence[float], target: Sequence[float], sweep: float, duration_s: float) -> Trajectory:
    """Turning on the spot about the vertical, through `sweep` rad centred on `target`: no parallax at all."""
    origin, way = np.asarray(eye, float), np.asarray(target, float) - np.asarray(eye, float)

    def pose(time_s: float) -> FloatArray:
        angle = sweep * (time_s / duration_s - 0.5)
        return look_at(origin, origin + Rotation.from_euler("z", angle).apply(way))

    return pose


def handheld(base: Trajectory, rng: np.random.Generator, sway_m: float = 0.03, shake_rad: float = 0.008) -> Trajectory:
    """`base` with the sway and shake of a hand: sums of slow and fast sinusoids at random phases."""
    frequency = np.array([0.35, 0.8, 1.7, 3.1])
    weight = np.array([1.0, 0.5, 0.2, 0.08])
    phase = rng.uniform(0, 2 * np.pi, (6, 4))

    def pose(time_s: float) -> FloatArray:
        wave = (weight * (np.sin(2 * np.pi * frequency * time_s + phase) - np.sin(phase))).sum(-1)
        nudge = np.eye(4)
        nudge[:3, :3] = Rotation.from_rotvec(shake_rad * wave[3:]).as_matrix()
        nudge[:3, 3] = sway_m * wave[:3] * [1.0, 0.7, 0.5]
        return base(time_s) @ nudge

    return pose
