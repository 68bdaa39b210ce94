"""Frames for which there is no time: told about at once, then let go.

A camera is faster than a fit. In realtime mode only every n-th frame is kept for its window; of the others the pose and
the labels are predicted from the newest kept frame, which costs two fast optical flows and no source is asked. They
leave no trace: no index, no track, no place in the horizon.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from motion4d_ros.config import Config
from motion4d_ros.fit.frontend.intake import Intake, shrink, shrink_image
from motion4d_ros.fit.semantics.mask_fusion import Fused
from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.priors.flow.optical_flow import consistency, dis_flow
from motion4d_ros.priors.interfaces import FlowSource
from motion4d_ros.types import UNKNOWN_LABEL, FloatArray, Frame, PoseStatus


class SkippedFrames:
    """Predicts frames from the newest kept one. Frames must come in order."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._reference = -1  # index of the kept frame that `_back` leads to
        self._gray: NDArray[np.uint8] = np.zeros((0, 0), np.uint8)
        self._back: NDArray[np.float32] | None = (
            None  # flow from the last skipped frame to the reference: the next one's start
        )

    def look(self, frame: Frame, intake: Intake) -> tuple[FrameState, Fused]:
        """The frame as it probably is, index -1, and its labels at the input's size."""
        last = intake.newest
        assert last is not None, "the first frame is always kept"
        intake.newest_ns = frame.stamp_ns
        small = shrink(frame, self.config.budget.working_width)
        given = frame.masks if self.config.masks.source == "topic" else None
        source = np.full(small.camera.size, UNKNOWN_LABEL, np.int32) if given is None else given.astype(np.int32)
        T_map_cam, status = self._pose(small, intake)
        state = replace(last, frame=small, T_map_cam=T_map_cam, pose_status=status)
        state.whole, state.outlines, state.published, state.names = None, None, None, {}
        state.guide = shrink_image(frame.image, intake.fusion.size_for(frame.camera.size))
        state.warnings = [intake.watch.doubt] if intake.watch.doubt else []
        state.adopt(source)
        link = _Link(intake.tracks.flows, last.index, *self._flow(small, last))
        return state, intake.fusion.fuse_newest([*intake.recent, state], link)

    def _flow(self, frame: Frame, last: FrameState) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(H, W, 2) flow from the frame to the kept one, and (H, W) px by which it and its reverse disagree; begun
        where the last one ended.
        """
        if last.index != self._reference:
            self._reference, self._back = last.index, None
            self._gray = np.asarray(cv2.cvtColor(last.image, cv2.COLOR_RGB2GRAY), np.uint8)
        gray = np.asarray(cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY), np.uint8)
        start = self._back
        back = dis_flow(gray, self._gray, "ultrafast", initial=start)
        forth = dis_flow(self._gray, gray, "ultrafast", initial=None if start is None else -start)
        self._back = back
        return back, consistency(back, forth)

    def _pose(self, frame: Frame, intake: Intake) -> tuple[FloatArray, PoseStatus]:
        """As given, else carried on from the last two kept frames."""
        last, before = intake.newest, intake.before
        assert last is not None
        if frame.T_map_cam is not None and self.config.pose.source in ("odometry", "tf"):
            return frame.T_map_cam, PoseStatus.OK
        if self.config.pose.source == "static" or before is None or last.pose_status is PoseStatus.LOST:
            return last.T_map_cam, last.pose_status
        span = last.frame.stamp_ns - before.frame.stamp_ns
        share = min(1.0, (frame.stamp_ns - last.frame.stamp_ns) / max(1, span))
        return carry_on(before.T_map_cam, last.T_map_cam, share), PoseStatus.PREDICTED


@dataclass(frozen=True)
class _Link:
    """Flow between kept frames, and from a frame that is not kept (index -1) to the newest of them."""

    kept: FlowSource
    newest: int
    back: NDArray[np.float32]
    disagreement: NDArray[np.float32]

    def between(self, first: int, second: int) -> NDArray[np.float32]:
        return self.back if first == -1 else self.kept.between(first, second)

    def error(self, first: int, second: int) -> NDArray[np.float32]:
        return self.disagreement if first == -1 else self.kept.error(first, second)


def carry_on(T_a: FloatArray, T_b: FloatArray, share: float) -> FloatArray:
    """(4, 4) where a motion from pose `T_a` to `T_b` leads after `share` of that time again."""
    step = np.linalg.inv(T_a) @ T_b
    part = np.eye(4)
    part[:3, :3] = Rotation.from_rotvec(share * Rotation.from_matrix(step[:3, :3]).as_rotvec()).as_matrix()
    part[:3, 3] = share * step[:3, 3]
    return np.asarray(T_b @ part)
