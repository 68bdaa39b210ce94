"""Smoothing that keeps to the edges of a picture (He, Sun and Tang, *Guided Image Filtering*, PAMI 2013).

In every square window an image is explained by an affine function of the guide's colour; what is returned is the mean
of what all windows around a pixel say. OpenCV has it in its contributed modules only, which the robots' packages lack.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-3  # variance of colour, in shares of the full range squared, below which a window counts as flat


class GuidedFilter:
    """Filters images of the size of one guide."""

    def __init__(self, guide: NDArray[np.uint8], radius: int, epsilon: float = EPSILON) -> None:
        """`guide` (H, W, 3) colours; windows of 2 `radius` + 1 px."""
        self._window = (2 * radius + 1, 2 * radius + 1)
        self._guide = guide.astype(np.float32) / np.float32(255)
        self._mean = self._box(self._guide)
        i, j = np.triu_indices(3)
        product = np.ascontiguousarray(self._guide[..., i] * self._guide[..., j])
        covariance = np.concatenate([self._box(product[..., :3]), self._box(product[..., 3:])], -1)
        covariance -= self._mean[..., i] * self._mean[..., j]
        covariance[..., i == j] += np.float32(epsilon)
        self._inverse = _symmetric_inverse(covariance)

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """(H, W) the filtered image."""
        mean = self._box(image)
        covariance = self._box(self._guide * image[..., None]) - self._mean * mean[..., None]
        xx, xy, xz, yy, yz, zz = (self._inverse[..., k] for k in range(6))
        x, y, z = (covariance[..., k] for k in range(3))
        slope = np.stack([xx * x + xy * y + xz * z, xy * x + yy * y + yz * z, xz * x + yz * y + zz * z], -1)
        offset = mean - (slope * self._mean).sum(-1)
        return np.asarray((self._box(slope) * self._guide).sum(-1) + self._box(offset), np.float32)

    def _box(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.blur(image, self._window, borderType=cv2.BORDER_REFLECT), np.float32)


def _symmetric_inverse(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W, 6) upper triangles xx, xy, xz, yy, yz, zz -> those of the inverses."""
    a, b, c, d, e, f = (matrix[..., k].astype(np.float64) for k in range(6))
    adjugate = [d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b]
    determinant = a * adjugate[0] + b * adjugate[1] + c * adjugate[2]
    return (np.stack(adjugate, -1) / determinant[..., None]).astype(np.float32)
