"""What a detector says of a frame after that has been taken in: detectors are slower than cameras."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from motion4d_ros.config import Config
from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.priors.interfaces import HearsDetections, MaskSource
from motion4d_ros.types import Detection

SPACED = 8  # newest frames kept that tell how far apart they are


def hear_late(
    states: Sequence[FrameState], masks: MaskSource, stamp_ns: int, detections: tuple[Detection, ...], config: Config
) -> bool:
    """Hands detections, in pixels of the input image, to the frame of `states` within `ros.slop` of their stamp and to
    the mask source; whether there is such a frame.

    In realtime mode, where not every frame is kept, the nearest one will do, unless it has detections of its own.
    """
    nearest = min(states, key=lambda state: abs(state.frame.stamp_ns - stamp_ns), default=None)
    if nearest is None:
        return False
    apart_ns = abs(nearest.frame.stamp_ns - stamp_ns)
    if apart_ns > config.ros.slop * 1e9:
        spacing_ns = float(np.diff([state.frame.stamp_ns for state in states[-SPACED:]]).max(initial=0))
        if config.budget.mode != "realtime" or apart_ns > spacing_ns / 2:
            return False
        if nearest.frame.detections is not None:
            return True
    nearest.hear_detections(detections)
    if isinstance(masks, HearsDetections):
        shown = nearest.shown_to(masks)
        whole = shown.camera.size == nearest.output_camera.size
        masks.hear_detections(shown, detections if whole else nearest.frame.detections or ())
    return True
