"""Segments frames into rigid bodies that move, one after another, with a few frames of hindsight.

Every frame begins with the outlines of the one before, carried along. In turns, each object's motion is fitted to its
pixels over the frames around (`rigid_motion`), and pixels go to what explains them: an object or the static scene. What
moves and is explained by nothing is divided into bodies by trying patches (RANSAC), which are joined to an object that
they move as one with, or become objects. Rather too many at first: two that touch are one as soon as a single motion
has explained both of them for some frames; what looks alike is believed sooner.
"""

from __future__ import annotations

import itertools
from collections import deque
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.image_warping import warp
from motion4d_ros.geometry.smoothing import domain_transform
from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.priors.masks.discovery.regions import grown, opened, parts, touch
from motion4d_ros.priors.masks.discovery.rigid_motion import (
    SPAN,
    Image,
    Trajectories,
    apartness,
    fit_body,
    misfit,
    trajectories,
)
from motion4d_ros.priors.masks.discovery.rigid_search import LEAST_PART, bodies_among
from motion4d_ros.priors.masks.discovery.segment import Segment
from motion4d_ros.priors.masks.discovery.static_scene import FOLLOWED, MOVES, Still, stillness
from motion4d_ros.priors.masks.propagation.mask_cues import (
    bounding_box,
    color_bins,
    color_histogram,
    similarity,
    softmax,
    to_lab,
)
from motion4d_ros.types import BoolArray, Camera, FloatArray

LEAST_BIRTH, HIDDEN = 90, 25  # px of a new object, and below which one is out of sight
BORDER = 10  # px at the edge of the image, where no object is born: what comes in has not been followed
REACH = 12  # px that an outline can grow in a frame
TOUCHING = 8  # px between parts of one thing
MOTION, COLOR, PRIOR, SMOOTH = 2.0, 0.35, 0.6, 3.6  # weights of the votes for a pixel, log-odds
STILL_FIRST = 0.3  # standard deviations by which stillness is preferred
UNSEEN_COLOR = 1.0  # most that colours never seen on an object speak against it: it may turn
SPREAD = 5.0  # px over which the carried outline is uncertain
ROUNDS, MEAN_FIELD = 3, 3
UNEXPLAINED = 1.6  # misfit of an object's own pixels from which another body is looked for among them
SLIVER = 3  # px, narrowest region of an object in which another body is looked for: something that comes into view
JOIN, JOIN_ALIKE = 0.7, 0.15  # apartness up to which two are one: without, and more with likeness of colours
ADD, ADD_ALIKE = 0.5, 0.15  # the same for a part that is found beside an object: seen in one frame only
ALIKE = 0.6  # likeness of colours from which it counts
TOGETHER, MEMORY = 3, 4  # frames in which two must have been compared, and over which their apartness is averaged
FULL_VIEW = SPAN + 2  # frames around, from which it is asked who is one: at the ends too little is seen
APART = 4  # frames of separation after which two stay two
PROBATION, REVIEW = 5, 12  # frames after which it is asked whether an object has moved in most of them
EARLY, DECIDED = 3, 1.0  # frames after which it may be shown, if stillness explains it so much worse than its body does
RESIDUE = 0.5  # share of its size to which an object has shrunk where only its background may be left of it
UNEXPECTED = 0.2  # what being off the expected place weighs against likeness of colours
SAME_LOOK = 0.5  # likeness of colours above which a newcomer is a hidden object, and below which a residue is none
YOUNG = 10  # frames in which a newcomer may still turn out to be an old acquaintance
MOST_STRAY = 0.012  # share of the picture that may move besides the objects where bodies are believed
MOST_NOISE = 0.33  # standard deviations of flow that the static scene may leave there
JUDGED = 64  # frames over which it is judged how well the static scene is explained
MOST_MOVING = 0.5  # of the picture, beyond which nothing is born


