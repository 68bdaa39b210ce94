"""What the prompted networks share: reading prompts, naming objects, turning masks into points, boxes and labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.types import BACKGROUND, BoolArray, FloatArray, Frame, Motion4DError, Prompt


@dataclass(frozen=True)
class Pointed:
    """What a prompt points at in its frame, image pixels."""

    points_px: FloatArray  # (P, 2) x, y
    positive: BoolArray  # (P,)
    box_px: FloatArray | None  # (4,) x0, y0, x1, y1
    mask: BoolArray | None  # (H, W)

    @property
    def empty(self) -> bool:
        """Whether the prompt says nothing about where the object is."""
        return len(self.points_px) == 0 and self.box_px is None and self.mask is None


def read_prompt(frame: Frame, prompt: Prompt) -> Pointed:
    """The prompt in pixels of `frame`; a click in 3D is projected.

    Raises `Motion4DError` when it does not fit the frame.
    """
    points: FloatArray = np.asarray(prompt.points_px, float).reshape(-1, 2)
    positive: BoolArray = np.asarray(prompt.positive, bool).reshape(-1)
    if len(points) != len(positive):
        raise Motion4DError(f"prompt with {len(points)} points and {len(positive)} signs: give one sign per point")
    if prompt.mask is not None and prompt.mask.shape != frame.camera.size:
        raise Motion4DError(f"prompt mask is {prompt.mask.shape}, its frame {frame.camera.size}: resize it")
    if prompt.xyz_map is not None:
        if frame.T_map_cam is None:
            raise Motion4DError("a prompt in 3D needs the camera pose of its frame")
        xyz_cam = np.linalg.inv(frame.T_map_cam)[:3] @ np.append(np.asarray(prompt.xyz_map, float), 1.0)
        points = np.concatenate([points, frame.camera.project(xyz_cam)[None]])
        positive = np.concatenate([positive, np.ones(1, bool)])
    height, width = frame.camera.size
    outside = (points < -0.5) | (points > np.array([width, height]) - 0.5) | ~np.isfinite(points)
    if outside.any():
        raise Motion4DError(f"a prompted point lies outside the {width}x{height} image: check its pixels")
    box = None if prompt.box_px is None else _read_box(prompt.box_px, width, height)
    mask = None if prompt.mask is None else np.asarray(prompt.mask, bool)
    return Pointed(points, positive, box, mask)


def read_marks(frame: Frame, prompt: Prompt) -> Pointed | None:
    """The same of a prompt that has to say where something is; None where it only names it.

    Raises `Motion4DError` where it does neither, too.
    """
    pointed = read_prompt(frame, prompt)
    if not pointed.empty:
        return pointed
    if prompt.name:
        return None
    raise Motion4DError("empty prompt: give points, a box, a mask, a 3D point, a name or delete")


def _read_box(box: FloatArray, width: int, height: int) -> FloatArray:
    x0, y0, x1, y1 = np.asarray(box, float).reshape(4)
    clipped = np.clip([x0, y0, x1, y1], 0, [width - 1, height - 1, width - 1, height - 1])
    if not np.isfinite(clipped).all() or clipped[0] > clipped[2] or clipped[1] > clipped[3] or x1 < 0 or y1 < 0:
        raise Motion4DError(f"prompt box {x0:g},{y0:g},{x1:g},{y1:g} is empty: give x0, y0, x1, y1 inside the image")
    return np.asarray(clipped, float)


@dataclass
class ObjectBook:
    """Ids, never reused, and names of the prompted objects."""

    next_id: int = 1
    names: dict[int, str] = field(default_factory=dict)

    def id_of(self, prompt: Prompt) -> int:
        """The id a prompt is about; a fresh one where it gives none."""
        object_id = prompt.object_id or self.next_id
        self.next_id = max(self.next_id, object_id + 1)
        if prompt.name:
            self.names[object_id] = prompt.name
        return object_id


def box_of(mask: BoolArray) -> FloatArray | None:
    """(4,) x0, y0, x1, y1 of an (H, W) mask, inclusive; None when it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return None
    return np.array([columns[0], rows[0], columns[-1], rows[-1]], float)


def inner_point(mask: BoolArray) -> FloatArray:
    """(2,) x, y of the pixel of a non-empty mask that lies farthest from its outline."""
    padded = np.pad(mask.astype(np.uint8), 1)  # the image's border is an outline too
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return np.array([x, y], float)


def labels_from(logits: Mapping[int, NDArray[np.float32]], size: tuple[int, int]) -> NDArray[np.int32]:
    """(H, W) ids: every pixel goes to the object that claims it most strongly (logit > 0), else to the background."""
    labels = np.full(size, BACKGROUND, np.int32)
    best = np.zeros(size, np.float32)
    for object_id, claim in logits.items():
        wins = claim > best
        labels[wins], best[wins] = object_id, claim[wins]
    return labels
