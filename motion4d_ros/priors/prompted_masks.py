"""Masks that start from a person's word (a mask, a box, points, a click in 3D) and are carried along from there.

Set `masks.source` to `prompt`. No network is involved: `mask_carrier` tells how a mask finds its way into
the next frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.priors.base import SceneHint
from motion4d_ros.priors.flow import FlowCache
from motion4d_ros.priors.mask_carrier import MaskCarrier
from motion4d_ros.types import UNKNOWN_LABEL, BoolArray, Frame, IntArray, Motion4DError, Prompt

POINT_RADIUS = 3  # px at working size: what a click vouches for
GUESS_SHARE = 0.18  # of the shorter side: the half-size of the region searched around a lone click


class PromptedMasks:
    """Objects are named by prompts and carried through all later frames. Ids are never reused.

    Until something is prompted every pixel is background. A frame that comes with `Frame.masks` before any prompt
    starts an object per id.
    """

    accepts_prompts = False  # `refresh` would need a segmentation network

    def __init__(self, config: Config, flow: FlowCache | None = None) -> None:
        self._flow = flow or FlowCache(keep=config.window.horizon)
        self._carrier = MaskCarrier(self._flow)
        self._sizes: dict[int, tuple[int, int]] = {}
        self._stamps: dict[int, int] = {}
        self._revised: dict[int, NDArray[np.int32]] = {}
        self._next_id = 1
        self._size: tuple[int, int] | None = None
        self.names: dict[int, str] = {}

    def masks(self, frame: Frame, hint: SceneHint | None) -> IntArray:
        """(H, W) object ids of the next frame."""
        self._take(frame)
        self._carrier.advance(frame.index)
        if frame.masks is not None and not self._carrier.objects:
            for object_id in np.unique(frame.masks):
                if object_id > 0:
                    mask = self._shrink(frame.masks == object_id)
                    self._carrier.place(frame.index, int(object_id), mask)
                    self._next_id = max(self._next_id, int(object_id) + 1)
        if hint is not None and hint.masks is not None:
            self._carrier.recall(self._shrink_labels(hint.masks))
        return self._grow(self._carrier.labels(), frame.camera.size)

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
            self._carrier.remove(object_id)
            self.names.pop(object_id, None)
            return
        given = len(prompt.points_px) or prompt.box_px is not None or prompt.mask is not None
        if not given and prompt.xyz_map is None:
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
        self._replay(frame.index, object_id, mask)

    def revised_masks(self) -> dict[int, NDArray[np.int32]]:
        """Masks of earlier frames that a prompt has changed since the last call: index -> (H, W) ids."""
        revised, self._revised = self._revised, {}
        return revised

    def reset(self) -> None:
        """Forgets everything; ids go on."""
        self._carrier.reset()
        self._flow.reset()
        self._sizes.clear()
        self._revised.clear()
        self._size = None

    def _take(self, frame: Frame) -> None:
        if self._size is not None and self._size != frame.camera.size:
            self._carrier.reset()
        self._size = frame.camera.size
        self._flow.push(frame)
        self._sizes[frame.index] = frame.camera.size
        for index in [i for i in self._sizes if not self._flow.has(i)]:
            del self._sizes[index]

    def _replay(self, start: int, object_id: int, mask: BoolArray) -> None:
        """Carries one object from frame `start` to the newest and takes the result over."""
        last = self._carrier.last_index
        if last is None or start == last:
            self._carrier.place(start, object_id, mask)
            return
        alone = MaskCarrier(self._flow)
        alone.place(start, object_id, mask)
        for index in [i for i in self._flow.indices if start <= i <= last]:
            alone.advance(index)
            self._revised[index] = self._grow(alone.labels(), self._sizes[index])
        self._carrier.objects[object_id] = alone.objects[object_id]

    def _region(self, frame: Frame, prompt: Prompt, object_id: int) -> BoolArray:
        """(h, w) working-size mask that a prompt means."""
        if prompt.mask is not None:
            if prompt.mask.shape != frame.camera.size:
                raise Motion4DError(f"prompt mask is {prompt.mask.shape}, its frame {frame.camera.size}: resize it")
            return self._shrink(prompt.mask)
        height, width = self._flow.size
        factor = np.array([width / frame.camera.width, height / frame.camera.height])
        points, positive = np.asarray(prompt.points_px, float), np.asarray(prompt.positive, bool)
        if prompt.xyz_map is not None:
            if frame.T_map_cam is None:
                raise Motion4DError("a 3D prompt needs the pose of its frame")
            xyz_cam = np.linalg.inv(frame.T_map_cam)[:3] @ np.append(prompt.xyz_map, 1.0)
            uv = frame.camera.project(xyz_cam)
            if not np.isfinite(uv).all():
                raise Motion4DError("the clicked 3D point lies behind the camera")
            points, positive = np.vstack([points.reshape(-1, 2), uv]), np.append(positive, True)
        known = self._carrier.objects.get(object_id)
        soft = known.soft if known is not None and frame.index == self._carrier.last_index else None
        return segment(
            self._flow.rgb(frame.index),
            (points + 0.5) * factor - 0.5,
            positive,
            None if prompt.box_px is None else np.asarray(prompt.box_px, float) * np.tile(factor, 2),
            soft,
        )

    def _shrink(self, mask: BoolArray) -> BoolArray:
        height, width = self._flow.size
        small = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        return np.asarray(small > 0.5)

    def _shrink_labels(self, labels: IntArray) -> NDArray[np.int32]:
        height, width = self._flow.size
        return np.asarray(cv2.resize(labels.astype(np.int32), (width, height), interpolation=cv2.INTER_NEAREST))

    def _grow(self, labels: NDArray[np.int32], size: tuple[int, int]) -> NDArray[np.int32]:
        return grow_labels(labels, size)


def grow_labels(labels: NDArray[np.int32], size: tuple[int, int]) -> NDArray[np.int32]:
    """Labels (h, w) at the input's `size` (height, width), with smooth outlines."""
    if labels.shape == size:
        return labels
    out = np.zeros(size, np.int32)
    best = np.full(size, 0.5, np.float32)
    for object_id in np.unique(labels[labels > 0]):
        soft = cv2.resize((labels == object_id).astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
        wins = soft > best
        out[wins], best[wins] = object_id, soft[wins]
    out[cv2.resize((labels == UNKNOWN_LABEL).astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST) > 0] = -1
    return out


def segment(
    rgb: NDArray[np.uint8],
    points: NDArray[np.floating],
    positive: BoolArray,
    box: NDArray[np.floating] | None,
    soft: NDArray[np.float32] | None = None,
) -> BoolArray:
    """(h, w) mask of what points (P, 2), their signs and a box (4,) mean, by graph cuts on colour (GrabCut).

    `soft` (h, w), where given, is the object's present mask that the points correct.
    """
    height, width = rgb.shape[:2]
    state: NDArray[np.uint8] = np.full((height, width), cv2.GC_BGD, np.uint8)
    if box is not None:
        x0, y0, x1, y1 = np.round(box).astype(int)
        state[max(0, y0) : max(0, y1 + 1), max(0, x0) : max(0, x1 + 1)] = cv2.GC_PR_FGD
    elif soft is None:
        reach = GUESS_SHARE * min(height, width)
        for x, y in points[positive]:
            cv2.circle(state, (round(x), round(y)), round(reach), cv2.GC_PR_BGD, -1)
        for x, y in points[positive]:
            cv2.circle(state, (round(x), round(y)), round(reach / 3), cv2.GC_PR_FGD, -1)
    if soft is not None:
        state = np.where(soft > 0.5, cv2.GC_PR_FGD, np.where(soft > 0.03, cv2.GC_PR_BGD, state)).astype(np.uint8)
    for (x, y), sign in zip(points, positive, strict=True):
        label = cv2.GC_FGD if sign else cv2.GC_BGD
        cv2.circle(state, (round(x), round(y)), POINT_RADIUS, int(label), -1)
    inside = (state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)
    if not inside.any() or inside.all():
        return np.asarray(inside)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    cv2.grabCut(np.ascontiguousarray(rgb[..., ::-1]), state, None, *models, 4, cv2.GC_INIT_WITH_MASK)
    mask = (state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)
    if len(points[positive]) and mask.any():  # only what hangs together with a click
        _, parts = cv2.connectedComponents(mask.astype(np.uint8))
        xy = np.clip(np.round(points[positive]).astype(int), 0, [width - 1, height - 1])
        hit = np.setdiff1d(parts[xy[:, 1], xy[:, 0]], [0])
        mask = np.isin(parts, hit) if len(hit) else mask
    return np.asarray(mask)
