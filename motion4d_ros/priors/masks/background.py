"""What the static scene looks like from a frame, told from other frames; what differs from it is something else.

Flow says what moves now, and its outlines are smeared and drift. A picture of the background does not drift: frames
in which a place was free show what is behind the thing that is there now. They are laid over the frame by homographies,
where these explain the camera's motion, and each gets its say. Nothing is said where too few saw the place.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.image_warping import pixel_grid, remap
from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.priors.masks.discovery.motion_evidence import homography_flow, relit
from motion4d_ros.types import BoolArray, FloatArray

LEAST_WITNESSES = 2  # that must have seen a place
TOLERANCE = 5.0  # grey levels that noise and resampling leave
DIFFERENT, SAME = 1.5, 0.6  # tolerances by which the median witness differs
DETAIL = 6.0  # grey levels of texture, from which looking the same means something
AROUND = 4  # px around occupied places that are not believed to be free
MOST_CUT = 0.3  # share of an object, up to which it is cut


class StaticBackground:
    """Compares frames of a shared `FlowCache` with what other frames show of the static scene."""

    def __init__(self, flow: FlowCache) -> None:
        self.flow = flow
        self._to_first: dict[int, FloatArray] = {}  # homography from a frame to the first of its chain
        self._chain: dict[int, int] = {}  # which chain a frame belongs to
        self._occupied: dict[int, BoolArray] = {}

    def reset(self) -> None:
        """Forgets everything."""
        for table in (self._to_first, self._chain, self._occupied):
            table.clear()

    def link(self, index: int, previous: int | None, homography: FloatArray | None) -> None:
        """Frame `index` follows `previous` by a `homography` (3, 3), newest -> previous, that explains the camera.

        None where it doesn't: a chain of frames ends, and another begins.
        """
        self._forget()
        if homography is None or previous not in self._chain:
            self._chain[index], self._to_first[index] = index, np.eye(3)
        else:
            assert previous is not None
            self._chain[index] = self._chain[previous]
            self._to_first[index] = self._to_first[previous] @ homography

    def occupy(self, index: int, where: BoolArray) -> None:
        """Says where in a frame (h, w) things are that are not the static scene."""
        grown = cv2.dilate(where.astype(np.uint8), np.ones((2 * AROUND + 1,) * 2, np.uint8))
        self._occupied[index] = grown > 0

    def unchanged(self, index: int, among: Sequence[int]) -> NDArray[np.float32] | None:
        """(h, w) in [0, 1]: how surely a place looks as it did when it was free in those of the frames `among` to which
        homographies lead; None where these are too few.
        """
        witnesses = self._linked(index, among)
        if len(witnesses) < LEAST_WITNESSES:
            return None
        picture = cv2.GaussianBlur(self.flow.rgb(index), (0, 0), 0.7).astype(np.float32)
        told, seen, _ = self._ask(index, witnesses, picture)
        return same(picture, (seen >= LEAST_WITNESSES) & (_median(told, seen) < SAME))

    def changed(self, index: int, among: Sequence[int]) -> BoolArray | None:
        """(h, w) where a place looks unlike it did when it was free in the frames `among`, in any light."""
        witnesses = self._linked(index, among)
        if len(witnesses) < LEAST_WITNESSES:
            return None
        picture = cv2.GaussianBlur(self.flow.rgb(index), (0, 0), 0.7).astype(np.float32)
        told, seen, behind = self._ask(index, witnesses, picture)
        return clean((seen >= LEAST_WITNESSES) & (_median(told, seen) > DIFFERENT)) & ~shaded(picture, behind)

    def standing(self, index: int, among: Sequence[int]) -> NDArray[np.float32] | None:
        """(h, w) in [0, 1]: how surely what is seen there now, a thing or not, was there in each of the frames `among`.

        None where homographies lead to too few of them.
        """
        witnesses = self._linked(index, among)
        if len(witnesses) < LEAST_WITNESSES:
            return None
        picture = cv2.GaussianBlur(self.flow.rgb(index), (0, 0), 0.7).astype(np.float32)
        told, seen, _ = self._ask(index, witnesses, picture, heed_occupied=False)
        return same(picture, (seen == len(witnesses)) & (told[-1] < SAME))

    def _ask(
        self,
        index: int,
        witnesses: Sequence[int],
        picture: NDArray[np.float32],
        heed_occupied: bool = True,
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
        """(N, h, w) tolerances by which `witnesses` differ from frame `index`, in order, those that did not see the
        place (free, if that is heeded) last; (h, w) how many saw it; (h, w, 3) what the first of them saw.
        """
        told = np.full((len(witnesses), *picture.shape[:2]), np.inf, np.float32)
        seen = np.zeros(picture.shape[:2], np.int32)
        behind = np.zeros_like(picture)
        for k, other in enumerate(witnesses):
            xy, visible = self._correspondence(index, other)
            if heed_occupied and other in self._occupied:
                visible &= ~remap(self._occupied[other], xy, nearest=True)
            told[k], laid = differences(picture, remap(self.flow.rgb(other), xy), visible)
            told[k][~visible] = np.inf
            first = visible & (seen == 0)
            behind[first] = laid[first]
            seen += visible
        told.sort(axis=0)
        return told, seen, behind

    def _forget(self) -> None:
        tables = (self._to_first, self._chain, self._occupied)
        for table in tables:
            for index in [i for i in table if not self.flow.has(i)]:
                del table[index]

    def _linked(self, index: int, among: Sequence[int]) -> list[int]:
        chain = self._chain.get(index)
        return [i for i in among if self.flow.has(i) and chain is not None and self._chain.get(i) == chain]

    def _correspondence(self, index: int, other: int) -> tuple[NDArray[np.float32], BoolArray]:
        """(h, w, 2) where the static scene of frame `index` is in `other`, and (h, w) where that can be seen."""
        height, width = self.flow.size
        H = np.linalg.inv(self._to_first[other]) @ self._to_first[index]
        xy = pixel_grid(height, width) + homography_flow(H, height, width)
        return xy.astype(np.float32), (xy >= 0).all(-1) & (xy[..., 0] <= width - 1) & (xy[..., 1] <= height - 1)


def differences(
    picture: FloatArray, other: NDArray[np.uint8], visible: BoolArray
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(h, w) by how many tolerances `picture` (h, w, 3) leaves the range of `other` within a pixel around.

    Both are the same view; a common factor of each channel where they are `visible` (h, w) is light, and taken out.
    Second: `other` in that light, (h, w, 3).
    """
    laid = cv2.GaussianBlur(other, (0, 0), 0.7).astype(np.float32)
    pick = np.flatnonzero(visible.ravel())[::7]
    if len(pick) > 30:
        a, b = picture.reshape(-1, 3)[pick], laid.reshape(-1, 3)[pick]
        laid *= np.median((a + 4.0) / (b + 4.0), axis=0).astype(np.float32)
    kernel = np.ones((3, 3), np.uint8)
    outside = np.maximum(cv2.erode(laid, kernel) - picture, picture - cv2.dilate(laid, kernel))
    return np.asarray(np.linalg.norm(np.maximum(outside, 0.0), axis=-1) / TOLERANCE, np.float32), laid


