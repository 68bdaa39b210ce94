"""Objects discovered by their motion: no prompt, no network (`masks.source: motion`).

Pixels that move against the static scene gather evidence (`motion_evidence`); where it forms a group for several
frames an object is born, its outline is fitted to colours, and from then on it is carried like a prompted one
(`mask_carrier`), whether it goes on moving or not. A newborn is on probation: it is shown, and followed back to where
it came from, once it has moved in most of its first frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.priors.carried_masks import CarriedMasks
from motion4d_ros.priors.flow import FlowCache, warp
from motion4d_ros.priors.mask_carrier import color_histogram, similarity, to_lab
from motion4d_ros.types import BoolArray, Frame

BIRTH_HITS = 2  # frames a group must show before it is tried as an object
PROBATION = 8  # frames after which a newborn that hardly moved is dropped
CONFIRM = 3  # frames of motion that end the probation
LOOK_BACK = 12  # frames a confirmed object is followed back
FORGET_AFTER = 64  # frames out of sight


@dataclass(eq=False)
class _Candidate:
    """A group of moving pixels that is not yet an object."""

    mask: BoolArray  # (h, w) in the newest frame
    hits: int = 1
    missed: int = 0


@dataclass(eq=False)
class _Life:
    """What became of an object since its birth."""

    born: int  # frame index
    age: int = 0
    moved: int = 0  # frames in which it moved against the static scene


class MotionMasks(CarriedMasks):
    """A `MaskSource` that finds what moves. Prompts work here, too."""

    def __init__(self, config: Config, flow: FlowCache | None = None) -> None:
        super().__init__(config, flow)
        self._candidates: list[_Candidate] = []
        self._lives: dict[int, _Life] = {}

    def reset(self) -> None:
        """Forgets everything; ids go on."""
        super().reset()
        self._candidates.clear()
        self._lives.clear()

    def _found(self, frame: Frame, evidence: NDArray[np.float32] | None, previous: int | None) -> None:
        if evidence is None or previous is None:
            return
        index = frame.index
        self._follow(index, evidence)
        back = self._flow.between(index, previous)
        for group in self._strays(index, evidence, back):
            self._consider(group)
        for candidate in self._candidates:
            if candidate.missed:
                candidate.mask = warp(candidate.mask, back, nearest=True)
            candidate.missed += 1
            if candidate.missed == 1 and candidate.hits >= BIRTH_HITS:
                self._birth(index, candidate.mask)
                candidate.missed = 99
        self._candidates = [c for c in self._candidates if c.missed <= 3]

    def _consider(self, group: BoolArray) -> None:
        """Counts a group as the continuation of a candidate, or as a new one."""
        matching = [c for c in self._candidates if (c.mask & group).sum() > 0.3 * min(c.mask.sum(), group.sum())]
        if not matching:
            self._candidates.append(_Candidate(group))
            return
        best = max(matching, key=lambda c: c.hits)
        best.mask, best.hits, best.missed = group, best.hits + 1, 0
        self._candidates = [c for c in self._candidates if c is best or c not in matching]

    def _body(self, group: BoolArray) -> BoolArray:
        """The group and what moves between and beside its parts: flat colours that bear no evidence of their own."""
        score = self._evidence.current
        if score is None:
            return group
        size = max(3, round(0.5 * np.sqrt(group.sum())) | 1)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
        near = cv2.morphologyEx(group.astype(np.uint8), cv2.MORPH_CLOSE, kernel) > 0
        grown = near | ((score > 1.5) & (cv2.dilate(group.astype(np.uint8), kernel) > 0))
        _, parts = cv2.connectedComponents((grown | group).astype(np.uint8))
        return np.asarray(np.isin(parts, np.unique(parts[group])) & (parts > 0))

    def _birth(self, index: int, group: BoolArray) -> None:
        mask = fit_outline(self._flow.rgb(index), self._body(group))
        known = self._returned(index, mask)
        if known is not None:
            self._carrier.place(index, known, mask, trust=False)
            return
        object_id, self._next_id = self._next_id, self._next_id + 1
        self._carrier.place(index, object_id, mask)
        self._hidden.add(object_id)
        self._lives[object_id] = _Life(index)

    def _follow(self, index: int, evidence: NDArray[np.float32]) -> None:
        """Ends probations and forgets what has long been out of sight."""
        for object_id, item in list(self._carrier.objects.items()):
            life = self._lives.get(object_id)
            if life is None:  # prompted by a person
                continue
            if item.hidden_for > (FORGET_AFTER if object_id not in self._hidden else 0):
                self._drop(object_id)
                continue
            core = item.soft > 0.7
            life.age += 1
            life.moved += bool(core.any()) and float((evidence[core] > 0.5).mean()) > 0.35
            if object_id in self._hidden and life.moved >= CONFIRM and life.moved >= 0.6 * life.age:
                self._hidden.discard(object_id)
                self._carrier.vouch(object_id)  # the first outline was a guess; this one has seen more
                self._replay_back(index, object_id, item.soft > 0.5, max(0, life.born - LOOK_BACK))
            elif object_id in self._hidden and life.age >= PROBATION:
                self._drop(object_id)

    def _replay_back(self, index: int, object_id: int, mask: BoolArray, back_to: int) -> None:
        item = self._carrier.objects[object_id]
        self._replay(index, object_id, mask, back_to)
        self._carrier.objects[object_id] = item

    def _drop(self, object_id: int) -> None:
        self._carrier.remove(object_id)
        self._hidden.discard(object_id)
        self._lives.pop(object_id, None)

    def _returned(self, index: int, mask: BoolArray) -> int | None:
        """The hidden object that looks like the new one, if any."""
        histogram = color_histogram(to_lab(self._flow.rgb(index)), mask)
        best, best_score = None, 0.6
        for item in self._carrier.objects.values():
            if item.hidden_for > 0 and item.object_id not in self._hidden:
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
        cv2.grabCut(picture, state, None, *models, 3, cv2.GC_INIT_WITH_MASK)
    except cv2.error:  # one colour only
        return closed > 0
    out = np.zeros(group.shape, bool)
    out[box] = (state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)
    overlap = (out & (closed > 0)).sum() / max(1, (out | (closed > 0)).sum())
    return out if overlap > 0.5 else np.asarray(closed > 0)
