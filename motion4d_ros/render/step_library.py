"""Declares the C interface of a gradient step to ctypes: `raster/include/motion4d_step.h`, where it is documented."""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, c_double, c_int, c_int32, c_int64, c_void_p
from typing import Any

from motion4d_ros.raster_library import load_library
from motion4d_ros.types import Motion4DError

LOSSES = ("l1", "ssim", "semantic", "depth", "track", "confidence")


def _pointers(*names: str) -> list[tuple[str, Any]]:
    return [(name, c_void_p) for name in names]


def _integers(*names: str) -> list[tuple[str, Any]]:
    return [(name, c_int32) for name in names]


def _doubles(*names: str) -> list[tuple[str, Any]]:
    return [(name, c_double) for name in names]


class ModelStruct(ctypes.Structure):
    """`m4d_model`."""

    _fields_ = [
        *_integers("threads", "channels", "bases", "times", "column", "other", "appearance"),
        ("count", c_int64),
        ("moving", c_int64),
        *_pointers("means", "quats", "log_scales", "opacity_logits", "colors", "semantics", "confidence_logits"),
        *_pointers("motion_logits", "base_quats", "base_trans", "centers", "first", "rows", "forbidden"),
    ]


class PosedStruct(ctypes.Structure):
    """`m4d_posed`."""

    _fields_ = _pointers("means", "quats", "scales", "opacities", "features", "weights")


class ModelGradientsStruct(ctypes.Structure):
    """`m4d_model_gradients`."""

    _fields_ = [
        *_pointers("means", "quats", "log_scales", "opacity_logits", "colors", "semantics", "confidence_logits"),
        *_pointers("motion_logits", "base_quats", "base_trans"),
        ("scale_spread", c_double),
    ]


class FrameStruct(ctypes.Structure):
    """`m4d_frame`."""

    _fields_ = [
        *_integers("width", "height", "threads", "channels", "features", "appearance", "points", "trusting"),
        *_doubles("rgb", "ssim", "mask", "depth", "track", "confidence", "confidence_color", "fx", "fy", "cx", "cy"),
        ("T_other", c_double * 12),
        *_pointers("rendered", "alpha", "depth_sum", "image", "label", "known", "depth_m", "depth_weight"),
        *_pointers("window_mean", "window_square", "uv_source", "uv_target", "track_weight"),
        *_pointers("image_there", "label_there", "scratch"),
    ]


class FrameGradientsStruct(ctypes.Structure):
    """`m4d_frame_gradients`."""

    _fields_ = [*_pointers("features", "alpha", "depth_sum"), ("losses", c_double * len(LOSSES))]


class AdamStruct(ctypes.Structure):
    """`m4d_adam_state`."""

    _fields_ = [
        *_pointers("value", "mean", "square", "steps", "gradient", "first_share", "second_share"),
        ("slots", c_int64),
        ("width", c_int64),
        ("shares", c_int64),
        *_doubles("rate", "epsilon"),
        ("threads", c_int32),
    ]


@functools.lru_cache(maxsize=1)
def load_step_library() -> ctypes.CDLL:
    """The raster library with the functions of a step declared, too."""
    library = load_library()
    for name, arguments in {
        "m4d_pose": (ModelStruct, PosedStruct),
        "m4d_pose_backward": (ModelStruct, PosedStruct, PosedStruct, ModelGradientsStruct),
        "m4d_frame_losses": (FrameStruct, FrameGradientsStruct),
        "m4d_adam": (AdamStruct, c_int32),
    }.items():
        function = getattr(library, name)
        function.argtypes = [POINTER(argument) for argument in arguments]
        function.restype = c_int
    return library


def check(code: int) -> None:
    """Raises `Motion4DError` when a call has run out of memory."""
    if code:
        raise Motion4DError("the fit ran out of memory: lower budget.max_static or budget.working_width")
