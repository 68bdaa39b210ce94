"""Which pixels stand still? Flow over several frames, explained by the camera's own motion.

Either between pairs of frames, by homographies and epipolar lines, or, where the camera's poses are known, by
triangulating every pixel in all frames at once. Where that fails, the pictures are asked whether they speak for it
nevertheless: flow may be wrong, along edges and on patterns that are seen too coarsely.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from motion4d_ros.geometry.two_view import inverse_pose
from motion4d_ros.priors.body_motion import CAP, SPAN, TYPICAL, Image, Trajectories
from motion4d_ros.priors.flow import FlowCache, pixel_grid, remap
from motion4d_ros.priors.mask_cues import bounding_box
from motion4d_ros.priors.motion_evidence import dissimilarity, explain, photometric_gain, smoothed
from motion4d_ros.priors.regions import grown, parts
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
    off, flows = _by_two_views(cache, tracks, exclude)
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


def _by_two_views(cache: FlowCache, tracks: Trajectories, exclude: BoolArray | None) -> tuple[Image, dict[int, Image]]:
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


def _by_triangulation(
    cache: FlowCache, tracks: Trajectories, poses: dict[int, FloatArray], camera: Camera
) -> tuple[Image, dict[int, Image], dict[int, Image]]:
    """The same with known poses: every pixel is triangulated, linearly and robustly, in all frames at once.

    Third: the static flow at the inverse depths of `_swept`; the second itself where it changes nothing.

    A point at inverse depth w on the ray r is seen from another camera at (R r + w t), up to scale.
    """
    height, width = tracks.valid.shape[1:]
    grid = pixel_grid(height, width)
    focal, centre = np.array([camera.fx, camera.fy]), np.array([camera.cx, camera.cy])
    ray = np.dstack([(grid - centre) / focal, np.ones((height, width))]).astype(np.float32)
    turned, shift, seen = [], [], []
    for k, offset in enumerate(tracks.offsets):
        T = (inverse_pose(poses[tracks.index + offset]) @ poses[tracks.index]).astype(np.float32)
        turned.append(ray @ T[:3, :3].T)
        shift.append(T[:3, 3])
        seen.append(((grid + tracks.flow[k] - centre) / focal).astype(np.float32))
    w: Image = np.zeros((height, width), np.float32)
    sigma = tracks.sigma.copy()
    weight = tracks.valid / sigma[:, None, None] ** 2
    for _ in range(3):
        above: FloatArray = np.zeros((height, width), np.float32)
        below: FloatArray = np.zeros((height, width), np.float32)
        for r, t, uv, share in zip(turned, shift, seen, weight, strict=True):
            z = np.maximum(r[..., 2] + w * t[2], 0.1)[..., None]
            slope = (uv * t[2] - t[:2]) / z
            above = above + share * (slope * (r[..., :2] - uv * r[..., 2:]) / z).sum(-1)
            below = below + share * (slope**2).sum(-1)
        w = np.clip(above / (below + 1e-9), 0, None).astype(np.float32)
        where = [_project(r, t, w) for r, t in zip(turned, shift, strict=True)]
        off = np.stack([np.linalg.norm((p - uv) * focal, axis=-1) for p, uv in zip(where, seen, strict=True)])
        weight = tracks.valid / sigma[:, None, None] ** 2 / (1.0 + (off / (2 * sigma[:, None, None])) ** 2)
    for k, valid in enumerate(tracks.valid):  # what poses leave everywhere is no motion
        sigma[k] = max(sigma[k], 1.48 * float(np.median(off[k][valid]))) if valid.any() else sigma[k]
    summed = (np.minimum(off / sigma[:, None, None], CAP) * tracks.valid).sum(0) + TYPICAL
    total = (summed / (tracks.seen + 1.0)).astype(np.float32)
    rays = list(zip(turned, shift, strict=True))
    depths = [w]
    at_best = _swept(cache, tracks, rays, camera, w, total, w * camera.fx * np.sqrt(below) > KNOWN)
    if at_best is not w:
        depths.append(at_best)
    flows = [
        {
            offset: (_project(r, t, at) * focal + centre - grid).astype(np.float32)
            for offset, (r, t) in zip(tracks.offsets, rays, strict=True)
            if offset in PAIRED
        }
        for at in depths
    ]
    return total, flows[0], flows[-1]


def _swept(
    cache: FlowCache,
    tracks: Trajectories,
    rays: list[tuple[Image, FloatArray]],
    camera: Camera,
    inverse_depth: Image,
    off: Image,
    known: BoolArray,
) -> Image:
    """(h, w) inverse depths: where a pixel seems to move, the one at which the pictures agree best, by plane sweep.

    Flow that is wrong, along an edge or on a pattern seen too coarsely, is triangulated to anywhere. So stillness gets
    its best chance before the pictures are asked. `rays`, by offset: (h, w, 3) turned rays and (3,) shift; `known`
    (h, w): where there is parallax to speak of. Without it depths are anything, and one of them fits what moves.
    """
    moving, settled = off > 1.0, inverse_depth[(off < 1.0) & known]
    if not moving.any() or len(settled) < LEAST_KNOWN * known.size:
        return inverse_depth
    focal, centre = np.array([camera.fx, camera.fy]), np.array([camera.cx, camera.cy])
    planes = np.linspace(0.0, FARTHER * float(np.percentile(settled, 98)), PLANES, dtype=np.float32)
    now = smoothed(cache.gray(tracks.index))
    views = [
        (*rays[tracks.offsets.index(offset)], smoothed(cache.gray(tracks.index + offset)))
        for offset in PAIRED
        if offset in tracks.offsets
    ]
    out = inverse_depth.copy()
    for part in parts(grown(moving, 2), LEAST_SWEPT):
        box = bounding_box(part, SWEPT)
        assert box is not None
        own = inverse_depth[box]
        best, least = own.copy(), np.full(own.shape, np.inf, np.float32)
        for plane in [own, *(np.full_like(own, value) for value in planes)]:
            cost = np.zeros_like(own)
            for turned, shift, other in views:
                difference = now[box] - remap(other, _project(turned[box], shift, plane) * focal + centre)
                cost += dissimilarity(difference)
            better = cost < least
            best[better], least[better] = plane[better], cost[better]
        chosen = part[box] & moving[box]
        out[box][chosen] = best[chosen]
    return out


def _project(turned: Image, shift: FloatArray, w: Image) -> Image:
    """(h, w, 2) normalised image coordinates of rays at inverse depth `w`."""
    z = np.maximum(turned[..., 2] + w * shift[2], 0.05)
    return np.asarray((turned[..., :2] + w[..., None] * shift[:2]) / z[..., None], np.float32)


def _pictures(cache: FlowCache, tracks: Trajectories, static: dict[int, Image]) -> Image:
    """(h, w) the sum over a few frames of how much better flow explains them than stillness (`photometric_gain`)."""
    total = np.zeros(cache.size, np.float32)
    for offset in PAIRED:
        if offset in static:
            k = tracks.offsets.index(offset)
            now, other = cache.gray(tracks.index), cache.gray(tracks.index + offset)
            total += photometric_gain(now, other, static[offset], tracks.flow[k]) * tracks.valid[k]
    return np.asarray(cv2.blur(total, (5, 5)), np.float32)
