"""Folders as data sets lay them out: which files are images, depth and poses, and what their conventions are.

Known are TUM RGB-D, Bonn and ETH3D (`rgb.txt`, `depth.txt`, `groundtruth.txt`), OpenLORIS (`color.txt`,
`aligned_depth.txt`), 7-Scenes (`*.color.png`, `*.depth.png`, `*.pose.txt`), and the images and depth of one camera in
two folders side by side.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from motion4d_ros.imagery.depth_units import KITTI, MILLIMETRES, TUM
from motion4d_ros.offline.sources.camera.calibration_files import camera_info, read_calibration
from motion4d_ros.offline.sources.files.series import DEPTH_SUFFIXES, IMAGE_SUFFIXES

_LISTS = (("rgb.txt", "depth.txt", TUM), ("color.txt", "aligned_depth.txt", MILLIMETRES))
_IMAGE_FOLDERS = ("rgb", "color", "colour", "image", "images", "rgb_left", "image_left")
_DEPTH_FOLDERS = ("depth", "aligned_depth", "depths", "depth_left")
_POSE_FOLDERS = ("pose", "poses")
_TRUTH = ("groundtruth.txt", "groundtruth.tum", "poses.tum", "traj.txt")
_CALIBRATIONS = (
    "calibration.txt", "camera-intrinsics.txt", "intrinsics.txt", "intrinsic.txt", "camera.txt", "K.txt",
    "calib.txt", "camera.yaml", "camera_info.yaml", "calibration.yaml", "intrinsic/intrinsic_color.txt",
    "intrinsics/intrinsic_color.txt",
)  # fmt: skip
_KINECT_SIZE = (640, 480)


@dataclass(frozen=True)
class Layout:
    """What a folder holds. Paths are folders or lists; None where there is none."""

    name: str
    images: Path
    image_glob: str | None = None
    depth: Path | None = None
    depth_glob: str | None = None
    depth_units_per_metre: float = 0.0  # what the data set's convention is; 0 = it has none
    poses: Path | None = None


def find_layout(folder: Path) -> Layout | None:
    """What a folder is laid out as; None where it is but a folder of images, or nothing known."""
    for images, depth, units in _LISTS:
        if (folder / images).is_file():
            return Layout(
                "TUM RGB-D" if units == TUM else "OpenLORIS",
                folder / images,
                depth=_existing(folder, (depth,)),
                depth_units_per_metre=units,
                poses=_existing(folder, _TRUTH),
            )
    if any(folder.glob("*.color.*")) and any(folder.glob("*.depth.png")):
        poses = folder if any(folder.glob("*.pose.txt")) else None
        return Layout("7-Scenes", folder, "*.color.*", folder, "*.depth.png", MILLIMETRES, poses)
    if any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir() if path.is_file()):
        return None
    named = {path.name.lower(): path for path in folder.iterdir() if path.is_dir()}
    found = [named[name] for name in _IMAGE_FOLDERS if name in named and _holds(named[name], IMAGE_SUFFIXES)]
    if len(found) != 1:
        return None
    depth_folders = [named[name] for name in _DEPTH_FOLDERS if name in named and _holds(named[name], DEPTH_SUFFIXES)]
    poses = _existing(folder, _TRUTH) or next((named[name] for name in _POSE_FOLDERS if name in named), None)
    depth_folder = depth_folders[0] if len(depth_folders) == 1 else None
    return Layout("images and depth side by side", found[0], depth=depth_folder, poses=poses)


def depth_convention(depth: Path) -> float:
    """Units per metre that the place of depth files declares; 0 where it declares nothing."""
    folder = depth if depth.is_dir() else depth.parent
    if any(part in ("proj_depth", "velodyne_raw", "groundtruth_depth") for part in depth.parts):
        return KITTI
    for place in (folder, folder.parent):
        for images, listed, units in _LISTS:
            if (place / images).is_file() and (place / listed).is_file():
                return units
    return MILLIMETRES if any(folder.glob("*.pose.txt")) and any(folder.glob("*.depth.png")) else 0.0


def calibration_of(folder: Path, size: tuple[int, int]) -> tuple[SimpleNamespace, str] | None:
    """A calibration that lies in the folder, or is known of the data set by its name; and where it comes from.

    `size`: (height, width) of the images. None where nothing is known.
    """
    listed = any((folder.parent / name).is_file() for name in (*(images for images, _, _ in _LISTS), "times.txt"))
    for place in (folder, folder.parent) if listed else (folder,):
        for name in _CALIBRATIONS:
            if (place / name).is_file():
                return read_calibration(place / name), name
    return _known(str(folder.resolve()), (size[1], size[0]))


def _known(path: str, size: tuple[int, int]) -> tuple[SimpleNamespace, str] | None:
    """Calibrations that the makers of data sets publish apart from the recordings."""
    if size != _KINECT_SIZE:
        return None
    for pattern, intrinsics, distortion in _PUBLISHED:
        if re.search(pattern, path):
            return camera_info(intrinsics, distortion, size=size), f"as published for {pattern.strip('_?')}"
    return None


_PUBLISHED = (
    ("freiburg1_", (517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    ("freiburg2_", (520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    ("freiburg3_", (535.4, 539.2, 320.1, 247.6), ()),
    ("rgbd_bonn_", (542.822841, 542.576870, 315.593520, 237.756098), (0.039903, -0.099343, -0.000730, -0.000144, 0.0)),
)
"""Sturm et al. (IROS 2012) and Palazzolo et al. (IROS 2019): fx, fy, cx, cy, px, and k1, k2, p1, p2, k3."""


def default_calibration(layout: Layout, size: tuple[int, int]) -> tuple[SimpleNamespace, str] | None:
    """What the makers of a layout recommend where nothing else is known, for images of (height, width)."""
    if layout.name == "TUM RGB-D" and (size[1], size[0]) == _KINECT_SIZE:
        return camera_info((525.0, 525.0, 319.5, 239.5), size=_KINECT_SIZE), "the default of TUM's data sets"
    if layout.name == "7-Scenes" and (size[1], size[0]) == _KINECT_SIZE:
        return camera_info((585.0, 585.0, 320.0, 240.0), size=_KINECT_SIZE), "the default of 7-Scenes"
    return None


def _existing(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _holds(folder: Path, suffixes: frozenset[str]) -> bool:
    return any(path.suffix.lower() in suffixes for path in folder.iterdir())
