"""Rendered against real images: PSNR, and SSIM as in Wang et al. (IEEE TIP 2004)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.types import BoolArray, FloatArray

_WINDOW, _SIGMA = 11, 1.5  # px
_K1, _K2 = 0.01, 0.03


def psnr(image: NDArray, truth: NDArray, peak: float = 255.0, where: BoolArray | None = None) -> float:
    """Peak signal-to-noise ratio, dB, of two images of equal shape; `where` (H, W) limits the pixels. Equal: inf."""
    difference = np.asarray(image, float) - np.asarray(truth, float)
    if where is not None:
        difference = difference[where]
    error = float(np.mean(difference**2))
    return float("inf") if error == 0 else float(10 * np.log10(peak**2 / error))


def ssim(image: NDArray, truth: NDArray, peak: float = 255.0) -> float:
    """Mean structural similarity of (H, W) or (H, W, C) images; channels are averaged.

    11 x 11 Gaussian window with sigma 1.5, population variances, only where the window fits (H, W >= 11).
    """
    x, y = np.asarray(image, float), np.asarray(truth, float)
    if x.shape != y.shape or min(x.shape[:2]) < _WINDOW:
        raise ValueError(f"images of shape {x.shape} and {y.shape}: equal shapes of at least {_WINDOW} px are needed")
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    mean_x, mean_y = _local_mean(x), _local_mean(y)
    variance_x = _local_mean(x * x) - mean_x**2
    variance_y = _local_mean(y * y) - mean_y**2
    covariance = _local_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return float((luminance * structure).mean())


def _local_mean(image: FloatArray) -> FloatArray:
    """Gaussian mean where the whole window lies inside the image."""
    margin = _WINDOW // 2
    blurred = cv2.GaussianBlur(image, (_WINDOW, _WINDOW), _SIGMA)
    return blurred[margin:-margin, margin:-margin]


def masked_ssim(image: NDArray, truth: NDArray, where: BoolArray, peak: float = 255.0) -> float:
    """SSIM of (H, W, C) images over the pixels `where` (H, W), as DyCheck takes it (Gao et al., NeurIPS 2022, sec. 4).

    Local means are partial convolutions (Liu et al., ECCV 2018), along rows and then along columns: what is left out
    has no part in them, and the sum is brought back to the full window by the share of its pixels that count. Windows
    that nothing of counts are equal in both. Where everything counts this is `ssim`.
    """
    x, y = (np.where(where[..., None], np.asarray(each, float), 0.0) for each in (image, truth))
    if x.shape != y.shape or min(x.shape[:2]) < _WINDOW:
        raise ValueError(f"images of shape {x.shape} and {y.shape}: equal shapes of at least {_WINDOW} px are needed")
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    mean_x, mean_y = _partial_mean(x, where), _partial_mean(y, where)
    variance_x = np.maximum(_partial_mean(x * x, where) - mean_x**2, 0.0)
    variance_y = np.maximum(_partial_mean(y * y, where) - mean_y**2, 0.0)
    covariance = _partial_mean(x * y, where) - mean_x * mean_y
    covariance = np.sign(covariance) * np.minimum(np.sqrt(variance_x * variance_y), np.abs(covariance))
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float((luminance * (2 * covariance + c2) / (variance_x + variance_y + c2)).mean())


def _partial_mean(image: FloatArray, where: BoolArray) -> FloatArray:
    """Gaussian mean of (H, W, C) over the pixels that count, where the whole window lies inside the image."""
    weights = cv2.getGaussianKernel(_WINDOW, _SIGMA)
    margin = _WINDOW // 2
    counts: FloatArray = where.astype(float)
    for axis in (1, 0):
        kernel, ones = (k.T if axis else k for k in (weights, np.ones_like(weights)))
        inside = (slice(None), slice(margin, -margin)) if axis else (slice(margin, -margin), slice(None))
        summed = cv2.filter2D(image * counts[..., None], -1, kernel)[inside].reshape(*_shape(counts[inside]), -1)
        present = cv2.filter2D(counts, -1, ones)[inside]
        image = np.where(present[..., None] > 0.5, summed * _WINDOW / np.maximum(present, 1.0)[..., None], 0.0)
        counts = (present > 0.5).astype(float)
    return image


def _shape(image: FloatArray) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
