"""Tracked objects over time: the scene's moving Gaussians, grouped by object, become `ObjectState`s.

tracker = ObjectTracker(config.objects)
states = tracker.update(stamp_ns, observations)      # live: uses the past only
history = tracker.replay([(stamp_ns, observations), ...])  # after a refinement: the same stamps again, smoothed
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence

import numpy as np

from motion4d_ros.config import ObjectsConfig
from motion4d_ros.geometry.pose_covariance import PoseCovariance
from motion4d_ros.geometry.rigid import pose_matrix
from motion4d_ros.objects.boxes import extents, oriented_box
from motion4d_ros.objects.lifecycle import (
    UNSEEN,
    is_seen,
    next_phase,
    observability,
    update_existence,
)
from motion4d_ros.objects.live_consistency import LiveConsistency
from motion4d_ros.objects.motion import (
    FilterStep,
    PoseMeasurement,
    ProcessNoise,
    advance,
    again,
    begin,
    predict,
    scaled,
    smooth,
)
from motion4d_ros.objects.observation import ObjectObservation
from motion4d_ros.objects.process_noise import LearntNoise, learn_process_noise
from motion4d_ros.objects.track import Box, Track, ahead, carried, carried_point, told_state, visible
from motion4d_ros.types import FloatArray, ObjectPhase, ObjectState

BOX_TAIL = 0.01
"""Share of an object's points that may lie outside its box at each end of each axis."""

BOX_GAIN = 0.2
"""How fast the box follows its points, per frame."""

LEARNT_FROM = 64
"""Newest measurements of an object from which its process noise is learnt."""

SNAPSHOTS = 256
"""Frames to which a replay can go back."""


