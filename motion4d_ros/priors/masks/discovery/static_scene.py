"""Which pixels stand still? Flow over several frames, explained by the camera's own motion.

Either between pairs of frames, by homographies and epipolar lines, or, where the camera's poses are known, by
triangulating every pixel in all frames at once. Where that fails, the pictures are asked whether they speak for it
nevertheless: flow may be wrong, along edges and on patterns that are seen too coarsely.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.image_warping import pixel_grid, remap
from motion4d_ros.geometry.rigid import inverse_pose
from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.priors.masks.discovery.motion_evidence import dissimilarity, explain, photometric_gain, smoothed
from motion4d_ros.priors.masks.discovery.regions import grown, parts
from motion4d_ros.priors.masks.discovery.rigid_motion import CAP, SPAN, TYPICAL, Image, Trajectories
from motion4d_ros.priors.masks.propagation.mask_cues import bounding_box
from motion4d_ros.types import BoolArray, Camera, FloatArray


@dataclass
class Still:
    """How well the static scene explains the trajectories of a frame."""

    misfit: Image  # (h, w) standard deviations, as of a body; near 0 stands still, above 1 hardly
    speaks: Image  # (h, w) in about [-4, 4]: how much better flow explains the pictures than stillness does
    stray: float  # share of the free picture that seems to move: what is wrong with the camera's motion or with flow
    noise: float  # median misfit of the free picture, standard deviations

    def moves(self, region: BoolArray) -> bool:
        """Whether most of a region (h, w) contradicts stillness, and the pictures agree."""
        off, speaks = self.misfit[region], self.speaks[region]
        return bool(len(off) and (off > 1.0).mean() > 0.5 and (speaks > 0.15).mean() > 0.3)


MOVES = 1.15  # misfit from which a pixel counts as moving
FOLLOWED = 3  # frames in which a pixel must have been followed to be judged
PAIRED = (-SPAN, SPAN, -SPAN // 2, SPAN // 2)  # offsets of the frames that pictures are compared with
SWEPT, LEAST_SWEPT = 12, 60  # px around what seems to move where pictures are compared, and least px of such a region
PLANES, FARTHER = 24, 1.2  # inverse depths that are tried, and times that of the nearest thing known
KNOWN, LEAST_KNOWN = 5.0, 0.3  # standard deviations of an inverse depth that counts, share of the picture that has one
BLIND, NEUTRAL = 0.5, 1.25  # most misfit that counts where the pictures speak for stillness, where they don't tell
AGAINST, FOR = -0.1, 0.15  # of `speaks`


def stillness(
    cache: FlowCache,
    tracks: Trajectories,
    exclude: BoolArray | None,
    poses: dict[int, FloatArray],
    camera: Camera | None,
) -> Still:
    """Compares trajectories with what a static scene shows: by homographies or epipolar lines, and by triangulation
    where `poses` (4, 4, map <- camera) of all frames are known. The explanation that leaves less of the picture in
    motion is taken. `exclude` (h, w) where known things move; `camera` at the size of the flow.
    """
    off, flows = _by_twoviews(cache, tracks, exclude)
    options = [(off, _pictures(cache, tracks, flows))]
    swept: Image | None = None
    if camera is not None and all(tracks.index + offset in poses for offset in [0, *tracks.offsets]):
        off, flows, alternative = _by_triangulation(cache, tracks, poses, camera)
        options.append((off, _pictures(cache, tracks, flows)))
        swept = options[-1][1] if alternative is flows else _pictures(cache, tracks, alternative)
    free = tracks.seen >= min(FOLLOWED, len(tracks.offsets))
    if exclude is not None:
        free &= ~exclude
    best: Still | None = None
    for off, speaks in options:
        if swept is not None:  # heard only where it speaks for stillness: of many depths one always fits a little
            speaks = np.where(swept < AGAINST, np.minimum(speaks, swept), speaks)
        off = np.where(speaks < AGAINST, np.minimum(off, BLIND), np.where(speaks < FOR, np.minimum(off, NEUTRAL), off))
        stray = float((off[free] > MOVES).mean()) if free.any() else 1.0
        noise = float(np.median(off[free])) if free.any() else CAP
        if best is None or stray < best.stray:
            best = Still(cv2.blur(off.astype(np.float32), (3, 3)), speaks, stray, noise)
    assert best is not None
    return best


def _by_twoviews(cache: FlowCache, tracks: Trajectories, exclude: BoolArray | None) -> tuple[Image, dict[int, Image]]:
    """(h, w) misfit to the camera's motion as found between pairs of frames, and the static flow by offset."""
    total = np.full(cache.size, TYPICAL, np.float32)
    count = np.ones(cache.size, np.float32)
    flows = {}
    for k, offset in enumerate(tracks.offsets):
        error = np.where(tracks.valid[k], 0.0, np.inf).astype(np.float32)
        found = explain(tracks.flow[k], error, exclude, None)
        if found is None:
            continue
        sigma = max(float(tracks.sigma[k]), found.noise)
        total += np.minimum(found.residual / sigma, CAP) * tracks.valid[k]
        count += tracks.valid[k]
        flows[offset] = found.flow
    return total / count, flows


