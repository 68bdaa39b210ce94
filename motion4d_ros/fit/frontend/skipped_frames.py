"""Frames for which there is no time: told about at once, then let go.

A camera is faster than a fit. In realtime mode only every n-th frame is kept for its window; of the others the pose and
the labels are predicted from the newest kept frame, which costs two fast optical flows and no source is asked. They
leave no trace: no index, no track, no place in the horizon.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from motion4d_ros.config import Config
from motion4d_ros.fit.frontend.intake import Intake, shrink, shrink_image
from motion4d_ros.fit.frontend.object_count import check_count
from motion4d_ros.fit.semantics.mask_fusion import Fused, MaskFusion
from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.priors.flow.optical_flow import consistency, dis_flow
from motion4d_ros.priors.interfaces import FlowSource
from motion4d_ros.types import UNKNOWN_LABEL, FloatArray, Frame, PoseStatus


class SkippedFrames:
    """Predicts frames from the newest kept one. Frames must come in order."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._flow = FlowToKept()

    def look(self, frame: Frame, intake: Intake) -> tuple[FrameState, Fused]:
        """The frame as it probably is, index -1, and its labels at the input's size."""
        last = intake.newest
        assert last is not None, "the first frame is always kept"
        intake.newest_ns = frame.stamp_ns
        state = as_predicted(frame, last, intake.before, self.config, intake.watch.doubt)
        show_labels(state, frame, self.config, intake.fusion)
        link = _Link(intake.tracks.flows, last.index, *self._flow.of(state.frame, last))
        return state, intake.fusion.fuse_newest([*intake.recent, state], link)


class KeptFrame:
    """The newest kept frame and what labels of later ones take from it, as it was when this was made: another thread
    predicts frames from it while the engine works on. Used by one thread. Frames must come in order.
    """

    def __init__(self, config: Config, intake: Intake) -> None:
        assert intake.newest is not None, "the first frame is always kept"
        self.newest, self._before = intake.newest, intake.before
        self._config, self._doubt = config, intake.watch.doubt
        self._fusion = copy.copy(intake.fusion)
        self._recent = intake.recent
        self._known = KnownFlow(self._recent, intake.tracks.flows)
        self._flow = FlowToKept(finest_scale=1)

    def predicted(self, frame: Frame) -> FrameState:
        """The frame as it probably is, index -1, without labels and at the input's size."""
        return as_predicted(frame, self.newest, self._before, self._config, self._doubt)

    def labels(self, state: FrameState) -> Fused:
        """Labels of a frame that was `predicted`, at the input's size; `state` is brought to working size.

        Raises `Motion4DError` for given masks of more objects than there may be.
        """
        frame = state.frame
        if frame.masks is not None:
            check_count(frame.masks, self._config.objects.most)
        show_labels(state, frame, self._config, self._fusion)
        link = _Link(self._known, self.newest.index, *self._flow.of(state.frame, self.newest))
        return self._fusion.fuse_newest([*self._recent, state], link)


class KnownFlow:
    """The flow from each of some kept frames to the one before, which was asked for when they were taken in."""

    def __init__(self, frames: Sequence[FrameState], flows: FlowSource) -> None:
        pairs = [(after.index, before.index) for before, after in pairwise(frames)]
        self._between = {pair: flows.between(*pair) for pair in pairs}
        self._error = {pair: flows.error(*pair) for pair in pairs}

    def between(self, first: int, second: int) -> NDArray[np.float32]:
        """(h, w, 2) px."""
        return self._between[first, second]

    def error(self, first: int, second: int) -> NDArray[np.float32]:
        """(h, w) forward-backward disagreement, px."""
        return self._error[first, second]


def as_predicted(frame: Frame, last: FrameState, before: FrameState | None, config: Config, doubt: str) -> FrameState:
    """A frame by the newest kept one, `last`, and the one kept before that."""
    T_map_cam, status = _pose(frame, last, before, config)
    state = replace(last, frame=frame, T_map_cam=T_map_cam, pose_status=status)
    state.whole, state.outlines, state.published, state.names = None, None, None, {}
    state.warnings = [doubt] if doubt else []
    return state


def show_labels(state: FrameState, frame: Frame, config: Config, fusion: MaskFusion) -> None:
    """Brings `state` of a `frame` of the input's size to working size, with the masks that came with the frame."""
    state.frame = small = shrink(frame, config.budget.working_width)
    given = small.masks if config.masks.source == "topic" else None
    source = np.full(small.camera.size, UNKNOWN_LABEL, np.int32) if given is None else given.astype(np.int32)
    state.guide = shrink_image(frame.image, fusion.size_for(frame.camera.size))
    state.adopt(source)


def _pose(frame: Frame, last: FrameState, before: FrameState | None, config: Config) -> tuple[FloatArray, PoseStatus]:
    """As given, else carried on from the last two kept frames."""
    if frame.T_map_cam is not None and config.pose.source in ("odometry", "tf"):
        return frame.T_map_cam, PoseStatus.OK
    if config.pose.source == "static" or before is None or last.pose_status is PoseStatus.LOST:
        return last.T_map_cam, last.pose_status
    span = last.frame.stamp_ns - before.frame.stamp_ns
    share = min(1.0, (frame.stamp_ns - last.frame.stamp_ns) / max(1, span))
    return carry_on(before.T_map_cam, last.T_map_cam, share), PoseStatus.PREDICTED


class FlowToKept:
    """Flow from frames that come in order to the newest kept one, begun where the last one ended. At half the size
    (`finest_scale` 1) it takes a quarter of the time, and labels lose .002 of their IoU.
    """

    def __init__(self, finest_scale: int = 0) -> None:
        self._finest_scale = finest_scale
        self._reference = -1  # index of the kept frame that `_back` leads to
        self._gray: NDArray[np.uint8] = np.zeros((0, 0), np.uint8)
        self._back: NDArray[np.float32] | None = None

    def of(self, frame: Frame, last: FrameState) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(H, W, 2) flow from the frame to the kept one, and (H, W) px by which it and its reverse disagree."""
        if last.index != self._reference:
            self._reference, self._back = last.index, None
            self._gray = np.asarray(cv2.cvtColor(last.image, cv2.COLOR_RGB2GRAY), np.uint8)
        gray = np.asarray(cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY), np.uint8)
        start = self._back
        finest = self._finest_scale
        back = dis_flow(gray, self._gray, "ultrafast", finest, start)
        forth = dis_flow(self._gray, gray, "ultrafast", finest, None if start is None else -start)
        self._back = back
        return back, consistency(back, forth)


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
