"""What is kept of times that have left the horizon: enough to follow any point through the whole run, and little more.

A frame shrinks to its pose, its stamp and two losslessly compressed images (labels, inverse depth), some tens of
kilobytes; a motion base to one 3x4 matrix per frame. A robot that runs for days switches the archive off
(`run.archive`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.geometry.label_images import compress, compress_labels, decompress
from motion4d_ros.scene.bases import ArchivedPoses
from motion4d_ros.types import FloatArray, IntArray

DEPTH_STEPS = 60_000  # 16 bit, inverse depth from 0 to that of the nearest point


@dataclass
class ArchivedFrame:
    """One frame that has left the horizon."""

    index: int
    stamp_ns: int
    T_map_cam: FloatArray  # (4, 4)
    labels_png: bytes
    inverse_depth_png: bytes
    nearest: float  # inverse depth of step `DEPTH_STEPS`, 1/m

    @staticmethod
    def pack(index: int, stamp_ns: int, T_map_cam: FloatArray, labels: IntArray, depth_m: FloatArray) -> ArchivedFrame:
        """Compresses (H, W) labels and depth (0 or NaN = nothing there)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = np.where(depth_m > 0, 1.0 / depth_m, 0.0)
        inverse = np.nan_to_num(inverse, nan=0.0, posinf=0.0)
        nearest = float(inverse.max()) or 1.0
        steps = np.rint(inverse / nearest * DEPTH_STEPS).astype(np.uint16)
        labels_png = compress_labels(labels.astype(np.uint16))
        return ArchivedFrame(index, stamp_ns, T_map_cam, labels_png, compress(steps), nearest)

    def labels(self) -> NDArray[np.uint16]:
        """(H, W) object ids."""
        return decompress(self.labels_png)

    def depth_m(self) -> FloatArray:
        """(H, W) m, NaN = nothing there."""
        inverse = decompress(self.inverse_depth_png).astype(np.float64) / DEPTH_STEPS * self.nearest
        return np.where(inverse > 0, 1.0 / np.maximum(inverse, 1e-9), np.nan)


@dataclass
class RetiredObject:
    """What queries need of an object that was taken out of the scene."""

    base_ids: list[int]  # (B,)
    means: FloatArray  # (M, 3) canonical, m
    weights: FloatArray  # (M, B)


@dataclass
class Archive:
    """Frames, base motions and objects that have left the horizon."""

    frames: dict[int, ArchivedFrame] = field(default_factory=dict)
    retired: dict[int, list[RetiredObject]] = field(default_factory=dict)  # object id -> its lives, oldest first
    motions: dict[int, dict[int, FloatArray]] = field(default_factory=dict)  # base id -> frame index -> (3, 4)

    def add_poses(self, archived: ArchivedPoses) -> None:
        """Keeps the matrices of the bases that leave."""
        transforms = archived.poses().transforms().double().cpu().numpy()  # (B, n, 3, 4)
        for base, base_id in enumerate(archived.base_ids.tolist()):
            table = self.motions.setdefault(base_id, {})
            for step in range(transforms.shape[1]):
                table[archived.first_index + step] = transforms[base, step]

    def clear(self) -> None:
        """Forgets everything."""
        self.frames.clear()
        self.retired.clear()
        self.motions.clear()
