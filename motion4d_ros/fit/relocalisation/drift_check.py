"""Objects that are led astray while everybody can see them: new frames are looked at before their motion is believed.

What is nearer drags the points of what it passes in front of along with it, and flow takes each square of a chequered
thing for its neighbour. Either way all points agree, and no adjustment notices. But the object then no longer looks as
it did a moment ago: of a pattern shifted by its own period the border falls on something else. So where it looks wrong
it is followed from frame to frame by how it looks, and frames that hardly show it are bridged.
"""

from __future__ import annotations

from collections.abc import Sequence

from motion4d_ros.fit.motion.motion_prediction import moved_alike, onward
from motion4d_ros.fit.motion.object_motion import ObjectMotion
from motion4d_ros.fit.relocalisation.template_pose_search import (
    LEAST_SCORE,
    NOTHING_TO_SEE,
    Template,
    placed,
    score_of,
    sought,
)
from motion4d_ros.fit.window.horizon import Horizon
from motion4d_ros.types import FloatArray

AS_BEFORE = 0.8  # share of its usual score that an object has where it looks as it did
CLEAR_GAIN = 0.1  # score by which a pose must look better than the one tracked
LEAST_CORRECTED = 2  # frames that have to say that an object is elsewhere: in one, much looks like it
PACE = 2  # frames over which its velocity is measured


def seen_elsewhere(
    motion: ObjectMotion, template: Template, horizon: Horizon, frames: Sequence[int], least_px: int
) -> dict[int, FloatArray]:
    """The motions (4, 4), canonical -> map, of an object in consecutive `frames`, if it plainly is not where it was
    tracked there; empty if it is, or if nobody can tell.

    `template` is how it looks, from frames before; a frame counts as showing it from `least_px` pixels.
    """
    label, last = motion.object_id, frames[0] - 1
    if last - PACE < horizon.first_index or last - PACE not in motion.poses:
        return {}
    usual = score_of(template, horizon.get(last), label, motion.matrix(last))
    shown = [k for k in frames if int((horizon.get(k).labels == label).sum()) >= least_px]
    tracked = {k: score_of(template, horizon.get(k), label, motion.matrix(k)) for k in shown}
    if usual < LEAST_SCORE or not any(NOTHING_TO_SEE < score < LEAST_SCORE for score in tracked.values()):
        return {}
    path = {k: motion.matrix(k) for k in (last - PACE, last)}
    corrected = 0
    for k in shown:
        now = max(path)
        before = max(other for other in path if other <= now - PACE)
        ahead = onward(path[before], path[now], template.middle, (k - now) / (now - before))
        likely = [motion.between(now, k) @ path[now], ahead, path[now]]
        centred = placed(template, horizon.get(k), label, ahead)
        pose, score = sought(template, horizon.get(k), label, likely if centred is None else [*likely, centred])
        if score >= max(LEAST_SCORE, AS_BEFORE * usual):
            path[k] = pose
            corrected += score > tracked[k] + CLEAR_GAIN and tracked[k] < LEAST_SCORE
    if corrected < LEAST_CORRECTED:
        return {}
    return _bridged(path, frames, template)


def _bridged(path: dict[int, FloatArray], frames: Sequence[int], template: Template) -> dict[int, FloatArray]:
    """The motions of `path` in all `frames`: evenly from one to the next, and after the last at its velocity."""
    known = sorted(path)
    result = {}
    for k in frames:
        before = max(other for other in known if other <= k)
        after = min((other for other in known if other > k), default=None)
        if before == k:
            result[k] = path[k]
        elif after is not None:
            share = (k - before) / (after - before)
            result[k] = moved_alike(path[before], path[after], path[before], template.middle, share)
        else:
            start = max(other for other in known if other <= before - PACE)
            result[k] = onward(path[start], path[before], template.middle, (k - before) / (before - start))
    return result
