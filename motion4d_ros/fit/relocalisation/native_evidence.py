"""What speaks for poses of an object, in C++: `raster/include/motion4d_appearance.h`."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping
from ctypes import POINTER, c_double, c_int32, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.raster_library import load_library
from motion4d_ros.types import Camera, FloatArray

KINDS = {"image": np.float32, "mask": np.uint8, "cover": np.float32, "surface": np.float32}  # of a frame


class AppearanceStruct(ctypes.Structure):
    """`m4d_appearance`."""

    _fields_ = [
        *((name, c_int32) for name in ("points", "poses", "shifts", "height", "width", "threads")),
        *((name, c_double) for name in ("fx", "fy", "cx", "cy", "facing", "behind", "values", "most")),
        *((name, c_double) for name in ("noise", "off_mask", "sigma")),
        *((name, c_void_p) for name in ("xyz", "side", "gray", "pose", "shift", *KINDS, "evidence")),
    ]


def frame_evidence(
    points: Mapping[str, FloatArray],
    frame: Mapping[str, NDArray[Any]],
    camera: Camera,
    poses: FloatArray,
    shifts_px: FloatArray,
    constants: Mapping[str, float],
) -> FloatArray:
    """(K, S) evidence, nats, of every pose (K, 4, 4), canonical -> camera, for every shift (S, 2) px of its image.

    `points` are "xyz" and "side" (N, 3) and "gray" (N,); `frame` the images (H, W) of `KINDS`; `constants` the other
    fields of the structure.
    """
    height, width = frame["image"].shape
    result = np.empty((len(poses), len(shifts_px)))
    arrays: dict[str, NDArray[Any]] = {
        **{name: np.ascontiguousarray(points[name], np.float64) for name in ("xyz", "side", "gray")},
        "pose": np.ascontiguousarray(poses, np.float64),
        "shift": np.ascontiguousarray(shifts_px, np.float64),
        **{name: np.ascontiguousarray(frame[name], kind) for name, kind in KINDS.items()},
        "evidence": result,
    }
    count = len(arrays["gray"])
    if any(arrays[name].shape != (count, 3) for name in ("xyz", "side")) or poses.shape[1:] != (4, 4):
        raise ValueError(f"{count} points at {arrays['xyz'].shape}, poses of {poses.shape}")
    if any(arrays[name].shape != (height, width) for name in KINDS):
        raise ValueError(f"images of {[arrays[name].shape for name in KINDS]}")
    struct = AppearanceStruct(count, len(poses), len(shifts_px), height, width, 1)
    for name in ("fx", "fy", "cx", "cy"):
        setattr(struct, name, getattr(camera, name))
    for name, value in constants.items():
        setattr(struct, name, value)
    for name, array in arrays.items():
        setattr(struct, name, array.ctypes.data)
    if _library().m4d_evidence(struct):
        raise MemoryError(f"evidence for {len(poses)} poses")
    return result


@functools.lru_cache(maxsize=1)
def _library() -> Any:
    """The raster library with this function declared."""
    library = load_library()
    library.m4d_evidence.argtypes = [POINTER(AppearanceStruct)]
    library.m4d_evidence.restype = ctypes.c_int
    return library
