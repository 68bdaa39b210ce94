"""Robust statistics over incomplete data, and robust estimators that may find nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from motion4d_ros.types import FloatArray


def median_of_known(values: FloatArray, axis: int) -> FloatArray:
    """Median along `axis` of what is not NaN; NaN where nothing is known (without NumPy's warning about that)."""
    # all-NaN slices are filled instead of silencing NumPy: filtering warnings is not safe among threads
    unknown = np.asarray(np.isnan(values).all(axis=axis, keepdims=True))
    median = np.nanmedian(np.where(unknown, 0.0, values), axis=axis)
    return np.asarray(np.where(unknown.squeeze(axis), np.nan, median))


def median_radius(points: FloatArray) -> float:
    """Median distance of (N, D) points, N >= 1, from their median."""
    return float(np.median(np.linalg.norm(points - np.median(points, axis=0), axis=1)))


def estimated(estimator: Callable[[], tuple[Any, Any]]) -> FloatArray | None:
    """The (3, 3) model, or (3k, 3) stacked models, that a robust estimator of OpenCV finds; None without one.

    Where no model fits (after a cut in a video, say) some estimators return nothing and others raise.
    """
    try:
        found, _ = estimator()
    except cv2.error:
        return None
    if found is None or np.shape(found)[0] < 3 or not np.isfinite(found).all():
        return None
    return np.asarray(found)
