"""Objects led astray in full view: noticed before their motion is adjusted to points that mislead.

What passes in front of an object drags its points along, and flow takes each square of a chequered thing for its
neighbour: then all points agree on a wrong motion. So an object is followed through new frames by how it looks, too. It
is moved where the frames speak a thousand times more for other poses than for those tracked (see `appearance`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from motion4d_ros.config import GeometryConfig
from motion4d_ros.fit.motion.motion_prediction import SHORTEST, moved_alike, onward
from motion4d_ros.fit.motion.object_motion import ObjectMotion
from motion4d_ros.fit.relocalisation.appearance import (
    Appearance,
    Look,
    appearance_of,
    centred,
    evidence,
    improved,
    look,
    shifted,
)
from motion4d_ros.fit.tracks.keyframes import Keyframes
from motion4d_ros.fit.window.horizon import Horizon
from motion4d_ros.types import FloatArray

ODDS = math.log(1000)  # nats by which a pose must be more likely: a wrong find is worse than none
VIEWS = 2  # keyframes that show most of an object, beside the newest


@dataclass(frozen=True)
class Search:
    """An object, how it looks, and the frames in which it is looked for."""

    motion: ObjectMotion
    appearance: Appearance
    horizon: Horizon
    sigma_scale: float

    def looks(self, frames: Iterable[int]) -> dict[int, Look]:
        """Those of the `frames` that show a pixel of it with depth."""
        label = self.motion.object_id
        looks = {k: look(self.appearance, self.horizon.get(k), label, self.sigma_scale) for k in frames}
        return {k: one for k, one in looks.items() if one is not None}


def correct_drift(
    motion: ObjectMotion, horizon: Horizon, new: Sequence[int], keyframes: Keyframes, options: GeometryConfig
) -> bool:
    """Looks whether an object is where it was tracked in the frames `new`; whether it had to be moved there, and is to
    be measured anew before anything is adjusted. Writes nothing but its motion, so several may be looked at at once.
    """
    lost = motion.detached_at is not None or motion.doubted_at is not None
    if motion.parts or lost or new[0] <= horizon.first_index:
        return False
    label, newest = motion.object_id, keyframes.newest_before(new[0])
    views = {*keyframes.best_for(label, horizon, new[0], VIEWS), *([] if newest is None else [newest])}
    appearance = appearance_of([(horizon.get(k), motion.matrix(k)) for k in views], label)
    if appearance is None:
        return False
    search = Search(motion, appearance, horizon, options.sigma_object_scale)
    found = seen_elsewhere(search, new, horizon.frames_that_show(label, new, options.relocalise_min_pixels))
    for k, pose in found.items():
        motion.set_matrix(k, pose)
    return bool(found)


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
    # By the mean, not the sum: what is alike by chance is so in all of them.
    return _bridged(path, new, appearance.middle) if sum(gains) > ODDS * len(looks) else {}


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
