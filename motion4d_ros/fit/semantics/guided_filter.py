"""Smoothing that keeps to the edges of a picture (He, Sun and Tang, *Guided Image Filtering*, PAMI 2013).

In every square window an image is explained by an affine function of the guide's colour; what is returned is the mean
of what all windows around a pixel say. OpenCV has it in its contributed modules only, which the robots' packages lack.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

EPSILON = 1e-3  # variance of colour, in shares of the full range squared, below which a window counts as flat


class GuidedFilter:
    """Filters images of the size of one guide."""

    def __init__(self, guide: NDArray[np.uint8], radius: int, epsilon: float = EPSILON) -> None:
        """`guide` (H, W, 3) colours; windows of 2 `radius` + 1 px."""
        self._window = (2 * radius + 1, 2 * radius + 1)
        # one image for each colour: NumPy is several times slower at every third or sixth value
        self._guide = [np.ascontiguousarray(guide[..., k]).astype(np.float32) / np.float32(255) for k in range(3)]
        self._mean = [self._box(colour) for colour in self._guide]
        covariance = []
        for i, j in zip(*np.triu_indices(3), strict=True):
            entry = self._box(self._guide[i] * self._guide[j]) - self._mean[i] * self._mean[j]
            covariance.append(entry + np.float32(epsilon) if i == j else entry)
        self._inverse = _symmetric_inverse(covariance)

    def __call__(self, image: NDArray[np.float32], box: tuple[slice, slice] | None = None) -> NDArray[np.float32]:
        """(h, w) the filtered image; it covers the `box` of the guide, or all of it. A box makes no difference to an
        image that is 0 outside it, and along its borders over twice the windows' radius.
        """
        here = box or (slice(None), slice(None))
        guide, means = [g[here] for g in self._guide], [m[here] for m in self._mean]
        mean = self._box(image)
        x, y, z = (self._box(g * image) - m * mean for g, m in zip(guide, means, strict=True))
        xx, xy, xz, yy, yz, zz = (entry[here] for entry in self._inverse)
        slope = [xx * x + xy * y + xz * z, xy * x + yy * y + yz * z, xz * x + yz * y + zz * z]
        offset = mean - _dot(slope, means)
        return _dot([self._box(part) for part in slope], guide) + self._box(offset)

    def _box(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.blur(image, self._window, borderType=cv2.BORDER_REFLECT), np.float32)


def _dot(a: Sequence[NDArray[np.float32]], b: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Sum of the products of three images each."""
    return a[0] * b[0] + (a[1] * b[1] + a[2] * b[2])


def _symmetric_inverse(matrix: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Upper triangles xx, xy, xz, yy, yz, zz, (H, W) each -> those of the inverses."""
    a, b, c, d, e, f = (entry.astype(np.float64) for entry in matrix)
    adjugate = [d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b]
    determinant = a * adjugate[0] + b * adjugate[1] + c * adjugate[2]
    return [(entry / determinant).astype(np.float32) for entry in adjugate]
