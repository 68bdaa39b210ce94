"""What a render gives back, whichever back end made it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class RenderOutput:
    """Images of one camera, and how much each Gaussian had to do with them.

    With T_i the transmittance in front of Gaussian i and alpha_i its opacity at the pixel, the blending weight is
    w_i = T_i alpha_i, and every image is a sum over i. Gradients flow through the images, not through the statistics.
    """

    features: Tensor  # (H, W, C) sum of w_i f_i, plus (1 - alpha) background
    alpha: Tensor  # (H, W) sum of w_i, in [0, 1]
    depth_sum: Tensor  # (H, W) m, sum of w_i z_i
    radii: Tensor  # (N,) px, larger half extent of the drawn box; 0 = not drawn
    weight_sum: Tensor | None = None  # (N,) sum of w_i over pixels, only with stats=True
    weight_max: Tensor | None = None  # (N,) largest w_i, only with stats=True; not from gsplat
    pairs: int | None = None  # (pixel, Gaussian) pairs blended, only with stats=True; not from gsplat

    @property
    def depth(self) -> Tensor:
        """(H, W) expected depth along z, m: `depth_sum / alpha`; 0, without gradient, where nothing was drawn."""
        drawn = self.alpha > 1e-4  # one visible Gaussian already gives 1/255
        return torch.where(drawn, self.depth_sum / torch.where(drawn, self.alpha, 1.0), 0.0)
