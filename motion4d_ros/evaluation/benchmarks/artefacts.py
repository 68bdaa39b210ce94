"""What benchmarks lay down for an analysis, and what they read of its results."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.files import write_atomically, write_bytes
from motion4d_ros.offline.trajectory import pose_matrix
from motion4d_ros.types import BoolArray, FloatArray, Motion4DError


@dataclass(frozen=True)
class Tracks:
    """For every query and frame."""

    xy: FloatArray  # (Q, T, 2) px
    xyz: FloatArray  # (Q, T, 3) m, map frame
    occluded: BoolArray  # (Q, T)


@dataclass(frozen=True)
class StampedPoses:
    """A trajectory, in order of time."""

    stamps_s: FloatArray  # (T,)
    T_map_cam: FloatArray  # (T, 4, 4)


def read_tracks(out: Path) -> Tracks:
    """`tracks.npz` of an analysis. Raises `Motion4DError`."""
    try:
        with np.load(out / "tracks.npz", allow_pickle=False) as arrays:
            return Tracks(arrays["tracks"], arrays["tracks_xyz"], arrays["occluded"].astype(bool))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise Motion4DError(f"{out / 'tracks.npz'}: cannot be read ({error})") from None


def read_tum(path: Path) -> StampedPoses:
    """A trajectory in TUM's text format; lines that hold no pose (NaN, zeros) are left out. Raises `Motion4DError`."""
    try:
        table = np.loadtxt(path, comments="#", usecols=range(8), ndmin=2)
    except (OSError, ValueError, IndexError) as error:
        raise Motion4DError(f"{path}: no trajectory in TUM's format ({error})") from None
    table = table[np.isfinite(table).all(1) & (np.linalg.norm(table[:, 4:], axis=1) > 1e-6)] if len(table) else table
    if not len(table):
        raise Motion4DError(f"{path}: holds no pose")
    table = table[np.argsort(table[:, 0], kind="stable")]
    return StampedPoses(table[:, 0], np.stack([pose_matrix(row[1:4], row[4:]) for row in table]))


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """(H, W) or RGB (H, W, 3), without loss, and fast rather than small."""
    bgr = image if image.ndim == 2 else image[..., ::-1]
    good, data = cv2.imencode(".png", np.ascontiguousarray(bgr), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not good:
        raise Motion4DError(f"{path}: an image of shape {image.shape} cannot be written")
    write_bytes(path, data.tobytes())


def write_npy(path: Path, array: NDArray[np.float32] | FloatArray) -> None:
    """An array as `.npy`."""
    write_atomically(path, lambda file: np.save(file, array))


def link(path: Path, target: Path) -> None:
    """`path` shows what lies at `target`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target.resolve())
