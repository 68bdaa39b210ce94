"""The files of DyCheck's iPhone recordings, which extend the format of Nerfies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from motion4d_ros.evaluation.benchmarks.interfaces import Place
from motion4d_ros.geometry.rigid import pose_matrix
from motion4d_ros.types import Camera, FloatArray, Motion4DError

FACTOR = 2  # of the published images that its evaluation uses
MILLIMETRES = 50.0  # a median depth above this is no number of metres


@dataclass(frozen=True)
class Recording:
    """What the files of one recording say, of the frames that count."""

    folder: Path
    factor: int
    rate: float  # frames a second
    names: list[str]  # of the training frames, in order of time
    times: list[int]  # their time ids


def open_recording(place: Place) -> Recording:
    """Raises `Motion4DError` where the recording's lists cannot be read."""
    folder = place.root / place.name
    split = _json(folder / "splits" / "train.json")
    extra = _json(folder / "extra.json") if (folder / "extra.json").is_file() else {}
    try:
        order = np.argsort(split["time_ids"], kind="stable")[: place.limit]
        names, times = [split["frame_names"][k] for k in order], [int(split["time_ids"][k]) for k in order]
    except (KeyError, TypeError, IndexError) as error:
        raise Motion4DError(
            f"{folder / 'splits' / 'train.json'}: expected frame_names and time_ids ({error})"
        ) from None
    if not names:
        raise Motion4DError(f"{folder / 'splits' / 'train.json'}: lists no frame")
    return Recording(folder, int(extra.get("factor", FACTOR)), float(extra.get("fps", 30.0)), names, times)


def read_camera(recording: Recording, name: str) -> tuple[Camera, FloatArray]:
    """Camera of the images at the recording's factor, and T_map_cam (4, 4): Nerfies' format, whose pixels have their
    centres at .5.
    """
    content, path = _json(recording.folder / "camera" / f"{name}.json"), recording.folder / "camera" / f"{name}.json"
    try:
        focal = float(content["focal_length"]) / recording.factor
        aspect = float(content.get("pixel_aspect_ratio", 1.0))
        cx, cy = (float(value) / recording.factor - 0.5 for value in content["principal_point"])
        width, height = (round(value / recording.factor) for value in content["image_size"])
        T = pose_matrix(np.array(content["orientation"], float).T, np.array(content["position"], float))
    except (KeyError, TypeError, ValueError) as error:
        raise Motion4DError(f"{path}: no camera in the format of Nerfies ({error})") from None
    return Camera(focal, focal * aspect, cx, cy, width, height), T


def read_depth(recording: Recording, name: str) -> FloatArray | None:
    """(H, W) m along the view, 0 where there is none; None where there is no file."""
    path = recording.folder / f"depth/{recording.factor}x/{name}.npy"
    if not path.is_file():
        return None
    try:
        depth = np.asarray(np.load(path, allow_pickle=False), float)
    except (OSError, ValueError) as error:
        raise Motion4DError(f"{path}: cannot be read ({error})") from None
    depth = depth[..., 0] if depth.ndim == 3 else depth
    known = depth[np.isfinite(depth) & (depth > 0)]
    return depth / 1000 if len(known) and np.median(known) > MILLIMETRES else depth


def read_keypoints(recording: Recording) -> dict[int, FloatArray]:
    """Frame number -> (J, 3) x, y px and whether it is seen, of the annotated frames."""
    found = {}
    for index, name in enumerate(recording.names):
        path = recording.folder / f"keypoint/{recording.factor}x/train/{name}.json"
        if path.is_file():
            points = np.asarray(_json(path), float)
            if points.ndim != 2 or points.shape[1] != 3:
                raise Motion4DError(f"{path}: expected x, y, visible of every keypoint")
            found[index] = points
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Motion4DError(f"{path}: cannot be read ({error})") from None
