"""What masks of neighbouring frames say about pixels of a frame, in C++: `raster/include/motion4d_labels.h`."""

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

SILENT = -1  # number of a label where nothing is said
MOST_UNLIKE = 3 * 255  # sum of differences of the three colours


class LinkStruct(ctypes.Structure):
    """`m4d_label_link`."""

    _fields_ = [
        *((name, c_int32) for name in ("height", "width", "begins")),
        *((name, c_void_p) for name in ("flow", "worth", "look", "label")),
    ]


class QuestionStruct(ctypes.Structure):
    """`m4d_label_question`."""

    _fields_ = [
        ("count", c_int64),
        *((name, c_int32) for name in ("height", "width", "labels", "links", "threads")),
        *((name, c_void_p) for name in ("pixels", "look", "label", "alike")),
        ("link", POINTER(LinkStruct)),
        ("said", c_void_p),
    ]


class SumsStruct(ctypes.Structure):
    """`m4d_label_sums`."""

    _fields_ = [
        ("count", c_int64),
        *((name, c_int32) for name in ("raters", "labels", "threads")),
        ("said", POINTER(c_void_p)),
        *((name, c_void_p) for name in ("weight", "rendered", "shares", "largest")),
    ]


@dataclass(frozen=True)
class Link:
    """A step of a chain of frames to the next one, and what is said at its end."""

    begins: bool  # whether the chain begins here
    flow: NDArray[np.float32]  # (h, w, 2) px
    numbers: NDArray[np.int32]  # (H, W) of labels, `SILENT` where nothing is said
    look: NDArray[np.uint32] | None = None  # (H, W) the picture, as `packed`
    worth: NDArray[np.float32] | None = None  # (h, w) by how closely the flow returns


def packed(picture: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """(H, W) the three grey levels of an (H, W, 3) picture, side by side."""
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA)).view("<u4")[..., 0]


def opinions(
    pixels: NDArray[np.intp],
    look: NDArray[np.uint32],
    numbers: NDArray[np.int32],
    links: Sequence[Link],
    labels: int,
    likeness: float,
) -> NDArray[np.float32]:
    """(L + 1, n, K) what a frame's own mask and those at the ends of L `links` say about n flat `pixels` of the frame:
    worth times share of each of K = `labels`.

    `look` and `numbers`, both (H, W), are the frame's. What is said where the picture has become another one is
    worth less: 1/e at a difference of `likeness` grey levels.
    """
    said = np.empty((len(links) + 1, len(pixels), labels), np.float32)
    unlike = np.arange(MOST_UNLIKE + 1, dtype=np.float32) / np.float32(3)
    alike = np.exp(-np.square(unlike / np.float32(likeness)))
    _ask("m4d_label_opinions", pixels, numbers.shape, links, labels, look=look, label=numbers, alike=alike, said=said)
    return said


def leads_to_label(pixels: NDArray[np.intp], size: tuple[int, int], links: Sequence[Link]) -> NDArray[np.bool_]:
    """(n,) whether a chain of `links` leads n flat `pixels` of a frame of `size` (height, width) to numbers that are
    not 0.
    """
    seen = np.zeros(len(pixels), np.uint8)
    _ask("m4d_label_seen", pixels, size, links, 0, seen.ctypes.data)
    return seen > 0


def summed(
    said: Sequence[NDArray[np.float32]], weights: Sequence[float], rendered: NDArray[np.float32] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(n, K) shares of K labels in all that R raters say about n pixels, and the (n,) largest of each pixel.

    `said` (n, K) by each of them counts as often as its weight says, `rendered` (n, K) once. The first label has it all
    where nothing is said.
    """
    heard = [np.ascontiguousarray(one, np.float32) for one in said]
    shape = heard[0].shape if rendered is None else rendered.shape
    if any(one.shape != shape for one in heard):
        raise ValueError(f"opinions of {[one.shape for one in heard]}, rendered {shape}")
    shares, largest = np.empty(shape, np.float32), np.empty(shape[0], np.float32)
    pointers = (c_void_p * max(1, len(heard)))(*(one.ctypes.data for one in heard))
    weight = np.array(weights, np.float32)
    shown = None if rendered is None else np.ascontiguousarray(rendered, np.float32)
    sums = SumsStruct(shape[0], len(heard), shape[1], cv2.getNumThreads(), pointers, weight.ctypes.data)
    sums.rendered = None if shown is None else shown.ctypes.data
    sums.shares, sums.largest = shares.ctypes.data, largest.ctypes.data
    _library().m4d_label_shares(sums)
    return shares, largest


def _ask(
    function: str,
    pixels: NDArray[np.intp],
    size: tuple[int, ...],
    links: Sequence[Link],
    labels: int,
    *more: int,
    **arrays: NDArray[Any],
) -> None:
    """Calls a function of the library about pixels and links; `arrays` are fields of the question."""
    flat = np.ascontiguousarray(pixels, np.int32)
    kept: list[NDArray[Any]] = []  # until the call is over

    def address(array: NDArray[Any] | None, kind: type[Any]) -> int | None:
        if array is None:
            return None
        kept.append(np.ascontiguousarray(array, kind))
        return kept[-1].ctypes.data

    structs = (LinkStruct * max(1, len(links)))()
    for struct, link in zip(structs, links, strict=False):
        struct.height, struct.width, struct.begins = *link.flow.shape[:2], link.begins
        struct.flow, struct.worth = address(link.flow, np.float32), address(link.worth, np.float32)
        struct.look, struct.label = address(link.look, np.uint32), address(link.numbers, np.int32)
    question = QuestionStruct(len(flat), *size, labels, len(links), cv2.getNumThreads(), flat.ctypes.data)
    question.link = structs
    for name, array in arrays.items():
        setattr(question, name, address(array, array.dtype.type))
    getattr(_library(), function)(question, *more)


@functools.lru_cache(maxsize=1)
def _library() -> Any:
    """The raster library with these functions declared."""
    library = load_library()
    library.m4d_label_opinions.argtypes = [POINTER(QuestionStruct)]
    library.m4d_label_seen.argtypes = [POINTER(QuestionStruct), c_void_p]
    library.m4d_label_shares.argtypes = [POINTER(SumsStruct)]
    for function in (library.m4d_label_opinions, library.m4d_label_seen, library.m4d_label_shares):
        function.restype = None
    return library