@dataclass
class _Frame:
    """What is known of the frame that is being segmented."""

    rgb: NDArray[np.uint8]
    lab: NDArray[np.float32]
    bins: NDArray[np.int64]
    tracks: Trajectories
    still: Still
    occupied: BoolArray  # (h, w) somebody else's


@dataclass
class RigidSegmentation:
    """The moving bodies of one camera's frames, held by a shared `FlowCache`; new ids come from `next_id`."""

    flow: FlowCache
    next_id: int = 1
    objects: dict[int, Segment] = field(default_factory=dict)
    became: dict[int, int] = field(default_factory=dict)  # id -> the object it turned out to be; 0: nothing
    last: int | None = None  # newest segmented frame
    _judged: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=JUDGED))  # stray, noise of `Still`
    _pairs: dict[tuple[int, int], tuple[int, float]] = field(default_factory=dict)  # comparisons and mean apartness
    _apart: dict[tuple[int, int], int] = field(default_factory=dict)

    def reset(self) -> None:
        """Forgets everything; ids go on."""
        self.objects.clear()
        self.became.clear()
        self._pairs.clear()
        self._judged.clear()
        self._apart.clear()
        self.last = None

    @property
    def clear(self) -> bool:
        """Whether the static scene is so well explained that what moves besides is to be believed.

        By the median of the last frames: in the first ones much is not known to be an object yet.
        """
        if not self._judged:
            return False
        stray, noise = np.median(self._judged, axis=0)
        return bool(stray < MOST_STRAY and noise < MOST_NOISE)

    @property
    def hopeless(self) -> bool:
        """Whether enough frames have been judged to see that the static scene is not explained well enough here."""
        return len(self._judged) >= JUDGED // 8 and not self.clear

    def final(self, object_id: int) -> int:
        """The id of the object that a body has turned out to be by now; 0: none."""
        while object_id in self.became:
            object_id = self.became[object_id]
        return object_id

    def forget(self, shown: set[int], after: int) -> None:
        """Drops what has been hidden for more than `after` frames, and all ids that are neither `shown` nor objects."""
        last = self.last or 0
        self.objects = {
            key: item for key, item in self.objects.items() if not item.hidden or last - item.index <= after
        }
        kept = shown | set(self.objects)
        self.became = {key: into for key, into in ((key, self.final(key)) for key in kept) if key != into}
        self._pairs = {pair: told for pair, told in self._pairs.items() if kept.issuperset(pair)}
        self._apart = {pair: count for pair, count in self._apart.items() if kept.issuperset(pair)}

    def remove(self, object_id: int) -> None:
        """Forgets one object."""
        self.objects.pop(object_id, None)

    def step(
        self,
        index: int,
        newest: int,
        occupied: BoolArray | None = None,
        poses: dict[int, FloatArray] | None = None,
        camera: Camera | None = None,
    ) -> NDArray[np.int32] | None:
        """(h, w) ids of the bodies in frame `index`, with the frames up to `newest` in view; frames in order.

        `occupied` (h, w): what is accounted for by others. `poses`, `camera` as for `stillness`. None when the frame
        can't be compared with others. Objects that have not proved to move are among the ids: see `Segment.proved`.
        """
        tracks = trajectories(self.flow, index, newest)
        if tracks is None:
            return None
        prior = self._carried(index)
        others = np.zeros(self.flow.size, bool) if occupied is None else occupied
        known = np.max([others.astype(np.float32), *prior.values()], axis=0) > 0.3
        exclude = grown(known, 5) if known.any() else None
        still = stillness(self.flow, tracks, exclude, poses or {}, camera)
        self._judged.append((still.stray, still.noise))
        rgb = self.flow.rgb(index)
        lab = to_lab(rgb)
        frame = _Frame(rgb, lab, color_bins(lab), tracks, still, others)
        masks = {key: soft > 0.5 for key, soft in prior.items()}
        soft, fits = self._assign(frame, masks, prior)
        born = self._newcomers(frame, soft, fits)
        if born:
            for part in born:
                self._take_in(frame, part, masks, prior)
            soft, fits = self._assign(frame, masks, prior)
        self._join(frame, soft)
        self.last = index
        return self._conclude(frame, soft, fits)

    # ---- whose is a pixel? ------------------------------------------------------------------------------------------

    def _carried(self, index: int) -> dict[int, Image]:
        """(h, w) soft outlines of the frame before, in this one, of what is in sight."""
        if self.last is None or not self.flow.has(self.last):
            return {}
        back = self.flow.between(index, self.last)
        return {key: warp(item.soft, back) for key, item in self.objects.items() if not item.hidden}

    def _assign(
        self, frame: _Frame, masks: dict[int, BoolArray], prior: dict[int, Image]
    ) -> tuple[dict[int, Image], dict[int, Image]]:
        """(h, w) probabilities of all objects, and the misfit of their bodies near them."""
        soft = {key: mask.astype(np.float32) for key, mask in masks.items()}
        shape = frame.occupied.shape
        near = np.max([np.zeros(shape), *(np.maximum(soft[key], prior[key]) for key in soft)], axis=0) > 0.2
        region = grown(near, REACH)
        box = bounding_box(region, 0)
        if box is None or not near.any():
            return {key: np.zeros(shape, np.float32) for key in masks}, {}
        claimed = np.max(list(soft.values()), axis=0)
        around = color_histogram(frame.lab, region & (claimed < 0.2))
        wide = {key: 0.5 * p + 0.5 * cv2.GaussianBlur(p, (0, 0), SPREAD) for key, p in prior.items()}
        nobody = np.log(1.02 - np.clip(np.max(list(wide.values()), axis=0), 0, 1))
        still = -MOTION * (frame.still.misfit - STILL_FIRST) + PRIOR * nobody
        moving = frame.still.misfit > 1.0
        picture = np.ascontiguousarray(frame.rgb[box])
        keys = [key for key in self.objects if key in soft]
        looks = {key: self._looks(key, frame.bins[box], around) for key in keys}
        fits: dict[int, Image] = {}
        for _ in range(ROUNDS):
            votes = [still[box]]
            for key in keys:
                mine = soft[key] > 0.5
                core = mine & moving
                body = fit_body(frame.tracks, core if core.sum() > max(40, 0.3 * mine.sum()) else mine)
                if body is not None:
                    fits[key] = cv2.blur(misfit(frame.tracks, body, region), (3, 3))
                off = fits[key][box] if key in fits else np.full(picture.shape[:2], 1.5, np.float32)
                votes.append(-MOTION * off + COLOR * looks[key] + PRIOR * np.log(wide[key][box] + 0.02))
            state = unary = np.stack(votes, -1)
            for _ in range(MEAN_FIELD):
                state = unary + SMOOTH * domain_transform(softmax(state), picture, 8.0, 28.0)
            share = softmax(state)
            for k, key in enumerate(keys):
                full = np.zeros(shape, np.float32)
                full[box] = share[..., k + 1]
                full[~region | frame.occupied] = 0
                soft[key] = full
        return soft, fits

    def _looks(self, key: int, bins: NDArray[np.int64], around: FloatArray) -> FloatArray:
        """(h, w) log-odds that colours are an object's and not those `around` it."""
        ratio = np.log((self.objects[key].colors + 2e-4) / (around + 2e-4))
        return np.asarray(np.clip(ratio, -UNSEEN_COLOR, 3.0)[bins])

    # ---- new bodies -------------------------------------------------------------------------------------------------

    def _newcomers(self, frame: _Frame, soft: dict[int, Image], fits: dict[int, Image]) -> list[BoolArray]:
        """Bodies among the pixels (h, w) that move and that nobody explains."""
        off, tracks = frame.still.misfit, frame.tracks
        if float((off > 1.0).mean()) > MOST_MOVING:
            return []
        taken = np.max([frame.occupied.astype(np.float32), *soft.values()], axis=0) > 0.5
        alone = opened((off > MOVES) & ~grown(taken, 2), 5)
        wrong = np.zeros_like(taken)
        for key, fit in fits.items():
            wrong |= (soft[key] > 0.5) & (cv2.blur(fit, (5, 5)) > UNEXPLAINED) & (off > MOVES)
        inner = np.zeros_like(taken)
        inner[BORDER:-BORDER, BORDER:-BORDER] = True
        inner &= tracks.seen >= min(FOLLOWED, len(tracks.offsets))
        found: list[BoolArray] = []
        for region in parts((alone | opened(wrong, SLIVER)) & inner, LEAST_PART):
            if frame.still.speaks[region].mean() > 0.2:
                found += bodies_among(tracks, region)
        while len(found) > 1:  # parts of one body
            pairs = [
                (a, b) for a, b in itertools.combinations(range(len(found)), 2) if touch(found[a], found[b], TOUCHING)
            ]
            worse = {pair: apartness(tracks, found[pair[0]], found[pair[1]]) for pair in pairs}
            told = {pair: value for pair, value in worse.items() if value is not None and value < JOIN}
            if not told:
                break
            a, b = min(told, key=lambda pair: told[pair])
            found[a] = found[a] | found[b]
            del found[b]
        return found

    def _take_in(self, frame: _Frame, part: BoolArray, masks: dict[int, BoolArray], prior: dict[int, Image]) -> None:
        """Adds a body to the object it moves as one with, or lets a hidden or a new object begin."""
        colors = color_histogram(frame.lab, part)
        best, least = None, np.inf
        for key, mask in masks.items():
            if mask.sum() < LEAST_BIRTH or not touch(mask, part, TOUCHING):
                continue
            worse = apartness(frame.tracks, mask, part)
            allowed = ADD + ADD_ALIKE * _likeness(self.objects[key].colors, colors)
            if worse is not None and worse < min(allowed, least):
                best, least = key, worse
        if best is not None:
            masks[best] = masks[best] | part
            return
        if part.sum() < LEAST_BIRTH:
            return
        known = self._acquaintance(frame.tracks.index, part, colors)
        if known is None:
            known = Segment(self.next_id, part.astype(np.float32), colors)
            self.objects[known.object_id] = known
            self.next_id += 1
        known.hidden = False
        masks[known.object_id] = part
        prior[known.object_id] = 0.6 * cv2.GaussianBlur(part.astype(np.float32), (0, 0), 2.0)

    def _acquaintance(self, index: int, mask: BoolArray, colors: FloatArray, besides: int = 0) -> Segment | None:
        """The hidden object that a newcomer looks like, if any: the likest, and the one that was expected there."""
        place = np.argwhere(mask).mean(0)[::-1]

        def unlikely(item: Segment) -> float:
            expected, astray = item.expected(index)
            far = min(2.0, float(np.linalg.norm(place - expected)) / astray)
            return UNEXPECTED * far - similarity(item.colors, colors)

        hidden = [
            item
            for item in self.objects.values()
            if item.hidden and item.proved and item.object_id != besides and not self._are_two(item.object_id, besides)
        ]
        best = min(hidden, key=unlikely, default=None)
        return best if best is not None and similarity(best.colors, colors) > SAME_LOOK else None

    # ---- one or two? ------------------------------------------------------------------------------------------------

    def _are_two(self, a: int, b: int) -> bool:
        return self._apart.get((min(a, b), max(a, b)), 0) >= APART

    def _join(self, frame: _Frame, soft: dict[int, Image]) -> None:
        """Joins objects that touch and have moved as one for some frames; notes who is apart."""
        large = [key for key in soft if (soft[key] > 0.5).sum() >= LEAST_BIRTH]
        if len(large) < 2 or len(frame.tracks.offsets) < FULL_VIEW:
            return
        union = np.max([soft[key] for key in large], axis=0) > 0.5
        _, groups = cv2.connectedComponents(grown(union, 5).astype(np.uint8))
        home = {key: set(np.unique(groups[soft[key] > 0.5]).tolist()) for key in large}
        moving = frame.still.misfit
        for a, b in itertools.combinations(sorted(large), 2):
            if a not in soft or b not in soft:
                continue
            first, second = soft[a] > 0.5, soft[b] > 0.5
            if not first.any() or not second.any():
                continue
            if not touch(first, second, TOUCHING):
                if not home[a] & home[b]:
                    self._apart[a, b] = self._apart.get((a, b), 0) + 1
                continue
            if self._are_two(a, b) or min(np.median(moving[first]), np.median(moving[second])) < 1.0:
                continue  # what stands still moves as one with everything that does
            worse = apartness(frame.tracks, first, second)
            if worse is None:
                continue
            count, mean = self._pairs.get((a, b), (0, 0.0))
            count += 1
            mean += (worse - mean) / min(count, MEMORY)
            self._pairs[a, b] = count, mean
            alike = _likeness(self.objects[a].colors, self.objects[b].colors)
            if count >= TOGETHER and mean < JOIN + JOIN_ALIKE * alike:
                soft[a] = np.maximum(soft[a], soft.pop(b))
                self._rename(b, a)

    def _rename(self, object_id: int, into: int) -> None:
        """An object turns out to be another one, or (0) none."""
        item = self.objects.pop(object_id)
        self.became[object_id] = into
        if into:
            self.objects[into].proved |= item.proved

    # ---- the end of a frame -----------------------------------------------------------------------------------------

    def _conclude(self, frame: _Frame, soft: dict[int, Image], fits: dict[int, Image]) -> NDArray[np.int32]:
        """(h, w) ids; objects grow older, are hidden, come back, or turn out to be none."""
        out = np.zeros(frame.occupied.shape, np.int32)
        index = frame.tracks.index
        moving = {key for key, p in soft.items() if frame.still.moves(p > 0.8)}
        for key, p in soft.items():
            item, mask, core = self.objects[key], p > 0.5, p > 0.8
            if mask.sum() < HIDDEN:
                item.hidden, item.soft = True, np.zeros_like(p)
                continue
            item.hidden, item.soft = False, p
            item.seen_at(index, mask)
            item.seen, item.moved = item.seen + 1, item.moved + (key in moving)
            item.size = max(0.98 * item.size, float(mask.sum()))
            if item.seen == item.moved == EARLY and len(frame.tracks.offsets) >= FULL_VIEW and key in fits:
                item.proved |= bool(np.median((frame.still.misfit - fits[key])[mask]) > DECIDED)
            if item.seen in (PROBATION, REVIEW):
                item.proved = item.moved >= 0.6 * item.seen
                if not item.proved:
                    self._rename(key, 0)
                    continue
            colors = color_histogram(frame.lab, core)
            if key in moving:
                item.colors = 0.9 * item.colors + 0.1 * colors if item.colors.any() else colors
            elif mask.sum() < RESIDUE * item.size and (
                similarity(item.colors, colors) < SAME_LOOK or self._stands_alone(key, mask, soft, moving)
            ):
                item.hidden, item.soft = True, np.zeros_like(p)  # it has left, and this is what was behind it
                continue
            old = self._acquaintance(index, mask, colors, besides=key) if item.seen <= YOUNG else None
            if old is not None:
                old.hidden, old.soft = False, p
                old.seen_at(index, mask)
                self._rename(key, old.object_id)
                key = old.object_id
            out[mask] = key
        return out

    @staticmethod
    def _stands_alone(key: int, mask: BoolArray, soft: dict[int, Image], moving: set[int]) -> bool:
        """Whether no other object that moves is near, which could cover a thing that has stopped."""
        return not any((grown(mask, TOUCHING) & (soft[other] > 0.5)).any() for other in moving - {key})


# ---- helpers --------------------------------------------------------------------------------------------------------


def _likeness(a: FloatArray, b: FloatArray) -> float:
    """0 to 1: how much two histograms look alike beyond what counts."""
    return float(np.clip((similarity(a, b) - ALIKE) / (1 - ALIKE), 0, 1))