@dataclass
class View:
    """Another frame, seen from pixel (x, y) at inverse depth w: at `(turn (x, y, 1) + w shift)`, homogeneous, px."""

    turn: NDArray[np.float32]  # (3, 3)
    shift: NDArray[np.float32]  # (3,)
    ahead: tuple[Image, Image, Image]  # (h, w) each: turn (x, y, 1)

    def depth(self, w: Image) -> Image:
        """(h, w) how deep in the other frame, times what it is in this one."""
        return np.asarray(self.ahead[2] + w * self.shift[2])

    def project(self, w: Image, box: tuple[slice, slice] = np.s_[:, :]) -> NDArray[np.float32]:
        """(h, w, 2) px in the other frame of the pixels in a `box` at inverse depth `w` (h, w)."""
        x, y, z = (part[box] + w * by for part, by in zip(self.ahead, self.shift, strict=True))
        z = np.maximum(z, 0.05)
        return np.stack([x / z, y / z], -1)

    def at_plane(self, image: Image, w: float, box: tuple[slice, slice]) -> Image:
        """The other frame's `image` (H, W), seen from the pixels in a `box` if all are at inverse depth `w`.

        That is a homography, which is several times faster than to project and look up every pixel.
        """
        matrix = self.turn.astype(float)
        matrix[:, 2] += w * self.shift + matrix[:, :2] @ (box[1].start, box[0].start)
        size = box[1].stop - box[1].start, box[0].stop - box[0].start
        how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpPerspective(image, matrix, size, flags=how, borderMode=cv2.BORDER_REPLICATE))


def views_of(tracks: Trajectories, poses: dict[int, FloatArray], camera: Camera) -> list[View]:
    """How the frames of the trajectories see this one's pixels."""
    K, back = camera.K, np.linalg.inv(camera.K)
    height, width = tracks.valid.shape[1:]
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    views = []
    for offset in tracks.offsets:
        T = inverse_pose(poses[tracks.index + offset]) @ poses[tracks.index]
        turn = (K @ T[:3, :3] @ back).astype(np.float32)
        first, second, third = (turn[k, 0] * x + turn[k, 1] * y + turn[k, 2] for k in range(3))
        views.append(View(turn, (K @ T[:3, 3]).astype(np.float32), (first, second, third)))
    return views


