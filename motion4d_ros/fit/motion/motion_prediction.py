"""Where an object would be had it gone on as it moved: the best guess while nothing shows it."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from motion4d_ros.fit.motion.object_motion import ObjectMotion, Pose
from motion4d_ros.fit.window.horizon import Horizon
from motion4d_ros.fit.window.scene_scale import sight_of
from motion4d_ros.geometry.rigid import orthonormal
from motion4d_ros.geometry.sight import Sight
from motion4d_ros.types import FloatArray

FROM_LAST = 10  # frames before a loss in which the velocity is measured
WELL_SEEN = 0.5  # share of the best support among them: the last glimpses at an occluder's edge are poor ones
SHORTEST = 2  # frames over which a velocity can be measured


def predict_motion(motion: ObjectMotion, pivot: FloatArray, since: int, index: int) -> FloatArray | None:
    """The motion (4, 4), canonical -> map, at frame `index` of an object that was lost at frame `since`: its `pivot`
    (3,), canonical, m, goes straight on, and it turns on at the rate of its last well-seen frames. None without any.
    """
    support = {k: n for k, n in motion.support.items() if since - FROM_LAST <= k < since and k in motion.poses}
    well = [k for k, n in support.items() if n >= WELL_SEEN * max(support.values())]
    if not well or max(well) - min(well) < SHORTEST:
        return None
    first, last = min(well), max(well)
    return onward(motion.matrix(first), motion.matrix(last), pivot, (index - last) / (last - first))


def predicted_at(motion: ObjectMotion, index: int, direction: int, sight: Sight | None) -> Pose:
    """Pose at frame `index`, one step in `direction` beyond the known ones: at constant velocity. Where lengths are not
    metres its distance is held, as `sight` saw it: errors along the ray would add up until it is behind the camera.
    """
    R, t = one_step_on(motion, index, direction)
    if sight is None:
        return R, t
    here = motion.center + motion.poses[index - direction][1]
    held, _ = sight.onward(here[None], (motion.center + t - here)[None], 1.0)
    return R, held[0] - motion.center


def one_step_on(motion: ObjectMotion, index: int, direction: int) -> Pose:
    """Pose at `index`, one step in `direction` beyond the known ones, at constant velocity."""
    last = motion.poses[index - direction]
    if index - 2 * direction not in motion.poses:
        return last
    before = motion.poses[index - 2 * direction]
    turned = orthonormal(last[0] @ before[0].T @ last[0])  # unmended, rounding grows threefold with every step
    return turned, 2 * last[1] - before[1]


def hold_unseen(motion: ObjectMotion, horizon: Horizon, least: int) -> None:
    """Holds the distance of an object in the frames before the first and after the last that show `least` points of it,
    where lengths are not metres: an adjustment that knows nothing of them goes on along the ray, too. Turns stay.
    """
    frames = horizon.frames
    shown = [column for column, state in enumerate(frames) if motion.support.get(state.index, 0) >= least]
    if len(shown) < SHORTEST:
        return
    place = {state.index: motion.center + motion.poses[state.index][1] for state in frames}
    seconds = horizon.seconds
    for last, inner, unseen in (
        (shown[-1], shown[-1] - 1, range(shown[-1] + 1, len(frames))),
        (shown[0], shown[0] + 1, range(shown[0])),
    ):
        sight = sight_of(frames[last])
        if sight is None:
            continue
        here = place[frames[last].index]
        velocity = (here - place[frames[inner].index]) / (seconds[last] - seconds[inner])
        for column in unseen:
            index = frames[column].index
            held, _ = sight.onward(here[None], velocity[None], float(seconds[column] - seconds[last]))
            motion.poses[index] = (motion.poses[index][0], held[0] - motion.center)


def bridge(motion: ObjectMotion, pivot: FloatArray, since: int, known: int, index: int) -> FloatArray | None:
    """The motion (4, 4), canonical -> map, at frame `index` of an object that was lost at frame `since` and whose
    pose at a later frame `known` is known: as it would have coasted, what that misses at `known` made up for evenly.
    None where it can't be told how it coasted.
    """
    here, there = predict_motion(motion, pivot, since, index), predict_motion(motion, pivot, since, known)
    if here is None or there is None:
        return None
    return moved_alike(there, motion.matrix(known), here, pivot, (index - since + 1) / (known - since + 1))


def onward(before: FloatArray, now: FloatArray, pivot: FloatArray, times: float = 1.0) -> FloatArray:
    """The pose (4, 4), canonical -> map, of an object that goes on from `now`, to which it came from `before` (both
    (4, 4)), as many `times` as far: its `pivot` (3,), canonical, m, on a straight line.
    """
    return moved_alike(before, now, now, pivot, times)


def moved_alike(
    before: FloatArray, after: FloatArray, pose: FloatArray, pivot: FloatArray, times: float = 1.0
) -> FloatArray:
    """`pose` (4, 4), canonical -> map, after the turn and the way of the `pivot` (3,), canonical, m, that lead from
    `before` to `after` (both (4, 4)), as many `times`.
    """
    turn = Rotation.from_matrix(after[:3, :3] @ before[:3, :3].T).as_rotvec()
    way = (after[:3, :3] - before[:3, :3]) @ pivot + after[:3, 3] - before[:3, 3]
    result = np.eye(4)
    result[:3, :3] = Rotation.from_rotvec(times * turn).as_matrix() @ pose[:3, :3]
    result[:3, 3] = pose[:3, :3] @ pivot + pose[:3, 3] + times * way - result[:3, :3] @ pivot
    return result
