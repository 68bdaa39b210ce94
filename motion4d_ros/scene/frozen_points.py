"""The points of objects as a scene has them at one moment, apart from the scene: it may change meanwhile."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from motion4d_ros.scene.bases import blend
from motion4d_ros.scene.scene import Scene
from motion4d_ros.types import TrackedPoints


class FrozenPoints:
    """The opaque Gaussians of objects. Read-only once made, and so for any thread."""

    @torch.no_grad()
    def __init__(self, scene: Scene, min_opacity: float) -> None:
        """Gaussians of at least `min_opacity` are points."""
        self.bases = scene.bases.frozen()
        opaque = scene.params["opacity_logits"].sigmoid() > min_opacity
        chosen = ((scene.object_id > 0) & opaque).nonzero().squeeze(1)
        moves = torch.zeros(scene.count, dtype=torch.bool, device=scene.device)
        moves[scene.moving_rows] = True
        self._moving = moves[chosen]
        self._means: Tensor = scene.params["means"].detach()[chosen].clone()
        self._weights = scene.motion_weights()[self._places(scene, chosen)].clone()
        self._ids = scene.ids[chosen].cpu().numpy().astype(np.uint32)
        self._object_id = scene.object_id[chosen].cpu().numpy().astype(np.uint32)
        self._rgb = (scene.params["colors"][chosen].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        self._confidence = scene.params["confidence_logits"][chosen].sigmoid().float().cpu().numpy()

    def _places(self, scene: Scene, chosen: Tensor) -> Tensor:
        """(M,) where those of the `chosen` rows that move stand among all that do."""
        return torch.searchsorted(scene.moving_rows, chosen[self._moving])

    @torch.no_grad()
    def at(self, index: float) -> TrackedPoints:
        """The points at a (fractional) frame index; beyond the horizon at constant twist."""
        if len(self._ids) == 0 or self.bases.length == 0:
            return TrackedPoints.empty()
        before, after = self.bases.seconds_at([index - 1, index + 1])
        xyz, velocity = self._means.clone(), torch.zeros_like(self._means)
        if len(self._weights):
            motions = blend(self._weights, self.bases.poses_at([index, index - 1, index + 1]))
            there = (motions[..., :3] * self._means[self._moving][:, None, None]).sum(-1) + motions[..., 3]
            xyz[self._moving] = there[:, 0]
            if after > before:  # else nothing has been seen to move
                velocity[self._moving] = (there[:, 2] - there[:, 1]) / float(after - before)
        return TrackedPoints(
            self._ids,
            self._object_id,
            xyz.float().cpu().numpy(),
            velocity.float().cpu().numpy(),
            self._rgb,
            self._confidence,
        )
