"""What the sources that carry masks have in common: the shared flow, prompts, and masks that change in hindsight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.geometry.image_warping import length, warp
from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.priors.interfaces import SceneHint
from motion4d_ros.priors.masks.discovery.motion_evidence import MotionEvidence, rigid_flow, shadow_like
from motion4d_ros.priors.masks.discovery.rigid_segmentation import BORDER
from motion4d_ros.priors.masks.prompt_region import segment
from motion4d_ros.priors.masks.propagation.mask_carrier import MaskCarrier
from motion4d_ros.priors.masks.propagation.mask_cues import affine_motion, color_histogram, grow_labels, similarity
from motion4d_ros.types import BoolArray, FloatArray, Frame, IntArray, Motion4DError, Prompt

BIRTH_EVIDENCE = 1.2  # log-odds that a group of moving pixels must reach
GROUP_EVIDENCE = 0.7  # and those that hang together with it
MIN_AREA_SHARE = 0.0012  # of the image
SHADOW_SHARE = 0.2  # of a group that a person left out of the object, from which it is not taken in
RETURN_LIKENESS = 0.55  # of colours, at which a newcomer is taken for an object that was hidden
OWN_COLORS = 0.5  # log-ratio of an object's colours to those around it, from which they are its own
CLEARLY_BACK = 4  # frames after its return, from which an object is followed back to where it came into view
COMING_BACK = 12  # frames after its return in which an object may still be coming into view
LAG = 12  # frames that what comes back is followed back beyond its return
HALO = 5  # px around known objects where flow is smeared


class CarriedMasks:
    """Objects that are carried from frame to frame at the flow's size (480 px at most). Ids are never reused.

    Subclasses say where objects come from by overriding :meth:`_found`.
    """

    accepts_prompts = False  # `refresh` would need a segmentation network
    full_size = True
    vouch_absorbed = True  # whether an outline that took in a moving part becomes the one to remember

    def __init__(self, config: Config, flow: FlowCache | None = None) -> None:
        self._flow = flow or FlowCache(keep=config.window.horizon, far_finest_scale=1)
        self._carrier = MaskCarrier(self._flow)
        self._evidence = MotionEvidence(self._flow)
        self._sizes: dict[int, tuple[int, int]] = {}
        self._poses: dict[int, FloatArray] = {}
        self._labels: dict[int, NDArray[np.int32]] = {}  # (h, w) of the frames still held
        self._revised: set[int] = set()
        self._hidden: set[int] = set()  # objects not yet shown
        self._next_id = 1
        self.names: dict[int, str] = {}

    def begin_after(self, object_id: int) -> None:
        """See `GivesIds`."""
        self._next_id = max(self._next_id, object_id + 1)

    def masks(self, frame: Frame, hint: SceneHint | None) -> IntArray:
        """(H, W) object ids of the next frame."""
        self._take(frame)
        index, carrier = frame.index, self._carrier
        previous = carrier.last_index
        if previous is None or not self._flow.has(previous):
            carrier.start(index)
            previous = None
        evidence = self._evidence.push(index, self._expected(index, previous), self._rigid(frame, hint))
        static = self._evidence.static
        plane = None if static is None or static.parallax else static
        limited = None if evidence is None else np.clip(evidence, -2.0, 2.0)
        carrier.advance(index, limited, None if plane is None else plane.flow)
        if hint is not None and hint.masks is not None:
            carrier.recall(self._shrink_labels(hint.masks))
        self._found(frame, evidence, previous)
        labels = carrier.labels()
        self._labels[index] = self._shown(labels)
        return grow_labels(self._labels[index], frame.camera.size)

    def _found(self, frame: Frame, evidence: NDArray[np.float32] | None, previous: int | None) -> None:
        """Starts and ends objects in the newest frame; `evidence` (h, w) that pixels move, None if there is none."""

    def refresh(self, frame: Frame, prompts: Sequence[Prompt]) -> IntArray | None:
        """None: this source has no network to ask."""
        return None

    def prompt(self, frame: Frame, prompt: Prompt) -> None:
        """Starts, corrects, renames or deletes an object in a frame that has been seen.

        Later frames change too: see :meth:`revised_masks`. Raises `Motion4DError` when the frame is no longer kept or
        the prompt is empty.
        """
        object_id = prompt.object_id or self._next_id
        self._next_id = max(self._next_id, object_id + 1)
        if prompt.name:
            self.names[object_id] = prompt.name
        if prompt.delete:
            self._remove(object_id)
            return
        if not prompt.marks:
            if prompt.name:
                return
            raise Motion4DError("empty prompt: give points, a box, a mask, a 3D point, a name or delete")
        if self._carrier.last_index is None:
            self._take(frame)
        if not self._flow.has(frame.index):
            raise Motion4DError(f"prompt for frame {frame.index}: it is no longer kept, prompt a newer one")
        mask = self._region(frame, prompt, object_id)
        if mask.sum() < 4:
            raise Motion4DError("the prompt marks nothing inside the image: check its pixels")
        self._hidden.discard(object_id)
        self._replay(frame.index, object_id, mask, given=prompt.mask is not None)

    def revised_masks(self) -> dict[int, NDArray[np.int32]]:
        """Masks of earlier frames that have changed since the last call: index -> (H, W) ids.

        A prompt for an earlier frame changes it and those after it; an object that is recognised as one after it has
        moved for a while is followed back to where it came from.
        """
        revised = {i: grow_labels(self._labels[i], self._sizes[i]) for i in sorted(self._revised) if i in self._labels}
        self._revised.clear()
        return revised

    def labels_at(self, index: int) -> NDArray[np.int32] | None:
        """(h, w) ids of a frame held, at the flow's size."""
        return self._labels.get(index)

    def reset(self) -> None:
        """Forgets everything; ids go on."""
        for part in (self._flow, self._carrier, self._evidence):
            part.reset()
        for table in (self._sizes, self._poses, self._labels, self._revised, self._hidden):
            table.clear()

    # ---- helpers ----------------------------------------------------------------------------------------------------

    def _take(self, frame: Frame) -> None:
        """Takes the frame into the cache; a new image size starts everything over."""
        if self._sizes and frame.camera.size not in self._sizes.values():
            self.reset()
        self._flow.push(frame)
        self._sizes[frame.index] = frame.camera.size
        tables: tuple[dict[int, Any], ...] = (self._sizes, self._poses, self._labels)
        for table in tables:
            for index in [i for i in table if not self._flow.has(i)]:
                del table[index]

    def _shown(self, labels: NDArray[np.int32]) -> NDArray[np.int32]:
        return np.where(np.isin(labels, list(self._hidden)), 0, labels).astype(np.int32) if self._hidden else labels

    def _remove(self, object_id: int) -> None:
        """Deletes an object from this frame and all earlier ones."""
        self._carrier.remove(object_id)
        self._hidden.discard(object_id)
        self.names.pop(object_id, None)
        for index, labels in self._labels.items():
            if (labels == object_id).any():
                labels[labels == object_id] = 0
                self._revised.add(index)

    def _expected(self, index: int, previous: int | None) -> BoolArray | None:
        """(h, w) where known objects probably are in the newest frame."""
        if previous is None or not self._carrier.objects or not self._flow.has(previous):
            return None
        union = np.max([item.soft for item in self._carrier.objects.values()], axis=0)
        moved = (warp(union, self._flow.between(index, previous)) > 0.4).astype(np.uint8)
        return np.asarray(cv2.dilate(moved, np.ones((2 * HALO + 1,) * 2, np.uint8)) > 0)

    def _rigid(self, frame: Frame, hint: SceneHint | None) -> dict[int, NDArray[np.float32]] | None:
        """Flow a static scene would show towards older frames, where measured depth and poses allow.

        The hint's pose is a prediction (the last frame's, as it were): what the camera did since would look like motion
        of everything else.
        """
        T, depth = frame.T_map_cam, frame.depth_m
        if hint is not None and depth is None:
            depth = hint.depth_m
        if T is not None:
            self._poses[frame.index] = T
        if T is None or depth is None:
            return None
        height, width = self._flow.size
        camera = frame.camera.scaled(height / frame.camera.height)
        if camera.size != (height, width):
            return None
        valid = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
        small = np.asarray(cv2.resize(valid, (width, height), interpolation=cv2.INTER_NEAREST))
        return {
            other: rigid_flow(small, camera, np.linalg.inv(T_other) @ T)
            for other, T_other in self._poses.items()
            if 0 < frame.index - other <= 2 * self._evidence.span
        }

    # ---- groups of moving pixels ------------------------------------------------------------------------------------

    def _strays(self, index: int, evidence: NDArray[np.float32], back: NDArray[np.float32]) -> list[BoolArray]:
        """Groups of moving pixels that belong to no known object; those that do are added to it."""
        self._complete(index, evidence, back)
        strays = []
        for group in self._groups(evidence):
            if self._is_thin(group) or not self._moves_now(group) or self._is_shadow(index, group):
                continue
            returned = self._returned(group)
            owner = self._belongs_to(group, back)
            if returned is not None:
                self._carrier.place(index, returned, group, trust=False)
            elif owner is None:
                strays.append(group)
            elif self._carrier.denied(owner, group) < SHADOW_SHARE:
                self._carrier.absorb(owner, group, self.vouch_absorbed)
        return strays

    def _complete(self, index: int, evidence: NDArray[np.float32], back: NDArray[np.float32]) -> None:
        """Objects take in what comes into view beside them and moves as they do: another side of them, or the rest of
        what has just come back. Of the former only what has their colours: shadows move along, too.
        """
        score = self._evidence.current
        for item in list(self._carrier.objects.values()):
            if score is None or item.hidden_for or item.object_id in self._hidden:
                continue
            core = item.soft > 0.5
            since = COMING_BACK + 1 if item.back_at is None else index - item.back_at
            if since == CLEARLY_BACK:
                self._replay_back(index, item.object_id, core, max(item.gone_at, index - CLEARLY_BACK - LAG))
            near = cv2.dilate(core.astype(np.uint8), np.ones((4 * HALO + 1,) * 2, np.uint8)) > 0
            more = near & (evidence > GROUP_EVIDENCE) & (score > 1.0) & (self._carrier.labels() == 0)
            if since > COMING_BACK:
                more &= item.color_ratio(self._carrier.lab, core | more) > OWN_COLORS
            more = cv2.morphologyEx(more.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)) > 0
            if min(core.sum(), more.sum()) <= 30 or not self._moves_as_one(core, more, back):
                continue
            if since <= COMING_BACK or self._carrier.denied(item.object_id, more) < SHADOW_SHARE:
                self._carrier.absorb(item.object_id, more, trust=False)

    def _groups(self, evidence: NDArray[np.float32]) -> list[BoolArray]:
        """Connected groups of moving pixels that no known object accounts for.

        A group starts from sure pixels and takes in the likely ones that hang together with them (hysteresis).
        """
        moving = (evidence > GROUP_EVIDENCE).astype(np.uint8)
        known = (self._carrier.labels() > 0).astype(np.uint8)
        moving[cv2.dilate(known, np.ones((2 * HALO + 1,) * 2, np.uint8)) > 0] = 0
        inner = np.zeros_like(moving)  # at the border things enter that nothing is known of yet
        inner[BORDER:-BORDER, BORDER:-BORDER] = 1
        moving = np.asarray(cv2.morphologyEx(moving * inner, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)))
        count, parts, stats, _ = cv2.connectedComponentsWithStats(moving, connectivity=8)
        least = max(30.0, MIN_AREA_SHARE * evidence.size)
        sure = np.bincount(parts[evidence > BIRTH_EVIDENCE], minlength=count)
        found = [k for k in range(1, count) if stats[k, cv2.CC_STAT_AREA] >= least and sure[k] >= 0.4 * least]
        return [parts == k for k in found]

    def _belongs_to(self, group: BoolArray, back: NDArray[np.float32]) -> int | None:
        """The known object that a group next to it is a part of: of its colours, and small or moving as one."""
        lab = self._carrier.lab
        reach = np.ones((4 * HALO + 1,) * 2, np.uint8)
        near = cv2.dilate(group.astype(np.uint8), reach) > 0
        best, best_contact = None, 0.15 * np.sqrt(group.sum())
        for item in self._carrier.objects.values():
            core = item.soft > 0.5
            contact = float((core & near).sum()) / (2 * HALO)
            if contact <= best_contact:
                continue
            small = group.sum() < 0.25 * core.sum()
            alike = similarity(item.inside, color_histogram(lab, group)) > (0.25 if small else 0.5)
            if (small and alike) or (self._moves_as_one(core, group, back) and (small or alike)):
                best, best_contact = item.object_id, contact
        return best

    @staticmethod
    def _moves_as_one(a: BoolArray, b: BoolArray, flow: NDArray[np.float32]) -> bool:
        """Whether one affine motion explains two regions (h, w) about as well as one of their own each."""
        joint = length(flow - affine_motion(flow, a | b))
        apart = [length(flow - affine_motion(flow, region)) for region in (a, b)]
        return all(
            float(np.median(joint[region])) < 0.4 + 1.5 * float(np.median(own[region]))
            for region, own in zip((a, b), apart, strict=True)
        )

    @staticmethod
    def _is_thin(group: BoolArray) -> bool:
        """Slivers are smeared flow at outlines, not objects."""
        return float(cv2.distanceTransform(group.astype(np.uint8), cv2.DIST_L2, 3).max()) < 3.0

    def _returned(self, mask: BoolArray) -> int | None:
        """The object that was out of sight, or whose mask stays behind and fades, and that looks like the new one."""
        lab = self._carrier.lab
        histogram = color_histogram(lab, mask)
        best, best_score = None, RETURN_LIKENESS
        for item in self._carrier.objects.values():
            looks = item.looks_of(lab, mask, histogram)
            possible = item.uncovered(mask) < 0.3 if item.hidden_for else item.better_elsewhere(looks)
            if looks.likeness > best_score and possible and item.object_id not in self._hidden:
                best, best_score = item.object_id, looks.likeness
        return best

    def _moves_now(self, group: BoolArray) -> bool:
        """Whether a good part of the group moves in this frame; what an object has uncovered only did before."""
        score = self._evidence.current
        return score is not None and float((score[group] > 1.0).mean()) > 0.35

    def _is_shadow(self, index: int, group: BoolArray) -> bool:
        """Whether the group looks like the static scene in another light."""
        if self._evidence.far is None:
            return False
        older, static = self._evidence.far
        before = warp(self._flow.rgb(older), static.flow)
        return shadow_like(self._flow.rgb(index), before, group) > 0.6

    # ---- hindsight and prompts ---------------------------------------------------------------------------------------

    def _replay(self, start: int, object_id: int, mask: BoolArray, given: bool = False) -> None:
        """Carries one object from frame `start` to the newest, and takes the result over."""
        last = self._carrier.last_index
        ahead = [i for i in self._flow.indices if start < i <= (start if last is None else last)]
        alone = MaskCarrier(self._flow)
        alone.place(start, object_id, mask, given=given)
        for index in ahead:
            alone.advance(index)
            self._write(index, object_id, alone.objects[object_id].soft > 0.5)
        self._write(start, object_id, mask)
        if ahead:
            self._carrier.objects[object_id] = alone.objects[object_id]
        else:
            self._carrier.place(start, object_id, mask, given=given)

    def _replay_back(self, index: int, object_id: int, mask: BoolArray, back_to: int) -> None:
        """Follows one object back from frame `index`, the newest, without changing how it is carried on."""
        alone = MaskCarrier(self._flow)
        alone.place(index, object_id, mask)
        for earlier in [i for i in self._flow.indices if back_to <= i < index][::-1]:
            alone.advance(earlier)
            self._write(earlier, object_id, alone.objects[object_id].soft > 0.5)
        self._write(index, object_id, mask)

    def _write(self, index: int, object_id: int, mask: BoolArray, over: int = 0) -> None:
        """Changes one object in the labels given out for an earlier frame; it may replace background and `over`."""
        labels = self._labels.get(index)
        if labels is None:
            return
        labels = labels.copy()
        labels[labels == object_id] = 0
        labels[mask & ((labels == 0) | (labels == over))] = object_id
        self._labels[index] = labels
        self._revised.add(index)

    def _region(self, frame: Frame, prompt: Prompt, object_id: int) -> BoolArray:
        """(h, w) working-size mask that a prompt means."""
        if prompt.mask is not None:
            if prompt.mask.shape != frame.camera.size:
                raise Motion4DError(f"prompt mask is {prompt.mask.shape}, its frame {frame.camera.size}: resize it")
            return self._shrink(prompt.mask)
        height, width = self._flow.size
        factor = np.array([width / frame.camera.width, height / frame.camera.height])
        points, positive = np.asarray(prompt.points_px, float).reshape(-1, 2), np.asarray(prompt.positive, bool)
        if prompt.xyz_map is not None:
            if frame.T_map_cam is None:
                raise Motion4DError("a 3D prompt needs the pose of its frame")
            xyz_cam = np.linalg.inv(frame.T_map_cam)[:3] @ np.append(prompt.xyz_map, 1.0)
            uv = frame.camera.project(xyz_cam)
            if not np.isfinite(uv).all():
                raise Motion4DError("the clicked 3D point lies behind the camera")
            points = np.concatenate([points, uv[None]])
            positive = np.append(positive, True)
        known = self._carrier.objects.get(object_id)
        soft = known.soft if known is not None and frame.index == self._carrier.last_index else None
        box = None if prompt.box_px is None else (np.asarray(prompt.box_px, float) + 0.5) * np.tile(factor, 2) - 0.5
        return segment(self._flow.rgb(frame.index), (points + 0.5) * factor - 0.5, positive, box, soft)

    def _shrink(self, mask: BoolArray) -> BoolArray:
        small = cv2.resize(mask.astype(np.float32), self._flow.size[::-1], interpolation=cv2.INTER_AREA)
        return np.asarray(small > 0.5)

    def _shrink_labels(self, labels: IntArray) -> NDArray[np.int32]:
        return np.asarray(cv2.resize(labels.astype(np.int32), self._flow.size[::-1], interpolation=cv2.INTER_NEAREST))
