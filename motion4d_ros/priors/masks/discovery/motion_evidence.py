"""Which pixels move against the static scene? Evidence from flow, gathered over time.

What the camera's own motion explains is no object: with depth and poses that is the flow of a rigid scene, without them
a homography (turning camera, flat or far scenes) or, where parallax shows, the epipolar geometry.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.image_warping import length, warp
from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.geometry.robust import estimated
from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.types import BoolArray, Camera, FloatArray

GRID = 6  # px between the flow samples that camera motion is fitted to
PIXEL_NOISE = 0.25  # px, flow is never better than this
PLANE_ERROR = 0.42  # px of flow that a homography leaves, from which parallax is suspected
FINEST_MOTION = 0.08  # px a frame that flow between neighbouring frames still shows
EVIDENCE_MIN, EVIDENCE_MAX = -2.0, 4.0


@dataclass
class StaticFlow:
    """Camera motion between two frames, as far as flow tells."""

    flow: NDArray[np.float32]  # (h, w, 2) the nearest motion to the measured flow that a static scene can have
    residual: NDArray[np.float32]  # (h, w) px between the two
    noise: float  # px, robust standard deviation of the residual where nothing moves
    homography: FloatArray  # (3, 3) newest -> older
    parallax: bool  # whether the homography alone was not enough


def explain(
    flow: NDArray[np.float32], error: NDArray[np.float32], exclude: BoolArray | None, rigid: NDArray[np.float32] | None
) -> StaticFlow | None:
    """What of `flow` (h, w, 2) a static scene explains; None when there is too little to tell (black, blurred, cut).

    `error` (h, w) is the flow's forward-backward error, `exclude` (h, w) known moving objects, `rigid` (h, w, 2) the
    flow of the static scene predicted from depth and poses, NaN where unknown.
    """
    height, width = error.shape
    ys, xs = np.mgrid[GRID // 2 : height : GRID, GRID // 2 : width : GRID]
    good = error[ys, xs] < 1.0
    if exclude is not None:
        good &= ~exclude[ys, xs]
    if good.sum() < max(30, 0.08 * good.size):
        return None
    a = np.stack([xs[good], ys[good]], -1).astype(np.float32)
    b = a + flow[ys[good], xs[good]]
    cv2.setRNGSeed(0)
    H = estimated(lambda: cv2.findHomography(a, b, cv2.USAC_MAGSAC, 0.8, maxIters=1000, confidence=0.999))
    if H is None:
        return None
    plane = static = homography_flow(H, height, width)
    left = length((flow - plane)[ys[good], xs[good]])
    parallax = False
    if np.median(left) > PLANE_ERROR or (left < 1.0).mean() < 0.8:
        F = estimated(lambda: cv2.findFundamentalMat(a, b, cv2.USAC_MAGSAC, 0.5, 0.999, 2000))
        if F is not None:
            on_line = nearest_on_epipolar_line(F, flow)
            left_now = length((flow - on_line)[ys[good], xs[good]])
            # a line explains more than a point by itself, movers included: only a clear gain speaks for parallax
            if np.median(left_now) < 0.4 * np.median(left) and (left_now < 1.0).mean() > (left < 1.0).mean():
                static, parallax = on_line, True
    if rigid is not None:  # depth may be off by a few per cent: so may the parallax it predicts
        known = np.isfinite(rigid).all(-1, keepdims=True)
        shift = np.nan_to_num(rigid) - plane
        along = ((flow - plane) * shift).sum(-1) / np.maximum((shift**2).sum(-1), 1e-9)
        static = np.where(known, plane + shift * np.clip(along, 0.94, 1.06)[..., None], static)
    residual = length(flow - static).astype(np.float32)
    noise = max(PIXEL_NOISE, 1.48 * float(np.median(residual[ys[good], xs[good]])))
    return StaticFlow(static.astype(np.float32), residual, noise, H, parallax)


def homography_flow(H: FloatArray, height: int, width: int) -> NDArray[np.float32]:
    """(h, w, 2) flow of a plane that moves by the homography `H`."""
    x, y = _axes(height, width)
    u, v, scale = (row[0] * x + row[1] * y + row[2] for row in H)
    return np.stack([u / scale - x, v / scale - y], -1).astype(np.float32)


def nearest_on_epipolar_line(F: FloatArray, flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w, 2) `flow` moved the shortest way onto the epipolar lines of `F` (b^T F a = 0)."""
    x, y = _axes(flow.shape[0], flow.shape[1])
    a, b, c = (row[0] * x + row[1] * y + row[2] for row in F)
    offset = ((x + flow[..., 0]) * a + (y + flow[..., 1]) * b + c) / np.maximum(a * a + b * b, 1e-18)
    return np.stack([flow[..., 0] - offset * a, flow[..., 1] - offset * b], -1).astype(np.float32)


