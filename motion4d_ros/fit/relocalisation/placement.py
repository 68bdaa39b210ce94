"""Objects that come back after they were lost: put where their masks are, so that an adjustment can find there.

Points of keyframes find an object again that shows the same sides. One that comes back by sides never seen has nothing
but its mask: its middle is put there, turned as it would have gone on turning.
"""

from __future__ import annotations

import numpy as np

from motion4d_ros.fit.motion.bundle_adjustment import BundleOptions
from motion4d_ros.fit.motion.motion_prediction import bridge, predict_motion
from motion4d_ros.fit.motion.object_motion import ObjectMotion
from motion4d_ros.fit.relocalisation.mask_middle import middle_of
from motion4d_ros.fit.window.horizon import Horizon
from motion4d_ros.geometry.rigid import inverse_pose, transform_points


def place_returned(motion: ObjectMotion, horizon: Horizon, min_pixels: int) -> None:
    """Puts an object that is detached or doubted where the masks of its newest appearance have its middle: frames in
    which at least `min_pixels` show it. Once for each window.
    """
    since = motion.doubted_at if motion.detached_at is None else motion.detached_at
    newest = horizon.frames[-1].index
    if since is None or motion.placed_until == newest:
        return
    motion.placed_until = newest
    since = max(since, horizon.first_index)
    visible = horizon.frames_that_show(motion.object_id, range(since, newest + 1), min_pixels)
    if not visible or motion.parts:  # what bends has its middle where no pose of the whole puts it
        return
    returned = visible[-1]
    while returned - 1 in visible:
        returned -= 1  # the first frame of its newest appearance
    _place(motion, horizon, [k for k in visible if k >= returned], since)


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
