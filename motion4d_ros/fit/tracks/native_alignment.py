"""Patches of pictures aligned in C++: `raster/include/motion4d_align.h`."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from ctypes import POINTER, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.raster_library import load_library
from motion4d_ros.types import FloatArray, IntArray

LEVELS = 3
SMALLEST_PX = 2  # side of a level


class PictureStruct(ctypes.Structure):
    """`m4d_picture`."""

    _fields_ = [
        ("gray", c_void_p * LEVELS),
        ("width", c_int32 * LEVELS),
        ("height", c_int32 * LEVELS),
        ("labels", c_void_p),
    ]


class AlignmentsStruct(ctypes.Structure):
    """`m4d_alignments`."""

    _fields_ = [
        ("count", c_int64),
        ("levels", c_int32),
        ("threads", c_int32),
        *((name, c_void_p) for name in ("source", "target", "label", "uv_source", "uv_guess", "warp")),
        *((name, c_void_p) for name in ("uv", "returned", "likeness", "sigma")),
    ]


class SurfacesStruct(ctypes.Structure):
    """`m4d_surfaces`."""

    _fields_ = [
        ("count", c_int64),
        *((name, c_int32) for name in ("width", "height", "reach")),
        ("tolerance", ctypes.c_float),
        *((name, c_void_p) for name in ("depth_m", "labels", "column", "row", "inverse_depth")),
    ]


@functools.lru_cache(maxsize=1)
def _library() -> Any:
    """The raster library with these functions declared. Raises `Motion4DError` where there is none."""
    library = load_library()
    library.m4d_align.argtypes = [POINTER(PictureStruct), c_int32, POINTER(AlignmentsStruct)]
    library.m4d_align.restype = ctypes.c_int
    library.m4d_fit_surfaces.argtypes = [POINTER(SurfacesStruct)]
    library.m4d_fit_surfaces.restype = None
    return library


class Picture:
    """Grey values (H, W) of a picture from fine to coarse, and the labels (H, W) of its pixels."""

    def __init__(self, gray: NDArray[np.uint8], labels: IntArray) -> None:
        self.labels = np.ascontiguousarray(labels, np.int32)
        self.levels = [np.ascontiguousarray(gray, np.float32)]
        for _ in range(1, LEVELS):
            finer = self.levels[-1]
            self.levels.append(np.asarray(cv2.pyrDown(finer)) if min(finer.shape) >= 2 * SMALLEST_PX else finer)

    def struct(self) -> PictureStruct:
        """What C++ reads; the picture has to be kept until it has."""
        result = PictureStruct(labels=self.labels.ctypes.data)
        for k, level in enumerate(self.levels):
            result.gray[k], result.width[k], result.height[k] = level.ctypes.data, level.shape[1], level.shape[0]
        return result


@dataclass
class Patches:
    """N patches that are looked for: which of some pictures they are in and are looked for in, and where."""

    source: IntArray  # (N,) number of the picture
    target: IntArray  # (N,)
    label: IntArray  # (N,)
    uv_source: FloatArray  # (N, 2) px
    uv_guess: FloatArray  # (N, 2) px; NaN: not looked for
    warp: FloatArray  # (N, 2, 5) where steps (x, y) of the source go: coefficients of x, y, x², x y, y²


@dataclass
class Aligned:
    """Where N patches are; NaN where they were not found."""

    uv_px: NDArray[np.float32]  # (N, 2)
    returned_px: NDArray[np.float32]  # (N,) how far from their start they land on the way back
    likeness: NDArray[np.float32]  # (N,) correlation of the patches
    sigma_px: NDArray[np.float32]  # (N,) what noise of the grey values explains, one standard deviation


def align_patches(pictures: Sequence[Picture], patches: Patches, threads: int = 0, levels: int = LEVELS) -> Aligned:
    """Finds patches by their grey values, up to gain and offset, from the coarsest of `levels` on; the results are the
    same for any number of `threads` (0: one a core).
    """
    count = len(patches.label)
    indices = [np.ascontiguousarray(k, np.int32) for k in (patches.source, patches.target, patches.label)]
    places = [np.ascontiguousarray(k, np.float32) for k in (patches.uv_source, patches.uv_guess, patches.warp)]
    found = Aligned(np.empty((count, 2), np.float32), *(np.empty(count, np.float32) for _ in range(3)))
    results = (found.uv_px, found.returned_px, found.likeness, found.sigma_px)
    struct = AlignmentsStruct(count, levels, threads, *(k.ctypes.data for k in (*indices, *places, *results)))
    seen = (PictureStruct * max(1, len(pictures)))(*(picture.struct() for picture in pictures))
    status = _library().m4d_align(seen, len(pictures), struct)
    if status == 1:
        raise MemoryError("alignment of patches")
    if status:
        raise ValueError(f"patches of {len(pictures)} pictures, {levels} levels: a number is out of range")
    return found


def fit_surfaces(
    depth_m: FloatArray, labels: IntArray, uv_px: FloatArray, reach: int, tolerance: float
) -> NDArray[np.float32]:
    """(N, 6) inverse depth, 1/m, about the pixels `uv_px` (N, 2) of `depth_m` (H, W): coefficients of 1, x, y, x², x y,
    y² of steps (x, y) px; NaN where depth is unknown. Pixels within `reach` px have a say that are of the same label
    and whose depth differs by less than the share `tolerance`.
    """
    column, row = np.ascontiguousarray(np.rint(uv_px).T, np.int32)
    depth, known = np.ascontiguousarray(depth_m, np.float32), np.ascontiguousarray(labels, np.int32)
    result = np.empty((len(uv_px), 6), np.float32)
    pointers = (array.ctypes.data for array in (depth, known, column, row, result))
    height, width = depth.shape
    _library().m4d_fit_surfaces(SurfacesStruct(len(uv_px), width, height, reach, tolerance, *pointers))
    return result