def _axes(height: int, width: int) -> tuple[FloatArray, FloatArray]:
    """(W,) and (H, 1) pixel coordinates; component by component is several times faster than (H, W, 2) is."""
    return np.arange(width, dtype=float), np.arange(height, dtype=float)[:, None]


def photometric_gain(
    gray: NDArray[np.uint8], before: NDArray[np.uint8], static: NDArray[np.float32], flow: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(h, w) in [-1, 1]: how much better `flow` explains the image than the `static` flow does.

    Near 1: the static scene cannot look like this. Near 0: no telling (flat colour). Negative: where there is texture
    that the static scene explains, so that flow astray on repeated patterns and along lines is not taken for motion.
    """
    now, then = smoothed(gray), smoothed(before)
    cost_static, cost_flow = (dissimilarity(now - warp(then, way)) for way in (static, flow))
    scale = 2.0 + 2.0 * float(np.median(cost_static))
    detail = cv2.blur(np.abs(now - cv2.blur(now, (7, 7))), (7, 7))
    gain = np.clip((cost_static - cost_flow) / scale, 0, 1)
    explained = np.clip(detail / (3 * scale), 0, 1) * np.clip(1 - 2 * cost_static / np.maximum(detail, 1e-3), 0, 1)
    return np.asarray(np.where(gain > 0.15, gain, -explained), np.float32)


def smoothed(gray: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(h, w) grey values without noise, to be compared with others."""
    return np.asarray(cv2.GaussianBlur(gray, (0, 0), 0.8), np.float32)


def dissimilarity(difference: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w) grey levels by which two images with that `difference` differ around a pixel; brightness may change."""
    return np.asarray(cv2.blur(np.abs(difference - cv2.blur(difference, (15, 15))), (7, 7)), np.float32)


def rigid_flow(depth: FloatArray, camera: Camera, T_other_cam: FloatArray) -> NDArray[np.float32]:
    """(h, w, 2) flow of a static scene with `depth` (h, w) when the camera moves by `T_other_cam` (4, 4)."""
    grid = camera.pixel_grid()
    with np.errstate(invalid="ignore"):
        xyz = camera.unproject(grid, np.where(depth > 0, depth, np.nan))
    moved = transform_points(T_other_cam, xyz)
    return np.asarray(camera.project(moved) - grid, np.float32)


def shadow_like(rgb: NDArray[np.uint8], before: NDArray[np.uint8], where: BoolArray) -> float:
    """Share of the pixels in `where` (h, w) that look like the same surface under another light.

    `before` (h, w, 3) is the static scene as it was earlier, aligned to `rgb`. A cast shadow changes all channels by
    the same factor, the same one all over, and leaves the texture; an object brings its own colours.
    """
    if not where.any():
        return 0.0
    now, then = (cv2.GaussianBlur(image, (5, 5), 0)[where].astype(float) for image in (rgb, before))
    common, alike = relit(now, then)
    like = np.zeros(len(common), bool)
    for side in (common < -0.05, common > 0.05):  # darkened in front, brightened behind
        if side.any():
            like |= side & alike & (np.abs(common - np.median(common[side])) < 0.12) & (np.abs(common) < 1.2)
    return float(like.mean())


def relit(now: FloatArray, then: FloatArray) -> tuple[FloatArray, BoolArray]:
    """(...) logarithm of the factor from colours `then` to `now` (..., 3), and whether all channels share it."""
    ratio = np.log((now + 6.0) / (then + 6.0))
    common = ratio.mean(-1)
    return common, np.asarray(np.abs(ratio - common[..., None]).max(-1) < 0.12)


class MotionEvidence:
    """Log-odds (h, w) that a pixel of the newest frame belongs to something that moves."""

    def __init__(self, flow: FlowCache, span: int = 5, reach: float = 10.0) -> None:
        self.flow = flow
        self.span = span  # frames; slow things show over a longer time
        self.reach = reach  # px of camera motion, beyond which flow over several frames goes astray
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.evidence: NDArray[np.float32] | None = None
        self.static: StaticFlow | None = None  # towards the previous frame
        self.far: tuple[int, StaticFlow] | None = None  # towards an older one, with its index
        self.current: NDArray[np.float32] | None = None  # (h, w) this frame's residual in standard deviations
        self._last: int | None = None

    def push(
        self, index: int, exclude: BoolArray | None, rigid: dict[int, NDArray[np.float32]] | None = None
    ) -> NDArray[np.float32] | None:
        """Takes frame `index` (in the cache); the evidence, or None when this frame tells nothing.

        `exclude` (h, w) known objects of this frame; `rigid` maps older frame indices to predicted static flow.
        """
        last, self._last = self._last, index
        height, width = self.flow.size
        self.static = self.far = self.current = None
        if self.evidence is None or self.evidence.shape != (height, width) or last is None or not self.flow.has(last):
            self.evidence = np.zeros((height, width), np.float32)
            return None
        rigid = rigid or {}
        back, error = self.flow.between(index, last), self.flow.error(index, last)
        self.static = explain(back, error, exclude, rigid.get(last))
        if self.static is None:
            self.evidence = np.zeros((height, width), np.float32)
            return None
        step, score = self._step(index, last, self.static)
        older = self._older(index, self.static)
        if older is not None:
            far = explain(self.flow.between(index, older), self.flow.error(index, older), exclude, rigid.get(older))
            if far is not None:
                self.far = older, far
                far_step, far_score = self._step(index, older, far)
                # what only the long span sees, though the short one should, was hidden back then: no motion
                seen_now = self.static.residual + FINEST_MOTION > 0.6 * far.residual / (index - older)
                far_step, far_score = np.where(seen_now, far_step, -1.0), np.where(seen_now, far_score, 0.0)
                step, score = np.where(far_step > step, far_step, step), np.maximum(score, far_score)
        self.current = score
        carried = warp(self.evidence, back, border=0.0) * np.exp(-0.5 * np.minimum(error, 20.0))
        self.evidence = np.clip(0.9 * carried + step, EVIDENCE_MIN, EVIDENCE_MAX).astype(np.float32)
        return self.evidence

    def _older(self, index: int, static: StaticFlow) -> int | None:
        """An older frame from which slow motion shows, but which the camera has not left far behind."""
        pace = float(np.median(length(static.flow)))
        span = int(np.clip(self.reach / max(pace, 0.1), 1, self.span))
        older = [i for i in self.flow.indices if i <= index - span]
        return older[-1] if span > 1 and older and index - older[-1] <= 2 * self.span else None

    def _step(self, index: int, other: int, static: StaticFlow) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """This pair's contribution to the evidence and the residual in standard deviations (1 = suspicious)."""
        flow, error = self.flow.between(index, other), self.flow.error(index, other)
        score = static.residual / (3.0 * static.noise)
        gain = photometric_gain(self.flow.gray(index), self.flow.gray(other), static.flow, flow)
        moves = np.clip(0.8 * (score - 1.0), -0.35, 1.0)
        step = np.where(moves > 0, moves * np.clip(0.15 + gain, -0.35, 1.0), moves)
        trust = np.exp(-np.minimum(error, 10.0))
        return (step * trust).astype(np.float32), (score * trust).astype(np.float32)
