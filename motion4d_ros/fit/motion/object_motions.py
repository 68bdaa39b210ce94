"""The motions of all objects: begun, continued, adjusted, divided into parts, put where their masks are."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import GeometryConfig
from motion4d_ros.fit.motion.articulation import Split, mean_residual, select, split, unexplained
from motion4d_ros.fit.motion.bundle_adjustment import Body, BundleOptions, Observations, solve
from motion4d_ros.fit.motion.motion_prediction import hold_unseen, one_step_on, predicted_at
from motion4d_ros.fit.motion.motion_prior import MotionPrior, learn_motion_prior
from motion4d_ros.fit.motion.object_motion import LOOK_BACK, ObjectMotion, Pose
from motion4d_ros.fit.motion.pose_uncertainty import Adjusted
from motion4d_ros.fit.relocalisation.drift_check import correct_drift
from motion4d_ros.fit.relocalisation.mask_middle import Middle, middle_of
from motion4d_ros.fit.relocalisation.placement import place_returned
from motion4d_ros.fit.tracks.keyframes import Keyframes
from motion4d_ros.fit.tracks.point_table import PointTable, lift
from motion4d_ros.fit.window.horizon import FrameState, Horizon
from motion4d_ros.fit.window.scene_scale import sight_of
from motion4d_ros.fit.window.yield_point import YieldPoint
from motion4d_ros.geometry.rigid import fit_rigid, transform_points
from motion4d_ros.geometry.robust import median_of_known, median_radius
from motion4d_ros.threads import in_order
from motion4d_ros.types import FloatArray

BRIDGE = 2  # times the points that a motion needs link an object to what it was: a few agree by chance


@dataclass(frozen=True)
class _Continued:
    """An object whose motion has been continued by its points."""

    motion: ObjectMotion
    points: PointTable
    xyz: FloatArray  # (N, T, 3) m, map, the points lifted
    new: list[int]  # indices of the frames that its motion was continued to


class ObjectMotions:
    """Motion of every object over the horizon, by id."""

    def __init__(
        self,
        options: GeometryConfig,
        keyframes: Keyframes,
        window: int,
        seed: int,
        yield_point: YieldPoint | None = None,
        threads: int = 1,
    ) -> None:
        """Objects are adjusted by `threads` at once (0: as many as there are cores)."""
        self.options = options
        self._threads = threads
        self._yield_point = yield_point or YieldPoint()
        self.window = window
        self.seed = seed
        self.by_id: dict[int, ObjectMotion] = {}
        self._keyframes = keyframes

    def update(self, horizon: Horizon, points_of: dict[int, PointTable]) -> None:
        """Continues and adjusts the motion of every object from its points."""
        continued: list[_Continued] = []
        for label, chosen in points_of.items():
            if chosen.count < self.options.min_points:
                continue
            self._yield_point()
            xyz = lift(chosen, horizon)
            motion = self.by_id.get(label)
            if motion is None:
                motion = self._begin(label, chosen, xyz, horizon)
                if motion is None:
                    continue
                self.by_id[label] = motion
            new = [state.index for state in horizon.frames if state.index > max(motion.poses)]
            self._continue(motion, chosen, xyz, horizon)
            continued.append(_Continued(motion, chosen, xyz, new))
        moved = in_order(lambda one: self._correct_drift(one, horizon), continued, self._threads, self._yield_point)
        settled = [one for one, was_moved in zip(continued, moved, strict=True) if not was_moved]
        for one in settled:  # the others as found, until their points are measured anew: the old ones led them astray
            place_returned(one.motion, horizon, self.options.relocalise_min_pixels)
        in_order(lambda one: self._adjust(one, horizon), settled, self._threads, self._yield_point)
        for motion in self.by_id.values():  # objects without a single point: carried on
            for state in horizon.frames:
                for body in (motion, *motion.parts):
                    if state.index not in body.poses:
                        body.poses[state.index] = predicted_at(body, state.index, 1, sight_of(state))

    def _correct_drift(self, one: _Continued, horizon: Horizon) -> bool:
        return bool(one.new) and correct_drift(one.motion, horizon, one.new, self._keyframes, self.options)

    def check_consistency(self) -> None:
        """After a window: holds the poses of all objects told before against the new ones."""
        for motion in self.by_id.values():
            motion.check_consistency(self.options.min_points)

    def forget_before(self, index: int) -> None:
        """Drops what is older than frame `index`."""
        for motion in self.by_id.values():
            motion.forget_before(index)

    def _begin(self, label: int, points: PointTable, xyz: FloatArray, horizon: Horizon) -> ObjectMotion | None:
        """A new object: canonical where most of its points are seen."""
        ok = points.seen & np.isfinite(xyz).all(-1)
        column = int(ok.sum(0).argmax())
        if ok[:, column].sum() < 4:
            return None
        center = np.median(xyz[ok[:, column], column], axis=0)
        index = horizon.frames[column].index
        return ObjectMotion(label, center, {index: (np.eye(3), np.zeros(3))})

    def _continue(self, motion: ObjectMotion, points: PointTable, xyz: FloatArray, horizon: Horizon) -> None:
        """Poses for frames that have none: step by step by rigid alignment of lifted points, else at constant
        velocity.
        """
        indices = [state.index for state in horizon.frames]
        for direction in (1, -1):
            order = range(1, len(indices)) if direction == 1 else range(len(indices) - 2, -1, -1)
            for column in order:
                index = indices[column]
                if index in motion.poses or index - direction not in motion.poses:
                    continue
                before = column - direction
                both = points.seen[:, column] & points.seen[:, before]
                both &= np.isfinite(xyz[:, column]).all(1) & np.isfinite(xyz[:, before]).all(1)
                if both.sum() < self.options.min_points:
                    motion.poses[index] = self._carry_on(motion, horizon.frames[column], direction)
                    motion.support[index] = 0
                    continue
                tolerance = 0.01 * horizon.frames[column].median_depth_m
                step = fit_rigid(xyz[both, before], xyz[both, column], tolerance)
                R, t = motion.poses[index - direction]
                image = step[:3, :3] @ (motion.center + t) + step[:3, 3]
                candidates = [(step[:3, :3] @ R, image - motion.center), one_step_on(motion, index, direction), (R, t)]
                motion.poses[index] = self._best(motion, candidates, points, xyz[:, column], tolerance)

    def _best(
        self, motion: ObjectMotion, candidates: list[Pose], points: PointTable, xyz: FloatArray, tolerance: float
    ) -> Pose:
        """The pose that brings most points with a known canonical place to where they are now, `xyz` (N, 3).

        The first candidate where hardly any are known: while something passes in front, tracks stick to it, and the
        newest step follows them; points that were known before do not.
        """
        known = [row for row, k in enumerate(points.ids.tolist()) if k in motion.points and np.isfinite(xyz[row]).all()]
        if len(known) < self.options.min_points:
            return candidates[0]
        canonical = np.array([motion.points[k] for k in points.ids[known].tolist()])
        scores = []
        for R, t in candidates:
            miss = np.linalg.norm((canonical - motion.center) @ R.T + motion.center + t - xyz[known], axis=1)
            scores.append(int((miss < 3 * tolerance).sum()))
        return candidates[int(np.argmax(scores))]

    def _carry_on(self, motion: ObjectMotion, state: FrameState, direction: int) -> Pose:
        """Where an unseen object probably is: at constant velocity for a while, then at rest."""
        unseen, index = 0, state.index
        while motion.support.get(index - direction * (unseen + 1), 1) == 0:
            unseen += 1
        if unseen < self.options.max_prediction:
            return predicted_at(motion, index, direction, sight_of(state))
        return motion.poses[index - direction]

    def _adjust(self, one: _Continued, horizon: Horizon) -> None:
        """Bundle adjustment of one object over the horizon; the canonical frame stays where its points were."""
        motion, points, xyz = one.motion, one.points, one.xyz
        indices = [state.index for state in horizon.frames]
        R = np.stack([motion.poses[k][0] for k in indices])
        t = np.stack([motion.poses[k][1] for k in indices])
        canonical = np.einsum("tij,nti->ntj", R, xyz - motion.center - t) + motion.center
        canonical = median_of_known(canonical, axis=1)
        motion_prior = self._inertia(motion, R, t, canonical, horizon)
        body = Body(
            motion_prior.pivot,
            R,
            np.einsum("tij,j->ti", R, motion_prior.pivot - motion.center) + motion.center + t - motion_prior.pivot,
            canonical,
            np.array([motion.scale_error.get(k, 0.0) for k in indices]),
            np.zeros(len(indices)),
        )
        old = np.array([motion.points.get(k, (np.nan,) * 3) for k in points.ids.tolist()])
        known = np.isfinite(old).all(1)
        body.points[known] = old[known]
        usable = np.asarray(np.isfinite(body.points).all(axis=1), bool)
        if usable.sum() < self.options.min_points:
            return
        chosen = points.select(usable)
        few = chosen.seen.sum(0) < self.options.min_points
        chosen.seen = chosen.seen & ~few[None]  # a handful of points on a hidden object are more likely its neighbour's
        body.points, known, old = body.points[usable], known[usable], old[usable]
        seen = chosen.observations(horizon, mended=True)
        options = BundleOptions(
            sigma_scale=self.options.sigma_object_scale,
            iterations=self.options.iterations,
            sigma_acceleration=motion_prior.sigma_acceleration,
            sigma_angular_acceleration=motion_prior.sigma_angular_acceleration,
        )
        unlinked = motion.detached_at is not None or motion.doubted_at is not None
        middle = middle_of(motion.object_id, horizon) if unlinked else None  # masks that swap would only disturb
        solved = _solve_with_middle(body, seen, options, middle, horizon)
        motion.adjusted = Adjusted(*solved, options, indices, self.options.sigma_flow_field, self.options.min_points)
        body.move_center(motion.center)
        if known.sum() >= 6:
            _hold_gauge(body, old[known], body.points[known])
        _store(motion, body, chosen.ids, horizon)
        hold_unseen(motion, horizon, self.options.min_points)
        self._note_detachment(motion, body, indices)
        if self.options.max_parts > 1:
            self._articulate(motion, chosen, xyz[usable], body, seen, options, horizon)

    def _inertia(
        self, motion: ObjectMotion, R: FloatArray, t: FloatArray, places: FloatArray, horizon: Horizon
    ) -> MotionPrior:
        """How steadily the object has been moving; `places` (N, 3) m are its points, canonical."""
        known = places[np.isfinite(places).all(1)]
        place = np.median(known, axis=0) if len(known) else motion.center
        radius = median_radius(known) if len(known) else 0.0
        support = np.array([motion.support.get(state.index, 0) for state in horizon.frames])
        general = (self.options.sigma_acceleration, self.options.sigma_angular_acceleration)
        return learn_motion_prior(R, t, motion.center, horizon.seconds, support, place, max(radius, 1e-3), general)

    def _note_detachment(self, motion: ObjectMotion, body: Body, indices: list[int]) -> None:
        """Since when no point links the object to what it was before: until then its canonical frame is its own.

        It is *detached* after frames with hardly any point that nothing bridges, and *doubted* where the newest frames
        share no points with those `LOOK_BACK` frames older: then it may have been led astray step by step.
        """
        inliers, least = body.inliers, self.options.min_points
        support = inliers.sum(0)
        first = int((support >= least).argmax())
        motion.doubted_at = None
        for column in range(len(indices) - 1, first + LOOK_BACK - 1, -1):
            if (inliers[:, column] & inliers[:, : column - LOOK_BACK + 1].any(1)).sum() >= least:
                break
            motion.doubted_at = indices[column]
        if motion.detached_at is None:
            gaps = np.flatnonzero(support[first:] < least)
            if len(gaps) == 0:
                return
            motion.detached_at = indices[first + int(gaps[0])]
        column = motion.detached_at - indices[0]
        if column <= 0:  # what it was before has left the horizon
            motion.detached_at = None
            return
        bridging = inliers[:, :column].any(1) & inliers[:, column:].any(1)
        if bridging.sum() >= BRIDGE * least:
            motion.detached_at = None

    # -- parts ---------------------------------------------------------------------------------------------------------

    def _articulate(
        self,
        motion: ObjectMotion,
        points: PointTable,
        xyz: FloatArray,
        body: Body,
        seen: Observations,
        options: BundleOptions,
        horizon: Horizon,
    ) -> None:
        """Divides an object that one rigid motion does not explain, or adjusts the parts it has."""
        if not motion.parts:
            before = unexplained(body, seen)
            if before < self.options.split_share or len(horizon) < self.window:
                return
            for groups in (2, 4, 6):
                if groups > self.options.max_parts:
                    break
                found = split(body, seen, groups, options, self.seed)
                if found is None:
                    break
                after = _unexplained_by(found, seen)
                if after < self.options.split_gain * before:
                    self._adopt_parts(motion, found, points, horizon)
                    before = after
                if after < 0.5 * self.options.split_share:
                    break
            return
        self._adjust_parts(motion, points, xyz, body, seen, options, horizon)

    def _adopt_parts(self, motion: ObjectMotion, found: Split, points: PointTable, horizon: Horizon) -> None:
        motion.parts = []
        ids = points.ids
        for body, rows in zip(found.bodies, found.rows, strict=True):
            part = ObjectMotion(motion.object_id, motion.center, {})
            _store(part, body, ids[rows], horizon)
            motion.parts.append(part)

    def _adjust_parts(
        self,
        motion: ObjectMotion,
        points: PointTable,
        xyz: FloatArray,
        body: Body,
        seen: Observations,
        options: BundleOptions,
        horizon: Horizon,
    ) -> None:
        """New times follow the whole object, new points the part that explains them best; then each is adjusted."""
        indices = [state.index for state in horizon.frames]
        bodies = []
        for part in motion.parts:
            mine = np.array([k in part.points for k in points.ids.tolist()], bool)
            self._continue(part, points.select(mine), xyz[mine], horizon)
            R, t = (np.stack([part.poses[k][i] for k in indices]) for i in (0, 1))
            bodies.append(Body(part.center, R, t, np.zeros((0, 3)), body.depth_scale.copy(), body.depth_offset.copy()))
        errors, lifted = [], []
        first = np.clip(
            points.query - horizon.first_index, 0, len(horizon) - 1
        )  # where a point was picked, it is known best
        place = xyz[np.arange(points.count), first]
        place = np.where(np.isfinite(place), place, body.at_frames(body.points)[np.arange(points.count), first])
        for part_body in bodies:
            back = (
                np.einsum("nji,nj->ni", part_body.R[first], place - part_body.center - part_body.t[first])
                + part_body.center
            )
            lifted.append(back)
            whole = Body(part_body.center, part_body.R, part_body.t, back, body.depth_scale, body.depth_offset)
            errors.append(mean_residual(whole, seen))
        assignment = np.stack(errors, 1).argmin(1)
        for number, (part, part_body) in enumerate(zip(motion.parts, bodies, strict=True)):
            rows = np.flatnonzero(assignment == number)
            if len(rows) < self.options.min_points:
                continue
            old = np.array([part.points.get(k, (np.nan,) * 3) for k in points.ids[rows].tolist()]).reshape(-1, 3)
            known = np.isfinite(old).all(1)
            part_body.points = np.where(known[:, None], old, lifted[number][rows])
            solve(part_body, select(seen, rows), options)
            if known.sum() >= 6:
                _hold_gauge(part_body, old[known], part_body.points[known])
            _store(part, part_body, points.ids[rows], horizon)
            hold_unseen(part, horizon, self.options.min_points)


def _solve_with_middle(
    body: Body, seen: Observations, options: BundleOptions, middle: Middle | None, horizon: Horizon
) -> tuple[Body, Observations]:
    """Adjusts a body to its points and to where its masks have its middle; the solution of both, and what it is of."""
    if middle is None:
        solve(body, seen, options)
        return copy.copy(body), seen
    place = np.einsum("tji,tj->ti", body.R, middle.lifted(horizon) - body.center - body.t) + body.center
    body.points = np.concatenate([body.points, median_of_known(place[None], axis=1)])
    joined = middle.joined_to(seen)
    solve(body, joined, options)
    solved = copy.copy(body)
    body.points, body.inliers = body.points[:-1], body.inliers[:-1]
    return solved, joined


def _store(motion: ObjectMotion, body: Body, ids: NDArray[np.int64], horizon: Horizon) -> None:
    """What an adjustment found becomes the motion."""
    motion.points = dict(zip(ids.tolist(), body.points, strict=True))
    for column, state in enumerate(horizon.frames):
        k = state.index
        motion.poses[k] = (body.R[column], body.t[column])
        motion.scale_error[k] = float(body.depth_scale[column])
        motion.support[k] = int(body.inliers[:, column].sum())


def _unexplained_by(found: Split, seen: Observations) -> float:
    """Share of all points that their own part leaves unexplained."""
    total = sum(len(rows) for rows in found.rows)
    return sum(
        unexplained(body, select(seen, rows)) * len(rows) for body, rows in zip(found.bodies, found.rows, strict=True)
    ) / max(1, total)


def _hold_gauge(body: Body, old: FloatArray, new: FloatArray) -> None:
    """Moves the canonical frame back to where its points were; poses change along, so nothing moves in the map."""
    G = fit_rigid(old, new, tolerance=0.02)  # new = G old
    R, g = G[:3, :3], G[:3, 3]
    inverse = G.copy()
    inverse[:3, :3], inverse[:3, 3] = R.T, -R.T @ g
    body.points = transform_points(inverse, body.points)
    center = body.center
    shifted = body.R @ (R @ center + g - center) + body.t
    body.R = body.R @ R
    body.t = shifted
