"""How far an object is from moving as one rigid body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from motion4d_ros.scene.scene import Scene
from motion4d_ros.types import FloatArray


@dataclass(frozen=True)
class Deformation:
    """Scatter of an object's motion bases about its one rigid motion (`Scene.object_pose`), map frame."""

    place: FloatArray  # (3,) m, where the object's centre is
    pose: FloatArray  # (6, 6) of where they carry the centre, m, and of how they are turned, rad
    twist: FloatArray  # (6, 6) of their velocities, m/s, and rates, rad/s


@torch.no_grad()
def deformation(scene: Scene, object_id: int, time: float) -> Deformation | None:
    """At the (fractional) frame index `time`; None for an object with fewer than two bases."""
    owned = (scene.bases.owner == object_id).nonzero().squeeze(1)
    if len(owned) < 2:
        return None
    times = [time - 0.5, time, time + 0.5]
    transforms = scene.bases.poses_at(times).transforms()[owned].double().cpu().numpy()  # (n, 3, 3, 4)
    shares, center = (each.cpu().numpy() for each in scene.shares_of_bases(object_id, owned))
    whole = scene.object_poses(object_id, times)
    places = whole[:, :3, :3] @ center + whole[:, :3, 3]
    shifts = transforms[..., :3] @ center + transforms[..., 3] - places
    turned = transforms[..., :3] @ whole[:, :3, :3].transpose(0, 2, 1)
    turns = Rotation.from_matrix(turned.reshape(-1, 3, 3)).as_rotvec().reshape(shifts.shape)
    apart = np.concatenate([shifts, turns], -1)  # (n, 3, 6)
    first, last = scene.bases.seconds_at([times[0], times[2]])
    rates = (apart[:, 2] - apart[:, 0]) / max(float(last - first), 1e-3)
    return Deformation(places[1], *((each * shares[:, None]).T @ each for each in (apart[:, 1], rates)))
