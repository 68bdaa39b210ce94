"""Spoils exact masks and depth the way 2D networks do. Every function returns new arrays and draws only from `rng`."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from motion4d_ros.types import FloatArray, IntArray

REFERENCE_WIDTH = 320  # px; lengths below are for images of this width and grow with it


@dataclass(frozen=True)
class MaskFaults:
    """How bad the masks are. The defaults match the scenes the project is measured on."""

    boundary_px: float = 3.0  # dilated or eroded by up to this, anew in every frame
    ragged_px: float = 0.8  # standard deviation of the boundary's ripple
    gap_every: float = 34.0  # mean frames between two disappearances of an object
    gap_length: int = 3  # frames it stays away
    swap_every: float = 24.0  # mean frames between two exchanges of identity between two objects
    swap_length: int = 3
    leak_share: float = 0.16  # share of frames in which an object spreads into its neighbourhood
    hole_share: float = 0.16  # share of frames in which a piece is missing


@dataclass(frozen=True)
class DepthFaults:
    """How bad the depth is. Scale and shift act on disparity (1/m), as the ambiguity of a monocular network does."""

    breathing: float = 0.038  # amplitude of the scale's slow oscillation
    period_frames: float = 8.5
    scale_noise: float = 0.008  # per-frame scale noise, one standard deviation
    shift: float = 0.003  # 1/m, one standard deviation of a random walk that is pulled back
    bending: float = 0.006  # relative, one standard deviation of a smooth field
    bending_px: float = 22.0  # its correlation length
    bending_memory: float = 0.4  # share of its variance that stays from frame to frame
    noise: float = 0.001  # relative, per pixel
    edge_blur_px: float = 1.2  # disparity is blurred across edges: flying pixels


def degrade_masks(masks: IntArray, rng: np.random.Generator, faults: MaskFaults | None = None) -> NDArray[np.uint16]:
    """(T, H, W) true ids -> (T, H, W) ids that come and go, leak, swap identity and have ragged edges."""
    faults = faults or MaskFaults()
    length, height, width = masks.shape
    zoom = width / REFERENCE_WIDTH
    ids = [int(i) for i in np.unique(masks) if i > 0]
    absent = {i: _intervals(rng, length, faults.gap_every, faults.gap_length) for i in ids}
    names = _swapped_names(rng, ids, length, faults)
    result = np.zeros((length, height, width), np.uint16)
    for t in range(length):
        for i in rng.permutation(ids):
            truth = masks[t] == i
            if absent[int(i)][t] or not truth.any():
                continue
            grown = _boundary(truth, rng, faults, zoom)
            if rng.random() < faults.leak_share:
                grown |= _blob(truth, rng, zoom)
            if rng.random() < faults.hole_share:
                grown &= ~_blob(truth, rng, zoom)
            result[t][grown] = names[t][int(i)]
    return result


def _intervals(rng: np.random.Generator, length: int, every: float, span: int) -> NDArray[np.bool_]:
    """(T,) True inside randomly placed intervals of `span` frames, `every` frames apart on average; never at 0."""
    inside = np.zeros(length, bool)
    t = int(rng.exponential(every)) + 1
    while t < length:
        inside[t : t + span] = True
        t += span + int(rng.exponential(every)) + 1
    return inside


def _swapped_names(rng: np.random.Generator, ids: list[int], length: int, faults: MaskFaults) -> list[dict[int, int]]:
    """Per frame: true id -> id that is reported."""
    names = [{i: i for i in ids} for _ in range(length)]
    if len(ids) < 2:
        return names
    swapping = _intervals(rng, length, faults.swap_every, faults.swap_length)
    for t in range(length):
        if swapping[t] and not swapping[t - 1]:
            one, other = (int(i) for i in rng.choice(ids, 2, replace=False))
        if swapping[t]:
            names[t][one], names[t][other] = other, one
    return names


def _boundary(truth: NDArray[np.bool_], rng: np.random.Generator, faults: MaskFaults, zoom: float) -> NDArray[np.bool_]:
    """The region with its edge moved by one random distance plus a ripple."""
    binary = truth.astype(np.uint8)
    outside = cv2.distanceTransform(1 - binary, cv2.DIST_L2, 5)
    inside = cv2.distanceTransform(binary, cv2.DIST_L2, 5)
    ripple = _smooth_noise(rng, truth.shape, 4.0 * zoom) * faults.ragged_px * zoom
    thickness = float(inside.max())
    inwards = min(faults.boundary_px * zoom, 0.6 * thickness)  # thin things aren't wiped out
    move = rng.uniform(-inwards, faults.boundary_px * zoom)
    return (outside - inside) <= move + np.where(np.abs(ripple) < thickness, ripple, 0)


def _blob(truth: NDArray[np.bool_], rng: np.random.Generator, zoom: float) -> NDArray[np.bool_]:
    """A random ellipse centred on the region's boundary, about a third of the region in diameter."""
    edge = truth & ~ndimage.binary_erosion(truth)
    rows, columns = np.nonzero(edge)
    k = rng.integers(len(rows))
    size = np.sqrt(truth.sum()) * rng.uniform(0.2, 0.45, 2) + 2 * zoom
    canvas = np.zeros(truth.shape, np.uint8)
    axes = (max(1, round(size[0])), max(1, round(size[1])))
    cv2.ellipse(canvas, (int(columns[k]), int(rows[k])), axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    return canvas > 0


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], scale_px: float) -> FloatArray:
    """(H, W) noise of unit variance whose correlation length is about `scale_px`."""
    reduced = max(1, int(scale_px / 2))
    small = rng.standard_normal((shape[0] // reduced + 8, shape[1] // reduced + 8)).astype(np.float32)
    small = cv2.GaussianBlur(small, (0, 0), max(scale_px / reduced / 1.4, 0.3))
    large = cv2.resize(small, None, fx=reduced, fy=reduced, interpolation=cv2.INTER_CUBIC)
    noise = large[2 * reduced : 2 * reduced + shape[0], 2 * reduced : 2 * reduced + shape[1]]
    return noise / max(float(small.std()), 1e-6)


def degrade_depth(
    depth_m: FloatArray, rng: np.random.Generator, faults: DepthFaults | None = None
) -> NDArray[np.float32]:
    """(T, H, W) true depth, m -> depth that breathes, bends, is noisy and flies at edges. Unknown (0) stays 0."""
    faults = faults or DepthFaults()
    length, height, width = depth_m.shape
    zoom = width / REFERENCE_WIDTH
    phase, period = rng.uniform(0, 2 * np.pi), faults.period_frames * rng.uniform(0.85, 1.2)
    result = np.zeros(depth_m.shape, np.float32)
    shift = faults.shift * rng.standard_normal()
    field = _smooth_noise(rng, (height, width), faults.bending_px * zoom)
    for t in range(length):
        scale = (
            1 + faults.breathing * np.sin(2 * np.pi * t / period + phase) + faults.scale_noise * rng.standard_normal()
        )
        shift = 0.8 * shift + 0.6 * faults.shift * rng.standard_normal()
        fresh = _smooth_noise(rng, (height, width), faults.bending_px * zoom)
        field = np.sqrt(faults.bending_memory) * field + np.sqrt(1 - faults.bending_memory) * fresh
        known = depth_m[t] > 0
        filled = np.where(known, depth_m[t], np.inf)
        disparity = cv2.GaussianBlur(1.0 / filled.astype(np.float64), (0, 0), faults.edge_blur_px * zoom)
        disparity = scale * disparity + shift
        relative = 1 + faults.bending * field + faults.noise * rng.standard_normal((height, width))
        result[t] = np.where(known, relative / np.maximum(disparity, 1e-3), 0)
    return result