def _by_triangulation(
    cache: FlowCache, tracks: Trajectories, poses: dict[int, FloatArray], camera: Camera
) -> tuple[Image, dict[int, Image], dict[int, Image]]:
    """The same with known poses: every pixel is triangulated, linearly and robustly, in all frames at once.

    Third: the static flow at the inverse depths of `_swept`; the second itself where it changes nothing.
    """
    height, width = tracks.valid.shape[1:]
    grid = pixel_grid(height, width)
    views = views_of(tracks, poses, camera)
    terms = []  # of u (turn_3 + w shift_3) = turn_1 + w shift_1, and so for v: what w counts, and what has to be
    for view, flow in zip(views, tracks.flow, strict=True):
        u, v = grid[..., 0] + flow[..., 0], grid[..., 1] + flow[..., 1]
        counts = u * view.shift[2] - view.shift[0], v * view.shift[2] - view.shift[1]
        has_to_be = view.ahead[0] - u * view.ahead[2], view.ahead[1] - v * view.ahead[2]
        square = counts[0] ** 2 + counts[1] ** 2
        terms.append((counts, has_to_be, counts[0] * has_to_be[0] + counts[1] * has_to_be[1], square))
    w: Image = np.zeros((height, width), np.float32)
    sigma = tracks.sigma.copy()
    weight = tracks.valid / sigma[:, None, None] ** 2
    off = np.empty(tracks.valid.shape, np.float32)
    for _ in range(3):
        above, below = np.zeros_like(w), np.zeros_like(w)
        for view, share, (_, _, product, square) in zip(views, weight, terms, strict=True):
            share = share / np.maximum(view.depth(w), 0.1) ** 2
            above += share * product
            below += share * square
        w = np.maximum(above / (below + 1e-9 * camera.fx**2), 0)
        for k, (view, (counts, has_to_be, _, _)) in enumerate(zip(views, terms, strict=True)):
            left = np.sqrt((has_to_be[0] - w * counts[0]) ** 2 + (has_to_be[1] - w * counts[1]) ** 2)
            off[k] = left / np.maximum(view.depth(w), 0.05)
            weight[k] = tracks.valid[k] / sigma[k] ** 2 / (1.0 + (off[k] / (2 * sigma[k])) ** 2)
    for k, valid in enumerate(tracks.valid):  # what poses leave everywhere is no motion
        sigma[k] = max(sigma[k], 1.48 * float(np.median(off[k][valid]))) if valid.any() else sigma[k]
    summed = (np.minimum(off / sigma[:, None, None], CAP) * tracks.valid).sum(0) + TYPICAL
    total = (summed / (tracks.seen + 1.0)).astype(np.float32)
    paired = {offset: view for offset, view in zip(tracks.offsets, views, strict=True) if offset in PAIRED}
    at_best = _swept(cache, tracks.index, paired, w, total, w * np.sqrt(below) > KNOWN)
    flows = {offset: view.project(w) - grid for offset, view in paired.items()}
    if at_best is w:
        return total, flows, flows
    return total, flows, {offset: view.project(at_best) - grid for offset, view in paired.items()}


def _swept(
    cache: FlowCache, index: int, paired: dict[int, View], inverse_depth: Image, off: Image, known: BoolArray
) -> Image:
    """(h, w) inverse depths: where a pixel seems to move, the one at which the pictures agree best, by plane sweep.

    Flow that is wrong, along an edge or on a pattern seen too coarsely, is triangulated to anywhere. So stillness gets
    its best chance before the pictures are asked. `paired`: the frames compared with, by offset; `known` (h, w): where
    there is parallax to speak of. Without it depths are anything, and one of them fits what moves.
    """
    moving, settled = off > 1.0, inverse_depth[(off < 1.0) & known]
    if not moving.any() or len(settled) < LEAST_KNOWN * known.size:
        return inverse_depth
    planes = np.linspace(0.0, FARTHER * float(np.percentile(settled, 98)), PLANES)
    now = smoothed(cache.gray(index))
    others = [(view, smoothed(cache.gray(index + offset))) for offset, view in paired.items()]
    out = inverse_depth.copy()
    for part in parts(grown(moving, 2), LEAST_SWEPT):
        box = bounding_box(part, SWEPT)
        assert box is not None
        best, here = inverse_depth[box].copy(), now[box]
        least = np.sum([dissimilarity(here - remap(other, view.project(best, box))) for view, other in others], axis=0)
        for plane in planes:
            cost = np.zeros_like(least)
            for view, other in others:
                cost += dissimilarity(here - view.at_plane(other, plane, box))
            best[cost < least] = plane
            np.minimum(cost, least, out=least)
        chosen = part[box] & moving[box]
        out[box][chosen] = best[chosen]
    return out


def _pictures(cache: FlowCache, tracks: Trajectories, static: dict[int, Image]) -> Image:
    """(h, w) the sum over a few frames of how much better flow explains them than stillness (`photometric_gain`)."""
    total = np.zeros(cache.size, np.float32)
    for offset in PAIRED:
        if offset in static:
            k = tracks.offsets.index(offset)
            now, other = cache.gray(tracks.index), cache.gray(tracks.index + offset)
            total += photometric_gain(now, other, static[offset], tracks.flow[k]) * tracks.valid[k]
    return np.asarray(cv2.blur(total, (5, 5)), np.float32)
