"""Objects that were lost: recognised in the frames since, or at least put where their mask is."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np

from motion4d_ros.config import GeometryConfig
from motion4d_ros.fit.motion.bundle_adjustment import BundleOptions
from motion4d_ros.fit.motion.mask_middle import middle_of
from motion4d_ros.fit.motion.motion_prediction import bridge, moved_alike, onward, predict_motion
from motion4d_ros.fit.motion.motion_prior import WELL_SEEN
from motion4d_ros.fit.motion.object_motion import ObjectMotion
from motion4d_ros.fit.relocalisation.drift_check import seen_elsewhere
from motion4d_ros.fit.relocalisation.feature_pose_search import describe, find_motion
from motion4d_ros.fit.relocalisation.template_pose_search import (
    LEAST_SCORE,
    NOTHING_TO_SEE,
    Template,
    make_template,
    needed_score,
    polish,
    score_of,
    search_template_pose,
)
from motion4d_ros.fit.tracks.keyframes import Keyframes
from motion4d_ros.fit.window.horizon import FrameState, Horizon
from motion4d_ros.fit.window.yield_point import YieldPoint
from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.types import FloatArray

MOST_FRAMES = 2  # frames of an appearance in which features of a lost object are looked for
TEMPLATE_VIEWS = 3  # keyframes that show how it looks
LOOKS = 4  # frames in which it is looked for
CLEARLY_SEEN = 0.7  # how far their size may be from that in the keyframes, as a factor
APART = 2  # frames between two that confirm each other
BEYOND_DOUBT = 0.7  # score for an object that was never out of sight
CLEAR_GAIN = 0.1  # score by which they must beat the pose that was predicted
MOST_STRAYED = 8  # frames before a loss was noticed in which something may have dragged the object along
AGREEMENT = 0.5  # radii by which they may differ


class Relocaliser:
    """Looks for lost objects; remembers which keyframes are to be linked to which frames because of it."""

    def __init__(
        self, options: GeometryConfig, keyframes: Keyframes, seed: int, yield_point: YieldPoint | None = None
    ) -> None:
        self.options = options
        self._yield_point = yield_point or YieldPoint()
        self.keyframes = keyframes
        self.links: set[tuple[int, int]] = set()  # (keyframe, frame), to be linked whatever their distance
        self.found: set[int] = set()  # objects that turned out to be elsewhere; whoever acts on it clears it
        self._random = np.random.default_rng(seed)

    def seek(self, motion: ObjectMotion, horizon: Horizon) -> bool:
        """Looks for an object that is detached or doubted, where it is seen best since, in the keyframes that saw it
        best before; whether it was found.

        When it is found, all its poses since then move along: they were right among themselves, not as a whole.
        """
        since = motion.doubted_at if motion.detached_at is None else motion.detached_at
        newest = horizon.frames[-1].index
        if since is None or motion.sought_until == newest:
            return False
        motion.sought_until = newest  # once per window: nothing new is to be seen before the next
        label, least = motion.object_id, self.options.relocalise_min_pixels
        areas = {state.index: int((state.labels == label).sum()) for state in horizon.frames if state.index >= since}
        visible = [k for k, area in areas.items() if area >= least]
        if not visible:
            return False
        if self._realign(motion, horizon, visible, since):
            motion.detached_at = motion.doubted_at = None
            return True
        if motion.detached_at is None:
            return False
        widest = sorted(visible, key=lambda k: -areas[k])
        if any(self._recognise(motion, horizon, index, since) for index in widest[:MOST_FRAMES]):
            motion.detached_at = motion.doubted_at = None
            return True
        returned = visible[-1]
        while returned - 1 in visible:
            returned -= 1  # the first frame of its newest appearance
        self._place(motion, horizon, [k for k in visible if k >= returned], since)
        return False

    def watch(self, motion: ObjectMotion, horizon: Horizon, new: Sequence[int]) -> bool:
        """Looks whether an object is where it was tracked in the frames `new`; whether it had to be moved there. Writes
        nothing but its motion, so several objects may be watched at once.

        Its points there were something else's, and are to be measured anew before anything is adjusted to them.
        """
        lost = [k for k in (motion.detached_at, motion.doubted_at) if k is not None]
        if motion.parts or lost or new[0] <= horizon.first_index:
            return False
        views = self.keyframes.best_for(motion.object_id, horizon, new[0], TEMPLATE_VIEWS - 1)
        newest = self.keyframes.newest_before(new[0])
        views = [*views, newest] if newest is not None and newest not in views else views
        template = make_template([(horizon.get(k), motion.matrix(k)) for k in views], motion.object_id)
        if template is None:
            return False
        found = seen_elsewhere(motion, template, horizon, new, self.options.relocalise_min_pixels)
        for k, pose in found.items():
            motion.set_matrix(k, pose)
        return bool(found)

    def forget_before(self, index: int) -> None:
        """Drops what is older than frame `index`."""
        self.links = {pair for pair in self.links if pair[0] >= index}

    def _recognise(self, motion: ObjectMotion, horizon: Horizon, index: int, since: int) -> bool:
        """Whether features of an older keyframe were found again in frame `index`; moves the object there."""
        self._yield_point()
        label = motion.object_id
        state = horizon.get(index)
        now = describe(state, label)
        if now is None:
            return False
        for keyframe in self.keyframes.best_for(label, horizon, before=since):
            before = describe(horizon.get(keyframe), label)
            found = None if before is None else find_motion(before, now, frame_depth(state), self._random)
            if found is None:
                continue
            pose = found @ motion.matrix(keyframe)
            template = make_template([(horizon.get(keyframe), motion.matrix(keyframe))], label)
            if template is None:
                continue
            coasted = predict_motion(motion, template.middle, since, index)
            expected = [motion.matrix(index)] if coasted is None else [motion.matrix(index), coasted]
            if polish(template, state, label, [pose])[1] < needed_score(pose, expected):
                continue  # features agree, but it does not look like it: a repeated pattern
            seen = [other.index for other in horizon.frames if other.index >= since and (other.labels == label).any()]
            motion.regauge(index, pose, seen)
            self.found.add(label)
            self.links.update((keyframe, k) for k in seen if abs(k - index) <= self.options.keyframe_reach)
            motion.points.clear()  # those picked while it was lost are where it was not; they are lifted anew
            return True
        return False

    def _realign(self, motion: ObjectMotion, horizon: Horizon, visible: list[int], since: int) -> bool:
        """Whether the object was found again by how it looks, in two frames that confirm each other; moves it there.

        `visible` are the frames that show it.
        """
        label = motion.object_id
        views, template = self._template(motion, horizon, since)
        if template is None:
            return False
        tried = self._clear_looks(motion, template, horizon, visible, [horizon.get(k) for k in views])
        index, pose = self._sighting(motion, template, horizon, tried, since)
        if pose is None:
            return False
        begin = self._strayed(motion, template, horizon, since)
        self.found.add(label)
        frames = {state.index for state in horizon.frames if state.index >= begin}
        self._yield_point()
        self._follow(motion, template, horizon, index, pose, frames)
        self.keyframes.unlink(horizon, begin, frames, label)
        self.links.update((view, k) for view in views for k in frames if k in visible)
        motion.points.clear()  # those picked while it was lost are where it was not; they are lifted anew
        return True

    def _template(self, motion: ObjectMotion, horizon: Horizon, before: int) -> tuple[list[int], Template | None]:
        """The keyframes older than frame `before` that show most of an object, and how it looks in them."""
        views = self.keyframes.best_for(motion.object_id, horizon, before, TEMPLATE_VIEWS)
        return views, make_template([(horizon.get(k), motion.matrix(k)) for k in views], motion.object_id)

    @staticmethod
    def _clear_looks(
        motion: ObjectMotion, template: Template, horizon: Horizon, visible: list[int], views: list[FrameState]
    ) -> list[int]:
        """The frames among `visible` in which the object is to be looked for: those that show about as much of it as
        the `views` before, far larger masks leak; and if it never was out of sight, only those it does not fit.
        """
        label = motion.object_id
        usual = float(np.median([_size(state, label) for state in views]))
        size = {k: _size(horizon.get(k), label) for k in visible}
        clear = [k for k in visible if CLEARLY_SEEN * usual <= size[k] <= usual / CLEARLY_SEEN]
        if not clear or clear[-1] - clear[0] < APART:
            return []
        tried = sorted({clear[round(i)] for i in np.linspace(0, len(clear) - 1, LOOKS)})
        if motion.detached_at is not None:
            return tried
        scores = {k: score_of(template, horizon.get(k), label, motion.matrix(k)) for k in tried}
        return [k for k in tried if NOTHING_TO_SEE < scores[k] < LEAST_SCORE]

    def _sighting(
        self, motion: ObjectMotion, template: Template, horizon: Horizon, tried: list[int], since: int
    ) -> tuple[int, FloatArray | None]:
        """A frame among `tried`, and the object's pose (4, 4) there, that another frame confirms: the object moved
        between them as it was tracked, or as it moved before it was lost. No pose where there is none.
        """
        if len(tried) < 2:
            return -1, None
        coasting = {k: pose for k in tried if (pose := predict_motion(motion, template.middle, since, k)) is not None}
        sure: dict[int, tuple[FloatArray, float, float]] = {}
        for k in tried:
            self._yield_point()
            others = [coasting[k]] if k in coasting else []
            result = search_template_pose(template, horizon.get(k), motion.object_id, motion.matrix(k), others)
            if result is not None:
                sure[k] = result
        best, index = -np.inf, -1
        for k, (pose, score, _) in sure.items():
            for other, (witness, its_score, _) in sure.items():
                expected: list[FloatArray] = [motion.between(k, other) @ pose]
                if coasting:
                    expected.append(moved_alike(coasting[k], coasting[other], pose, template.middle))
                agrees = min(_gap(template, witness, there) for there in expected) < AGREEMENT
                if other - k >= APART and agrees and score + its_score > best:
                    best, index = score + its_score, k
        if index < 0:
            return -1, None
        pose, score, before = sure[index]
        needed = max(before + CLEAR_GAIN, BEYOND_DOUBT if motion.detached_at is None else LEAST_SCORE)
        return index, pose if score >= needed else None

    @staticmethod
    def _strayed(motion: ObjectMotion, template: Template, horizon: Horizon, since: int) -> int:
        """The first frame, up to a few before `since`, from which on the object no longer looks as it should."""
        begin = since
        for index in range(since - 1, max(horizon.first_index, since - 1 - MOST_STRAYED), -1):
            if polish(template, horizon.get(index), motion.object_id, [motion.matrix(index)])[1] > LEAST_SCORE:
                break
            begin = index
        return begin

    @staticmethod
    def _follow(
        motion: ObjectMotion,
        template: Template,
        horizon: Horizon,
        index: int,
        pose: FloatArray,
        frames: Set[int],
    ) -> None:
        """Carries a `pose` that was found in frame `index` to the other `frames`, each polished by how the object looks
        there: some were tracked rightly among themselves, in others something dragged it along.
        """
        tracked = {k: motion.between(index, k) @ pose for k in frames}
        motion.regauge(index, pose, [index])
        for direction in (-1, 1):
            seen = index  # the last frame on this way in which it looks as it should
            k = index + direction
            while k in frames:
                near = motion.matrix(k - direction)
                expected: FloatArray = tracked[k] @ np.linalg.inv(tracked[k - direction]) @ near
                if motion.support.get(k, 0) < WELL_SEEN:
                    hidden = Relocaliser._hidden(motion, template.middle, min(frames), index, seen, k)
                    expected = expected if hidden is None else hidden
                polished, score = polish(template, horizon.get(k), motion.object_id, [tracked[k], expected, near])
                if score > LEAST_SCORE:
                    seen = k
                motion.regauge(k, polished if score > LEAST_SCORE else expected, [k])
                k += direction

    @staticmethod
    def _hidden(
        motion: ObjectMotion, pivot: FloatArray, since: int, index: int, seen: int, k: int
    ) -> FloatArray | None:
        """The pose (4, 4) in frame `k`, which does not show it, of an object that was lost at frame `since`, found at
        `index` and followed up to frame `seen`: bridged to what it was before, or going on as it was followed; None
        where neither can be told.
        """
        bridged = bridge(motion, pivot, since, seen, k) if k < index else None
        if bridged is not None or seen == index:
            return bridged
        return onward(motion.matrix(index), motion.matrix(seen), pivot, (k - seen) / (seen - index))

    def _place(self, motion: ObjectMotion, horizon: Horizon, frames: list[int], since: int) -> None:
        """Puts an object that could not be recognised where masks have its middle in `frames`, those of its newest
        appearance, turned as it would have gone on turning; so too on the way there.

        Only where an adjustment would not find there: the middle is one of its observations, with heavy tails.
        """
        middle = middle_of(motion.object_id, horizon)
        if middle is None:
            return
        first, where = horizon.first_index, middle.lifted(horizon)
        before = [k for k in motion.poses if first <= k < since and middle.seen[k - first]]
        again = [k for k in frames if middle.seen[k - first]]
        if not before or not again:
            return
        backwards = [transform_points(np.linalg.inv(motion.matrix(k)), where[k - first][None])[0] for k in before]
        pivot = np.median(backwards, axis=0)
        index = min(again, key=lambda k: middle.sigma_px[k - first])
        now = motion.matrix(index)
        off = float(np.linalg.norm(transform_points(now, pivot[None])[0] - where[index - first]))
        if off < BundleOptions.cauchy * middle.sigma_m(horizon.camera)[index - first]:
            return
        coasted = predict_motion(motion, pivot, since, index)
        pose = now.copy() if coasted is None else coasted
        pose[:3, 3] += where[index - first] - transform_points(pose, pivot[None])[0]
        motion.regauge(index, pose, frames)
        motion.points.clear()  # those picked since are where it was not; they are lifted anew
        for k in range(since, frames[0]):
            bridged = bridge(motion, pivot, since, frames[0], k)
            if bridged is not None:
                motion.regauge(k, bridged, [k])


def _size(state: FrameState, label: int) -> float:
    """Area of an object's mask times its squared depth: the same near and far."""
    depth = state.depth_m[(state.labels == label) & np.isfinite(state.depth_m)]
    return float(len(depth) * np.median(depth) ** 2) if len(depth) else 0.0


def _gap(template: Template, a: FloatArray, b: FloatArray) -> float:
    """Mean distance between a template's points under two motions (4, 4), in radii of the object."""
    D = a - b
    return float(np.linalg.norm(transform_points(D, template.xyz), axis=1).mean()) / max(template.radius, 1e-9)


def frame_depth(state: FrameState) -> float:
    """Median depth of a frame, m (or scene units)."""
    finite = state.depth_m[np.isfinite(state.depth_m)]
    return float(np.median(finite)) if finite.size else 1.0
