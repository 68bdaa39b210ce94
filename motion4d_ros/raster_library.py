"""Finds and loads the C++ rasteriser, and declares its C interface to ctypes.

The interface is documented in `raster/include/motion4d_raster.h`; ctypes releases the GIL during every call.
"""

from __future__ import annotations

import ctypes
import functools
import os
from ctypes import POINTER, c_char_p, c_double, c_int, c_int32, c_int64, c_void_p
from pathlib import Path
from typing import Any

from motion4d_ros.types import Motion4DError

ABI = 4
FILE_NAME = "libmotion4d_raster.so"
ENVIRONMENT_VARIABLE = "MOTION4D_RASTER_LIBRARY"
PACKAGE = "motion4d_ros"


class SceneStruct(ctypes.Structure):
    """`m4d_scene`."""

    _fields_ = [
        ("width", c_int32),
        ("height", c_int32),
        ("channels", c_int32),
        ("threads", c_int32),
        ("count", c_int64),
        ("fx", c_double),
        ("fy", c_double),
        ("cx", c_double),
        ("cy", c_double),
        ("near_plane", c_double),
        ("T_cam_map", c_double * 12),
        ("means", c_void_p),
        ("quats", c_void_p),
        ("scales", c_void_p),
        ("opacities", c_void_p),
        ("features", c_void_p),
        ("background", c_void_p),
    ]


class ImagesStruct(ctypes.Structure):
    """`m4d_images`."""

    _fields_ = [(name, c_void_p) for name in ("features", "alpha", "depth_sum", "radii", "weight_sum", "weight_max")]


class ImageGradientsStruct(ctypes.Structure):
    """`m4d_image_gradients`."""

    _fields_ = [(name, c_void_p) for name in ("features", "alpha", "depth_sum")]


class SceneGradientsStruct(ctypes.Structure):
    """`m4d_scene_gradients`."""

    _fields_ = [
        (name, c_void_p) for name in ("means", "quats", "scales", "opacities", "features", "background", "T_cam_map")
    ]


def candidates() -> list[Path]:
    """Where the library may lie, best first. A path in MOTION4D_RASTER_LIBRARY is the only candidate when set."""
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    if chosen:
        return [Path(chosen)]
    here = Path(__file__).resolve().parent / "render"
    found = [here / FILE_NAME, here.parent / FILE_NAME]
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    found += [Path(prefix) / "lib" / PACKAGE / FILE_NAME for prefix in prefixes if prefix]
    return found


@functools.lru_cache(maxsize=1)
def load_library() -> ctypes.CDLL:
    """The library with its functions declared; raises `Motion4DError` when it is missing or of another version."""
    places = candidates()
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise Motion4DError(
            f"{FILE_NAME} not found ({', '.join(map(str, places))}): build it with "
            f"`cmake -S raster -B build/raster && cmake --build build/raster` and point {ENVIRONMENT_VARIABLE} at it"
        )
    try:
        library = ctypes.CDLL(str(path))
        version = library.m4d_raster_abi()
    except (OSError, AttributeError) as error:
        raise Motion4DError(f"{path} cannot be loaded ({error}): rebuild it on this machine") from None
    if version != ABI:
        raise Motion4DError(f"{path} has interface version {version}, not {ABI}: rebuild it")
    _declare(library)
    return library


def _declare(library: Any) -> None:
    library.m4d_raster_forward.argtypes = [POINTER(SceneStruct), POINTER(ImagesStruct), POINTER(c_void_p)]
    library.m4d_raster_forward.restype = c_int
    library.m4d_raster_backward.argtypes = [
        POINTER(SceneStruct),
        c_void_p,
        POINTER(ImageGradientsStruct),
        POINTER(SceneGradientsStruct),
    ]
    library.m4d_raster_backward.restype = c_int
    library.m4d_raster_free.argtypes = [c_void_p]
    library.m4d_raster_free.restype = None
    library.m4d_raster_pairs.argtypes = [c_void_p]
    library.m4d_raster_pairs.restype = c_int64
    library.m4d_raster_isa.restype = c_char_p
