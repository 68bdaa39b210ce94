"""Objects discovered by their motion: no prompt, no network (`masks.source: motion`).

Pixels that move against the static scene gather evidence (`motion_evidence`); where it forms a group for several frames
an object is born, its outline is fitted to colours, and from then on it is carried like a prompted one
(`mask_carrier`), whether it goes on moving or not. Ids are never reused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.priors.base import SceneHint
from motion4d_ros.priors.flow import FlowCache, warp
from motion4d_ros.priors.mask_carrier import MaskCarrier, color_histogram, similarity, to_lab
from motion4d_ros.priors.motion_evidence import MotionEvidence, rigid_flow, shadow_like
from motion4d_ros.priors.prompted_masks import grow_labels
from motion4d_ros.types import BoolArray, Frame, IntArray, Prompt

BIRTH_EVIDENCE = 1.2
BIRTH_HITS = 3  # frames a group must show before it is an object
MIN_AREA_SHARE = 0.0008  # of the image
HALO = 5  # px around known objects where flow is smeared


@dataclass(eq=False)
class _Candidate:
    """A group of moving pixels that is not yet an object."""

    mask: BoolArray  # (h, w) in the newest frame
    hits: int = 1
    missed: int = 0


class MotionMasks:
    """A `MaskSource` that finds what moves. Works at the flow's size (480 px at most); labels come at the input's."""

    accepts_prompts = False  # `refresh` would need a segmentation network

    def __init__(self, config: Config, flow: FlowCache | None = None) -> None:
        self._flow = flow or FlowCache(keep=config.window.horizon)
        self._carrier = MaskCarrier(self._flow)
        self._evidence = MotionEvidence(self._flow)
        self._next_id = 1
        self._candidates: list[_Candidate] = []
        self._gone: dict[int, NDArray[np.floating]] = {}
        self._poses: dict[int, NDArray[np.floating]] = {}
        self._size: tuple[int, int] | None = None

    def reset(self) -> None:
        """Forgets everything; ids go on."""
        self._flow.reset()
        self._carrier.reset()
        self._evidence.reset()
        self._candidates.clear()
        self._gone.clear()
        self._poses.clear()
        self._size = None

    def masks(self, frame: Frame, hint: SceneHint | None) -> IntArray:
        """(H, W) object ids of the next frame."""
        if self._size is not None and self._size != frame.camera.size:
            self.reset()
        self._size = frame.camera.size
        self._flow.push(frame)
        index = frame.index
        carrier = self._carrier
        previous = carrier.last_index
        if previous is None:
            carrier.start(index)
        exclude = self._expected(index, previous)
        evidence = self._evidence.push(index, exclude, self._rigid(frame, hint))
        carrier.advance(index, self._votes(evidence))
        if evidence is not None and previous is not None:
            self._discover(index, previous, evidence)
        if hint is not None and hint.masks is not None:
            height, width = self._flow.size
            predicted = cv2.resize(hint.masks.astype(np.int32), (width, height), interpolation=cv2.INTER_NEAREST)
            carrier.recall(np.asarray(predicted))
        return grow_labels(carrier.labels(), frame.camera.size)

    def refresh(self, frame: Frame, prompts: Sequence[Prompt]) -> IntArray | None:
        """None: this source has no network to ask."""
        return None

    def prompt(self, frame: Frame, prompt: Prompt) -> None:
        """Takes a person's word as `PromptedMasks` does."""
        raise NotImplementedError

    def _expected(self, index: int, previous: int | None) -> BoolArray | None:
        """(h, w) where known objects probably are in the newest frame."""
        if previous is None or not self._carrier.objects or not self._flow.has(previous):
            return None
        union = np.max([item.soft for item in self._carrier.objects.values()], axis=0)
        moved = (warp(union, self._flow.between(index, previous)) > 0.4).astype(np.uint8)
        return np.asarray(cv2.dilate(moved, np.ones((2 * HALO + 1,) * 2, np.uint8)) > 0)

    def _votes(self, evidence: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        return None if evidence is None else np.clip(evidence, -1.0, 2.0)

    def _rigid(self, frame: Frame, hint: SceneHint | None) -> dict[int, NDArray[np.float32]] | None:
        """Flow a static scene would show towards older frames, where measured depth and poses allow."""
        T, depth = frame.T_map_cam, frame.depth_m
        if T is not None:
            self._poses[frame.index] = T
        self._poses = {i: p for i, p in self._poses.items() if self._flow.has(i)}
        if T is None or depth is None:
            return None
        height, width = self._flow.size
        camera = frame.camera.scaled(height / frame.camera.height)
        if (camera.height, camera.width) != (height, width):
            return None
        valid = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
        small = cv2.resize(valid, (width, height), interpolation=cv2.INTER_NEAREST)
        return {
            other: rigid_flow(small, camera, np.linalg.inv(T_other) @ T)
            for other, T_other in self._poses.items()
            if other != frame.index and frame.index - other in (1, self._evidence.span)
        }

    # ---- discovery --------------------------------------------------------------------------------------------------

    def _discover(self, index: int, previous: int, evidence: NDArray[np.float32]) -> None:
        height, width = evidence.shape
        least = max(30.0, MIN_AREA_SHARE * height * width)
        moving = (evidence > BIRTH_EVIDENCE).astype(np.uint8)
        known = self._carrier.labels() > 0
        halo = cv2.dilate(known.astype(np.uint8), np.ones((2 * HALO + 1,) * 2, np.uint8)) > 0
        moving[halo] = 0
        moving = np.asarray(cv2.morphologyEx(moving, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)))
        count, parts, stats, _ = cv2.connectedComponentsWithStats(moving, connectivity=8)
        groups = [parts == k for k in range(1, count) if stats[k, cv2.CC_STAT_AREA] >= least]
        back = self._flow.between(index, previous)
        for candidate in self._candidates:
            candidate.mask = warp(candidate.mask, back, nearest=True)
            candidate.missed += 1
        for group in groups:
            if self._is_thin(group) or self._is_shadow(index, group):
                continue
            matching = [c for c in self._candidates if (c.mask & group).sum() > 0.3 * min(c.mask.sum(), group.sum())]
            if matching:
                best = max(matching, key=lambda c: c.hits)
                best.mask, best.hits, best.missed = group, best.hits + 1, 0
                self._candidates = [c for c in self._candidates if c is best or c not in matching]
            else:
                self._candidates.append(_Candidate(group))
        for candidate in [c for c in self._candidates if c.hits >= BIRTH_HITS and c.missed == 0]:
            self._birth(index, candidate.mask)
            self._candidates.remove(candidate)
        self._candidates = [c for c in self._candidates if c.missed <= 3]

    @staticmethod
    def _is_thin(group: BoolArray) -> bool:
        """Slivers are smeared flow at outlines, not objects."""
        return float(cv2.distanceTransform(group.astype(np.uint8), cv2.DIST_L2, 3).max()) < 3.0

    def _is_shadow(self, index: int, group: BoolArray) -> bool:
        """Whether the group looks like the static scene in another light."""
        static = self._evidence.static_span
        older = [i for i in self._flow.indices if i <= index - self._evidence.span]
        if static is None or not older:
            return False
        height, width = group.shape
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        before = cv2.warpPerspective(self._flow.rgb(older[-1]), static.homography, (width, height), flags=flags)
        return shadow_like(self._flow.rgb(index), np.asarray(before), group) > 0.6

    def _birth(self, index: int, group: BoolArray) -> None:
        mask = fit_outline(self._flow.rgb(index), group)
        object_id = self._returned(index, mask)
        if object_id is None:
            object_id, self._next_id = self._next_id, self._next_id + 1
        self._carrier.place(index, object_id, mask)

    def _returned(self, index: int, mask: BoolArray) -> int | None:
        """The hidden object that looks like the new one, if any."""
        histogram = color_histogram(to_lab(self._flow.rgb(index)), mask)
        best, best_score = None, 0.6
        for item in self._carrier.objects.values():
            if item.hidden_for > 0:
                score = similarity(item.inside, histogram)
                if score > best_score:
                    best, best_score = item.object_id, score
        return best


