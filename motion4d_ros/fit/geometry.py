"""Where everything is before a single Gaussian is rendered: depth aligned to the scene, and the motion of every object.

Per window: labels are voted, depth is aligned to the static scene, the objects' motions are continued and adjusted to
the chained tracks, points are measured again from keyframes, and all is adjusted once more. Everything is solved over
the whole horizon, warm-started, in a few Gauss-Newton steps: its cost does not grow with the length of the run.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.fit import labels as label_votes
from motion4d_ros.fit.bundle import Body, BundleOptions, Observations, solve
from motion4d_ros.fit.horizon import FrameState, Horizon
from motion4d_ros.fit.keyframes import Keyframes
from motion4d_ros.fit.object_motion import ObjectMotion, Pose
from motion4d_ros.fit.parts import Split, mean_residual, select, split, unexplained
from motion4d_ros.fit.points import PointTable, from_chains, lift
from motion4d_ros.fit.reacquire import describe, find_motion
from motion4d_ros.geometry.rigid import fit_rigid
from motion4d_ros.priors.base import TrackSource
from motion4d_ros.types import FloatArray

DISTRUST = 30.0  # parallax that contradicts metric depth is believed so many times less


class Geometry:
    """Depth alignment and object motions over the horizon."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.options = config.geometry
        self.keyframes = Keyframes(self.options.keyframe_spacing, self.options.keyframe_reach)
        self.motions: dict[int, ObjectMotion] = {}
        self.scale: dict[int, float] = {}  # frame index -> a_k of the static scene
        self.offset: dict[int, float] = {}  # frame index -> b_k
        self.table = PointTable.empty(0)
        self.conflict = 0.0  # logarithm of the ratio between metric depth and what parallax says
        self.static_points: dict[int, FloatArray] = {}
        self.reunions: set[tuple[int, int]] = set()  # (keyframe, frame) to be linked whatever their distance
        self._rng = np.random.default_rng(config.run.seed)

    def update(self, horizon: Horizon, tracks: TrackSource, new: list[int]) -> None:
        """Takes in the frames `new` (indices, ascending, already at the end of the horizon)."""
        self._forget_before(horizon.first_index)
        position = new[0] - horizon.first_index
        label_votes.vote(horizon, tracks, self.options.vote_reach, max(0, position - self.options.vote_reach))
        last = horizon.frames[-1].index
        chains = from_chains(
            tracks.tracks(horizon.first_index, last), self.options.chain_drift, self.options.chain_reach
        )
        chains.vote(horizon)
        known = self.keyframes.table(horizon)
        self._align(horizon, chains.joined(known))
        self._move(horizon, chains.joined(known))
        for index in sorted({new[-1]} if self.keyframes.count else {new[0], new[-1]}):
            self.keyframes.add(horizon.get(index))
        self.keyframes.link(horizon, self.relative_motions, self.reunions)
        self.table = self.keyframes.table(horizon)
        self._align(horizon, self._with_fallback(self.table, chains))
        self._move(horizon, self._with_fallback(self.table, chains))
        self._mend_objects(horizon)

    def relative_motions(self, start: int, end: int) -> dict[int, FloatArray]:
        """(4, 4) motion of every body between two frames, by label; 0 is the static scene."""
        motions: dict[int, FloatArray] = {0: np.eye(4)}
        motions.update({label: motion.between(start, end) for label, motion in self.motions.items()})
        return motions

    # -- depth ---------------------------------------------------------------------------------------------------------

    def _align(self, horizon: Horizon, points: PointTable) -> None:
        """Scale and offset of every frame's depth, from the points of the static scene."""
        static = self._pick(points, 0, self.options.static_points)
        indices = [state.index for state in horizon.frames]
        if static.count >= 8:
            seen = static.observations(horizon, mended=False)
            a = np.array([self.scale.get(k, 0.0) for k in indices])
            b = np.array([self.offset.get(k, 0.0) for k in indices])
            fresh = [i for i, k in enumerate(indices) if k not in self.scale]
            if fresh:  # start where the newest known frames stand
                known = [i for i, k in enumerate(indices) if k in self.scale]
                a[fresh] = a[known[-4:]].mean() if known else 0.0
                b[fresh] = b[known[-4:]].mean() if known else 0.0
            body = Body(
                np.zeros(3),
                np.tile(np.eye(3), (len(horizon), 1, 1)),
                np.zeros((len(horizon), 3)),
                self._start_points(static, horizon, seen, np.exp(a), b),
                a,
                b,
            )
            options = BundleOptions(
                free_poses=False,
                free_offset=True,
                sigma_scale=self.options.sigma_scale,
                sigma_offset=self.options.sigma_offset,
                iterations=self.options.iterations,
            )
            start = (body.points.copy(), a.copy(), b.copy())
            solve(body, seen, options)
            self.conflict = float(np.median(body.depth_scale))
            if abs(self.conflict) > self.options.scale_conflict:  # wrong intrinsics, wrong poses: believe the depth
                body.points, body.depth_scale, body.depth_offset = start
                seen.sigma_px = seen.sigma_px * DISTRUST
                solve(body, seen, options)
                body.depth_scale = body.depth_scale - np.median(body.depth_scale)
                body.depth_offset = body.depth_offset - np.median(body.depth_offset)
            self.static_points = dict(zip(static.ids.tolist(), body.points, strict=True))
            self.scale.update(zip(indices, body.depth_scale.tolist(), strict=True))
            self.offset.update(zip(indices, body.depth_offset.tolist(), strict=True))
        for state in horizon.frames:
            inverse = np.exp(self.scale.get(state.index, 0.0)) * state.raw_inverse_depth + self.offset.get(
                state.index, 0.0
            )
            with np.errstate(divide="ignore", invalid="ignore"):
                state.depth_m = np.where(inverse > 1e-6, 1.0 / inverse, np.nan).astype(np.float32)

    def _start_points(
        self, points: PointTable, horizon: Horizon, seen: Observations, scale: FloatArray, offset: FloatArray
    ) -> FloatArray:
        """(N, 3) map points: as known, else lifted at the median of what the frames report."""
        inverse = scale * seen.inverse_depth + offset
        uv = seen.uv_px
        with np.errstate(divide="ignore", invalid="ignore"):
            xyz_cam = horizon.camera.unproject(uv, 1.0 / inverse)
        T = horizon.T_map_cam
        xyz = np.einsum("tij,ntj->nti", T[:, :3, :3], xyz_cam) + T[:, :3, 3]
        xyz[~points.seen | ~(inverse > 1e-6)] = np.nan
        with np.errstate(all="ignore"):
            start = np.nanmedian(xyz, axis=1)
        for row, point_id in enumerate(points.ids.tolist()):
            if point_id in self.static_points:
                start[row] = self.static_points[point_id]
        lost = ~np.isfinite(start).all(1)
        if lost.any():  # no depth anywhere: two metres along the first ray, and let parallax decide
            first = points.seen[lost].argmax(1)
            ray = horizon.camera.unproject(uv[lost, first], np.full(int(lost.sum()), 2.0))
            start[lost] = np.einsum("nij,nj->ni", T[first, :3, :3], ray) + T[first, :3, 3]
        return start

    def _mend_objects(self, horizon: Horizon) -> None:
        """Corrects the depth on every object by what bundle adjustment found wrong with it."""
        for state in horizon.frames:
            for label, motion in self.motions.items():
                error = motion.scale_error.get(state.index, 0.0)
                if error != 0.0:
                    state.depth_m[state.labels == label] /= np.float32(np.exp(error))

    # -- motion --------------------------------------------------------------------------------------------------------

    def _move(self, horizon: Horizon, points: PointTable) -> None:
        """Continues and adjusts the motion of every object."""
        for label in np.unique(points.labels[points.labels > 0]).tolist():
            chosen = self._pick(points, label, self.options.object_points)
            if chosen.count < self.options.min_points:
                continue
            xyz = lift(chosen, horizon)
            motion = self.motions.get(label)
            if motion is None:
                motion = self._begin(label, chosen, xyz, horizon)
                if motion is None:
                    continue
                self.motions[label] = motion
            self._continue(motion, chosen, xyz, horizon)
            self._adjust(motion, chosen, xyz, horizon)
        for motion in self.motions.values():  # objects without a single point: carried on
            for state in horizon.frames:
                if state.index not in motion.poses:
                    motion.poses[state.index] = motion.extrapolate(state.index, 1)

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
                    motion.poses[index] = self._carry_on(motion, index, direction)
                    motion.support[index] = 0
                    continue
                step = fit_rigid(xyz[both, before], xyz[both, column], tolerance=0.01 * horizon_depth(horizon, column))
                R, t = motion.poses[index - direction]
                image = step[:3, :3] @ (motion.center + t) + step[:3, 3]
                motion.poses[index] = (step[:3, :3] @ R, image - motion.center)
        if motion.detached_at is not None:
            self._reunite(motion, horizon)

    def _carry_on(self, motion: ObjectMotion, index: int, direction: int) -> Pose:
        """Where an unseen object probably is: at constant velocity for a while, then at rest."""
        unseen = 0
        while motion.support.get(index - direction * (unseen + 1), 1) == 0:
            unseen += 1
        if unseen < self.options.coast:
            return motion.extrapolate(index, direction)
        return motion.poses[index - direction]

    def _reunite(self, motion: ObjectMotion, horizon: Horizon) -> None:
        """Looks for an object that was lost, where it is seen best since, in the keyframes that saw it best before.

        When it is found, all its poses since then move along: they were right among themselves, not as a whole.
        """
        since = motion.detached_at
        assert since is not None
        areas = {
            state.index: int((state.labels == motion.object_id).sum())
            for state in horizon.frames
            if state.index >= since
        }
        best = sorted((k for k, area in areas.items() if area >= self.options.reunion_pixels), key=lambda k: -areas[k])[
            :2
        ]
        for index in best:
            now = describe(horizon.get(index), motion.object_id)
            for keyframe in self.keyframes.best_for(motion.object_id, horizon, before=since):
                before = describe(horizon.get(keyframe), motion.object_id)
                if now is None or before is None:
                    continue
                distance = horizon_depth(horizon, index - horizon.first_index)
                found = find_motion(before, now, distance, self._rng)
                if found is None:
                    continue
                correction = found @ motion.matrix(keyframe) @ np.linalg.inv(motion.matrix(index))
                motion.shift(correction, [k for k in motion.poses if k >= since and areas.get(k, 0) > 0])
                self.reunions.update((keyframe, k) for k in areas if abs(k - index) <= self.options.keyframe_reach)
                motion.points = {k: X for k, X in motion.points.items() if self._picked_before(k, since)}
                motion.detached_at = None
                return
        visible = [k for k in areas if areas[k] >= self.options.reunion_pixels]
        if not visible:
            return
        returned = visible[-1]
        while returned - 1 in visible:
            returned -= 1  # the first frame of its newest appearance
        if returned not in motion.placed:
            motion.placed.add(returned)
            newest = [k for k in visible if k >= returned]
            self._place(motion, horizon.get(max(newest, key=lambda k: areas[k])), newest)

    def _place(self, motion: ObjectMotion, state: FrameState, frames: list[int]) -> None:
        """Puts an object that could not be recognised where its mask and depth are: its place is right, its turn a
        guess.
        """
        row, column = np.nonzero((state.labels == motion.object_id) & np.isfinite(state.depth_m))
        if len(row) < self.options.reunion_pixels or len(motion.points) < self.options.min_points:
            return
        uv = np.stack([column, row], 1).astype(float)
        seen_cam = np.median(state.frame.camera.unproject(uv, state.depth_m[row, column].astype(float)), axis=0)
        T = state.T_cam_map @ motion.matrix(state.index)
        expected = np.array(list(motion.points.values())) @ T[:3, :3].T + T[:3, 3]
        facing = expected[expected[:, 2] <= np.median(expected[:, 2])]
        correction = np.eye(4)
        correction[:3, 3] = state.T_map_cam[:3, :3] @ (seen_cam - np.median(facing, axis=0))
        motion.shift(correction, frames)

    def _picked_before(self, point_id: int, index: int) -> bool:
        """Whether a point was picked before frame `index`, while its object was still linked to its canonical frame."""
        rows = np.flatnonzero(self.table.ids == point_id)
        return bool(len(rows)) and bool(self.table.query[rows[0]] < index)

    def _adjust(self, motion: ObjectMotion, points: PointTable, xyz: FloatArray, horizon: Horizon) -> None:
        """Bundle adjustment of one object over the horizon; the canonical frame stays where its points were."""
        indices = [state.index for state in horizon.frames]
        R = np.stack([motion.poses[k][0] for k in indices])
        t = np.stack([motion.poses[k][1] for k in indices])
        body = Body(
            motion.center,
            R,
            t,
            np.zeros((points.count, 3)),
            np.array([motion.scale_error.get(k, 0.0) for k in indices]),
            np.zeros(len(indices)),
        )
        canonical = np.einsum("tij,nti->ntj", R, xyz - motion.center - t) + motion.center
        with np.errstate(all="ignore"):
            body.points = np.nanmedian(canonical, axis=1)
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
            sigma_acceleration=self.options.sigma_acceleration,
            sigma_angular_acceleration=self.options.sigma_angular_acceleration,
        )
        solve(body, seen, options)
        if known.sum() >= 6:
            _hold_gauge(body, old[known], body.points[known])
        _store(motion, body, chosen.ids, horizon)
        self._note_detachment(motion, body, indices)
        if self.options.max_parts > 1:
            self._articulate(motion, chosen, xyz[usable], body, seen, options, horizon)

    def _note_detachment(self, motion: ObjectMotion, body: Body, indices: list[int]) -> None:
        """Since when no point links the object to what it was before: until then its canonical frame is its own."""
        support = body.inliers.sum(0)
        if motion.detached_at is None:
            enough = np.flatnonzero(support >= self.options.min_points)
            gaps = np.flatnonzero(support < self.options.min_points)
            gaps = gaps[gaps > enough[0]] if len(enough) else gaps[:0]
            if len(gaps) == 0:
                return
            motion.detached_at = indices[int(gaps[0])]
        column = motion.detached_at - indices[0]
        if column <= 0:  # what it was before has left the horizon
            motion.detached_at = None
            return
        bridging = body.inliers[:, :column].any(1) & body.inliers[:, column:].any(1)
        if bridging.sum() >= self.options.min_points:
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
            if before < self.options.split_share or len(horizon) < self.config.window.length:
                return
            for groups in (2, 4, 6):
                if groups > self.options.max_parts:
                    break
                found = split(body, seen, groups, options, self.config.run.seed)
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

    # -- points --------------------------------------------------------------------------------------------------------

    def _pick(self, points: PointTable, label: int, limit: int) -> PointTable:
        """Up to `limit` points of one label; those seen in frames where few are seen come first."""
        rows = np.flatnonzero((points.labels == label) & (points.purity > 0.7) & (points.seen.sum(1) >= 3))
        if len(rows) <= limit:
            return points.select(rows)
        seen = points.seen[rows]
        rarity = (seen / np.maximum(1, seen.sum(0))[None]).sum(1)
        key = self._rng.random(len(rows)) ** (1.0 / (rarity / rarity.mean()))  # weighted sampling without replacement
        return points.select(np.sort(rows[np.argsort(-key)[:limit]]))

    def _with_fallback(self, keyed: PointTable, chains: PointTable) -> PointTable:
        """Points of keyframes, and a few chains: they alone reach frames that no keyframe could be linked to."""
        rows = self._rng.permutation(chains.count)[: chains.count // 4]
        return keyed.joined(chains.select(np.sort(rows)))

    def _forget_before(self, index: int) -> None:
        self.keyframes.forget_before(index)
        self.reunions = {pair for pair in self.reunions if pair[0] >= index}
        for motion in self.motions.values():
            motion.forget_before(index)
        for table in (self.scale, self.offset):
            for old in [k for k in table if k < index]:
                del table[old]


def horizon_depth(horizon: Horizon, column: int) -> float:
    """Median depth of a frame, m (or scene units)."""
    depth = horizon.frames[column].depth_m
    finite = depth[np.isfinite(depth)]
    return float(np.median(finite)) if finite.size else 1.0


def _store(motion: ObjectMotion, body: Body, ids: NDArray[np.int64], horizon: Horizon) -> None:
    """What an adjustment found becomes the motion."""
    motion.points = dict(zip(ids.tolist(), body.points, strict=True))
    for column, state in enumerate(horizon.frames):
        k = state.index
        motion.poses[k] = (body.R[column], body.t[column])
        motion.scale_error[k] = float(body.depth_scale[column])
        motion.covariance[k] = body.pose_covariance[column]
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
    body.points = body.points @ inverse[:3, :3].T + inverse[:3, 3]
    center = body.center
    shifted = body.R @ (R @ center + g - center) + body.t
    body.R = body.R @ R
    body.t = shifted
