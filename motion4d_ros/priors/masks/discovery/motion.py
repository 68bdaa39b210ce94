"""`masks.discovery: motion`: what moves by itself is proposed, with the region in which it was seen to move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from motion4d_ros.config import Config
from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.priors.interfaces import DepthPrior, PosePrior, SceneHint
from motion4d_ros.priors.masks.discovery.motion_masks import MotionMasks
from motion4d_ros.priors.masks.discovery.proposals import Proposal, inner_points, scaled_box, scaled_pixels
from motion4d_ros.types import Detection, FloatArray, Frame, IntArray

WHOLE = 0.5  # share of its usual area from which a thing is taken to be in view as a whole
LEAST_PX = 16  # of a region, at the size at which motion is looked at


class MotionDiscovery:
    """`MotionMasks` as a discovery: its objects are proposals, and those it gives up are taken back."""

    def __init__(self, config: Config) -> None:
        self.flow = FlowCache(keep=config.window.horizon, far_finest_scale=1)  # others need it, too
        self._motion = MotionMasks(config, self.flow)
        self._size = (0, 0)  # of the images
        self._first: dict[int, int] = {}  # key -> first frame that has shown it
        self._gone: set[int] = set()
        self._changed: set[int] = set()

    def look(self, frame: Frame, pose: PosePrior, depth: DepthPrior | None) -> None:
        """Its measured pose and depth say what a static scene would show."""
        self._motion.look(frame, pose, depth)

    def push(self, frame: Frame, hint: SceneHint | None) -> None:
        """Watches the next frame; given masks are none of its business."""
        self._size = frame.camera.size
        self._motion.masks(replace(frame, masks=None), hint)
        self._note(frame.index)

    def hear(self, frame: Frame, detections: Sequence[Detection], outlined: IntArray) -> None:
        """Nothing: boxes do not tell what moves."""

    def revise_poses(self, poses: dict[int, FloatArray]) -> None:
        """The camera's path decides what moves against the scene."""
        self._motion.revise_poses(poses)

    def finish(self) -> None:
        """The last frames are looked at again."""
        self._motion.finish()
        if self.flow.indices:
            self._note(self.flow.indices[-1])

    def proposals(self, kept: Sequence[int]) -> list[Proposal]:
        """Things shown in the newest frame, each in the earliest frame kept that shows it as a whole."""
        regions = {index: labels for index in kept if (labels := self.regions(index)) is not None}
        if not regions:
            return []
        newest = regions[max(regions)]
        found = []
        for key in np.unique(newest[newest > 0]).tolist():
            areas = {index: int((labels == key).sum()) for index, labels in regions.items()}
            usual = float(np.median([area for area in areas.values() if area]))
            shown = [index for index, area in sorted(areas.items()) if area >= max(LEAST_PX, WHOLE * usual)]
            if shown:
                found.append(self._proposal(int(key), shown[0], regions[shown[0]]))
        return found

    def gone(self) -> set[int]:
        """Those of which no frame shows anything any more, though the one that showed them first is still held."""
        gone, self._gone = self._gone, set()
        return gone

    def changed(self) -> set[int]:
        """Frames whose regions have changed."""
        changed, self._changed = self._changed, set()
        return changed

    def regions(self, index: int) -> IntArray | None:
        """(h, w) keys of what moves, or has moved."""
        return self._motion.labels_at(index)

    def reset(self) -> None:
        """Forgets everything; keys go on."""
        self._motion.reset()
        self._first.clear()
        self._gone.clear()
        self._changed.clear()

    def _note(self, newest: int) -> None:
        """Finds out what has changed in hindsight: what is shown, and what no longer is."""
        self._changed |= set(self._motion.revised_masks()) | {newest}
        held = self.flow.indices
        shown: dict[int, int] = {}
        for index in held[::-1]:
            labels = self.regions(index)
            for key in () if labels is None else np.unique(labels[labels > 0]).tolist():
                shown[key] = index  # the first frame, in the end
        for key, first in list(self._first.items()):
            if key not in shown:
                del self._first[key]
                if held and first >= held[0]:  # else it has merely been out of sight for long
                    self._gone.add(key)
        for key, first in shown.items():
            self._first[key] = min(first, self._first.get(key, first))

    def _proposal(self, key: int, index: int, labels: IntArray) -> Proposal:
        region = labels == key
        height, width = self._size
        points = np.clip(scaled_pixels(inner_points(region), region.shape, self._size), 0, [width - 1, height - 1])
        return Proposal(key, index, scaled_box(region, self._size), points, region)
