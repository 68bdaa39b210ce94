"""A scene on the disk, and what is known of the cameras that saw it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.offline.results.saved_result import read_result
from motion4d_ros.offline.results.workspace import is_analysis
from motion4d_ros.offline.sources.videos.video_source import USUAL_RATE
from motion4d_ros.options import no_such_path
from motion4d_ros.scene.scene import Scene
from motion4d_ros.scene.storage import SCENE_FILE, load_scene
from motion4d_ros.types import Camera, FloatArray, Motion4DError

DEFAULT_CAMERA = Camera(554.0, 554.0, 319.5, 239.5, 640, 480)  # 60 degrees wide: where nobody says which it was


@dataclass
class SavedScene:
    """The scene, and the trajectory of its cameras within the frames it holds."""

    scene: Scene  # Gaussians and motion bases, map frame
    names: NDArray[np.int64]  # (C,) object id of every semantic channel
    camera: Camera  # that took the images
    rate: float  # frames a second
    T_map_cams: dict[int, FloatArray]  # frame number -> (4, 4) camera to map, m; empty where the scene lies alone

    @property
    def frames(self) -> range:
        """The frames whose motion the scene holds."""
        return self.scene.bases.indices

    def check_time(self, frame: float) -> float:
        """The (fractional) number of a `frame`, if the scene knows how things moved then; else `Motion4DError`."""
        first, last = self.frames[0], self.frames[-1]
        if not first <= frame <= last:
            raise Motion4DError(
                f"frame {frame:g} is not in the saved scene: it holds frames {first} to {last} "
                "(window.horizon says how many it keeps)"
            )
        return frame


def open_scene(place: Path) -> SavedScene:
    """The scene of a result's folder, of a folder that holds one, or of the file itself.

    Where no analysis lies beside it, the camera is `DEFAULT_CAMERA` (60 degrees wide) and there are no poses. Raises
    `Motion4DError` for a place that holds no scene, or an empty or damaged one.
    """
    if not place.exists():
        raise no_such_path(place)
    candidates = [place] if place.is_file() else [place / "scene" / SCENE_FILE, place / SCENE_FILE]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise Motion4DError(f"{place}: holds no scene ({SCENE_FILE}); motion4d analyze INPUT --out DIR saves one")
    scene, extra = load_scene(path)
    if scene.count == 0 or scene.bases.length == 0:
        raise Motion4DError(f"{path}: is empty: nothing was fitted before it was saved")
    names = np.zeros(scene.channels, np.int64)
    for label, channel in extra.get("objects", {}).items():
        names[channel] = int(label)
    known = next((folder for folder in (place, path.parent.parent) if is_analysis(folder)), None)
    if known is None:
        return SavedScene(scene, names, DEFAULT_CAMERA, USUAL_RATE, {})
    result, indices = read_result(known), scene.bases.indices
    poses = {index: T for index, T in result.T_map_cams.items() if index in indices}
    return SavedScene(scene, names, result.camera, result.rate or USUAL_RATE, poses)
