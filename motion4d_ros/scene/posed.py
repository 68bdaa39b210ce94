"""Gaussians posed at one time: all that a renderer needs to know about the geometry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class PosedGaussians:
    """N Gaussians in the map frame at one time."""

    means: Tensor  # (N, 3) m
    quats: Tensor  # (N, 4) wxyz, need not be normalised
    scales: Tensor  # (N, 3) standard deviations along the Gaussian's own axes, m
    opacities: Tensor  # (N,) in [0, 1]

    @property
    def count(self) -> int:
        """Number of Gaussians N."""
        return self.means.shape[0]

    def select(self, mask: Tensor) -> PosedGaussians:
        """Those where `mask` (N,) bool holds, or those at the (M,) int64 rows `mask`."""
        return PosedGaussians(self.means[mask], self.quats[mask], self.scales[mask], self.opacities[mask])

    @staticmethod
    def cat(parts: Sequence[PosedGaussians]) -> PosedGaussians:
        """All Gaussians of `parts` (at least one), in order."""
        return PosedGaussians(
            torch.cat([part.means for part in parts]),
            torch.cat([part.quats for part in parts]),
            torch.cat([part.scales for part in parts]),
            torch.cat([part.opacities for part in parts]),
        )
