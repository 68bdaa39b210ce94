"""What the static scene looks like from a frame, told from other frames; what differs from it is something else.

Flow says what moves now, and its outlines are smeared and drift. A picture of the background does not drift: frames
in which a place was free show what is behind the thing that is there now. They are laid over the frame by the camera's
motion (poses and static depth, or homographies where these explain the camera's motion), each gets its say, and a pixel
differs when most of them say so. Nothing is said where too few saw the place, and nothing at all in a frame that
differs in many places where nothing moves: there the camera's motion, the depth or the light isn't known well enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.dense_depth import splat
from motion4d_ros.geometry.image_warping import pixel_grid, remap
from motion4d_ros.geometry.rigid import inverse_pose
from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.priors.interfaces import DepthPrior, PosePrior
from motion4d_ros.priors.masks.discovery.motion_evidence import homography_flow, relit, rigid_flow
from motion4d_ros.types import BoolArray, Camera, FloatArray, Frame, PoseStatus, Scale

WITNESSES = 12  # frames that are asked at most
REACH = 40  # frames back that they are taken from
NEAREST = 2  # frames; nearer ones show the same things covered
LEAST_WITNESSES = 2  # that must have seen a place
TOLERANCE = 5.0  # grey levels that noise and resampling leave
DIFFERENT, SAME = 1.5, 0.6  # tolerances by which the median witness differs
DETAIL = 6.0  # grey levels of texture, from which looking the same means something
STRAY_SHARE = 0.03  # of the free picture, beyond which a frame's comparison is not believed
AROUND = 4  # px around occupied places that are not believed to be free
STEP = 0.06  # relative, of depth within a few pixels: an edge, where warping smears
OCCLUDED = 0.9  # of its depth: what is nearer than that in a witness hides the place
MOST_CUT = 0.3  # share of an object, up to which it is cut
REACHED = 10  # px from an object that pixels are won for it
HOLE_SIDE = 160  # px, at which the depth behind things is put together


@dataclass
class View:
    """A frame's pose and the depth of the static scene in it."""

    camera: Camera
    T_map_cam: FloatArray  # (4, 4)
    depth: NDArray[np.float32]  # (h, w) map units
    sigma: NDArray[np.float32]  # (h, w) relative


def view_of(frame: Frame, pose: PosePrior, depth: DepthPrior | None, size: tuple[int, int]) -> View | None:
    """The view of a frame at `size` (height, width); None where pose and depth aren't measured in one scale."""
    if depth is None or depth.affine or depth.scale is not pose.scale:
        return None
    camera = frame.camera.scaled(size[0] / frame.camera.height)
    if pose.status is not PoseStatus.OK or pose.scale is Scale.UNKNOWN or camera.size != size:
        return None
    known = np.where(depth.depth > 0, depth.depth, np.nan)
    z, sigma = (np.asarray(cv2.resize(image, size[::-1]), np.float32) for image in (known, depth.sigma))
    return View(camera, pose.T_map_cam, z, sigma)


