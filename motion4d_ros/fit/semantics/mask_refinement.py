"""Semantic refinement: rendered masks prompt the 2D network, whose new masks train the next round (Motion4D, sec. 3.2).

Per object the network is prompted with the *exact box* of the rendered mask and with positive and negative points at
the maxima of the distance transform of the largest regions where rendered and current mask disagree. The rendered
mask itself is never fed back: networks follow mask prompts too strictly and lose their fine boundaries. Masks of
sources that take no prompts are fused anew with what is rendered (`mask_fusion`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from motion4d_ros.fit.optimisation.targets import Target, label_channels
from motion4d_ros.fit.optimisation.trainer import View
from motion4d_ros.fit.semantics.mask_fusion import MaskFusion, scene_labels
from motion4d_ros.fit.window.horizon import FrameState, Horizon
from motion4d_ros.geometry.label_images import resize_labels, resize_planes
from motion4d_ros.priors.interfaces import MaskSource, TrackSource
from motion4d_ros.types import BoolArray, IntArray, Prompt

MIN_REGION_PX = 12.0  # at working size; smaller disagreements are ragged edges
POINTS_PER_SIGN = 3  # largest regions that get a point


@dataclass
class MaskRefinement:
    """Callable that refreshes the labels of frames and their targets, in place."""

    source: MaskSource
    channel_of: dict[int, int]
    fusion: MaskFusion
    tracks: TrackSource

    def __call__(self, horizon: Horizon, targets: Mapping[int, Target], views: Mapping[int, View]) -> None:
        """Prompts the source where it takes prompts, else fuses its masks anew with what is rendered: `views` by the
        index of their frame.
        """
        scene = {index: scene_labels(self.channel_of, view) for index, view in views.items()}
        if self.source.accepts_prompts:
            for index, shown in scene.items():
                self._ask(horizon.get(index), shown.probability, shown.names)
        else:
            first = horizon.first_index
            shown_at = {index - first: shown for index, shown in scene.items()}
            sure = self.fusion.sure(horizon.frames, self.tracks.flows, sorted(shown_at), shown_at)
            for position, labels in sure.items():
                state = horizon.frames[position]
                state.labels = resize_labels(labels, state.frame.camera.size)
        for index in views:
            target = targets[index]
            channels, known = label_channels(horizon.get(index).labels, self.channel_of)
            target.channels = torch.as_tensor(channels, device=target.channels.device)
            target.known = torch.as_tensor(known, dtype=target.known.dtype, device=target.known.device)

    def _ask(self, state: FrameState, probability: NDArray[np.float32], names: NDArray[np.int64]) -> None:
        """Prompts the source at the size at which it looks, about what it said last."""
        frame = state.shown_to(self.source)
        size = frame.camera.size
        rendered = names[resize_planes(probability, size).argmax(-1)]
        current = resize_labels(state.source_labels(), size)
        smallest = MIN_REGION_PX * frame.camera.width / state.frame.camera.width * size[0] / state.frame.camera.height
        prompts = prompts_for(frame.stamp_ns, rendered, current, smallest)
        fresh = self.source.refresh(frame, prompts) if prompts else None
        if fresh is not None:
            state.keep_outlines(fresh)
            state.labels = resize_labels(fresh, state.frame.camera.size)


def prompts_for(
    stamp_ns: int, rendered: IntArray, current: IntArray, min_region_px: float = MIN_REGION_PX
) -> list[Prompt]:
    """One prompt per object of `rendered` (H, W): its exact box, and points in the largest mismatches with
    `current`.
    """
    prompts = []
    for label in np.unique(rendered[rendered > 0]).tolist():
        mask = rendered == label
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        missing = points_in_regions(mask & (current != label), min_region_px)
        leaked = points_in_regions((current == label) & ~mask, min_region_px)
        prompts.append(
            Prompt(
                stamp_ns=stamp_ns,
                object_id=int(label),
                points_px=np.array([*missing, *leaked], float).reshape(-1, 2),
                positive=np.array([True] * len(missing) + [False] * len(leaked), bool),
                box_px=np.array([columns[0], rows[0], columns[-1], rows[-1]], float),
            )
        )
    return prompts


def points_in_regions(region: BoolArray, min_region_px: float = MIN_REGION_PX) -> list[tuple[float, float]]:
    """(x, y) of the distance transform's maximum in each of the largest connected parts of `region` (H, W)."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=4)
    order = sorted(range(1, count), key=lambda part: -stats[part, cv2.CC_STAT_AREA])[:POINTS_PER_SIGN]
    points = []
    for part in order:
        if stats[part, cv2.CC_STAT_AREA] < min_region_px:
            break
        padded = np.pad((parts == part).astype(np.uint8), 1)  # the image's border is an edge, too
        distance = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
        row, column = np.unravel_index(int(distance.argmax()), distance.shape)
        points.append((float(column), float(row)))
    return points
