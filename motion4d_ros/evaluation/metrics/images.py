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
