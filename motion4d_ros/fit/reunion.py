"""Objects that were lost: recognised in the frames since, or at least put where their mask is."""

from __future__ import annotations

import numpy as np

from motion4d_ros.config import GeometryConfig
from motion4d_ros.fit.horizon import FrameState, Horizon
from motion4d_ros.fit.keyframes import Keyframes
from motion4d_ros.fit.object_motion import ObjectMotion
from motion4d_ros.fit.reacquire import describe, find_motion

MOST_FRAMES = 2  # frames of an appearance in which a lost object is looked for


class Reunions:
    """Looks for lost objects; remembers which keyframes are to be linked to which frames because of it."""

    def __init__(self, options: GeometryConfig, keyframes: Keyframes, seed: int) -> None:
        self.options = options
        self.keyframes = keyframes
        self.links: set[tuple[int, int]] = set()  # (keyframe, frame), to be linked whatever their distance
        self._random = np.random.default_rng(seed)

    def seek(self, motion: ObjectMotion, horizon: Horizon) -> None:
        """Looks for an object that was lost, where it is seen best since, in the keyframes that saw it best before.

        When it is found, all its poses since then move along: they were right among themselves, not as a whole.
        """
        since = motion.detached_at
        assert since is not None
        label, least = motion.object_id, self.options.reunion_pixels
        areas = {state.index: int((state.labels == label).sum()) for state in horizon.frames if state.index >= since}
        visible = [k for k, area in areas.items() if area >= least]
        for index in sorted(visible, key=lambda k: -areas[k])[:MOST_FRAMES]:
            if self._recognise(motion, horizon, index, since):
                motion.detached_at = None
                return
        if not visible:
            return
        returned = visible[-1]
        while returned - 1 in visible:
            returned -= 1  # the first frame of its newest appearance
        if returned not in motion.placed:
            motion.placed.add(returned)
            newest = [k for k in visible if k >= returned]
            self._place(motion, horizon.get(max(newest, key=lambda k: areas[k])), newest)

    def forget_before(self, index: int) -> None:
        """Drops what is older than frame `index`."""
        self.links = {pair for pair in self.links if pair[0] >= index}

    def _recognise(self, motion: ObjectMotion, horizon: Horizon, index: int, since: int) -> bool:
        """Whether features of an older keyframe were found again in frame `index`; moves the object there."""
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
            correction = found @ motion.matrix(keyframe) @ np.linalg.inv(motion.matrix(index))
            seen = [other.index for other in horizon.frames if other.index >= since and (other.labels == label).any()]
            motion.shift(correction, seen)
            self.links.update((keyframe, k) for k in seen if abs(k - index) <= self.options.keyframe_reach)
            motion.points.clear()  # those picked while it was lost are where it was not; they are lifted anew
            return True
        return False

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
        away = seen_cam - np.median(facing, axis=0)
        radius = float(np.median(np.linalg.norm(expected - np.median(expected, axis=0), axis=1)))
        if np.linalg.norm(away) < radius:
            return  # a half-hidden object's middle is no better known than that
        correction = np.eye(4)
        correction[:3, 3] = state.T_map_cam[:3, :3] @ away
        motion.shift(correction, frames)


def frame_depth(state: FrameState) -> float:
    """Median depth of a frame, m (or scene units)."""
    finite = state.depth_m[np.isfinite(state.depth_m)]
    return float(np.median(finite)) if finite.size else 1.0
