"""Is the scene that was saved what the camera sees? It is rendered where the camera stands, and held against the frame.

The still part decides: correlation of brightness, which a change of exposure leaves alone, and depth, where that is
measured. Where too little of it is in view, or there is nothing to see, nobody can tell. Each object is then asked for
by itself: it may have moved on.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from motion4d_ros.fit.checkpoint.saved import Checkpoint
from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.render import render
from motion4d_ros.scene.posed import PosedGaussians
from motion4d_ros.types import BoolArray, PoseStatus, Scale

COVERED_ALPHA = 0.6  # from which a pixel shows the saved scene
LEAST_IN_VIEW = 0.25  # of the picture, from which it can be compared
LEAST_CORRELATION = 0.65  # of brightness, rendered and seen
LEAST_CONTRAST = 4.0  # standard deviation of brightness, of 255, below which there is nothing to see
BLUR_PX = 1.0
DEPTH_SHARE = 0.1  # by which measured depth may differ, in the median
MEASURED_SIGMA = 0.05  # relative deviation up to which depth counts as measured
LEAST_AGREEING = 0.6  # of an object's pixels, that must look as they did


class Verdict(enum.Enum):
    """Whether a frame shows the saved scene."""

    FITS = enum.auto()
    UNKNOWN = enum.auto()  # too little of it is in view, or the picture is dark
    MISFIT = enum.auto()


@dataclass
class Pictured:
    """The saved scene as one frame's camera would see it, at working size."""

    rgb: NDArray[np.float32]  # (H, W, 3) in [0, 1]
    depth_m: NDArray[np.float32]  # (H, W)
    covered: BoolArray  # (H, W)
    labels: NDArray[np.int64]  # (H, W) object ids, 0 = still, or nothing


@torch.no_grad()
def pictured(saved: Checkpoint, state: FrameState, device: torch.device, threads: int) -> Pictured:
    """Renders the saved scene from where the camera of a frame stands."""

    def tensor(name: str) -> torch.Tensor:
        return torch.as_tensor(saved.gaussians[name], device=device)

    opacity = tensor("opacity_logits").sigmoid()
    posed = PosedGaussians(tensor("means"), tensor("quats"), tensor("log_scales").exp(), opacity)
    labels = np.unique(saved.object_id)
    owner = torch.as_tensor(saved.object_id[:, None] == labels[None], device=device).float()
    T = torch.as_tensor(state.T_cam_map, dtype=torch.float32, device=device)
    features = torch.cat([tensor("colors"), owner], 1)
    output = render(posed, state.frame.camera, T, features, threads=threads)
    alpha = output.alpha.cpu().numpy()
    seen = output.features.cpu().numpy()
    rgb = seen[..., :3] / np.maximum(alpha, 1e-3)[..., None]
    covered = alpha > COVERED_ALPHA
    shown = np.where(covered, labels[seen[..., 3:].argmax(-1)] if len(labels) else 0, 0)
    return Pictured(rgb.clip(0, 1).astype(np.float32), output.depth.cpu().numpy(), covered, shown)


def compare(picture: Pictured, state: FrameState) -> Verdict:
    """Whether the still part of the saved scene is what a frame shows."""
    if state.pose_status is not PoseStatus.OK:
        return Verdict.UNKNOWN
    still = picture.covered & (picture.labels == 0) & (state.raw_labels <= 0)
    if still.mean() < LEAST_IN_VIEW:
        return Verdict.UNKNOWN
    measured = still & (state.depth_sigma <= MEASURED_SIGMA) & np.isfinite(state.depth_m) & (state.depth_m > 0)
    if state.scale is Scale.METRIC and state.own_metres and measured.sum() > LEAST_IN_VIEW * still.sum():
        ratio = np.log(np.maximum(picture.depth_m[measured], 1e-6) / state.depth_m[measured])
        if np.median(np.abs(ratio)) > DEPTH_SHARE:
            return Verdict.MISFIT
    wanted, found = _gray((255 * picture.rgb).astype(np.uint8))[still], _gray(state.image)[still]
    if min(wanted.std(), found.std()) < LEAST_CONTRAST:
        return Verdict.UNKNOWN
    correlation = float(np.corrcoef(wanted, found)[0, 1])
    return Verdict.FITS if correlation >= LEAST_CORRELATION else Verdict.MISFIT


def objects_in_place(picture: Pictured, state: FrameState, least_px: int, most_change: float) -> dict[int, BoolArray]:
    """(H, W) masks of the objects that still are where they were: at least `least_px` of their pixels are in view, and
    most of these have changed their colour by at most `most_change` (of 1). Where the ids of masks are given, they must
    say so, too.
    """
    before, now = _blurred(picture.rgb), _blurred((state.image / 255.0).astype(np.float32))
    change = np.abs(before - now).mean(-1)
    found = {}
    for label in np.unique(picture.labels[picture.labels > 0]).tolist():
        mask = picture.labels == label
        alike = change[mask] <= most_change
        if not state.holds_names:
            alike &= state.raw_labels[mask] == label
        if mask.sum() >= least_px and alike.mean() >= LEAST_AGREEING:
            found[int(label)] = mask
    return found


def _gray(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return _blurred(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32))


def _blurred(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a few steps of the fit can have learnt of an image."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), BLUR_PX), np.float32)