class ObjectTracker:
    """Turns observations of objects, frame by frame, into states with persistent ids (those of the observations)."""

    def __init__(self, config: ObjectsConfig) -> None:
        self.config = config
        self._tracks: dict[int, Track] = {}
        self._first_seen: dict[int, int] = {}
        self._labels: dict[int, str] = {}  # names that people gave, by object id
        self._stamp_ns: int | None = None
        self._snapshots: deque[tuple[int, dict[int, Track]]] = deque(maxlen=SNAPSHOTS)
        self._measured: dict[int, dict[int, PoseMeasurement]] = {}  # object id -> stamp, ns -> measurement
        self._process_noise: dict[int, LearntNoise] = {}  # learnt, by object id
        self.consistency = LiveConsistency()

    @property
    def names(self) -> dict[int, str]:
        """The names that people gave to objects."""
        return dict(self._labels)

    @property
    def expected_process_noise(self) -> ProcessNoise:
        """How freely objects move, before their own motion is known."""
        return ProcessNoise(velocity=self.config.velocity_process_noise, rate=self.config.rotation_process_noise)

    def process_noise(self, object_id: int) -> ProcessNoise:
        """How freely an object moves."""
        learnt = self._process_noise.get(object_id)
        return self.expected_process_noise if learnt is None else learnt.ahead

    def update(self, stamp_ns: int, observations: Sequence[ObjectObservation]) -> list[ObjectState]:
        """States at `stamp_ns`, which must be later than the last; known objects that are not observed are predicted.

        An id is new when it is first *seen*; observations of unknown ids that are not are ignored.
        """
        if self._stamp_ns is not None and stamp_ns <= self._stamp_ns:
            raise ValueError(f"stamp {stamp_ns} is not later than {self._stamp_ns}: use replay for past stamps")
        seconds = 0.0 if self._stamp_ns is None else (stamp_ns - self._stamp_ns) * 1e-9
        by_id = {each.object_id: each for each in observations}
        for object_id, observation in by_id.items():
            if object_id not in self._tracks and is_seen(observation.sighting, self.config):
                started = self._start(stamp_ns, observation)
                if started is not None:
                    self._tracks[object_id] = started
        for object_id, track in list(self._tracks.items()):
            self._advance(track, stamp_ns, seconds, by_id.get(object_id))
            if (stamp_ns - track.last_seen_ns) * 1e-9 > max(self.config.forget_after, self.config.lost_after):
                self.remove(object_id)
        self._stamp_ns = stamp_ns
        self._snapshots.append((stamp_ns, _copied(self._tracks)))
        return [told_state(track, track.step.updated, track.T_map_base) for track in self._sorted()]

    def predict(self, stamp_ns: int, T_map_cam: FloatArray | None = None) -> list[ObjectState]:
        """States continued to a later `stamp_ns` without any observation; notes them for `consistency`, else changes
        nothing.

        What is seen, and has no metres, stays before the camera, which is at `T_map_cam` (4, 4) now.
        """
        states = []
        for track in self._sorted():
            motion = predict(track.step.updated, stamp_ns, self.process_noise(track.object_id), track.sight)
            if track.sight is None and track.known is not None:
                self.consistency.predicted(
                    track.object_id, stamp_ns, motion.linear.value, motion.angular.value, motion.pose_covariance
                )
                motion = scaled(motion, self.consistency.scale)
            now = T_map_cam if track.phase in (ObjectPhase.NEW, ObjectPhase.TRACKED) else None
            states.append(told_state(track, motion, ahead(track, motion, now), ahead_of_fit=True))
        return states

    def frozen(self) -> ObjectTracker:
        """A tracker that predicts as this one does now, apart from it."""
        other = ObjectTracker(self.config)
        other._tracks, other._process_noise = _copied(self._tracks), dict(self._process_noise)
        other.consistency.scale = self.consistency.scale
        return other

    def replay(self, history: Sequence[tuple[int, Sequence[ObjectObservation]]]) -> list[list[ObjectState]]:
        """States for past stamps again, after the scene has been refined: one list per entry of `history`.

        `history` holds (stamp_ns, observations), ascending, all stamps since its first. What happened before is taken
        from memory (`SNAPSHOTS` frames). Motion is smoothed over the whole history and every object wears one box
        throughout. Afterwards the tracker stands at the end of `history`, so that live updates go on from there.
        """
        if not history:
            return []
        self._go_back(history[0][0])
        steps: dict[int, list[FilterStep]] = {}
        frames: list[list[tuple[Track, int]]] = []  # per stamp: the track as it stood, its place in `steps`
        for stamp_ns, observations in history:
            self.update(stamp_ns, observations)
            current = []
            for track in self._sorted():
                of_object = steps.setdefault(track.object_id, [])
                of_object.append(track.step)
                current.append((copy.copy(track), len(of_object) - 1))
            frames.append(current)
        self._learn_process_noise()
        smoothed = {}
        for object_id, each in steps.items():
            noise = self._process_noise.get(object_id)
            filtered = each if noise is None else again(each, noise.at, noise.jitter)
            smoothed[object_id] = smooth(filtered)
            if object_id in self._tracks:
                self._tracks[object_id].step = filtered[-1]
        self._snapshots[-1] = (history[-1][0], _copied(self._tracks))
        boxes = {track.object_id: track.box for current in frames for track, _ in current}  # the last of each
        result = []
        for current in frames:
            states = []
            for track, place in current:
                motion = smoothed[track.object_id][place]
                if visible(track.sight, boxes[track.object_id], track.T_map_base):
                    track.box = boxes[track.object_id]
                pose = track.T_map_base if track.posed or track.sight is not None else carried(track, motion)
                states.append(told_state(track, motion, pose))
            result.append(states)
        return result

    def forget_before(self, stamp_ns: int) -> None:
        """No replay will begin before `stamp_ns`: what was remembered for such a one goes."""
        while len(self._snapshots) > 1 and self._snapshots[1][0] < stamp_ns:
            self._snapshots.popleft()
        self.consistency.forget_before(stamp_ns)

    def remove(self, object_id: int) -> None:
        """Forgets an object (deleted by a user, or merged into another)."""
        self._tracks.pop(object_id, None)
        self._first_seen.pop(object_id, None)
        self._labels.pop(object_id, None)
        self._measured.pop(object_id, None)
        self._process_noise.pop(object_id, None)
        self.consistency.forget(object_id)
        for _, tracks in self._snapshots:
            tracks.pop(object_id, None)

    def rename(self, object_id: int, label: str) -> None:
        """Gives an object a name, also one that is not tracked yet."""
        self._labels[object_id] = label
        if object_id in self._tracks:
            self._tracks[object_id].label = label

    def reset(self) -> None:
        """Forgets everything."""
        self._tracks.clear()
        self._first_seen.clear()
        self._labels.clear()
        self._measured.clear()
        self._process_noise.clear()
        self.consistency = LiveConsistency()
        self._snapshots.clear()
        self._stamp_ns = None

    def _learn_process_noise(self) -> None:
        """How freely every object moves, from what was measured of it last."""
        for object_id, by_stamp in self._measured.items():
            for old in sorted(by_stamp)[:-LEARNT_FROM]:
                del by_stamp[old]
            self._process_noise[object_id] = learn_process_noise(sorted(by_stamp.items()), self.expected_process_noise)

    # -- one object ----------------------------------------------------------------------------------------------------

    def _start(self, stamp_ns: int, observation: ObjectObservation) -> Track | None:
        """A track for an object at first sight; None if it has no usable points."""
        base = np.eye(4) if observation.T_map_base is None else observation.T_map_base
        points, weights = observation.usable()
        if len(points) == 0:
            return None
        canonical = _into(base, points)
        pose, size = oriented_box(canonical, weights, tail=BOX_TAIL)
        center = pose[:3, :3].T @ pose[:3, 3]
        box = Box(pose[:3, :3], center - size / 2, center + size / 2, len(points))
        if not visible(observation.sight, box, base):
            return None
        measurement, _ = self._measure(observation.object_id, stamp_ns, pose[:3, 3], observation, base)
        step = begin(stamp_ns, measurement, self.process_noise(observation.object_id))
        first = self._first_seen.setdefault(observation.object_id, stamp_ns)
        label = observation.label or self._labels.get(observation.object_id, "")
        return Track(observation.object_id, label, pose[:3, 3], box, step, base, first, stamp_ns, observation.sight)

    def _advance(self, track: Track, stamp_ns: int, seconds: float, observation: ObjectObservation | None) -> None:
        """Brings a track to `stamp_ns`."""
        sighting = UNSEEN if observation is None else observation.sighting
        seen = observation is not None and is_seen(sighting, self.config)
        fresh = track.step.updated.stamp_ns == stamp_ns
        base = None
        if observation is not None:
            base = observation.T_map_base
            if base is None and seen:
                base = self._base_from_points(track, stamp_ns, observation)
            if base is not None and not visible(observation.sight, track.box, base):
                base = None  # behind the camera that is to have seen it
            if seen or observation.sight is None:
                track.sight = observation.sight
        measurement = None
        track.measured = False
        if seen and base is not None and observation is not None:
            measurement, known = self._measure(track.object_id, stamp_ns, track.anchor, observation, base)
            track.known = None if observation.pose_covariance is None else known
            track.measured = True
            if observation.T_map_base is not None:
                place = measurement.position
                self.consistency.measured(track.object_id, stamp_ns, place, base[:3, :3], known.jitter)
        before = track.step.updated
        if not fresh:
            track.step = advance(before, stamp_ns, measurement, self.process_noise(track.object_id), track.sight)
        track.posed = base is not None
        track.T_map_base = ahead(track, track.step.updated, None, before) if base is None else base
        track.existence = update_existence(track.existence, seen, observability(sighting), seconds, self.config)
        if seen and observation is not None:
            track.seen_frames += 1
            track.last_seen_ns = stamp_ns
            track.label = observation.label or track.label
            if track.posed:
                self._follow_points(track, observation)
        if observation is not None:
            track.point_count = len(observation.points_map)
        unseen = (stamp_ns - track.last_seen_ns) * 1e-9
        track.phase = next_phase(track.phase, seen, track.seen_frames, unseen, track.existence, self.config)

    def _measure(
        self, object_id: int, stamp_ns: int, anchor: FloatArray, observation: ObjectObservation, base: FloatArray
    ) -> tuple[PoseMeasurement, PoseCovariance]:
        """The anchor's place and the body's orientation as this frame shows them, with their uncertainty."""
        place = carried_point(base, anchor)
        known = observation.uncertainty(place, self.config.position_noise)
        measurement = PoseMeasurement(place, known.jitter[:3, :3])
        if observation.T_map_base is not None:  # else found from the points alone: no orientation
            measurement = PoseMeasurement(place, known.jitter[:3, :3], base[:3, :3], known.jitter[3:, 3:])
        self._measured.setdefault(object_id, {})[stamp_ns] = measurement
        return measurement, known

    def _base_from_points(self, track: Track, stamp_ns: int, observation: ObjectObservation) -> FloatArray | None:
        """Rigid motion for an object of which only points are known: predicted rotation, the points' middle."""
        points, weights = observation.usable()
        if len(points) == 0:
            return None
        state = track.step.updated
        turn = (
            predict(state, stamp_ns, self.process_noise(track.object_id)).angular.value
            if stamp_ns > state.stamp_ns
            else state.angular.value
        )
        low, high = extents(points @ turn @ track.box.axes, weights, BOX_TAIL)
        middle = turn @ track.box.axes @ ((low + high) / 2)
        return pose_matrix(turn, middle - turn @ track.box.middle)

    def _follow_points(self, track: Track, observation: ObjectObservation) -> None:
        """Lets the box follow the points it should hold, slowly; its axes turn only when much more is known."""
        points, weights = observation.usable()
        if len(points) == 0:
            return
        canonical = _into(track.T_map_base, points)
        box = track.box
        if len(points) > 2 * box.points:
            previous = pose_matrix(box.axes, np.zeros(3))
            pose, size = oriented_box(canonical, weights, previous, BOX_TAIL)
            center = pose[:3, :3].T @ pose[:3, 3]
            followed = Box(pose[:3, :3], center - size / 2, center + size / 2, len(points))
        else:
            low, high = extents(canonical @ box.axes, weights, BOX_TAIL)
            low, high = box.low + BOX_GAIN * (low - box.low), box.high + BOX_GAIN * (high - box.high)
            followed = Box(box.axes, low, high, box.points)
        if visible(track.sight, followed, track.T_map_base):
            track.box = followed

    def _sorted(self) -> list[Track]:
        return [self._tracks[object_id] for object_id in sorted(self._tracks)]

    def _go_back(self, stamp_ns: int) -> None:
        """Restores the state just before `stamp_ns`; beyond memory, objects keep only when they were first seen."""
        while self._snapshots and self._snapshots[-1][0] >= stamp_ns:
            self._snapshots.pop()
        if self._snapshots:
            self._stamp_ns, tracks = self._snapshots[-1]
            self._tracks = _copied(tracks)
            for object_id, label in self._labels.items():  # given since
                if object_id in self._tracks:
                    self._tracks[object_id].label = label
        else:
            self._stamp_ns, self._tracks = None, {}


def replay(
    history: Sequence[tuple[int, Sequence[ObjectObservation]]], config: ObjectsConfig
) -> list[list[ObjectState]]:
    """Smoothed states for a whole run, from nothing but its observations (see `ObjectTracker.replay`)."""
    return ObjectTracker(config).replay(history)


def _copied(tracks: dict[int, Track]) -> dict[int, Track]:
    """Independent tracks; their parts are never changed in place, so they can be shared."""
    return {object_id: copy.copy(track) for object_id, track in tracks.items()}


def _into(pose: FloatArray, points: FloatArray) -> FloatArray:
    """(N, 3) points back through a (4, 4) rigid pose."""
    return (points - pose[:3, 3]) @ pose[:3, :3]
