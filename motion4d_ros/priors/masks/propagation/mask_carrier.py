"""Carries object masks from frame to frame: by flow, by colour and by common motion, without any network.

Every object keeps a soft mask. In a new frame a pixel asks the frames remembered (the previous one, a few older ones,
and the one where a person drew the mask) "who had my colour near where I come from?": non-local means on labels, along
dense flow. A colour model and the motion against the surroundings add their votes; a few mean-field steps of an
edge-aware filter settle the outline.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.image_warping import length, remap, warp
from motion4d_ros.geometry.smoothing import domain_transform
from motion4d_ros.priors.flow.optical_flow import FlowCache, chain, dis_flow
from motion4d_ros.priors.masks.propagation.carried_object import RING, STILL, Carried, CarrierSettings, Memory
from motion4d_ros.priors.masks.propagation.mask_cues import (
    CLIP,
    RARE,
    Soft,
    affine_motion,
    bounding_box,
    color_bins,
    color_histogram,
    denial,
    keep_main_parts,
    left_standing,
    logit,
    outline_band,
    own_flow,
    relit_colors,
    sigmoid,
    similarity,
    spread_outwards,
    to_lab,
    unlike,
)
from motion4d_ros.types import BoolArray, FloatArray

SHADE = (0.25, 0.4, 0.55, 0.75)  # intensities that cast shadows leave
SUN = (1.5, 2.0, 2.7)  # and that come with brighter light
BAND = 9  # px on either side of an outline, where memories are asked


class MaskCarrier:
    """All carried objects of one camera, at the working size of a shared `FlowCache`."""

    def __init__(self, flow: FlowCache, settings: CarrierSettings | None = None) -> None:
        self.flow = flow
        self.settings = settings or CarrierSettings()
        self.objects: dict[int, Carried] = {}
        self._last: int | None = None
        self._lab: NDArray[np.float32] | None = None

    @property
    def last_index(self) -> int | None:
        """Frame index that the soft masks belong to."""
        return self._last

    @property
    def lab(self) -> NDArray[np.float32]:
        """(h, w, 3) the newest frame in Lab; only between `start` and `reset`."""
        assert self._lab is not None
        return self._lab

    def reset(self) -> None:
        """Forgets all objects."""
        self.objects.clear()
        self._last = None
        self._lab = None

    def place(self, index: int, object_id: int, mask: BoolArray, trust: bool = True, given: bool | None = None) -> None:
        """Starts or corrects an object in frame `index` (the newest carried one, or the first).

        `mask` (h, w) at working size. `trust`: remember this frame as the object's anchor. `given`: whether a person
        drew it (None: as before).
        """
        if self._last is None:
            self._last = index
        lab = to_lab(self.flow.rgb(index)) if self._lab is None or index != self._last else self._lab
        if index == self._last:
            self._lab = lab
        soft = np.clip(cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7), 0.02, 0.98)
        item = self.objects.get(object_id) or Carried(object_id, soft)
        item.soft = soft
        item.back_at = index if item.hidden_for else item.back_at
        item.hidden_for = item.faint_for = 0
        item.usual = item.left = None
        memory = Memory(index, lab, soft, np.zeros((*soft.shape, 2), np.float32), 1.0)
        item.recent = [memory]
        if trust:
            weight = self.settings.anchor_weight
            item.anchor = Memory(index, lab, soft, memory.flow.copy(), weight, self.flow.gray(index))
            item.alike = None
            item.given = item.given if given is None else given
            item.vouched = color_histogram(lab, soft > 0.7)
        if trust or not len(item.inside):  # what comes back shows but a part of itself at first
            item.inside = color_histogram(lab, soft > 0.7)
        self.objects[object_id] = item

    def absorb(self, object_id: int, mask: BoolArray, trust: bool = True) -> None:
        """Adds `mask` (h, w) to an object in the newest frame, which becomes its anchor if `trust`."""
        assert self._last is not None
        item = self.objects[object_id]
        inside = item.inside
        self.place(self._last, object_id, (item.soft > 0.5) | mask, trust)
        item.inside = 0.5 * (inside + item.inside) if inside.shape == item.inside.shape else item.inside

    def denied(self, object_id: int, group: BoolArray) -> float:
        """Share of `group` (h, w) that a person's outline left out of the object though it was there, too: a shadow."""
        item = self.objects[object_id]
        if item.anchor is None or item.alike is None or not item.given or not group.any():
            return 0.0
        height, width = group.shape
        n, d = self._ask(item.anchor, self.lab, slice(0, height), slice(0, width), group)
        return float((item.alike[group] * denial(n, d)).mean())

    def remove(self, object_id: int) -> None:
        """Forgets one object."""
        self.objects.pop(object_id, None)

    def start(self, index: int) -> None:
        """Declares `index` the newest frame, without carrying anything into it."""
        self._last = index
        self._lab = to_lab(self.flow.rgb(index))

    def advance(self, index: int, evidence: FloatArray | None = None, static: FloatArray | None = None) -> None:
        """Carries every object into frame `index`, already pushed to the flow cache.

        `static` (h, w, 2), where known, is the flow to the previous frame of what stands still.

        `evidence` (h, w), where given, are log-odds that a pixel moves against the static scene. They may always win
        pixels for an object, but take some away only while it moves itself.
        """
        if self._last == index:
            return
        previous, self._last = self._last, index
        lab = to_lab(self.flow.rgb(index))
        if previous is None or not self.flow.has(previous):
            self._lab = lab
            return
        back = self.flow.between(index, previous)
        error = self.flow.error(index, previous)
        logits = {}
        for item in self.objects.values():
            logits[item.object_id] = self._carry(item, lab, back, error, index, previous, evidence, static)
        self._settle(logits, index, lab)
        self._lab = lab

    def recall(self, predicted: NDArray[np.int32]) -> None:
        """Objects out of sight start again where the scene predicts them (`predicted` (h, w) ids), if colours agree."""
        if self._last is None or self._lab is None:
            return
        for item in self.objects.values():
            where = predicted == item.object_id
            if item.hidden_for == 0 or where.sum() < 30:
                continue
            if similarity(item.inside, color_histogram(self._lab, where)) > 0.5:
                self.place(self._last, item.object_id, where, trust=False)

    def labels(self) -> NDArray[np.int32]:
        """(h, w) ids of the newest frame; where objects claim the same pixel the surer one has it."""
        height, width = self.flow.size
        out = np.zeros((height, width), np.int32)
        best = np.full((height, width), 0.5, np.float32)
        for item in self.objects.values():
            wins = item.soft > best
            out[wins], best[wins] = item.object_id, item.soft[wins]
        return out

    def _carry(
        self,
        item: Carried,
        lab: FloatArray,
        back: FloatArray,
        error: FloatArray,
        index: int,
        previous: int,
        evidence: FloatArray | None,
        static: FloatArray | None,
    ) -> FloatArray:
        """Log-odds (h, w) that a pixel of the newest frame is the object's."""
        opt = self.settings
        carried = warp(item.soft, back)
        follows = 1.0 - left_standing(back, static, carried, error)
        own = own_flow(back, carried * follows, error)
        trust = (follows * np.exp(-((np.minimum(error, 5.0) / 0.7) ** 2)))[..., None]  # limbs move on their own
        own = (trust * back + (1 - trust) * own).astype(np.float32)
        for memory in item.recent:
            memory.flow = own if memory.index == previous else chain(own, memory.flow)
        memories = list(item.recent)
        if item.anchor is not None:
            item.anchor.flow = self._towards_anchor(item, chain(own, item.anchor.flow), own, index)
            memories.append(item.anchor)
        moved = warp(item.soft, own)
        box = bounding_box(moved > 0.3, margin=16 + opt.reach)
        out = np.full(lab.shape[:2], -CLIP, np.float32)
        if box is None:
            return out
        rows, cols = box
        support, allowed = self._memory_vote(item, memories, lab, moved, trust[..., 0], box)
        votes = support + opt.bias + opt.color_weight * self._color_vote(item, lab, moved, rows, cols)
        shared, item.pace = self._motion_vote(moved, index, previous, rows, cols)
        votes = votes + opt.motion_weight * np.minimum(shared, shared * allowed)
        if evidence is not None:
            core = moved > 0.8
            moves = item.pace > STILL or (core.any() and float(np.median(evidence[core])) > 0.5)
            strange = length(back - own)[rows, cols]
            pace = float(np.median(length(own[core]))) if core.any() else 0.0
            local = evidence[rows, cols]
            kin = np.maximum(opt.stranger, np.exp(-0.5 * (strange / (0.7 + 0.1 * pace)) ** 2))
            votes = votes + opt.evidence_weight * np.maximum(local - 0.6, 0) * kin * allowed
            if moves:  # what has stood still for some frames while the object went on is not the object
                votes = votes + opt.static_weight * np.minimum(local + 0.3, 0)
        out[rows, cols] = votes
        return out

    def _memory_vote(
        self,
        item: Carried,
        memories: list[Memory],
        lab: FloatArray,
        moved: FloatArray,
        trust: FloatArray,
        box: tuple[slice, slice],
    ) -> tuple[FloatArray, FloatArray]:
        """Log-odds in the `box` by what `memories` know of pixels near the outline, and the share of what motion claims
        that stands there.

        `moved` (h, w) is the mask as carried, `trust` (h, w) how far the flow that carried it is believed.
        """
        opt = self.settings
        rows, cols = box
        prior = moved[rows, cols]
        support = logit(prior)
        band = outline_band(prior, BAND)
        known = trust[rows, cols][band]  # what has only just come into view was neither inside nor outside
        numerator = opt.prior * (known * prior[band] + (1 - known) * 0.5)
        denominator = np.full(int(band.sum()), opt.prior, np.float32)
        allowed = np.ones(prior.shape, np.float32)  # share of what motion claims that stands
        for memory in memories:
            n, d = self._ask(memory, lab, rows, cols, band)
            weight: FloatArray | float = memory.weight
            if memory is item.anchor and item.alike is not None:
                alike = item.alike[rows, cols][band]
                weight = memory.weight * alike
                if item.given:
                    allowed[band] = 1.0 - alike * denial(n, d)
            numerator += weight * n
            denominator += weight * d
        support[band] = logit(numerator / denominator)
        return support, allowed

    def _towards_anchor(self, item: Carried, chained: FloatArray, own: FloatArray, index: int) -> NDArray[np.float32]:
        """Flow to the anchor without the drift of the chain, where the object still looks as it did there.

        Sets `item.alike`, too.
        """
        assert item.anchor is not None
        gray, then = self.flow.gray(index), item.anchor.gray
        direct = dis_flow(gray, then, finest_scale=1, initial=chained)
        differ = unlike(gray, warp(then, direct))
        doubt = differ / 8.0 + length(direct - chained) / 20.0
        inside = warp(item.soft, own)
        same = np.exp(-((differ / self.settings.anchor_unlike) ** 2))
        item.alike = spread_outwards(same[..., None], inside, np.zeros_like(differ))[..., 0]
        if (inside > 0.8).any() and float(np.median(doubt[inside > 0.8])) > 1.5:
            return chained
        return own_flow(direct, inside, doubt)

    def _ask(
        self, memory: Memory, lab: FloatArray, rows: slice, cols: slice, band: BoolArray
    ) -> tuple[FloatArray, FloatArray]:
        """Sum of weights times labels, and sum of weights, over the neighbours in a remembered frame.

        Both for the pixels of `band` (a mask of the box `rows`, `cols`).
        """
        opt = self.settings
        reach = opt.reach
        flow = memory.flow[rows, cols]
        x, y = np.meshgrid(np.arange(cols.start, cols.stop), np.arange(rows.start, rows.stop))
        target = (np.stack([x, y], -1) + flow).astype(np.float32)
        target = np.pad(target, ((reach, reach), (reach, reach), (0, 0)), "edge")
        stack = np.concatenate([memory.lab, memory.soft[..., None]], -1)
        seen = remap(stack, target).reshape(-1, 4)
        here = lab[rows, cols][band]
        width = target.shape[1]
        row, col = np.nonzero(band)
        base = (row + reach) * width + col + reach
        numerator, denominator = np.zeros(len(base), np.float32), np.zeros(len(base), np.float32)
        for dy in range(-reach, reach + 1, opt.step):
            for dx in range(-reach, reach + 1, opt.step):
                away = dx * dx + dy * dy
                if away > reach * reach:
                    continue
                other = seen[base + dy * width + dx]
                difference = here - other[:, :3]
                distance = np.einsum("nk,nk->n", difference, difference) / (2 * opt.sigma_color**2)
                weight = np.exp(-distance - away / (2 * opt.sigma_reach**2))
                numerator += weight * other[:, 3]
                denominator += weight
        return numerator, denominator

    def _color_vote(self, item: Carried, lab: FloatArray, moved: Soft, rows: slice, cols: slice) -> FloatArray:
        """Log-ratio of the object's colours to those around it, in the light they have and in what they may get into.

        What may be the ground beside it in a cast shadow doesn't speak for an object, nor its own colour in the sun
        against it.
        """
        opt = self.settings
        ring = moved[rows, cols] < 0.1
        around = color_histogram(lab[rows, cols], ring)
        beside = cv2.dilate((moved > 0.5).astype(np.uint8), np.ones((2 * RING + 1,) * 2, np.uint8)) > 0
        beside &= moved < 0.1
        around = np.maximum(around, opt.shaded * relit_colors(color_histogram(lab, beside), SHADE))
        inside = np.maximum(item.inside, opt.sunlit * relit_colors(item.vouched, SUN))
        bins = color_bins(lab[rows, cols])
        ratio = np.log((inside[bins] + RARE) / (around[bins] + RARE))
        return np.clip(ratio, -0.5 * CLIP, CLIP)

    def _motion_vote(
        self, moved: Soft, index: int, previous: int, rows: slice, cols: slice
    ) -> tuple[FloatArray, float]:
        """Whose motion a pixel shares: the object's (affine) or that of its surroundings (affine).

        Also how far apart the two are, px a frame.
        """
        flow = self.flow.between(index, previous)[rows, cols]
        error = self.flow.error(index, previous)[rows, cols]
        soft = moved[rows, cols]
        good = error < 1.0
        inner, outer = good & (soft > 0.8), good & (soft < 0.1)
        if inner.sum() < 40 or outer.sum() < 40:
            return np.zeros(soft.shape, np.float32), 0.0
        motion, surroundings = affine_motion(flow, inner), affine_motion(flow, outer)
        own, other = length(flow - motion), length(flow - surroundings)
        spread = 0.5 + 0.5 * (np.median(own[inner]) + np.median(other[outer]))
        vote = np.clip((other**2 - own**2) / (2 * spread**2), -self.settings.motion_denial, self.settings.motion_claim)
        apart = float(np.median(length(motion - surroundings)[inner]))
        return vote * np.exp(-np.minimum(error, 9.0) / 2.0), apart

    def _settle(self, logits: dict[int, FloatArray], index: int, lab: FloatArray) -> None:
        """Mean-field steps with an edge-aware filter, then the memories are refreshed."""
        opt = self.settings
        guide = self.flow.rgb(index)
        for object_id, unary in logits.items():
            item = self.objects[object_id]
            rivals = [other for key, other in logits.items() if key != object_id]
            votes = unary - np.maximum(0.0, np.max(rivals, axis=0)) if rivals else unary
            box = bounding_box(votes > -CLIP + 0.01, margin=0)
            soft = np.full(votes.shape, 0.02, np.float32)
            if box is not None:
                rows, cols = box
                local, picture = votes[rows, cols], guide[rows, cols]
                state = local
                for _ in range(opt.mean_field_steps):
                    mean = domain_transform(2 * sigmoid(state) - 1, picture, opt.smooth_reach, opt.smooth_color)
                    state = local + opt.smooth_weight * mean
                soft[rows, cols] = np.clip(sigmoid(state), 0.02, 0.98)
            item.soft = keep_main_parts(soft)
            fresh = color_histogram(lab, item.soft > 0.85)
            if item.area < 12 or (fresh.any() and item.left_behind(index, lab, fresh)):
                item.hide(index)
                continue
            item.hidden_for = 0
            if fresh.any() and item.learns(index):
                item.inside = 0.95 * item.inside + 0.05 * fresh
            still = np.zeros((*soft.shape, 2), np.float32)
            older = [memory for memory in item.recent if index - memory.index <= 3]
            item.recent = [Memory(index, lab, item.soft, still, 1.0), *older][:3]
