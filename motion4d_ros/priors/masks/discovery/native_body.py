"""Rigid bodies fitted to flow, and what they leave unexplained, in C++: `raster/include/motion4d_image.h`."""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, c_float, c_int32, c_int64, c_void_p
from dataclasses import astuple, dataclass
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


class BodyFitStruct(ctypes.Structure):
    """`m4d_body_fit`."""

    _fields_ = [
        *((name, c_int32) for name in ("frames", "height", "width", "count", "affine_rounds", "rounds")),
        ("enough", c_int64),
        *((name, c_float) for name in ("unit", "scale", "times", "slack", "relief")),
        *((name, c_void_p) for name in ("flow", "valid", "sigma", "pixels", "weight", "affine", "parallax")),
    ]


@dataclass(frozen=True)
class FitOptions:
    """How a body is fitted, in the order of `m4d_body_fit`."""

    affine_rounds: int  # of re-weighting, before a relief is looked for
    rounds: int  # and with it
    enough: int  # observations that a fit needs
    unit: float  # px, of x and y in the body's model
    scale: float  # misfit at which a pixel counts a quarter, standard deviations,
    times: float  # or times the median
    slack: float  # how many times as much is believed at first
    relief: float  # most, standard deviations


def fit_motion(
    flow: NDArray[np.float32],
    valid: BoolArray,
    sigma: NDArray[np.float32],
    pixels: NDArray[np.intp],
    weight: NDArray[np.float32] | None,
    options: FitOptions,
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """The affine motion (F, 2, 3) and the parallax (F, 2) of the body that explains best how the flat `pixels` (n,) of
    a frame go on; None where too few of them could be followed.

    `flow` (F, h, w, 2) px, `valid` (F, h, w), `sigma` (F,) px; `weight` (n,) of the pixels.
    """
    frames, height, width = valid.shape
    if flow.shape != (frames, height, width, 2) or (weight is not None and weight.shape != pixels.shape):
        raise ValueError(f"flow of {flow.shape}, validity of {valid.shape}, pixels of {pixels.shape}")
    affine, parallax = np.empty((frames, 2, 3), np.float32), np.empty((frames, 2), np.float32)
    arrays: list[NDArray[Any] | None] = [
        np.ascontiguousarray(flow, np.float32),
        np.ascontiguousarray(valid).view(np.uint8),
        np.ascontiguousarray(sigma, np.float32),
        np.ascontiguousarray(pixels, np.int32),
        None if weight is None else np.ascontiguousarray(weight, np.float32),
        affine,
        parallax,
    ]
    pointers = (None if array is None else array.ctypes.data for array in arrays)
    status = _library().m4d_fit_body(BodyFitStruct(*valid.shape, len(pixels), *astuple(options), *pointers))
    if status == 1:
        raise MemoryError(f"fit of a body to {len(pixels)} pixels")
    return None if status else (affine, parallax)


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
    """The raster library with these functions declared."""
    library = load_library()
    library.m4d_body_misfit.argtypes = [POINTER(BodyFlowStruct)]
    library.m4d_body_misfit.restype = None
    library.m4d_fit_body.argtypes = [POINTER(BodyFitStruct)]
    library.m4d_fit_body.restype = ctypes.c_int
    return library
