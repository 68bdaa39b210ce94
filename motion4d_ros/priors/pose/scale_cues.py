"""What can tell how long a unit of a monocular map is, and by how much to multiply it to get metres."""

from __future__ import annotations

import numpy as np

from motion4d_ros.types import FloatArray

MIN_BASELINE = 0.02  # m of odometry that count as motion
MIN_DEPTHS = 20


class ScaleCues:
    """Collects cues while a map is initialised; the most trustworthy one decides.

    In order: metric depth measured with the frames, odometry's baseline, a known distance, a known camera height.
    """

    def __init__(self, known_height: float = 0.0, known_distance: float = 0.0) -> None:
        self.known_height = known_height
        self.known_distance = known_distance
        self._ratios: list[FloatArray] = []
        self._ours: list[FloatArray] = []
        self._given: list[FloatArray] = []

    def see(self, T_map_cam: FloatArray, given: FloatArray | None, depths: tuple[FloatArray, FloatArray]) -> None:
        """One placed frame: its pose in the map, the pose odometry gave it, and (map, metric) depths (N,) of points."""
        mine, metric = depths
        if len(mine):
            self._ratios.append(metric / mine)
        if given is not None:
            self._ours.append(T_map_cam[:3, 3])
            self._given.append(given[:3, 3])

    def factor(self, xyz_map: FloatArray, T_map_first: FloatArray) -> tuple[float, str]:
        """The factor to metres and what it rests on, in words; (1, "") when nothing is known.

        `xyz_map` (N, 3) are the points of the map, `T_map_first` the first camera in it.
        """
        ratios = np.concatenate(self._ratios) if self._ratios else np.zeros(0)
        if len(ratios) >= MIN_DEPTHS:
            return float(np.median(ratios)), "metric depth"
        if len(self._given) >= 2:
            ours, given = np.stack(self._ours), np.stack(self._given)
            a, b = np.linalg.norm(ours - ours.mean(0), axis=1), np.linalg.norm(given - given.mean(0), axis=1)
            if b.max() > MIN_BASELINE and a.max() > 0:
                return float((b * a).sum() / (a * a).sum()), "baseline of the odometry"
        cam = (xyz_map - T_map_first[:3, 3]) @ T_map_first[:3, :3]
        if self.known_distance > 0:
            off_axis = np.linalg.norm(cam[:, :2], axis=1) / np.maximum(cam[:, 2], 1e-9)
            central = cam[np.argsort(np.where(cam[:, 2] > 0, off_axis, np.inf))[:15], 2]
            if len(central):
                return self.known_distance / float(np.median(central)), "known distance"
        if self.known_height > 0:
            height = ground_distance(cam)
            if height is not None:
                return self.known_height / height, "known camera height"
        return 1.0, ""


def ground_distance(xyz_cam: FloatArray, trials: int = 500, seed: int = 0) -> float | None:
    """Distance from the camera to the ground below it, from points (N, 3) in its frame (y down); None if there is none.

    The ground is the plane with most support whose normal lies within 45 degrees of the camera's y axis, with the
    camera above it.
    """
    below = xyz_cam[(xyz_cam[:, 1] > 0) & (xyz_cam[:, 2] > 0)]
    if len(below) < 20:
        return None
    rng = np.random.default_rng(seed)
    pick = below[rng.integers(0, len(below), (trials, 3))]
    normal = np.cross(pick[:, 1] - pick[:, 0], pick[:, 2] - pick[:, 0])
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    normal = normal / np.maximum(length, 1e-12)
    normal *= np.where(normal[:, 1:2] < 0, -1.0, 1.0)
    offset = (normal * pick[:, 0]).sum(1)
    usable = (length[:, 0] > 1e-9) & (normal[:, 1] > np.cos(np.radians(45))) & (offset > 0)
    if not usable.any():
        return None
    normal, offset = normal[usable], offset[usable]
    tolerance = 0.03 * np.median(below[:, 2])
    support = (np.abs(below @ normal.T - offset) < tolerance).sum(0)
    best = int(support.argmax())
    if support[best] < 0.15 * len(below):
        return None
    inliers = below[np.abs(below @ normal[best] - offset[best]) < tolerance]
    centre = inliers.mean(0)
    refined = np.linalg.svd(inliers - centre)[2][2]
    return float(abs(refined @ centre))
