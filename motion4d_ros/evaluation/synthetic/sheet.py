"""A contact sheet: what a scene looks like, its truth and its degraded inputs side by side."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.evaluation.synthetic.scene import SyntheticScene
from motion4d_ros.files import write_atomically
from motion4d_ros.types import FloatArray, IntArray, Motion4DError


def contact_sheet(scene: SyntheticScene, rows: int = 6) -> NDArray[np.uint8]:
    """(rows*H, 5*W, 3) RGB: image with tracks, true masks, given masks, true depth, given depth."""
    nearest = float(scene.depth_m[scene.depth_m > 0].min())
    lines = []
    for t in np.linspace(0, len(scene.images) - 1, rows).round().astype(int):
        depths = [_colour_depth(depth[t], nearest) for depth in (scene.depth_m, scene.in_depth_m)]
        masks = [_colour_ids(ids[t]) for ids in (scene.masks, scene.in_masks)]
        lines.append(np.hstack([_with_points(scene, int(t)), *masks, *depths]))
    return np.vstack(lines)


def write_contact_sheet(scene: SyntheticScene, path: Path) -> None:
    """Writes `contact_sheet` as a PNG. Raises `OSError`."""
    done, encoded = cv2.imencode(".png", contact_sheet(scene)[..., ::-1])
    if not done:
        raise Motion4DError(f"{path}: the contact sheet could not be encoded as PNG")
    write_atomically(path, lambda stream: stream.write(encoded.tobytes()))


def _colour_ids(ids: IntArray) -> NDArray[np.uint8]:
    palette = np.random.default_rng(5).integers(60, 255, (64, 3)).astype(np.uint8)
    palette[0] = 0
    return palette[ids.astype(int) % 64]


def _colour_depth(depth_m: FloatArray, nearest_m: float) -> NDArray[np.uint8]:
    share = np.where(depth_m > 0, nearest_m / np.maximum(depth_m, 1e-3), 0)
    return cv2.applyColorMap((255 * np.clip(share, 0, 1)).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]


def _with_points(scene: SyntheticScene, t: int) -> NDArray[np.uint8]:
    image = scene.images[t].copy()
    for (y, x), seen, owner in zip(scene.tracks_yx[:, t], scene.visible[:, t], scene.query_object, strict=True):
        if seen:
            colour = (0, 255, 0) if owner else (255, 255, 0)
            image[round(float(y)), round(float(x))] = colour
    return image
