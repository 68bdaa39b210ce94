"""What one canonical Gaussian consists of, and batches of new ones on their way into the scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from motion4d_ros.types import Motion4DError

WIDTHS: dict[str, int | None] = {
    "means": 3,  # m, map frame, at the canonical time
    "quats": 4,  # wxyz
    "log_scales": 3,  # log m
    "opacity_logits": None,  # None: one number per Gaussian
    "colors": 3,  # RGB in [0, 1]
    "semantics": -1,  # -1: width chosen by the scene (semantic channels; number of bases)
    "confidence_logits": None,  # u_i, logit: large = trust the 2D priors here
    "motion_logits": -1,
}
"""Parameters per Gaussian and their width."""

GAUSSIAN_PARAMETERS = tuple(WIDTHS)


@dataclass
class GaussianBatch:
    """M new Gaussians that have no ids yet. Tensors of any float type and device; the scene converts them."""

    means: Tensor  # (M, 3) m, map frame, at the canonical time
    quats: Tensor  # (M, 4) wxyz
    log_scales: Tensor  # (M, 3) log m
    opacity_logits: Tensor  # (M,)
    colors: Tensor  # (M, 3) in [0, 1]
    semantics: Tensor  # (M, C)
    confidence_logits: Tensor  # (M,) logits
    object_id: Tensor  # (M,) int64, 0 = background
    dynamic: Tensor  # (M,) bool: follows the bases of its object
    motion_logits: Tensor | None = None  # (M, B) over all bases of the scene; None = equal shares

    @property
    def count(self) -> int:
        """Number of Gaussians M."""
        return self.means.shape[0]

    def check(self, channels: int, bases: int) -> None:
        """Raises `ValueError` when a shape disagrees with the others, or with the scene's channels and bases."""
        shapes = {name: (self.count,) if width is None else (self.count, width) for name, width in WIDTHS.items()} | {
            "semantics": (self.count, channels),
            "object_id": (self.count,),
            "dynamic": (self.count,),
        }
        shapes["motion_logits"] = (self.count, bases)
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"new Gaussians: {name} has shape {tuple(value.shape)}, expected {shape}")

    @staticmethod
    def from_points(
        points: Tensor,
        colors: Tensor,
        semantics: Tensor,
        object_id: Tensor | int = 0,
        *,
        motion_logits: Tensor | None = None,
        scale: Tensor | None = None,
        opacity: float = 0.7,
        confidence_logits: float = 2.0,
    ) -> GaussianBatch:
        """Round Gaussians at (M, 3) points, m, as Shape of Motion starts them: scale = mean distance to the three
        nearest neighbours unless `scale` (M,) m is given, opacity 0.7.

        `colors` is (M, 3) in [0, 1], `semantics` (M, C). What belongs to an object is dynamic.
        """
        count = points.shape[0]
        ids = torch.as_tensor(object_id, dtype=torch.int64, device=points.device).expand(count).clone()
        size = neighbour_distance(points) if scale is None else scale.to(points)
        quats = torch.zeros(count, 4, dtype=points.dtype, device=points.device)
        quats[:, 0] = 1.0
        return GaussianBatch(
            means=points,
            quats=quats,
            log_scales=size.clamp_min(1e-6).log()[:, None].expand(-1, 3).clone(),
            opacity_logits=torch.full_like(points[:, 0], float(np.log(opacity / (1 - opacity)))),
            colors=colors,
            semantics=semantics,
            confidence_logits=torch.full_like(points[:, 0], confidence_logits),
            object_id=ids,
            dynamic=ids > 0,
            motion_logits=motion_logits,
        )


def neighbour_distance(points: Tensor, neighbours: int = 3, fallback_m: float = 0.01) -> Tensor:
    """(M,) mean distance of (M, 3) points to their nearest `neighbours`, m; `fallback_m` for a lonely point.

    Raises `Motion4DError` for points that are not finite.
    """
    if points.shape[0] < 2:
        return torch.full_like(points[:, 0], fallback_m)
    xyz = points.detach().cpu().double().numpy()
    if not np.isfinite(xyz).all():
        raise Motion4DError("new Gaussians have NaN or infinite positions: check depth and camera pose")
    k = min(neighbours + 1, len(xyz))
    distance = np.asarray(cKDTree(xyz).query(xyz, k=k)[0])
    return torch.as_tensor(distance[:, 1:].mean(1)).to(points)
