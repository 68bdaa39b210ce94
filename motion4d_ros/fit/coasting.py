"""Where an object would be had it gone on as it moved: the best guess while nothing shows it."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from motion4d_ros.fit.object_motion import ObjectMotion
from motion4d_ros.types import FloatArray

FROM_LAST = 10  # frames before a loss in which the velocity is measured
WELL_SEEN = 0.5  # share of the best support among them: the last glimpses at an occluder's edge are poor ones
SHORTEST = 2  # frames over which a velocity can be measured


def coast(motion: ObjectMotion, pivot: FloatArray, since: int, index: int) -> FloatArray | None:
    """The motion (4, 4), canonical -> map, at frame `index` of an object that was lost at frame `since`: its `pivot`
    (3,), canonical, m, goes straight on, and it turns on at the rate of its last well-seen frames. None without any.
    """
    support = {k: n for k, n in motion.support.items() if since - FROM_LAST <= k < since and k in motion.poses}
    well = [k for k, n in support.items() if n >= WELL_SEEN * max(support.values())]
    if not well or max(well) - min(well) < SHORTEST:
        return None
    first, last = min(well), max(well)
    return onward(motion.matrix(first), motion.matrix(last), pivot, (index - last) / (last - first))


def bridge(motion: ObjectMotion, pivot: FloatArray, since: int, known: int, index: int) -> FloatArray | None:
    """The motion (4, 4), canonical -> map, at frame `index` of an object that was lost at frame `since` and whose
    pose at a later frame `known` is known: as it would have coasted, what that misses at `known` made up for evenly.
    None where it can't be told how it coasted.
    """
    here, there = coast(motion, pivot, since, index), coast(motion, pivot, since, known)
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
