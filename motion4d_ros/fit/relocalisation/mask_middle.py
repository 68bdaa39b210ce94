"""The middle of an object as its masks show it: one point more in its adjustment, known in every frame that shows it.

Where nothing links an object to what it was before, because it comes back showing only sides that were never seen, its
points say nothing of where it was seen before relative to where it is seen now, and an adjustment would leave that to
the prior on accelerations. But its mask still says where its middle is: as roughly as masks are, and only as far as all
of it shows. It is used only while that is so: masks that swap two objects for a few frames would disturb the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from motion4d_ros.fit.motion.bundle_adjustment import Observations
from motion4d_ros.fit.window.horizon import FrameState, Horizon
from motion4d_ros.types import BoolArray, Camera, FloatArray

ROUGH = 0.2  # of the radius: by how much the middle of a mask is off one of the object, one standard deviation
DEEP = 2.0 / 3.0  # radii from the mean visible depth to the middle: a sphere's


@dataclass(frozen=True)
class Middle:
    """The middle of an object in T frames. Entries that are not `seen` are never read."""

    uv_px: FloatArray  # (T, 2)
    sigma_px: FloatArray  # (T,)
    depth_m: FloatArray  # (T,) along z
    seen: BoolArray  # (T,)

    def sigma_m(self, camera: Camera) -> FloatArray:
        """(T,) `sigma_px` at its depth, m."""
        return np.asarray(self.sigma_px * self.depth_m / camera.fx)

    def lifted(self, horizon: Horizon) -> FloatArray:
        """(T, 3) m, map; NaN where not seen."""
        xyz = np.full((len(self.seen), 3), np.nan)
        for column in np.flatnonzero(self.seen).tolist():
            T_map_cam = horizon.frames[column].T_map_cam
            xyz_cam = horizon.camera.unproject(self.uv_px[column][None], self.depth_m[column][None])[0]
            xyz[column] = T_map_cam[:3, :3] @ xyz_cam + T_map_cam[:3, 3]
        return xyz

    def joined_to(self, seen: Observations) -> Observations:
        """The observations (N, T), and these as the last row."""
        inverse_depth = np.where(self.seen, 1.0 / self.depth_m, np.nan)
        return replace(
            seen,
            uv_px=np.concatenate([seen.uv_px, self.uv_px[None]]),
            sigma_px=np.concatenate([seen.sigma_px, self.sigma_px[None]]),
            visible=np.concatenate([seen.visible, self.seen[None]]),
            inverse_depth=np.concatenate([seen.inverse_depth, inverse_depth[None]]),
        )


def middle_of(label: int, horizon: Horizon) -> Middle | None:
    """Where the masks of object `label` have its middle; None where none has depth.

    Its usual radius is that of the frames that most of its pixels lie in; what a mask lacks of it, or has too much, its
    middle may be off by.
    """
    looks = np.stack([_look(state, label) for state in horizon.frames])  # (T, 4): u, v, depth, pixels
    seen = looks[:, 3] > 0
    if not seen.any():
        return None
    depth = np.where(seen, looks[:, 2], 1.0)
    focal = horizon.camera.fx
    radius_m = np.sqrt(looks[:, 3] / np.pi) * depth / focal
    order = np.argsort(radius_m)
    share = np.cumsum(looks[order, 3])
    usual = float(radius_m[order[int(np.searchsorted(share, share[-1] / 2))]])
    amiss = np.minimum(1.0, np.abs(1.0 - (radius_m / usual) ** 2))
    sigma_px = np.hypot(ROUGH, amiss) * usual * focal / depth
    return Middle(looks[:, :2], sigma_px, depth + DEEP * usual, seen)


def _look(state: FrameState, label: int) -> FloatArray:
    """(4,) where the middle of a mask is, px, its median depth, m, and its pixels; zeros where there is none."""
    row, column = np.nonzero((state.labels == label) & np.isfinite(state.depth_m))
    if len(row) == 0:
        return np.zeros(4)
    return np.array([np.median(column), np.median(row), np.median(state.depth_m[row, column]), len(row)], float)
