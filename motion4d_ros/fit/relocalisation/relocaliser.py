"""Objects that were lost, or led astray in full view: found again where the frames say they are.

Hypotheses come from motion (as tracked, as it would have gone on), from turns of these behind the mask, and from
features. Each is carried to several frames, improved there, and weighed by its evidence (see `appearance`): a pose is
believed if all frames together speak a thousand times more for it than for the pose tracked, or for none at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

import numpy as np

from motion4d_ros.config import GeometryConfig
from motion4d_ros.fit.motion.bundle_adjustment import BundleOptions
from motion4d_ros.fit.motion.mask_middle import middle_of
from motion4d_ros.fit.motion.motion_prediction import SHORTEST, bridge, moved_alike, onward, predict_motion
from motion4d_ros.fit.motion.motion_prior import WELL_SEEN
from motion4d_ros.fit.motion.object_motion import LOOK_BACK, ObjectMotion
from motion4d_ros.fit.relocalisation.appearance import (
    Appearance,
    Look,
    appearance_of,
    centred,
    evidence,
    expectation,
    improved,
    look,
    searched,
    shifted,
)
from motion4d_ros.fit.relocalisation.features import step_by_features
from motion4d_ros.fit.tracks.keyframes import Keyframes
from motion4d_ros.fit.window.horizon import FrameState, Horizon
from motion4d_ros.fit.window.yield_point import YieldPoint
from motion4d_ros.geometry.rigid import inverse_pose, transform_points
from motion4d_ros.types import FloatArray

ODDS = math.log(1000)  # nats by which a pose must be more likely: a wrong find is worse than none
VIEWS = 3  # keyframes that show how an object looks
LOOKS = 4  # frames in which it is looked for


@dataclass(frozen=True)
class Search:
    """An object, how it looks, and the frames in which it is looked for."""

    motion: ObjectMotion
    appearance: Appearance
    horizon: Horizon
    sigma_scale: float
    views: list[int]  # keyframes

    def looks(self, frames: Iterable[int]) -> dict[int, Look]:
        """Those of the `frames` that show a pixel of it with depth."""
        label = self.motion.object_id
        looks = {k: look(self.appearance, self.horizon.get(k), label, self.sigma_scale) for k in frames}
        return {k: one for k, one in looks.items() if one is not None}


class Relocaliser:
    """Looks for lost objects; remembers which keyframes are to be linked to which frames because of it."""

    def __init__(self, options: GeometryConfig, keyframes: Keyframes, yield_point: YieldPoint | None = None) -> None:
        self.options = options
        self._yield_point = yield_point or YieldPoint()
        self.keyframes = keyframes
        self.links: set[tuple[int, int]] = set()  # (keyframe, frame), to be linked whatever their distance
        self.found: set[int] = set()  # objects that turned out to be elsewhere; whoever acts on it clears it

    def seek(self, motion: ObjectMotion, horizon: Horizon) -> bool:
        """Looks for an object that is detached or doubted in the frames since; whether it was found.

        When it is found, all its poses since then move along: they were right among themselves, not as a whole.
        """
        since = motion.doubted_at if motion.detached_at is None else motion.detached_at
        newest = horizon.frames[-1].index
        if since is None or motion.sought_until == newest:
            return False
        motion.sought_until = newest  # once per window: nothing new is to be seen before the next
        since = max(since, horizon.first_index)
        visible = self._shown(motion, horizon, range(since, newest + 1))
        if not visible:
            return False
        search = self._search(motion, horizon, self.keyframes.best_for(motion.object_id, horizon, since, VIEWS))
        found = None if search is None else self._found(search, visible, since)
        if search is not None and found is not None:
            self._adopt(search, *found, visible, since)
            motion.detached_at = motion.doubted_at = None
            return True
        returned = visible[-1]
        while returned - 1 in visible:
            returned -= 1  # the first frame of its newest appearance
        if not motion.parts:  # what bends has its middle where no pose of the whole puts it
            _place(motion, horizon, [k for k in visible if k >= returned], since)
        return False

    def watch(self, motion: ObjectMotion, horizon: Horizon, new: Sequence[int]) -> bool:
        """Looks whether an object is where it was tracked in the frames `new`; whether it had to be moved there. Writes
        nothing but its motion, so several objects may be watched at once.

        What passes in front of an object drags its points along, and flow takes each square of a chequered thing for
        its neighbour: then all points agree on a wrong motion, and are to be measured anew before anything is adjusted
        to them.
        """
        lost = motion.detached_at is not None or motion.doubted_at is not None
        if motion.parts or lost or new[0] <= horizon.first_index:
            return False
        views = self.keyframes.best_for(motion.object_id, horizon, new[0], VIEWS - 1)
        newest = self.keyframes.newest_before(new[0])
        search = self._search(motion, horizon, list({*views, *([] if newest is None else [newest])}))
        found = {} if search is None else seen_elsewhere(search, new, self._shown(motion, horizon, new))
        for k, pose in found.items():
            motion.set_matrix(k, pose)
        return bool(found)

    def forget_before(self, index: int) -> None:
        """Drops what is older than frame `index`."""
        self.links = {pair for pair in self.links if pair[0] >= index}

    def _search(self, motion: ObjectMotion, horizon: Horizon, views: list[int]) -> Search | None:
        shown = appearance_of([(horizon.get(k), motion.matrix(k)) for k in views], motion.object_id)
        return None if shown is None else Search(motion, shown, horizon, self.options.sigma_object_scale, views)

    def _shown(self, motion: ObjectMotion, horizon: Horizon, frames: Sequence[int]) -> list[int]:
        least = self.options.relocalise_min_pixels
        return [k for k in frames if int((horizon.get(k).labels == motion.object_id).sum()) >= least]

    def _found(self, search: Search, visible: list[int], since: int) -> tuple[int, FloatArray] | None:
        """A frame and the pose (4, 4) of the object there, that several frames together speak for; None without any."""
        motion, shown, horizon = search.motion, search.appearance, search.horizon

        def area(k: int) -> int:
            return int((horizon.get(k).labels == motion.object_id).sum())

        groups = np.array_split(visible, min(LOOKS, len(visible)))
        looks = search.looks(max(group.tolist(), key=area) for group in groups)
        gone_on = {k: pose for k in looks if (pose := predict_motion(motion, shown.middle, since, k)) is not None}
        hypotheses: list[tuple[int, FloatArray, float]] = []
        for k, one in looks.items():
            self._yield_point()
            predicted = [motion.matrix(k), *([gone_on[k]] if k in gone_on else [])]
            poses = [searched(shown, one, predicted)]
            for view in search.views:
                step = step_by_features(horizon.get(view), horizon.get(k), motion.object_id)
                poses += [] if step is None else [step @ motion.matrix(view)]
            hypotheses += [(k, pose, expectation(pose, predicted)) for pose in poses]
        if not looks:
            return None
        tracked = float(np.mean([improved(shown, one, motion.matrix(k))[1] for k, one in looks.items()]))
        best, most = None, max(tracked, 0.0) + ODDS
        for k, pose, prior in hypotheses:
            self._yield_point()
            totals = []
            for other, one in looks.items():
                ways: list[FloatArray] = [motion.between(k, other) @ pose]
                if gone_on:
                    ways.append(moved_alike(gone_on[k], gone_on[other], pose, shown.middle))
                totals.append(max(improved(shown, one, way)[1] for way in ways))
            total = prior + float(np.mean(totals))  # not the sum: what is alike by chance is so in all of them
            if total > most:
                best, most = (k, pose), total
        return best

    def _adopt(self, search: Search, index: int, pose: FloatArray, visible: list[int], since: int) -> None:
        """Moves an object to where it was found, and has its points measured anew."""
        motion, horizon = search.motion, search.horizon
        begin = since
        for k in range(since - 1, max(horizon.first_index, since - 1 - LOOK_BACK), -1):
            one = search.looks([k]).get(k)
            if one is None or improved(search.appearance, one, motion.matrix(k))[1] > ODDS:
                break
            begin = k
        self.found.add(motion.object_id)
        frames = {state.index for state in horizon.frames if state.index >= begin}
        self._yield_point()
        _follow(search, index, pose, frames)
        self.keyframes.unlink(horizon, begin, frames, motion.object_id)
        self.links.update((view, k) for view in search.views for k in frames if k in visible)
        motion.points.clear()  # those picked while it was lost are where it was not; they are lifted anew


def seen_elsewhere(search: Search, new: Sequence[int], shown: Sequence[int]) -> dict[int, FloatArray]:
    """The motions (4, 4), canonical -> map, of an object in consecutive frames `new`, if those of them that have
    `shown` it speak for its being elsewhere than it was tracked; empty if not.
    """
    motion, appearance, last = search.motion, search.appearance, new[0] - 1
    if last - SHORTEST < search.horizon.first_index or last - SHORTEST not in motion.poses:
        return {}
    before, looks = search.looks([last]).get(last), search.looks(shown)
    if before is None:
        return {}
    usual = evidence(appearance, before, motion.matrix(last)) / before.pixels
    tracked = {k: evidence(appearance, one, motion.matrix(k)) for k, one in looks.items()}
    if sum(max(usual * looks[k].pixels - value, 0.0) for k, value in tracked.items()) < ODDS:
        return {}
    path = {k: motion.matrix(k) for k in (last - SHORTEST, last)}
    gains = []
    for k, one in looks.items():
        now = max(path)
        start = max(other for other in path if other <= now - SHORTEST)
        ahead = onward(path[start], path[now], appearance.middle, (k - now) / (now - start))
        step = motion.between(now, k) @ path[now]
        ways = [shifted(appearance, one, way) for way in (step, ahead, path[now], centred(appearance, one, ahead))]
        pose, value = max((improved(appearance, one, way) for way in ways), key=lambda found: found[1])
        if value > ODDS:
            path[k] = pose
            gains.append(value - max(improved(appearance, one, motion.matrix(k))[1], 0.0))
    return _bridged(path, new, appearance.middle) if max(gains, default=0.0) > ODDS else {}


def _bridged(path: dict[int, FloatArray], frames: Sequence[int], pivot: FloatArray) -> dict[int, FloatArray]:
    """The motions of `path` in all `frames`: evenly from one to the next, and after the last at its velocity."""
    known = sorted(path)
    result = {}
    for k in frames:
        before = max(other for other in known if other <= k)
        after = min((other for other in known if other >= k), default=None)
        if after is not None:
            share = (k - before) / max(after - before, 1)
            result[k] = moved_alike(path[before], path[after], path[before], pivot, share)
        else:
            start = max(other for other in known if other <= before - SHORTEST)
            result[k] = onward(path[start], path[before], pivot, (k - before) / (before - start))
    return result


def _follow(search: Search, index: int, pose: FloatArray, frames: Set[int]) -> None:
    """Carries a `pose` that was found in frame `index` to the other `frames`, each improved by what is seen there: some
    were tracked rightly among themselves, in others something dragged it along. Those that show nothing are bridged.
    """
    motion, middle = search.motion, search.appearance.middle
    tracked = {k: motion.between(index, k) @ pose for k in frames}
    motion.regauge(index, pose, [index])
    for direction in (-1, 1):
        seen = index  # the last frame on this way in which it looks as it should
        k = index + direction
        while k in frames:
            near = motion.matrix(k - direction)
            expected: FloatArray = tracked[k] @ inverse_pose(tracked[k - direction]) @ near
            if motion.support.get(k, 0) < WELL_SEEN:
                hidden = _hidden(motion, middle, min(frames), index, seen, k)
                expected = expected if hidden is None else hidden
            one = search.looks([k]).get(k)
            ways = (
                [] if one is None else [improved(search.appearance, one, way) for way in (tracked[k], expected, near)]
            )
            better, value = max(ways, key=lambda way: way[1], default=(expected, 0.0))
            if value > ODDS:
                seen = k
            motion.regauge(k, better if value > ODDS else expected, [k])
            k += direction


def _hidden(motion: ObjectMotion, pivot: FloatArray, since: int, index: int, seen: int, k: int) -> FloatArray | None:
    """The pose (4, 4) in frame `k`, which does not show it, of an object that was lost at frame `since`, found at
    `index` and followed up to frame `seen`: bridged to what it was before, or going on as it was followed; None where
    neither can be told.
    """
    bridged = bridge(motion, pivot, since, seen, k) if k < index else None
    if bridged is not None or seen == index:
        return bridged
    return onward(motion.matrix(index), motion.matrix(seen), pivot, (k - seen) / (seen - index))


def _place(motion: ObjectMotion, horizon: Horizon, frames: list[int], since: int) -> None:
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
    backwards = [transform_points(inverse_pose(motion.matrix(k)), where[k - first][None])[0] for k in before]
    pivot = np.median(backwards, axis=0)
    index = min(again, key=lambda k: middle.sigma_px[k - first])
    coasted = predict_motion(motion, pivot, since, index)
    pose = motion.matrix(index) if coasted is None else coasted
    off = where[index - first] - transform_points(motion.matrix(index), pivot[None])[0]
    if np.linalg.norm(off) < BundleOptions.cauchy * middle.sigma_m(horizon.camera)[index - first]:
        return
    pose[:3, 3] += where[index - first] - transform_points(pose, pivot[None])[0]
    motion.regauge(index, pose, frames)
    motion.points.clear()  # those picked since are where it was not; they are lifted anew
    for k in range(since, frames[0]):
        bridged = bridge(motion, pivot, since, frames[0], k)
        if bridged is not None:
            motion.regauge(k, bridged, [k])


def frame_depth(state: FrameState) -> float:
    """Median depth of a frame, m (or scene units)."""
    finite = state.depth_m[np.isfinite(state.depth_m)]
    return float(np.median(finite)) if finite.size else 1.0
