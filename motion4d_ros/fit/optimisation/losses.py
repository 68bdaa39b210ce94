"""Losses of the fit, each a mean over pixels or points, small and pure.

Weights are those of Shape of Motion (Wang et al. 2024, sec. 4) unless `config.LossConfig` says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2
SSIM_WINDOW_PX = 7  # uniform window, odd: the Gaussian one of 11 px gives the same gradient in practice
GCE_Q = 0.7


class LocalMeans(NamedTuple):
    """What SSIM needs to know of an image (H, W, C) with which many are compared: means over its windows."""

    of_values: Tensor  # (H - w + 1, W - w + 1, C)
    of_squares: Tensor  # the same shape


def local_means(image: Tensor) -> LocalMeans:
    """Of an image (H, W, C) of at least `SSIM_WINDOW_PX` each way."""
    return LocalMeans(_window_means(image), _window_means(image * image))


def photometric(
    rendered: Tensor, image: Tensor, ssim_share: float, means: Callable[[], LocalMeans] | None = None
) -> Tensor:
    """(1 - s) L1 + s (1 - SSIM) of two (H, W, 3) images in [0, 1]: 3D Gaussian Splatting's colour loss.

    `means` gives the :func:`local_means` of `image`, asked for only where they are needed.
    """
    l1 = (rendered - image).abs().mean()
    if ssim_share == 0.0 or min(image.shape[:2]) < SSIM_WINDOW_PX:
        return l1
    return (1 - ssim_share) * l1 + ssim_share * (1 - ssim(rendered, image, means() if means else None))


def ssim(a: Tensor, b: Tensor, means: LocalMeans | None = None) -> Tensor:
    """Mean structural similarity (Wang et al. 2004) of two (H, W, C) images in [0, 1], uniform window.

    Only `a` gets a gradient. `means` are those of `b`, where they are known.
    """
    b = b.detach()
    return _Ssim.apply(a, b, *(means or local_means(b)))


class _Ssim(torch.autograd.Function):
    """With its gradient in closed form: window means are linear, so going back takes three more of them."""

    @staticmethod
    def forward(context: Any, a: Tensor, b: Tensor, mean_b: Tensor, bb: Tensor) -> Tensor:
        """() the mean over all windows that lie inside the image."""
        mean_a, aa, ab = (_window_means(image) for image in (a, a * a, a * b))
        product, squares = mean_a * mean_b, mean_a * mean_a + mean_b * mean_b
        light, contrast = 2 * product + SSIM_C1, 2 * (ab - product) + SSIM_C2
        light_norm, contrast_norm = squares + SSIM_C1, aa + bb - squares + SSIM_C2
        similarity = light * contrast / (light_norm * contrast_norm)
        by_aa = -similarity / contrast_norm
        by_ab = 2 * similarity / contrast
        by_mean = similarity * 2 * (mean_b / light - mean_a / light_norm) - mean_b * by_ab - 2 * mean_a * by_aa
        context.save_for_backward(a, b, by_mean, by_aa, by_ab)
        return similarity.mean()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        """(H, W, C) by `a`; none by what is known of `b`."""
        a, b, by_mean, by_aa, by_ab = context.saved_tensors
        from_mean, from_aa, from_ab = (_window_means(_framed(image)) for image in (by_mean, by_aa, by_ab))
        return gradient / by_mean.numel() * (from_mean + 2 * a * from_aa + b * from_ab), None, None, None


def _window_means(image: Tensor) -> Tensor:
    """(H - w + 1, W - w + 1, C) means of an (H, W, C) image over square windows; on a CPU by OpenCV: faster."""
    if image.is_cuda:
        return avg_pool2d(image.permute(2, 0, 1), SSIM_WINDOW_PX, stride=1).permute(1, 2, 0)
    half = SSIM_WINDOW_PX // 2
    means = cv2.boxFilter(image.detach().contiguous().numpy(), -1, (SSIM_WINDOW_PX, SSIM_WINDOW_PX))
    return torch.from_numpy(means.reshape(image.shape)[half:-half, half:-half])


def _framed(image: Tensor) -> Tensor:
    """Zeros around an (h, w, C) image, so that all windows that touch it lie inside."""
    border = SSIM_WINDOW_PX - 1
    return pad(image, (0, 0, border, border, border, border))


def semantic(probability: Tensor, target: Tensor, weight: Tensor, nothing: Tensor | None = None) -> Tensor:
    """Generalised cross-entropy (Zhang & Sabuncu 2018): robust to labels that are plainly wrong.

    probability (H, W, C) composited label distribution, target (H, W) int64 channels, weight (H, W). `nothing` (H, W)
    is the probability that nothing is there, which counts as background, channel 0.
    """
    chosen = probability.gather(-1, target[..., None])[..., 0]
    if nothing is not None:
        chosen = chosen + nothing * (target == 0)
    chosen = chosen.clamp(1e-4, 1.0)
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


def confidence(w: Tensor, consistent: Tensor, counts: Tensor | None = None) -> Tensor:
    """L_w of Motion4D: binary cross-entropy of the composited confidence w (P,) and 1[consistent] (P,).

    Only points whose `counts` (P,) is 1 count; None: all.
    """
    p = w.clamp(1e-4, 1 - 1e-4)
    surprise = -(consistent * p.log() + (1 - consistent) * (1 - p).log())
    return surprise.mean() if counts is None else (counts * surprise).sum() / counts.sum().clamp_min(1.0)


def scale_spread(log_scales: Tensor) -> Tensor:
    """Variance of the log-scales (N, D) of every Gaussian: needles are rarely right."""
    if not len(log_scales):  # an empty scene: the mean would be NaN
        return log_scales.sum()
    off = log_scales - log_scales.detach().mean(1, keepdim=True)  # the mean's own gradient is zero in the sum
    return off.square().sum(1).mean() / (log_scales.shape[1] - 1)  # `var` over rows of three takes ten times as long
