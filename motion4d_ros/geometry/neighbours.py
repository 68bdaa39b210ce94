"""Nearest neighbours, always as two-dimensional arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from motion4d_ros.types import FloatArray


def nearest(
    points: FloatArray, queries: FloatArray, count: int, reach: float = np.inf
) -> tuple[FloatArray, NDArray[np.intp]]:
    """The `count` nearest of (M, D) `points`, M >= 1, for (P, D) `queries`: distances and rows, both (P, min(count,
    M)).

    Beyond `reach` the distance is infinite and the row M - 1, so that it can still be looked up.
    """
    k = min(count, len(points))
    distance, index = cKDTree(points).query(queries, k=k, distance_upper_bound=reach)
    return np.reshape(distance, (len(queries), k)), np.minimum(np.reshape(index, (len(queries), k)), len(points) - 1)
