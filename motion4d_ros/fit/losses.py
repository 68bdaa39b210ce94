"""Losses of the fit, each a mean over pixels or points, small and pure.

Weights are those of Shape of Motion (Wang et al. 2024, sec. 4) unless `config.LossConfig` says otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
SSIM_WINDOW_PX = 7  # uniform window: a third of the cost of the Gaussian 11 px one, for the same gradient in practice
GCE_Q = 0.7


def photometric(rendered: Tensor, image: Tensor, ssim_share: float) -> Tensor:
    """(1 - s) L1 + s (1 - SSIM) of two (H, W, 3) images in [0, 1]: 3D Gaussian Splatting's colour loss."""
    l1 = (rendered - image).abs().mean()
    if ssim_share == 0.0 or min(image.shape[:2]) < SSIM_WINDOW_PX:
        return l1
    return (1 - ssim_share) * l1 + ssim_share * (1 - ssim(rendered, image))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean structural similarity (Wang et al. 2004) of two (H, W, C) images in [0, 1], uniform window."""
    x, y = a.permute(2, 0, 1)[None], b.permute(2, 0, 1)[None]
    stacked = torch.cat([x, y, x * x, y * y, x * y])
    mean_x, mean_y, xx, yy, xy = avg_pool2d(stacked, SSIM_WINDOW_PX, stride=2).unbind(0)
    var_x, var_y, cov = xx - mean_x**2, yy - mean_y**2, xy - mean_x * mean_y
    top = (2 * mean_x * mean_y + SSIM_C1) * (2 * cov + SSIM_C2)
    return (top / ((mean_x**2 + mean_y**2 + SSIM_C1) * (var_x + var_y + SSIM_C2))).mean()


def semantic(probability: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Generalised cross-entropy (Zhang & Sabuncu 2018): robust to labels that are plainly wrong.

    probability (H, W, C) composited label distribution, target (H, W) int64 channels, weight (H, W).
    """
    chosen = probability.gather(-1, target[..., None])[..., 0].clamp(1e-4, 1.0)
    return (weight * (1 - chosen**GCE_Q) / GCE_Q).sum() / weight.sum().clamp_min(1.0)


def depth(rendered: Tensor, prior: Tensor, weight: Tensor) -> Tensor:
    """Relative difference of inverse depths, trimmed: (H, W) m each; `weight` (H, W), 0 where the prior is unknown."""
    ratio = (prior / rendered.clamp_min(1e-3) - 1).abs().clamp_max(0.2)
    return (weight * ratio).sum() / weight.sum().clamp_min(1.0)


def track(uv_px: Tensor, target_px: Tensor, weight: Tensor, size: int) -> Tensor:
    """Weighted distance of projected tracks (P, 2) from the prior's (P, 2), over the longer image side (Shape of
    Motion).

    Trimmed at 16 px: beyond that it is a mistake, not a measurement.
    """
    distance = (uv_px - target_px).square().sum(-1).add(1e-8).sqrt().clamp_max(16.0)
    return (weight * distance).sum() / weight.sum().clamp_min(1e-6) / size


def confidence(w: Tensor, consistent: Tensor) -> Tensor:
    """L_w of Motion4D: binary cross-entropy of the composited confidence w (P,) and 1[consistent] (P,)."""
    p = w.clamp(1e-4, 1 - 1e-4)
    return -(consistent * p.log() + (1 - consistent) * (1 - p).log()).mean()


def scale_spread(log_scales: Tensor) -> Tensor:
    """Variance of the log-scales of every Gaussian: needles are rarely right."""
    return log_scales.var(dim=1).mean()
