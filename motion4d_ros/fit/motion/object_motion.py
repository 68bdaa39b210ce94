"""The motion of one object over the horizon: rigid, or in several parts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from motion4d_ros.fit.motion.articulation import shares
from motion4d_ros.fit.motion.pose_uncertainty import Adjusted
from motion4d_ros.fit.motion.refit_consistency import RefitConsistency
from motion4d_ros.geometry.pose_covariance import PoseCovariance
from motion4d_ros.geometry.rigid import orthonormal, transform_points
from motion4d_ros.types import FloatArray

LOOK_BACK = 8  # frames after which an object must still be known by some of its points
Pose = tuple[FloatArray, FloatArray]  # R (3, 3), t (3,): x -> R (x - c) + c + t


@dataclass
class ObjectMotion:
    """Rigid motion of one object (or of a part that moves as one), canonical -> map, by frame index."""

    object_id: int
    center: FloatArray  # (3,) m
    poses: dict[int, Pose]
    points: dict[int, FloatArray] = field(default_factory=dict)  # point id -> canonical position (3,), m
    scale_error: dict[int, float] = field(default_factory=dict)  # frame index -> log error of its depth prior
    adjusted: Adjusted | None = None  # what its poses came from last
    consistency: RefitConsistency = field(default_factory=RefitConsistency)
    support: dict[int, int] = field(default_factory=dict)  # frame index -> points seen
    parts: list[ObjectMotion] = field(default_factory=list)  # empty: rigid
    detached_at: int | None = None  # first frame since which nothing links the object to its canonical frame
    doubted_at: int | None = None  # first frame since which it is only known step by step
    placed_until: int | None = None  # newest frame when it was last put where its masks are

    def matrix(self, index: int) -> FloatArray:
        """(4, 4) motion canonical -> map at a frame."""
        R, t = self.poses[index]
        T = np.eye(4)
        T[:3, :3] = R
        T[:3, 3] = self.center + t - R @ self.center
        return T

    def set_matrix(self, index: int, T: FloatArray) -> None:
        """Sets the pose at a frame from a (4, 4) motion canonical -> map."""
        R = orthonormal(T[:3, :3])
        self.poses[index] = (R, T[:3, 3] - self.center + R @ self.center)

    def regauge(self, index: int, pose: FloatArray, frames: Collection[int]) -> None:
        """Turns the canonical frame, in all of `frames`, so that the motion at frame `index` is `pose` (4, 4).

        How the object moved from one of these frames to another, M_j M_i^-1, stays as it was measured.
        """
        G = np.linalg.inv(self.matrix(index)) @ pose
        for body in [self, *self.parts]:
            for k in frames:
                if k in body.poses:
                    body.set_matrix(k, body.matrix(k) @ G)

    def between(self, start: int, end: int) -> FloatArray:
        """(4, 4) motion, map frame, from frame `start` to frame `end`."""
        return self.matrix(end) @ np.linalg.inv(self.matrix(start))

    def moved(self, xyz_map: FloatArray, start: int, end: int) -> FloatArray:
        """(M, 3) where points that are at `xyz_map` (M, 3) m in frame `start` are at `end`, as the parts go."""
        steps = np.stack([body.between(start, end) for body in self.bodies])
        blend = np.einsum("mk,kij->mij", self.shares(xyz_map, start), steps)
        return np.asarray(np.einsum("mij,mj->mi", blend[:, :3, :3], xyz_map) + blend[:, :3, 3])

    def covariance(self, index: int) -> PoseCovariance | None:
        """How well the pose at a frame is known; None where it was never adjusted."""
        known = None if self.adjusted is None else self.adjusted.covariances.get(index)
        return None if known is None else self.consistency.scaled(index, known)

    def check_consistency(self, least: int) -> None:
        """After a window: holds the poses told before against the new ones, where at least `least` points were seen."""
        if self.adjusted is not None:
            measured = {index for index, count in self.support.items() if count >= least and index in self.poses}
            self.consistency.adjusted(self.matrix, self.adjusted.covariances, measured)

    # -- parts ---------------------------------------------------------------------------------------------------------

    @property
    def bodies(self) -> list[ObjectMotion]:
        """The parts, or the object itself when it is rigid: one motion base each."""
        return self.parts or [self]

    def shares(self, xyz_map: FloatArray, index: int) -> FloatArray:
        """(M, K) share of every body in (M, 3) map points at a frame."""
        if len(self.bodies) == 1:
            return np.ones((len(xyz_map), 1))
        places: list[FloatArray] = []
        for part in self.parts:
            T = part.matrix(index)
            places.append(transform_points(T, np.array(list(part.points.values()))))
        return shares(xyz_map, places)

    def canonical(self, xyz_map: FloatArray, index: int) -> tuple[FloatArray, FloatArray]:
        """(M, 3) map points at a frame -> (M, 3) canonical points, and (M, K) shares of the bodies."""
        weights = self.shares(xyz_map, index)
        matrices = np.einsum("mk,kij->mij", weights, np.stack([part.matrix(index) for part in self.bodies]))
        back = np.linalg.solve(matrices[:, :3, :3], (xyz_map - matrices[:, :3, 3])[..., None])
        return back[..., 0], weights

    def forget_before(self, index: int) -> None:
        """Drops what is older than frame `index`."""
        for table in (self.poses, self.scale_error, self.support):
            for old in [k for k in table if k < index]:
                del table[old]
        for part in self.parts:
            part.forget_before(index)


@dataclass(frozen=True)
class Bending:
    """How an object in several parts moves from one frame to another."""

    motion: ObjectMotion
    start: int  # frame index
    end: int

    def moved(self, xyz_map: FloatArray) -> FloatArray:
        """(M, 3) map points at the start -> (M, 3) at the end, m."""
        return self.motion.moved(xyz_map, self.start, self.end)

    def back(self) -> Bending:
        """The way back."""
        return Bending(self.motion, self.end, self.start)


Step = FloatArray | Bending
"""How something moves from one frame to another: a rigid motion (4, 4), map frame, or that of its parts."""


def moved(step: Step, xyz_map: FloatArray) -> FloatArray:
    """(M, 3) map points after a step, m."""
    return step.moved(xyz_map) if isinstance(step, Bending) else transform_points(step, xyz_map)


def back(step: Step) -> Step:
    """The inverse of a step."""
    return step.back() if isinstance(step, Bending) else np.linalg.inv(step)
