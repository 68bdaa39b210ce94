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

from motion4d_ros.fit.semantics.sparse_labels import LabelValues, Said
from motion4d_ros.raster_library import load_library

SILENT = -1  # number of a label where nothing is said
SCENE_LABELS = 8  # M4D_SCENE_LABELS: of a pixel, at most
PIECE = 4096  # pixels whose entries stand one after the other
MOST_UNLIKE = 3 * 255  # sum of differences of the three colours


class LinkStruct(ctypes.Structure):
    """`m4d_label_link`."""

    _fields_ = [
        *((name, c_int32) for name in ("height", "width", "begins")),
        *((name, c_void_p) for name in ("flow", "worth", "look", "label")),
    ]


class SceneStruct(ctypes.Structure):
    """`m4d_label_scene`."""

    _fields_ = [
        *((name, c_int32) for name in ("height", "width", "channels")),
        *((name, c_void_p) for name in ("share", "number")),
    ]


class QuestionStruct(ctypes.Structure):
    """`m4d_label_question`."""

    _fields_ = [
        ("count", c_int64),
        *((name, c_int32) for name in ("height", "width", "labels", "links", "threads")),
        *((name, c_void_p) for name in ("pixels", "look", "label", "alike")),
        ("link", POINTER(LinkStruct)),
        ("scene", POINTER(SceneStruct)),
        *((name, c_void_p) for name in ("many", "rater", "named", "weight")),
    ]


class SaidStruct(ctypes.Structure):
    """`m4d_label_said`."""

    _fields_ = [
        ("count", c_int64),
        *((name, c_int32) for name in ("raters", "labels", "threads")),
        *((name, c_void_p) for name in ("start", "rater", "named", "weight")),
    ]


class SharesStruct(ctypes.Structure):
    """`m4d_label_shares`."""

    _fields_ = [(name, c_void_p) for name in ("worth", "many", "possible", "share")]


class ValuesStruct(ctypes.Structure):
    """`m4d_label_values`."""

    _fields_ = [(name, c_void_p) for name in ("first", "possible", "value")]


@dataclass(frozen=True)
class Link:
    """A step of a chain of frames to the next one, and what is said at its end."""

    begins: bool  # whether the chain begins here
    flow: NDArray[np.float32]  # (h, w, 2) px
    numbers: NDArray[np.int32]  # (H, W) of labels, `SILENT` where nothing is said
    look: NDArray[np.uint32] | None = None  # (H, W) the picture, as `packed`
    worth: NDArray[np.float32] | None = None  # (h, w) by how closely the flow returns


@dataclass(frozen=True)
class Rendered:
    """The labels that a scene shows in a frame."""

    share: NDArray[np.float32]  # (h, w, C)
    numbers: NDArray[np.int32]  # (C,) of the label of every channel


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
    scene: Rendered | None = None,
) -> Said:
    """What a frame's own mask (rater 0), those at the ends of L `links` (1 to L) and the scene (L + 1) say about n flat
    `pixels` of the frame; there are K = `labels`. Of a pixel the scene names at most `SCENE_LABELS`.

    `look` and `numbers`, both (H, W), are the frame's. What is said where the picture has become another one is
    worth less: 1/e at a difference of `likeness` grey levels.
    """
    unlike = np.arange(MOST_UNLIKE + 1, dtype=np.float32) / np.float32(3)
    alike = np.exp(-np.square(unlike / np.float32(likeness)))
    most = 4 * (len(links) + 1) + SCENE_LABELS  # entries of a pixel
    many = np.zeros(len(pixels), np.int32)
    entries = {name: np.empty(len(pixels) * most, kind) for name, kind in _ENTRIES.items()}
    shown = None
    if scene is not None:
        share, names = np.ascontiguousarray(scene.share, np.float32), np.ascontiguousarray(scene.numbers, np.int32)
        shown = SceneStruct(*share.shape, share.ctypes.data, names.ctypes.data)
    question = {"look": look, "label": numbers, "alike": alike, "many": many, **entries}
    _ask("m4d_label_opinions", pixels, numbers.shape, links, labels, scene=shown, **question)
    start = _started(many)
    at = np.arange(0, len(pixels), PIECE) * most
    return Said(len(links) + 1 + (scene is not None), labels, start, *(_joined(a, at, start) for a in entries.values()))


def leads_to_label(pixels: NDArray[np.intp], size: tuple[int, int], links: Sequence[Link]) -> NDArray[np.bool_]:
    """(n,) whether a chain of `links` leads n flat `pixels` of a frame of `size` (height, width) to numbers that are
    not 0.
    """
    seen = np.zeros(len(pixels), np.uint8)
    _ask("m4d_label_seen", pixels, size, links, 0, (seen.ctypes.data,))
    return seen > 0


