"""What a rigid body leaves unexplained of every pixel, in C++: `raster/include/motion4d_image.h`."""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, c_float, c_int32, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.raster_library import load_library
from motion4d_ros.types import BoolArray


class BodyFlowStruct(ctypes.Structure):
    """`m4d_body_flow`."""

    _fields_ = [
        *((name, c_int32) for name in ("frames", "height", "width")),
        *((name, c_float) for name in ("unit", "cap", "typical", "relief")),
        *((name, c_void_p) for name in ("flow", "valid", "sigma", "affine", "parallax", "where", "misfit")),
    ]


def body_misfit(
    flow: NDArray[np.float32],
    valid: BoolArray,
    sigma: NDArray[np.float32],
    affine: NDArray[np.float32],
    parallax: NDArray[np.float32],
    where: BoolArray,
    constants: tuple[float, float, float, float],
) -> NDArray[np.float32]:
    """(h, w) mean misfit of the pixels `where` (h, w) under a body, standard deviations; the cap elsewhere.

    `flow` (F, h, w, 2) px, `valid` (F, h, w), `sigma` (F,) px; the body is `affine` (F, 2, 3) and `parallax` (F, 2).
    `constants`: unit of x and y in the body's model, px; most misfit; misfit of a pixel that no frame shows; most
    relief, all in standard deviations.
    """
    frames, height, width = valid.shape
    if flow.shape != (frames, height, width, 2) or where.shape != (height, width):
        raise ValueError(f"flow of {flow.shape}, validity of {valid.shape}, pixels of {where.shape}")
    out = np.empty((height, width), np.float32)
    arrays: list[NDArray[Any]] = [
        np.ascontiguousarray(flow, np.float32),
        np.ascontiguousarray(valid, np.uint8),
        *(np.ascontiguousarray(array, np.float32) for array in (sigma, affine, parallax)),
        np.ascontiguousarray(where, np.uint8),
        out,
    ]
    pointers = (array.ctypes.data for array in arrays)
    _library().m4d_body_misfit(BodyFlowStruct(frames, height, width, *constants, *pointers))
    return out


@functools.lru_cache(maxsize=1)
def _library() -> Any:
    """The raster library with this function declared."""
    library = load_library()
    library.m4d_body_misfit.argtypes = [POINTER(BodyFlowStruct)]
    library.m4d_body_misfit.restype = None
    return library
