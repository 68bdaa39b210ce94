"""New Gaussians for what the scene does not show yet: new pixels, new objects, regions it fits badly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from motion4d_ros.fit.initialisation.geometry import Geometry
from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.scene.gaussians import GaussianBatch
from motion4d_ros.scene.scene import Scene
from motion4d_ros.types import BoolArray, FloatArray

INITIAL_OPACITY = 0.7  # Shape of Motion
INITIAL_CONFIDENCE_LOGIT = 2.0
SEMANTIC_LOGIT = 4.0  # how sure a new Gaussian is of its label
FOOTPRINT = 0.62  # standard deviation of a new Gaussian, in units of the spacing of its pixels


def pixels_to_fill(state: FrameState, wanted: BoolArray, stride: int, object_stride: int) -> NDArray[np.intp]:
    """(M, 2) rows and columns: a grid of `stride` px on the background and `object_stride` on objects, where
    `wanted`.
    """
    height, width = wanted.shape
    usable = wanted & np.isfinite(state.depth_m) & (state.depth_m > 0)
    picked = []
    for step, on_object in ((stride, False), (object_stride, True)):
        y, x = np.mgrid[step // 2 : height : step, step // 2 : width : step].reshape(2, -1)
        keep = usable[y, x] & ((state.labels[y, x] > 0) == on_object)
        picked.append(np.stack([y[keep], x[keep]], 1))
    return np.concatenate(picked)


def lift_pixels(
    state: FrameState,
    pixels: NDArray[np.intp],
    depth_m: FloatArray,
    geometry: Geometry,
    channel_of: dict[int, int],
    scene: Scene,
    stride: int,
    object_stride: int,
) -> GaussianBatch:
    """Round Gaussians at the (M, 2) pixels (row, column) of a frame, at `depth_m` (M,), taken back to canonical."""
    row, column = pixels.T
    labels = np.maximum(state.labels[row, column], 0)
    camera = state.frame.camera
    xyz_cam = camera.unproject(np.stack([column, row], -1).astype(float), depth_m)
    xyz = xyz_cam @ state.T_map_cam[:3, :3].T + state.T_map_cam[:3, 3]
    logits = np.zeros((len(pixels), scene.bases.count), np.float32)
    owner = scene.bases.owner.cpu().numpy()
    for label in np.unique(labels):
        motion = geometry.motions.get(int(label))
        if label and motion is not None:
            chosen = labels == label
            xyz[chosen], shares = motion.canonical(xyz[chosen], state.index)
            logits[np.ix_(chosen, owner == label)] = np.log(shares + 1e-3)
    spacing = np.where(labels > 0, object_stride, stride)
    size = FOOTPRINT * spacing * depth_m / (0.5 * (camera.fx + camera.fy))
    semantics = np.zeros((len(pixels), scene.channels), np.float32)
    semantics[np.arange(len(pixels)), [channel_of.get(int(v), 0) for v in labels]] = SEMANTIC_LOGIT
    moving = np.array([bool(v) and int(v) in geometry.motions for v in labels], bool)
    batch = GaussianBatch.from_points(
        torch.as_tensor(xyz, dtype=torch.float32),
        torch.as_tensor(state.image[row, column].astype(np.float32) / 255),
        torch.as_tensor(semantics),
        torch.as_tensor(labels.astype(np.int64)),
        motion_logits=torch.as_tensor(logits),
        scale=torch.as_tensor(size.astype(np.float32)),
        opacity=INITIAL_OPACITY,
        confidence_logits=INITIAL_CONFIDENCE_LOGIT,
    )
    return replace(batch, dynamic=torch.as_tensor(moving))