class StaticBackground:
    """Compares frames of a shared `FlowCache` with what other frames show of the static scene."""

    def __init__(self, flow: FlowCache) -> None:
        self.flow = flow
        self._to_first: dict[int, FloatArray] = {}  # homography from a frame to the first of its chain
        self._chain: dict[int, int] = {}  # which chain a frame belongs to
        self._views: dict[int, View] = {}
        self._occupied: dict[int, BoolArray] = {}

    def reset(self) -> None:
        """Forgets everything."""
        for table in (self._to_first, self._chain, self._views, self._occupied):
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

    def look(self, index: int, view: View) -> None:
        """Takes the pose and depth of a frame, at the flow's size."""
        self._views[index] = view

    def occupy(self, index: int, where: BoolArray) -> None:
        """Says where in a frame (h, w) things are that are not the static scene."""
        grown = cv2.dilate(where.astype(np.uint8), np.ones((2 * AROUND + 1,) * 2, np.uint8))
        self._occupied[index] = grown > 0

    def compare(self, index: int, known: BoolArray | None = None) -> NDArray[np.float32] | None:
        """(h, w) in [-1, 1]: 1 differs from the static scene, -1 looks the same, which means something; 0: no telling.

        `known` (h, w): where things are known to be in this frame. None when nothing can be said in this frame.
        """
        witnesses = self._witnesses(index)
        if len(witnesses) < LEAST_WITNESSES:
            return None
        height, width = self.flow.size
        free = np.ones((height, width), bool)
        if known is not None:
            free = cv2.dilate(known.astype(np.uint8), np.ones((2 * AROUND + 1,) * 2, np.uint8)) == 0
        picture = cv2.GaussianBlur(self.flow.rgb(index), (0, 0), 0.7).astype(np.float32)
        edge = np.zeros((height, width), bool)
        depth = None
        if index in self._views:
            depth = self._static_depth(index, witnesses, free)
            edge = depth_edges(depth) & free  # behind things depth is put together from pieces, and rough
        told, seen, behind = self._ask(index, witnesses, picture, depth)
        median = _median(told, seen)
        judged = (seen >= LEAST_WITNESSES) & ~edge
        differs = clean(judged & (median > DIFFERENT))
        if float((differs & free).mean()) > STRAY_SHARE * max(0.2, float(free.mean())):
            return None
        differs &= ~shaded(picture, behind)
        return np.where(differs, 1.0, -same(picture, judged & (median < SAME))).astype(np.float32)

    # ---- helpers ----------------------------------------------------------------------------------------------------

    def _ask(
        self,
        index: int,
        witnesses: Sequence[int],
        picture: NDArray[np.float32],
        depth: NDArray[np.float32] | None,
        heed_occupied: bool = True,
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
        """(N, h, w) tolerances by which `witnesses` differ from frame `index`, in order, those that did not see the
        place (free, if that is heeded) last; (h, w) how many saw it; (h, w, 3) what the first of them saw.
        """
        told = np.full((len(witnesses), *picture.shape[:2]), np.inf, np.float32)
        seen = np.zeros(picture.shape[:2], np.int32)
        behind = np.zeros_like(picture)
        for k, other in enumerate(witnesses):
            xy, visible = self._correspondence(index, other, depth)
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
        tables = (self._to_first, self._chain, self._views, self._occupied)
        for table in tables:
            for index in [i for i in table if not self.flow.has(i)]:
                del table[index]

    def unchanged(self, index: int, among: Sequence[int]) -> NDArray[np.float32] | None:
        """(h, w) in [0, 1]: how surely a place looks as it did when it was free in those of the frames `among` to which
        homographies lead; None where these are too few.
        """
        witnesses = self._linked(index, among)
        if len(witnesses) < LEAST_WITNESSES:
            return None
        picture = cv2.GaussianBlur(self.flow.rgb(index), (0, 0), 0.7).astype(np.float32)
        told, seen, _ = self._ask(index, witnesses, picture, None)
        return same(picture, (seen >= LEAST_WITNESSES) & (_median(told, seen) < SAME))

    def changed(self, index: int, among: Sequence[int]) -> BoolArray | None:
        """(h, w) where a place looks unlike it did when it was free in the frames `among`, in any light."""
        witnesses = self._linked(index, among)
        if len(witnesses) < LEAST_WITNESSES:
            return None
        picture = cv2.GaussianBlur(self.flow.rgb(index), (0, 0), 0.7).astype(np.float32)
        told, seen, behind = self._ask(index, witnesses, picture, None)
        return clean((seen >= LEAST_WITNESSES) & (_median(told, seen) > DIFFERENT)) & ~shaded(picture, behind)

    def standing(self, index: int, among: Sequence[int]) -> NDArray[np.float32] | None:
        """(h, w) in [0, 1]: how surely what is seen there now, a thing or not, was there in each of the frames `among`.

        None where homographies lead to too few of them.
        """
        witnesses = self._linked(index, among)
        if len(witnesses) < LEAST_WITNESSES:
            return None
        picture = cv2.GaussianBlur(self.flow.rgb(index), (0, 0), 0.7).astype(np.float32)
        told, seen, _ = self._ask(index, witnesses, picture, None, heed_occupied=False)
        return same(picture, (seen == len(witnesses)) & (told[-1] < SAME))

    def _linked(self, index: int, among: Sequence[int]) -> list[int]:
        chain = self._chain.get(index)
        return [i for i in among if self.flow.has(i) and chain is not None and self._chain.get(i) == chain]

    def _witnesses(self, index: int) -> list[int]:
        """Frames from which the static scene can be laid over frame `index`, spread evenly."""
        if index in self._views:
            usable = [i for i in self._views if self.flow.has(i)]
        else:
            usable = [i for i, chain in self._chain.items() if chain == self._chain.get(index) and self.flow.has(i)]
        usable = sorted(i for i in usable if NEAREST <= abs(index - i) <= REACH)
        if len(usable) <= WITNESSES:
            return usable
        return [usable[round(k)] for k in np.linspace(0, len(usable) - 1, WITNESSES)]

    def _correspondence(
        self, index: int, other: int, depth: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float32], BoolArray]:
        """(h, w, 2) where the static scene of frame `index` is in `other`, and (h, w) where that can be seen."""
        height, width = self.flow.size
        grid = pixel_grid(height, width)
        if depth is None:
            H = np.linalg.inv(self._to_first[other]) @ self._to_first[index]
            xy = grid + homography_flow(H, height, width)
            hidden = np.zeros((height, width), bool)
        else:
            here, there = self._views[index], self._views[other]
            T = inverse_pose(there.T_map_cam) @ here.T_map_cam
            xy = grid + np.nan_to_num(rigid_flow(depth, here.camera, T), nan=-1e4)
            ray = here.camera.unproject(grid, np.ones_like(depth))
            far = depth * (ray @ T[2, :3]) + T[2, 3]
            hidden = (far <= 0) | (remap(there.depth, xy) < OCCLUDED * far)
        inside = (xy >= 0).all(-1) & (xy[..., 0] <= width - 1) & (xy[..., 1] <= height - 1)
        return xy.astype(np.float32), inside & ~hidden

    def _static_depth(self, index: int, witnesses: list[int], free: BoolArray) -> NDArray[np.float32]:
        """(h, w) depth of the static scene, behind things, too."""
        view = self._views[index]
        if free.all():
            return view.depth
        height, width = free.shape
        small = min(1.0, HOLE_SIDE / max(height, width))
        camera = view.camera.scaled(small)
        size = camera.width, camera.height
        layers = []
        for other in witnesses[:: max(1, len(witnesses) // 4)]:
            there = self._views[other]
            w = 1.0 / there.depth
            if other in self._occupied:
                w = np.where(self._occupied[other], np.nan, w)
            w = cv2.resize(w, size, interpolation=cv2.INTER_NEAREST)
            sigma = w * cv2.resize(there.sigma, size, interpolation=cv2.INTER_NEAREST)
            layers.append(splat(w, sigma, camera, inverse_pose(view.T_map_cam) @ there.T_map_cam)[0])
        stack = np.sort(np.stack(layers), axis=0)  # NaN last
        count = np.isfinite(stack).sum(0)
        w = np.take_along_axis(stack, np.maximum(count - 1, 0)[None] // 2, 0)[0]
        behind = cv2.resize(1.0 / w, (width, height), interpolation=cv2.INTER_NEAREST)
        return np.where(~free & np.isfinite(behind), behind, view.depth).astype(np.float32)


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


def recut(labels: NDArray[np.int32], told: NDArray[np.float32]) -> NDArray[np.int32]:
    """Labels (h, w) without what looks like the static scene, and with what doesn't and hangs together with them.

    `told` (h, w) as from `StaticBackground.compare`. Pixels that are won go to the nearest object within `REACHED` px.
    An object much of which looks static may have stood there, unnoticed, in the other frames: it keeps its outline.
    """
    out = labels.copy()
    for object_id in np.unique(labels[labels > 0]):
        mine = labels == object_id
        same = mine & (told < -0.5)
        if same.sum() < MOST_CUT * mine.sum():
            out[same] = 0
    free = (told > 0) & (out == 0)
    if not free.any() or not (out > 0).any():
        return out
    away, nearest = cv2.distanceTransformWithLabels(
        (out <= 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    owner = np.zeros(int(nearest.max()) + 1, np.int32)
    owner[nearest[out > 0]] = out[out > 0]
    won = free & (away < REACHED)
    out[won] = owner[nearest[won]]
    return out


def depth_edges(depth: NDArray[np.float32]) -> BoolArray:
    """(h, w) within a few pixels of where `depth` (h, w) jumps."""
    kernel = np.ones((5, 5), np.uint8)
    low, high = cv2.erode(depth, kernel), cv2.dilate(depth, kernel)
    slope = (high - low) > STEP * low
    return np.asarray(cv2.dilate(slope.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)


def clean(mask: BoolArray) -> BoolArray:
    """`mask` (h, w) without specks, and with its pinholes closed."""
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return np.asarray(cv2.morphologyEx(opened, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)) > 0)
