"""Held-out views: the scene an analysis saved, rendered where the camera stood in frames it never saw."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from motion4d_ros.evaluation.metrics import depth_errors, psnr, ssim
from motion4d_ros.evaluation.score import Scores
from motion4d_ros.render import render
from motion4d_ros.scene.scene import Scene
from motion4d_ros.scene.storage import SCENE_FILE, load_scene
from motion4d_ros.types import Camera, FloatArray


class HeldOut(Protocol):
    """A posed RGB-D sequence whose odd frames were kept back."""

    source: Path

    def stems(self) -> list[str]:
        """Names of all frames in order."""

    def intrinsics(self) -> NDArray[np.float64]:
        """(3, 3) px."""

    def depth_mm(self, stem: str) -> NDArray[np.uint16]:
        """(H, W), 0 = unknown."""


def score_novel_views(sequence: HeldOut, out: Path) -> dict[str, Scores]:
    """Mean PSNR, SSIM and depth errors over the odd frames: "final", and "neighbour", the even frame before each.

    The neighbour is what one would show without a scene; its depth is compared pixel by pixel as well.
    """
    scene, _ = load_scene(out / "scene" / SCENE_FILE)
    stems, K = sequence.stems(), sequence.intrinsics()
    rendered, neighbours = [], []
    for k in range(1, len(stems), 2):
        truth = _read_rgb(sequence.source / f"{stems[k]}.color.jpg")
        depth = sequence.depth_mm(stems[k]) / 1000.0
        T_map_cam = np.loadtxt(sequence.source / f"{stems[k]}.pose.txt")
        camera = Camera(K[0, 0], K[1, 1], K[0, 2], K[1, 2], truth.shape[1], truth.shape[0])
        first = scene.bases.first_index
        time = min(max(k / 2, first), first + max(len(scene.bases.stamps_ns) - 1, 0))
        image, estimate = render_view(scene, camera, T_map_cam, time)
        rendered.append(_compare(image, truth, estimate, depth))
        before = stems[k - 1]
        neighbour = _read_rgb(sequence.source / f"{before}.color.jpg")
        neighbours.append(_compare(neighbour, truth, sequence.depth_mm(before) / 1000.0, depth))
    return {"neighbour": _mean(neighbours), "final": _mean(rendered)}


def render_view(
    scene: Scene, camera: Camera, T_map_cam: FloatArray, time: float
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(H, W, 3) colours and (H, W) depth, m (0 where less than half covered), of a `Scene` at a frame index."""
    with torch.no_grad():
        gaussians = scene.at(time)
        T_cam_map = torch.as_tensor(np.linalg.inv(T_map_cam), dtype=gaussians.means.dtype)
        colours = scene.params["colors"]
        view = render(gaussians, camera, T_cam_map, colours)
        image = (view.features / view.alpha[..., None].clamp(min=1e-3)).clamp(0, 1)
        depth = torch.where(view.alpha > 0.5, view.depth, 0.0)
    return (image.numpy() * 255).round().astype(np.uint8), depth.numpy().astype(np.float32)


def _read_rgb(path: Path) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(np.asarray(cv2.imread(str(path))), cv2.COLOR_BGR2RGB), np.uint8)


def _compare(image: NDArray[np.uint8], truth: NDArray[np.uint8], depth: FloatArray, true_depth: FloatArray) -> Scores:
    errors = depth_errors(depth, true_depth)
    return {
        "PSNR": psnr(image, truth),
        "SSIM": ssim(image, truth),
        "AbsRel": errors.abs_rel,
        "RMSE": errors.rmse_m,
        "d1": errors.delta1,
        "covered": errors.coverage,
    }


def _mean(rows: list[Scores]) -> Scores:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