def fit_outline(rgb: NDArray[np.uint8], group: BoolArray, margin: int = 12) -> BoolArray:
    """(h, w) the outline that colours suggest for a roughly found `group` (GrabCut in a band around its edge)."""
    mask = group.astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    closed = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel, iterations=2))
    wide = cv2.dilate(closed, np.ones((2 * margin + 1,) * 2, np.uint8))
    rows, cols = np.flatnonzero(wide.any(1)), np.flatnonzero(wide.any(0))
    box = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
    depth = cv2.distanceTransform(closed, cv2.DIST_L2, 3)[box]
    state = np.full(depth.shape, cv2.GC_BGD, np.uint8)
    state[cv2.dilate(closed, kernel)[box] > 0] = cv2.GC_PR_BGD
    state[closed[box] > 0] = cv2.GC_PR_FGD
    state[depth > 0.6 * depth.max()] = cv2.GC_FGD
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    try:
        picture = np.ascontiguousarray(rgb[box][..., ::-1])
        cv2.grabCut(picture, state, None, *models, 3, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    except cv2.error:  # one colour only
        return closed > 0
    out = np.zeros(group.shape, bool)
    out[box] = (state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)
    overlap = (out & (closed > 0)).sum() / max(1, (out | (closed > 0)).sum())
    return out if overlap > 0.5 else np.asarray(closed > 0)