def _median(told: NDArray[np.float32], seen: NDArray[np.int32]) -> NDArray[np.float32]:
    """(h, w) of (N, h, w) in order, of which the first `seen` (h, w) count."""
    return np.take_along_axis(told, np.maximum(seen - 1, 0)[None] // 2, 0)[0]


def same(picture: NDArray[np.float32], alike: BoolArray) -> NDArray[np.float32]:
    """(h, w) in [0, 1]: how much it means that places of a `picture` (h, w, 3) are `alike` (h, w) in another: something
    where there is detail.
    """
    detail = cv2.blur(np.abs(picture - cv2.blur(picture, (9, 9))).max(-1), (5, 5))
    settled = cv2.blur(alike.astype(np.float32), (3, 3))
    return np.where(settled > 0.75, np.clip(detail / DETAIL, 0, 1), 0.0).astype(np.float32)


def shaded(picture: FloatArray, behind: FloatArray) -> BoolArray:
    """(h, w) where `picture` (h, w, 3) may be the static scene `behind` it (h, w, 3) in a cast shadow.

    A shadow darkens all channels by about one factor, the same one all around.
    """
    common, alike = relit(picture, behind)
    alike &= (common < -0.05) & (common > -1.2)
    mean = cv2.blur(common, (7, 7))
    spread = np.sqrt(np.maximum(cv2.blur(common**2, (7, 7)) - mean**2, 0))
    return np.asarray(cv2.blur((alike & (spread < 0.12)).astype(np.float32), (5, 5)) > 0.5)


def clean(mask: BoolArray) -> BoolArray:
    """`mask` (h, w) without specks, and with its pinholes closed."""
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return np.asarray(cv2.morphologyEx(opened, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0)
