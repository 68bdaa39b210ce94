"""One object's life story, and what is told of it: pose, twist and covariances of its box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motion4d_ros.geometry.pose_covariance import PoseCovariance, lever
from motion4d_ros.geometry.rigid import pose_matrix
from motion4d_ros.geometry.sight import Sight
from motion4d_ros.objects.motion import FilterStep, MotionState, ProcessNoise
from motion4d_ros.types import FloatArray, ObjectPhase, ObjectState


@dataclass(frozen=True)
class Box:
    """The object's box in its canonical frame, on which it rides along with the object."""

    axes: FloatArray  # (3, 3), in columns
    low: FloatArray  # (3,) along the axes, m
    high: FloatArray  # (3,)
    points: int  # number of points it was made from

    def pose(self, T_map_base: FloatArray) -> FloatArray:
        """(4, 4) of the box now."""
        return T_map_base @ pose_matrix(self.axes, self.middle)

    @property
    def middle(self) -> FloatArray:
        """(3,) its centre, canonical, m."""
        return self.axes @ ((self.low + self.high) / 2)


@dataclass
class Track:
    """One object's state.

    Its motion is that of `anchor`, a point fixed on it since its first sight, so that a growing box isn't velocity.
    """

    object_id: int
    label: str
    anchor: FloatArray  # (3,) canonical, m
    box: Box
    step: FilterStep
    T_map_base: FloatArray  # (4, 4) now
    first_seen_ns: int
    last_seen_ns: int
    sight: Sight | None = None  # the view it was seen in last, where lengths are not metres
    posed: bool = True  # the scene (or the points) gave T_map_base, it is not just the filter's prediction
    phase: ObjectPhase = ObjectPhase.NEW
    existence: float = 0.5
    seen_frames: int = 0
    point_count: int = 0
    known: PoseCovariance | None = None  # of the anchor, as the fit said last; None = no fit says so
    measured: bool = True  # in this frame


def carried(track: Track, motion: MotionState) -> FloatArray:
    """(4, 4) canonical -> map that puts the anchor and the orientation where `motion` says."""
    turn = motion.angular.value
    return pose_matrix(turn, motion.linear.value - turn @ track.anchor)


def ahead(
    track: Track, motion: MotionState, T_map_cam: FloatArray | None, before: MotionState | None = None
) -> FloatArray:
    """(4, 4) canonical -> map at `motion`, to which nothing but prediction has led from `before` (None: the newest
    step), when the track's pose was `T_map_base`. The box as a whole, and no corner of it, follows the sight.
    """
    if track.sight is None:
        return carried(track, motion)
    before = before or track.step.updated
    seconds = (motion.stamp_ns - before.stamp_ns) * 1e-9
    velocity = _twist(track, before, track.T_map_base)[:3]
    here = track.T_map_base[:3, :3] @ track.box.middle + track.T_map_base[:3, 3]
    centre, _ = track.sight.onward(here[None], velocity[None], seconds, T_map_cam)
    turn = motion.angular.value
    return pose_matrix(turn, centre[0] - turn @ track.box.middle)


def visible(sight: Sight | None, box: Box, T_map_base: FloatArray) -> bool:
    """Whether a box is in front of the camera, as all that is seen is; not asked where lengths are metres."""
    return sight is None or bool(sight.depth(carried_point(T_map_base, box.middle)) > 0)


def carried_point(pose: FloatArray, point: FloatArray) -> FloatArray:
    """A (3,) point carried by a (4, 4) pose."""
    return pose[:3, :3] @ point + pose[:3, 3]


def told_state(track: Track, motion: MotionState, T_map_base: FloatArray, ahead_of_fit: bool = False) -> ObjectState:
    """The published state; velocity and covariances are those of the box's centre.

    Where a fit has measured the pose, it says how well; what is predicted (`ahead_of_fit`, or not measured) is known as
    well as the filter knows it, besides the error that the fitted frames share.
    """
    pose = track.box.pose(T_map_base)
    moved = lever(T_map_base[:3, :3] @ (track.box.middle - track.anchor))
    twist_covariance = np.zeros((6, 6))
    twist_covariance[:3, :3] = motion.linear.covariance[3:, 3:]
    twist_covariance[3:, 3:] = motion.angular.covariance[3:, 3:]
    pose_covariance = motion.pose_covariance
    if track.known is not None:
        twist_covariance += track.known.twist
        fitted = track.measured and not ahead_of_fit
        pose_covariance = track.known.covariance if fitted else pose_covariance + track.known.shared
    pose_covariance = moved @ pose_covariance @ moved.T
    if track.sight is not None:  # an error of its distance is common to all frames: no filter averages it
        away = pose[:3, 3] - track.sight.centre
        pose_covariance[:3, :3] += track.sight.sigma**2 * np.outer(away, away)
        if not track.sight.ranged:  # what is withheld is unknown
            ray = track.sight.direction(pose[:3, 3])
            along = float(ray @ twist_covariance[:3, :3] @ ray)
            missing = max(0.0, ProcessNoise.first_velocity**2 - along)
            twist_covariance[:3, :3] += missing * np.outer(ray, ray)
    return ObjectState(
        object_id=track.object_id,
        label=track.label,
        phase=track.phase,
        existence=float(track.existence),
        T_map_object=pose,
        pose_covariance=pose_covariance,
        twist=_twist(track, motion, T_map_base),
        twist_covariance=moved @ twist_covariance @ moved.T,
        size_m=track.box.high - track.box.low,
        point_count=track.point_count,
        first_seen_ns=track.first_seen_ns,
        last_seen_ns=track.last_seen_ns,
        label_score=1.0 if track.label else 0.0,
        T_body_object=track.box.pose(np.eye(4)),
    )


def _twist(track: Track, motion: MotionState, T_map_base: FloatArray) -> FloatArray:
    """(6,) of the box's centre, as far as it is told: see `Sight`."""
    omega = motion.angular.rate
    velocity: FloatArray = motion.linear.rate + np.cross(omega, T_map_base[:3, :3] @ (track.box.middle - track.anchor))
    if track.sight is not None:
        velocity = track.sight.told(carried_point(T_map_base, track.box.middle), velocity)
    return np.concatenate([velocity, omega])
