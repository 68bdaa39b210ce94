"""Edge-aware smoothing of values given on an image."""

from __future__ import annotations

import ctypes
import functools
from ctypes import c_double, c_int32, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.raster_library import load_library
from motion4d_ros.types import FloatArray


def domain_transform(
    values: FloatArray, guide: NDArray[np.uint8], sigma_space: float, sigma_color: float, passes: int = 2
) -> NDArray[np.float32]:
    """Smooths `values` (H, W) or (H, W, C) along, but not across, the edges of `guide` (H, W, 3) or (H, W).

    Recursive filter of Gastal & Oliveira, "Domain Transform for Edge-Aware Image and Video Processing" (SIGGRAPH 2011).
    `sigma_space` is the reach in pixels where the guide is flat, `sigma_color` the grey levels (0..255) that stop it.
    """
    out = np.array(values, np.float32, order="C")
    edges = np.ascontiguousarray(guide, np.uint8)
    if edges.shape[:2] != out.shape[:2]:
        raise ValueError(f"values of {out.shape[:2]} smoothed by a guide of {edges.shape[:2]}")
    height, width = out.shape[:2]
    channels, colors = (array.shape[2] if array.ndim == 3 else 1 for array in (out, edges))
    place = (out.ctypes.data, height, width, channels, edges.ctypes.data, colors)
    if _library().m4d_domain_transform(*place, sigma_space, sigma_color, passes):
        raise MemoryError(f"smoothing of {out.shape}")
    return out


@functools.lru_cache(maxsize=1)
def _library() -> Any:
    """The raster library with this function declared."""
    library = load_library()
    sizes = [c_int32, c_int32, c_int32]
    library.m4d_domain_transform.argtypes = [c_void_p, *sizes, c_void_p, c_int32, c_double, c_double, c_int32]
    library.m4d_domain_transform.restype = ctypes.c_int
    return library
