"""Whether 255 in label images means "nobody knows" (VOC, Cityscapes, DAVIS), or is an object like any other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

VOID = 255
"""The label that data sets give to pixels of which nobody knows what they are."""
_SMALL_IDS = 100  # running numbers of objects and classes end below; ids spread over 8 bits do not
_RIM_PX = 7  # void rims are thinner: nothing is left of them after an erosion of this width
_RIM_SHARE = 0.1  # of the pixels may be left


class VoidRule:
    """Decides once for a series of label images, then applies it. One for each recording or topic."""

    def __init__(self) -> None:
        self.void: bool | None = None  # None until an image with 255 and other ids was seen

    @property
    def note(self) -> str:
        """What was decided, for people; "" where there was nothing to decide."""
        if not self.void:
            return ""
        return "masks: 255 stands beside small ids and is taken for 'nobody knows'; give objects other ids"

    def observe(self, images: Sequence[NDArray[Any]]) -> None:
        """Lets images from all over the recording decide."""
        decided = looks_void(images)
        self.void = self.void if decided is None else decided

    def apply(self, labels: NDArray[np.int32]) -> NDArray[np.int32]:
        """(H, W) ids, with -1 for 255 where that means that nobody knows."""
        if self.void is None:
            self.observe([labels])
        return np.where(labels == VOID, -1, labels).astype(np.int32) if self.void else labels


def looks_void(images: Sequence[NDArray[Any]]) -> bool | None:
    """Whether 255 is no object in these (H, W) label images; None where they do not tell.

    255 alone beside the background is a binary mask, and so an object. Beside other ids it is void where those are
    running numbers below it, or where it is but a thin rim; ids spread evenly up to 255 (85, 170, 255) are objects.
    """
    if not any((image == VOID).any() for image in images):
        return None
    others = sorted({int(value) for image in images for value in np.unique(image)} - {0, VOID, -1})
    if not others:
        return None
    if max(others) > VOID:
        return False
    if all(_is_rim(image == VOID) for image in images):
        return True
    spread = np.diff([0, *others, VOID])
    return max(others) <= _SMALL_IDS and spread.max() - spread.min() > 2


def _is_rim(region: NDArray[np.bool_]) -> bool:
    """Whether a region is thin everywhere (an empty one is)."""
    kernel = np.ones((_RIM_PX, _RIM_PX), np.uint8)
    left = cv2.erode(region.astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return int(left.sum()) <= _RIM_SHARE * int(region.sum())
