"""Asking every Gaussian's witnesses: in which frames was it seen, what was it called there, and was it ever seen
through?

Projecting all Gaussians into all frames of the horizon answers in closed form what gradient descent would take
hundreds of steps to find: the label most of the frames give to a Gaussian where it is visible (its semantic vector),
and whether it stands where the depth of other frames says there is free space (a ghost).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from motion4d_ros.fit.optimisation.targets import Target
from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.scene.scene import Scene
from motion4d_ros.types import Camera

VISIBLE_SHARE = 0.04  # a Gaussian within this share of the observed depth is what was seen there
FREE_SHARE = 0.08  # nearer than the observed depth by more than this share: it was looked through


@dataclass
class LabelVotes:
    """Counts over frames, one row per Gaussian."""

    votes: Tensor  # (N, C) frames in which it was visible and carried this label
    visible: Tensor  # (N,) frames in which it was visible with a known label
    seen_through: Tensor  # (N,) frames whose depth says that nothing is there
    looked_at: Tensor  # (N,) frames in which it was in view and not behind something


@torch.no_grad()
def count_label_votes(scene: Scene, targets: Sequence[Target], camera: Camera) -> LabelVotes:
    """Projects every Gaussian into the frames `targets`."""
    count, channels = scene.count, scene.channels
    device = scene.device
    votes = torch.zeros(count, channels, device=device)
    seen_through = torch.zeros(count, device=device)
    looked_at = torch.zeros(count, device=device)
    positions = scene.means_at([target.index for target in targets])
    for column, target in enumerate(targets):
        T = target.T_cam_map
        xyz = transform_points(T, positions[:, column].to(T.dtype))
        z = xyz[:, 2]
        ahead = z > 1e-3
        safe = torch.where(ahead, z, 1.0)
        u = (camera.fx * xyz[:, 0] / safe + camera.cx).round().long()
        v = (camera.fy * xyz[:, 1] / safe + camera.cy).round().long()
        inside = ahead & (u >= 0) & (v >= 0) & (u < camera.width) & (v < camera.height)
        u, v = u.clamp(0, camera.width - 1), v.clamp(0, camera.height - 1)
        depth = target.depth_m[v, u]
        known = inside & (target.depth_weight[v, u] > 0)
        ratio = z / depth
        visible = known & ((ratio - 1).abs() < VISIBLE_SHARE) & (target.known[v, u] > 0)
        through = known & (ratio < 1 - FREE_SHARE)
        rows = visible.nonzero().squeeze(1)
        votes[rows, target.channels[v, u][rows]] += 1
        seen_through += through
        looked_at += known & (ratio < 1 + VISIBLE_SHARE)
    return LabelVotes(votes, votes.sum(1), seen_through, looked_at)


@torch.no_grad()
def adopt_votes(scene: Scene, label_votes: LabelVotes, doubt: float) -> None:
    """Semantic logits from the votes: the logarithm of each label's share, with `doubt` votes for what was there
    before.
    """
    semantics = scene.params["semantics"]
    before = semantics.softmax(-1)
    share = (label_votes.votes + doubt * before) / (label_votes.visible + doubt)[:, None]
    semantics.copy_(share.clamp_min(1e-3).log())


def contradicted(label_votes: LabelVotes, own: Tensor, minimum: int) -> Tensor:
    """(N,) Gaussians that should go: seen through in most frames, or called otherwise than their `own` channel (N,)
    in most.
    """
    ghost = (label_votes.looked_at >= minimum) & (label_votes.seen_through > 0.6 * label_votes.looked_at)
    mine = label_votes.votes.gather(1, own[:, None]).squeeze(1)
    misnamed = (label_votes.visible >= minimum) & (mine < 0.4 * label_votes.visible)
    return ghost | misnamed


def horizon_sample(targets: dict[int, Target], most: int) -> list[Target]:
    """Up to `most` frames, evenly spread, the newest among them."""
    indices = sorted(targets)
    chosen = np.unique(np.linspace(0, len(indices) - 1, min(most, len(indices))).round().astype(int))
    return [targets[indices[i]] for i in chosen]