def shares(said: Said, worth: Sequence[float]) -> LabelValues:
    """The share that each label has in all that R raters say about n pixels, their words times their `worth` (R,).
    Background has it all where nothing is said.
    """
    many, weights = np.zeros(said.pixels, np.int32), np.array(worth, np.float32)
    places = len(said.named) + said.pixels
    possible, share = np.empty(places, np.uint16), np.empty(places, np.float32)
    arrays = (weights, many, possible, share)
    _library().m4d_label_share(_struct_of(said), SharesStruct(*(array.ctypes.data for array in arrays)))
    first = _started(many)
    pieces = np.arange(0, said.pixels, PIECE)
    at = said.start[pieces] + pieces
    return LabelValues(first, _joined(possible, at, first), _joined(share, at, first))


def judged(
    said: Said,
    labels: LabelValues,
    worth: Sequence[float],
    likelihoods: Sequence[NDArray[np.float32]],
    *,
    unheard: int = -1,
    normalised: bool = True,
) -> LabelValues:
    """The posterior of the possible `labels` by words times `worth` (R,) times log-likelihoods (R) of (K, K), truth
    times said; 0 for labels that nobody but the rater `unheard` names. Without `normalised`, logits.
    """
    weights, matrices = np.array(worth, np.float32), [np.ascontiguousarray(one, np.float32) for one in likelihoods]
    if len(weights) != said.raters or any(one.shape != (said.labels, said.labels) for one in matrices):
        raise ValueError(f"{said.raters} raters of {said.labels} labels, likelihoods of {[m.shape for m in matrices]}")
    found = LabelValues(labels.first, labels.possible, np.empty(len(labels.possible), np.float32))
    pointers = (c_void_p * len(matrices))(*(one.ctypes.data for one in matrices))
    _library().m4d_label_judge(
        _struct_of(said), _values_of(found), weights.ctypes.data, pointers, unheard, int(normalised)
    )
    return found


def counted(said: Said, truth: LabelValues, asked: Sequence[bool]) -> dict[int, NDArray[np.float64]]:
    """Confusion (K, K) of the raters that are `asked` (R,), by number: how often each says the column where the `truth`
    is the row.
    """
    counts: dict[int, NDArray[np.float64]] = {
        k: np.zeros((said.labels, said.labels)) for k, is_asked in enumerate(asked) if is_asked
    }
    addresses = [counts[k].ctypes.data if k in counts else None for k in range(said.raters)]
    _library().m4d_label_count(_struct_of(said), _values_of(truth), (c_void_p * len(addresses))(*addresses))
    return counts


_ENTRIES = {"rater": np.uint8, "named": np.uint16, "weight": np.float32}


def _started(many: NDArray[np.int32]) -> NDArray[np.int64]:
    """(n + 1,) where rows of `many` (n,) places begin."""
    return np.concatenate([[0], np.cumsum(many, dtype=np.int64)]).astype(np.int64)


def _joined(array: NDArray[Any], at: NDArray[np.int64], start: NDArray[np.int64]) -> NDArray[Any]:
    """The pieces of an array that begin at places `at`, one after the other; `start` (n + 1,) of the pixels' rows."""
    ends = [*start[:-1:PIECE][1:].tolist(), int(start[-1])]
    sizes = np.diff([0, *ends]).tolist() if len(at) else []
    return np.concatenate([array[:0], *(array[a : a + size] for a, size in zip(at.tolist(), sizes, strict=True))])


def _struct_of(said: Said) -> SaidStruct:
    arrays = (said.start, said.rater, said.named, said.weight)
    return SaidStruct(
        said.pixels, said.raters, said.labels, cv2.getNumThreads(), *(array.ctypes.data for array in arrays)
    )


def _values_of(labels: LabelValues) -> ValuesStruct:
    return ValuesStruct(labels.first.ctypes.data, labels.possible.ctypes.data, labels.value.ctypes.data)


def _ask(
    function: str,
    pixels: NDArray[np.intp],
    size: tuple[int, ...],
    links: Sequence[Link],
    labels: int,
    more: Sequence[int] = (),
    scene: SceneStruct | None = None,
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
    if scene is not None:
        question.scene = ctypes.pointer(scene)
    for name, array in arrays.items():
        setattr(question, name, address(array, array.dtype.type))
    getattr(_library(), function)(question, *more)


@functools.lru_cache(maxsize=1)
def _library() -> Any:
    """The raster library with these functions declared."""
    library = load_library()
    said, values = POINTER(SaidStruct), POINTER(ValuesStruct)
    arguments = {
        "opinions": [POINTER(QuestionStruct)],
        "seen": [POINTER(QuestionStruct), c_void_p],
        "share": [said, POINTER(SharesStruct)],
        "judge": [said, values, c_void_p, POINTER(c_void_p), c_int32, c_int32],
        "count": [said, values, POINTER(c_void_p)],
    }
    for name, kinds in arguments.items():
        function = getattr(library, f"m4d_label_{name}")
        function.argtypes, function.restype = kinds, None
    return library
