"""Measuring points again, straight from a keyframe, with the scene as the first guess.

Chained flow drifts by a tenth of a pixel and more per frame. Here a keyframe is warped into another frame with the
scene's own geometry and motion, and dense flow between that warp and the real image measures what is left: one short
step instead of a chain, and it finds points again behind an occlusion. The result is a measurement of images: where
the warp was off, the flow takes it back, so it stays valid when the scene is refined.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.priors.flow import consistency, dis_flow, sample
from motion4d_ros.types import BoolArray, Camera, FloatArray, IntArray

NOISE_PX = 0.2  # of a link, one standard deviation
MAX_DISAGREEMENT_PX = 0.8  # forward-backward
MAX_RESIDUAL_PX = 8.0  # a larger correction is more likely a mistake
MIN_CORRELATION = 0.6  # of the patches, normalised
DEPTH_TOLERANCE = 0.06  # relative: farther behind means hidden
PATCH_PX = 3  # half width


@dataclass
class View:
    """What one frame contributes: the image, its labels and its depth, at working size."""

    gray: NDArray[np.uint8]  # (H, W)
    labels: IntArray  # (H, W)
    depth_m: FloatArray  # (H, W), NaN = unknown
    T_map_cam: FloatArray  # (4, 4)


def correspondence(
    source: View, target: View, motions: dict[int, FloatArray], camera: Camera
) -> tuple[NDArray[np.float32], BoolArray]:
    """For every pixel of `target`: where the scene says it was in `source` (H, W, 2), and whether it was seen there.

    `motions[label]` is the rigid motion (4, 4), map frame, from the target's time to the source's; labels without an
    entry are invalid.
    """
    uv = camera.pixel_grid()
    depth = np.nan_to_num(target.depth_m, nan=-1.0)
    xyz_cam = camera.unproject(uv, depth)
    T_source_map = np.linalg.inv(source.T_map_cam)
    moved = np.full_like(xyz_cam, np.nan)
    for label, motion in motions.items():
        chosen = target.labels == label
        T = T_source_map @ motion @ target.T_map_cam
        moved[chosen] = xyz_cam[chosen] @ T[:3, :3].T + T[:3, 3]
    where = camera.project(moved)
    ok = (depth > 0) & np.isfinite(where).all(-1)
    ok &= (where >= 0).all(-1) & (where[..., 0] <= camera.width - 1) & (where[..., 1] <= camera.height - 1)
    flat = np.where(ok[..., None], where, 0.0).reshape(-1, 2)
    there = sample(np.nan_to_num(source.depth_m, nan=0.0).astype(np.float32), flat).reshape(depth.shape)
    label_there = sample(source.labels.astype(np.float32), flat, nearest=True).reshape(depth.shape)
    ok &= (label_there == target.labels) & (np.abs(there - moved[..., 2]) < DEPTH_TOLERANCE * np.maximum(there, 1e-3))
    return where.astype(np.float32), ok


def measure(
    source: View,
    target: View,
    motions: dict[int, FloatArray],
    uv_source: FloatArray,
    uv_guess: FloatArray,
    camera: Camera,
) -> tuple[NDArray[np.float32], BoolArray, NDArray[np.float32]]:
    """Where the points `uv_source` (N, 2) of the keyframe `source` are in `target`, starting from `uv_guess` (N, 2).

    Returns positions (N, 2), whether they were found (N,), and their standard deviation (N,), px.
    """
    where, ok = correspondence(source, target, motions, camera)
    if not ok.any() or len(uv_source) == 0:
        return uv_guess.astype(np.float32), np.zeros(len(uv_source), bool), np.full(len(uv_source), np.inf, np.float32)
    warped = cv2.remap(source.gray, where[..., 0], where[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    synthetic = np.where(ok, warped, target.gray).astype(np.uint8)
    forward = dis_flow(synthetic, target.gray)
    backward = dis_flow(target.gray, synthetic)
    disagreement = consistency(forward, backward)

    place = _invert(where, ok, uv_source, uv_guess)
    found = np.isfinite(place).all(1) & (place >= 0).all(1)
    found &= (place[:, 0] <= camera.width - 1) & (place[:, 1] <= camera.height - 1)
    at = np.where(found[:, None], place, 0.0)
    residual = sample(forward, at)
    error = sample(np.minimum(disagreement, 1e3), at)
    found &= sample(cv2.erode(ok.astype(np.uint8), np.ones((3, 3), np.uint8)), at, nearest=True) > 0
    found &= (error < MAX_DISAGREEMENT_PX) & (np.linalg.norm(residual, axis=1) < MAX_RESIDUAL_PX)
    result = at + residual
    found &= _correlation(synthetic, at, target.gray, result) > MIN_CORRELATION
    sigma = np.sqrt(NOISE_PX**2 + (0.5 * error) ** 2 + (0.1 * np.linalg.norm(residual, axis=1)) ** 2)
    return result.astype(np.float32), found, np.where(found, sigma, np.inf).astype(np.float32)


def _invert(where: NDArray[np.float32], ok: BoolArray, uv_source: FloatArray, uv_guess: FloatArray) -> FloatArray:
    """The pixels p of the target with where(p) = uv_source, by Newton steps from `uv_guess`; NaN where there is
    none.
    """
    filled = np.where(ok[..., None], where, np.nan).astype(np.float32)
    by_x = 0.5 * (np.roll(filled, -1, 1) - np.roll(filled, 1, 1))
    by_y = 0.5 * (np.roll(filled, -1, 0) - np.roll(filled, 1, 0))
    place = uv_guess.astype(np.float64).copy()
    error = np.full(len(place), np.inf)
    for _ in range(4):
        miss = sample(filled, place) - uv_source
        error = np.linalg.norm(miss, axis=1)
        jx, jy = sample(by_x, place), sample(by_y, place)
        determinant = jx[:, 0] * jy[:, 1] - jx[:, 1] * jy[:, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            step_x = (jy[:, 1] * miss[:, 0] - jy[:, 0] * miss[:, 1]) / determinant
            step_y = (-jx[:, 1] * miss[:, 0] + jx[:, 0] * miss[:, 1]) / determinant
        step = np.stack([step_x, step_y], 1)
        size = np.linalg.norm(step, axis=1, keepdims=True)
        step *= np.minimum(1.0, 5.0 / np.maximum(size, 1e-9))
        place = place - np.where(np.isfinite(step), step, 0.0)
    final = np.linalg.norm(sample(filled, place) - uv_source, axis=1)
    return np.where((np.minimum(final, error) < 0.3)[:, None], place, np.nan)


def _correlation(a: NDArray[np.uint8], uv_a: FloatArray, b: NDArray[np.uint8], uv_b: FloatArray) -> FloatArray:
    """(N,) normalised correlation of square patches; patches without texture count as matched."""
    span = np.arange(-PATCH_PX, PATCH_PX + 1)
    offsets = np.stack(np.meshgrid(span, span), -1).reshape(-1, 2)
    patches = []
    for image, uv in ((a, uv_a), (b, uv_b)):
        values = sample(image, (uv[:, None] + offsets).reshape(-1, 2)).reshape(len(uv), -1).astype(np.float64)
        patches.append(values - values.mean(1, keepdims=True))
    norm = np.linalg.norm(patches[0], axis=1) * np.linalg.norm(patches[1], axis=1)
    flat = np.minimum(patches[0].std(1), patches[1].std(1)) < 2.5
    return np.where(flat, 1.0, (patches[0] * patches[1]).sum(1) / np.maximum(norm, 1e-9))
