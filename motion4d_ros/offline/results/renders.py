"""Pictures of the scene itself, taken as windows close: what was rendered, how deep, and how sure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.offline.results.frame_log import write_jpeg
from motion4d_ros.types import Motion4DError

if TYPE_CHECKING:
    from motion4d_ros.pipeline import Motion4D

WIDTH = 480  # px


@dataclass(frozen=True)
class RenderEntry:
    """One frame's pictures."""

    index: int
    rgb: Path
    depth: Path
    confidence: Path
    depth_range: tuple[float, float]  # m
    mean_confidence: float


class RenderLog:
    """Renders the last frame of every `every`-th window into small JPEGs."""

    def __init__(self, spool: Path, *, every: int = 1) -> None:
        self._spool, self._every, self._windows = spool, every, 0
        self.entries: list[RenderEntry] = []
        self.failure = ""

    def add(self, engine: Motion4D, index: int) -> None:
        """Renders frame `index`; a failure costs pictures, not the analysis."""
        self._windows += 1
        if (self._windows - 1) % self._every:
            return
        try:
            view = engine.render(index)
        except Motion4DError as error:
            self.failure = str(error)
            return
        valid = np.isfinite(view.depth_m) & (view.depth_m > 0)
        near, far = np.percentile(view.depth_m[valid], [2, 98]) if valid.any() else (0.0, 1.0)
        depth = np.clip((np.where(valid, view.depth_m, far) - near) / max(far - near, 1e-9), 0, 1)
        depth_rgb = cv2.applyColorMap((255 * (1 - depth)).astype(np.uint8), cv2.COLORMAP_TURBO)
        depth_rgb[~valid] = 30
        confidence = cv2.applyColorMap((255 * np.clip(view.confidence, 0, 1)).astype(np.uint8), cv2.COLORMAP_VIRIDIS)
        solid = view.alpha > 0.5
        mean = float(view.confidence[solid].mean()) if solid.any() else float("nan")
        self.entries.append(
            RenderEntry(
                index,
                self._save(f"r{index:06d}_rgb.jpg", cv2.cvtColor(view.rgb, cv2.COLOR_RGB2BGR)),
                self._save(f"r{index:06d}_depth.jpg", depth_rgb),
                self._save(f"r{index:06d}_confidence.jpg", confidence),
                (float(near), float(far)),
                mean,
            )
        )

    def _save(self, name: str, bgr: NDArray[np.uint8] | cv2.typing.MatLike) -> Path:
        height, width = bgr.shape[:2]
        if width > WIDTH:
            bgr = cv2.resize(bgr, (WIDTH, round(height * WIDTH / width)), interpolation=cv2.INTER_AREA)
        path = self._spool / name
        write_jpeg(path, bgr, 88)
        return path
