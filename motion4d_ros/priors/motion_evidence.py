"""Which pixels move against the static scene? Evidence from flow, gathered over time.

What the camera's own motion explains is no object: with depth and poses that is the flow of a rigid scene, without them
a homography (turning camera, flat or far scenes) or, where parallax shows, the epipolar geometry.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.priors.flow import FlowCache, pixel_grid, sample, warp
from motion4d_ros.types import BoolArray, Camera, FloatArray

GRID = 6  # px between the flow samples that camera motion is fitted to
PIXEL_NOISE = 0.25  # px, flow is never better than this
EVIDENCE_MIN, EVIDENCE_MAX = -2.0, 4.0


@dataclass
class StaticFlow:
    """Camera motion between two frames, as far as flow tells."""

    residual: NDArray[np.float32]  # (h, w) px that a static scene cannot explain
    noise: float  # px, robust standard deviation of the residual where nothing moves
    homography: FloatArray  # (3, 3) newest -> older
    parallax: bool  # whether the homography alone was not enough


def explain(
    flow: NDArray[np.float32], error: NDArray[np.float32], exclude: BoolArray | None, rigid: NDArray[np.float32] | None
) -> StaticFlow | None:
    """What of `flow` (h, w, 2) a static scene explains; None when there is too little to tell (black, blurred, cut).

    `error` (h, w) is the flow's forward-backward error, `exclude` (h, w) known moving objects, `rigid` (h, w, 2) the flow
    of the static scene predicted from depth and poses, NaN where unknown.
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
    H, _ = cv2.findHomography(a, b, cv2.USAC_MAGSAC, 0.8, None, 1000, 0.999)
    if H is None:
        return None
    H = np.asarray(H)
    residual = np.linalg.norm(flow - homography_flow(H, height, width), axis=-1)
    at_grid = residual[ys[good], xs[good]]
    inliers = (at_grid < 1.0).mean()
    parallax = False
    if inliers < 0.8:
        F, mask = cv2.findFundamentalMat(a, b, cv2.USAC_MAGSAC, 0.6, 0.999, 2000)
        if F is not None and np.shape(F) == (3, 3) and mask is not None and mask.mean() > inliers + 0.08:
            residual = np.minimum(residual, epipolar_distance(np.asarray(F), flow))
            parallax = True
    if rigid is not None:
        known = np.isfinite(rigid).all(-1)
        direct = np.linalg.norm(flow - np.nan_to_num(rigid), axis=-1)
        slack = 0.06 * np.linalg.norm(np.nan_to_num(rigid) - homography_flow(H, height, width), axis=-1)
        residual = np.where(known, np.maximum(direct - slack, 0), residual)
    noise = max(PIXEL_NOISE, 1.48 * float(np.median(residual[ys[good], xs[good]])))
    return StaticFlow(residual.astype(np.float32), noise, H, parallax)


def homography_flow(H: FloatArray, height: int, width: int) -> NDArray[np.float32]:
    """(h, w, 2) flow of a plane that moves by the homography `H`."""
    grid = pixel_grid(height, width)
    moved = grid @ H[:, :2].T + H[:, 2]
    return np.asarray(moved[..., :2] / moved[..., 2:] - grid, np.float32)


def epipolar_distance(F: FloatArray, flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w) Sampson distance of every pixel's flow to the epipolar geometry `F` (b^T F a = 0), px."""
    a = pixel_grid(*flow.shape[:2])
    b = a + flow
    line_b = a @ F[:, :2].T + F[:, 2]
    line_a = b @ F[:2, :] + F[2, :]
    value = (b * line_b[..., :2]).sum(-1) + line_b[..., 2]
    scale = np.sqrt((line_b[..., :2] ** 2).sum(-1) + (line_a[..., :2] ** 2).sum(-1))
    return np.asarray(np.abs(value) / np.maximum(scale, 1e-9), np.float32) * np.float32(np.sqrt(2))


def rigid_flow(depth: FloatArray, camera: Camera, T_other_cam: FloatArray) -> NDArray[np.float32]:
    """(h, w, 2) flow of a static scene with `depth` (h, w) when the camera moves by `T_other_cam` (4, 4)."""
    grid = camera.pixel_grid()
    with np.errstate(invalid="ignore"):
        xyz = camera.unproject(grid, np.where(depth > 0, depth, np.nan))
    moved = xyz @ T_other_cam[:3, :3].T + T_other_cam[:3, 3]
    return np.asarray(camera.project(moved) - grid, np.float32)


def shadow_like(
    rgb: NDArray[np.uint8], before: NDArray[np.uint8], where: BoolArray, low: float = 0.3, high: float = 0.95
) -> float:
    """Share of the pixels in `where` (h, w) that look like the same surface under another light.

    `before` (h, w, 3) is the static scene as it was earlier, aligned to `rgb`. A cast shadow dims all channels alike and
    leaves the texture; an object brings its own colours.
    """
    if not where.any():
        return 0.0
    now, then = cv2.GaussianBlur(rgb, (5, 5), 0)[where] + 4.0, cv2.GaussianBlur(before, (5, 5), 0)[where] + 4.0
    ratio = now / then
    common = ratio.mean(-1)
    alike = np.abs(ratio - common[:, None]).max(-1) < 0.12 * common
    dimmed = ((common > low) & (common < high)) | ((common > 1 / high) & (common < 1 / low))
    return float((alike & dimmed).mean())


class MotionEvidence:
    """Log-odds (h, w) that a pixel of the newest frame belongs to something that moves."""

    def __init__(self, flow: FlowCache, span: int = 4) -> None:
        self.flow = flow
        self.span = span  # frames; slow things show over a longer time
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.evidence: NDArray[np.float32] | None = None
        self.static: StaticFlow | None = None
        self.static_span: StaticFlow | None = None
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
        if self.evidence is None or self.evidence.shape != (height, width) or last is None or not self.flow.has(last):
            self.evidence = np.zeros((height, width), np.float32)
            self.static = self.static_span = self.current = None
            return None
        back, error = self.flow.between(index, last), self.flow.error(index, last)
        rigid = rigid or {}
        self.static = explain(back, error, exclude, rigid.get(last))
        if self.static is None:
            self.current = None
            return None
        score = self._score(self.static, error)
        older = [i for i in self.flow.indices if i <= index - self.span]
        self.static_span = None
        if older:
            far = older[-1]
            far_error = self.flow.error(index, far)
            self.static_span = explain(self.flow.between(index, far), far_error, exclude, rigid.get(far))
            if self.static_span is not None:
                score = np.maximum(score, self._score(self.static_span, far_error))
        self.current = score
        carried = warp(self.evidence, back, border=0.0)
        step = np.clip(0.8 * (score - 1.0), -0.35, 1.0) * np.exp(-np.minimum(error, 10.0))
        self.evidence = np.clip(0.9 * carried + step, EVIDENCE_MIN, EVIDENCE_MAX).astype(np.float32)
        return self.evidence

    @staticmethod
    def _score(static: StaticFlow, error: NDArray[np.float32]) -> NDArray[np.float32]:
        trust = np.exp(-0.5 * np.minimum(error, 10.0))
        return np.asarray(static.residual * trust / (3.0 * static.noise), np.float32)
