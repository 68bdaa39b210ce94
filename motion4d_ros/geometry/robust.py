"""Robust statistics over incomplete data."""

from __future__ import annotations

import warnings

import numpy as np

from motion4d_ros.types import FloatArray


def median_of_known(values: FloatArray, axis: int) -> FloatArray:
    """Median along `axis` of what is not NaN; NaN where nothing is known (without NumPy's warning about that)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmedian(values, axis=axis))
