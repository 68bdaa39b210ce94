"""Cost and normal equations of a body in C++: `raster/include/motion4d_bundle.h`, held against `bundle_adjustment`."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping
from ctypes import POINTER, c_double, c_int32, c_int64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.raster_library import load_library
from motion4d_ros.types import BoolArray, Camera, FloatArray, Motion4DError

PER_FRAME = 8  # unknowns: a rotation vector, a translation, scale and offset of inverse depth


class BodyStruct(ctypes.Structure):
    """`m4d_body`."""

    _fields_ = [
        ("points", c_int64),
        ("frames", c_int64),
        *((name, c_void_p) for name in ("uv", "sigma", "visible", "inverse_depth", "T_cam_map", "R", "t", "xyz")),
        ("depth_scale", c_void_p),
        ("depth_offset", c_void_p),
        ("center", c_double * 3),
        *((name, c_double) for name in ("fx", "fy", "cx", "cy", "sigma_depth", "cauchy")),
        ("free_poses", c_int32),
        ("free_offset", c_int32),
    ]


class NormalEquationsStruct(ctypes.Structure):
    """`m4d_normal_equations`."""

    _fields_ = [(name, c_void_p) for name in ("H_frames", "g_frames", "H_points", "g_points", "W")]


@functools.lru_cache(maxsize=1)
def _library() -> Any:
    """The raster library with these functions declared; None where there is none."""
    try:
        library = load_library()
    except Motion4DError:
        return None
    library.m4d_body_cost.argtypes = [POINTER(BodyStruct), POINTER(c_int64)]
    library.m4d_body_cost.restype = c_double
    library.m4d_body_linearise.argtypes = [POINTER(BodyStruct), POINTER(NormalEquationsStruct)]
    library.m4d_body_linearise.restype = None
    return library


class NativeObservations:
    """What was seen of a body, as C++ takes it."""

    def __init__(
        self,
        uv_px: FloatArray,
        sigma_px: FloatArray,
        visible: BoolArray,
        inverse_depth: FloatArray,
        T_cam_map: FloatArray,
        camera: Camera,
        options: Mapping[str, float],
    ) -> None:
        """Arrays as in `bundle_adjustment.Observations`; `options` are sigma_depth, cauchy, free_poses, free_offset."""
        count, length = visible.shape
        self._kept: list[NDArray[Any]] = [
            *(np.ascontiguousarray(array, np.float64) for array in (uv_px, sigma_px)),
            np.ascontiguousarray(visible, np.uint8),
            *(np.ascontiguousarray(array, np.float64) for array in (inverse_depth, T_cam_map)),
        ]
        lens = {"fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy}
        self._struct = BodyStruct(count, length, *(array.ctypes.data for array in self._kept), **lens, **options)

    @staticmethod
    def available() -> bool:
        """Whether the library is there."""
        return _library() is not None

    def cost(self, body: Mapping[str, FloatArray]) -> tuple[float, int]:
        """Robust cost of all observations, and how many there are; `body`: R, t, xyz, depth_scale, depth_offset and
        center as in `bundle_adjustment.Body`.
        """
        found = c_int64()
        kept = self._put(body)
        cost = _library().m4d_body_cost(self._struct, found)
        del kept
        return float(cost), int(found.value)

    def normal_equations(self, body: Mapping[str, FloatArray]) -> tuple[FloatArray, ...]:
        """H (T, 8, 8) and g (T, 8) of the frames, H (N, 3, 3) and g (N, 3) of the points, and W (N, T, 8, 3)."""
        count, length = self._struct.points, self._struct.frames
        out = (
            np.empty((length, PER_FRAME, PER_FRAME)),
            np.empty((length, PER_FRAME)),
            np.empty((count, 3, 3)),
            np.empty((count, 3)),
            np.empty((count, length, PER_FRAME, 3)),
        )
        kept = self._put(body)
        _library().m4d_body_linearise(self._struct, NormalEquationsStruct(*(array.ctypes.data for array in out)))
        del kept
        return out

    def _put(self, body: Mapping[str, FloatArray]) -> list[FloatArray]:
        """Lets the struct point to `body`; the arrays have to be kept until the call is over."""
        kept = {name: np.ascontiguousarray(array, np.float64) for name, array in body.items()}
        self._struct.center = (c_double * 3)(*kept.pop("center").tolist())
        for name, array in kept.items():
            setattr(self._struct, name, array.ctypes.data)
        return list(kept.values())
