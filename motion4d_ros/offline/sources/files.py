"""Depth, masks and poses that lie in files beside a video or a folder of images."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from motion4d_ros.imagery.conversions import metres, object_ids
from motion4d_ros.offline.sources.base import SourceOptions, SourceReport, fit_to_size, natural_key
from motion4d_ros.offline.trajectory import PoseBuffer, read_tum
from motion4d_ros.types import FloatArray, IntArray, Motion4DError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
DEPTH_SUFFIXES = frozenset({".png", ".npy", ".tif", ".tiff"})


def list_files(
    folder: Path, suffixes: frozenset[str], glob: str | None, what: str, hints: tuple[str, ...]
) -> list[Path]:
    """Files of one kind in natural order.

    Without a glob, a folder that holds several kinds (`frame-1.color.jpg`, `frame-1.depth.png`) is narrowed to the one
    whose name contains one of `hints`. Raises `Motion4DError` when nothing or several kinds remain.
    """
    if not folder.is_dir():
        raise Motion4DError(f"{folder}: no such folder ({what})")
    found = sorted(folder.glob(glob) if glob else folder.iterdir(), key=natural_key)
    files = [path for path in found if path.is_file() and path.suffix.lower() in suffixes and path.name[0] != "."]
    if not files:
        raise Motion4DError(
            f"{folder}: no {what} {'match ' + glob if glob else 'found'} ({', '.join(sorted(suffixes))})"
        )
    if glob:
        return files
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        kinds[re.sub(r"\d+", "*", path.name)].append(path)
    largest = max(len(paths) for paths in kinds.values())
    series = {name: paths for name, paths in kinds.items() if len(paths) > 1 and len(paths) >= largest // 2}
    if len(series) <= 1:
        return files
    hinted = {name: paths for name, paths in series.items() if any(hint in name.lower() for hint in hints)}
    if len(hinted) == 1:
        return next(iter(hinted.values()))
    option = {"images": "--image-glob", "depth files": "--depth-glob"}.get(what, "--masks-glob")
    raise Motion4DError(
        f"{folder}: holds several kinds of files; choose one with {option}: {', '.join(sorted(series))}"
    )


def read_labels(path: Path) -> NDArray[np.int32]:
    """A mask file -> (H, W) int32 object ids. Palette images give their indices, not their colours."""
    try:
        with Image.open(path) as opened:
            if opened.mode in ("P", "L", "I;16", "I", "1"):
                pixels = np.array(opened)
            else:
                colours = np.array(opened.convert("RGB"))
                if (colours != colours[..., :1]).any():
                    raise Motion4DError(
                        f"{path}: a colour image; masks hold object ids (8- or 16-bit grey, or palette)"
                    )
                pixels = colours[..., 0]
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise Motion4DError(f"{path}: cannot be read as a mask ({error})") from None
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8)
    return object_ids(pixels)


def read_depth(path: Path) -> NDArray[np.float32]:
    """A depth file -> (H, W) metres, 0 where unknown: PNG/TIFF uint16 mm, TIFF float32 m, or `.npy` m."""
    pixels: NDArray[Any] | None
    if path.suffix.lower() == ".npy":
        try:
            pixels = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise Motion4DError(f"{path}: cannot be read as depth ({error})") from None
        if pixels.dtype.kind == "f":
            pixels = pixels.astype(np.float32)
    else:
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.ndim != 2 or pixels.dtype not in (np.uint16, np.float32):
        kind = "unreadable" if pixels is None else f"{pixels.dtype}{pixels.shape}"
        raise Motion4DError(f"{path}: {kind}; depth is uint16 PNG in mm or a 2-D .npy in m")
    return metres(pixels)


class SideFiles:
    """Depth, masks and poses for frame 0, 1, 2, … of a video or folder."""

    def __init__(
        self, options: SourceOptions, names: list[str] | None, count: int | None, report: SourceReport
    ) -> None:
        """`names`: stems of the image files (None for a video); `count`: number of frames if known."""
        self._report = report
        self._depth = self._series(
            options.depth, DEPTH_SUFFIXES, options.depth_glob, "depth files", ("depth",), names, count
        )
        self._masks = self._series(
            options.masks, IMAGE_SUFFIXES, options.masks_glob, "masks", ("mask", "label", "seg"), names, count
        )
        self._poses: PoseBuffer | None = None
        self._pose_list: list[tuple[int, FloatArray]] | None = None
        if options.poses is not None:
            self._read_poses(Path(options.poses), options, count)
        for what, given in (("depth", self._depth), ("masks", self._masks), ("camera poses", options.poses)):
            if given is None:
                report.missing.append(what)

    def depth(self, index: int, size: tuple[int, int]) -> NDArray[np.float32] | None:
        """(H, W) m of one frame, or None."""
        path = None if self._depth is None else self._depth.get(index)
        if path is None:
            return None
        return np.asarray(fit_to_size(read_depth(path), size, "depth", self._report), np.float32)

    def masks(self, index: int, size: tuple[int, int]) -> IntArray | None:
        """(H, W) ids of one frame, or None."""
        path = None if self._masks is None else self._masks.get(index)
        if path is None:
            return None
        return np.asarray(fit_to_size(read_labels(path), size, "masks", self._report), np.int32)

    def stamp_ns(self, index: int) -> int | None:
        """The stamp of the frame's own pose, where every frame has one."""
        if self._pose_list is None or index >= len(self._pose_list):
            return None
        return self._pose_list[index][0]

    def pose(self, index: int, stamp_ns: int) -> FloatArray | None:
        """(4, 4) T_map_cam, or None."""
        if self._pose_list is not None and index < len(self._pose_list):
            return self._pose_list[index][1]
        if self._poses is None:
            return None
        pose = self._poses.at(stamp_ns)
        if pose is None:
            self._report.warn("a frame has no camera pose near its time: its pose is predicted")
        return pose

    def _read_poses(self, path: Path, options: SourceOptions, count: int | None) -> None:
        if path.is_dir():
            files = sorted((p for p in path.glob("*.txt") if "intrinsic" not in p.name.lower()), key=natural_key)
            matrices = [_read_matrix(file) for file in files]
            poses = [(round(i * 1e9 / (options.fps or 10.0)), T) for i, T in enumerate(matrices)]
            if not poses:
                raise Motion4DError(f"{path}: no *.txt files with 4x4 poses")
        else:
            poses = read_tum(path)
        self._report.used["camera poses"] = f"{path.name} ({len(poses)} poses)"
        if count is not None and len(poses) == count:
            self._pose_list = poses
            return
        start = poses[0][0]
        self._poses = PoseBuffer(max_gap_ns=round(options.max_pose_gap_s * 1e9))
        for stamp_ns, T in poses:
            self._poses.add(stamp_ns - start, T)
        self._report.warn(
            f"{len(poses)} poses for {count if count is not None else 'an unknown number of'} frames: matched by time, "
            "counted from the first of each"
        )

    def _series(
        self,
        folder: str | None,
        suffixes: frozenset[str],
        glob: str | None,
        what: str,
        hints: tuple[str, ...],
        names: list[str] | None,
        count: int | None,
    ) -> dict[int, Path] | None:
        """Frame index -> file: in frame order when the numbers agree, by name otherwise."""
        if folder is None:
            return None
        files = list_files(Path(folder), suffixes, glob, what, hints)
        self._report.used[what.split()[0]] = f"{folder} ({len(files)} files)"
        if count is None or len(files) == count:
            return dict(enumerate(files))
        numbers = [_numbers(file.name) for file in files]
        if names is not None:
            by_number = dict(zip(numbers, files, strict=True))
            matched = {i: by_number[_numbers(n)] for i, n in enumerate(names) if _numbers(n) in by_number}
            if matched and len(by_number) == len(files):
                self._report.warn(f"{len(files)} {what} for {count} images: matched by the numbers in their names")
                return matched
        if len(files) < count:
            self._report.warn(f"only {len(files)} {what} for {count} frames: the last frames have none")
            return dict(enumerate(files))
        raise Motion4DError(f"{folder}: {len(files)} {what} for {count} frames: which belongs to which?")


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", name))


def _read_matrix(path: Path) -> FloatArray:
    try:
        T = np.loadtxt(path)
    except (OSError, ValueError):
        T = np.zeros(0)
    if T.shape != (4, 4) or not np.isfinite(T).all():
        raise Motion4DError(f"{path}: expected a finite 4x4 camera-to-map matrix")
    return T
