"""From the labels that are possible at some pixels to images: one label's at a time, however many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.fit.semantics.guided_filter import GuidedFilter
from motion4d_ros.fit.semantics.sparse_labels import LabelValues

RADIUS_SHARE = 0.01  # of the image's diagonal: half the side of the windows in which the posterior follows edges


@dataclass(frozen=True)
class Told:
    """The posterior of the (n,) flat pixels of a frame that anybody takes for an object."""

    pixels: NDArray[np.intp]
    values: LabelValues


def planes(told: Told, size: tuple[int, int]) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.float32]]]:
    """The labels that are no background, ascending; the flat pixels where each is possible; and its values in an image
    of `size` (height, width).
    """
    values = told.values
    order = np.argsort(values.possible, kind="stable")
    labels = values.possible[order]
    at = told.pixels[values.pixel_of()]
    for label in np.flatnonzero(np.bincount(labels))[1:].tolist():
        here = order[slice(*np.searchsorted(labels, [label, label + 1]))]
        here = here[values.value[here] > 0]
        if len(here):
            plane = np.zeros(size, np.float32)
            plane.reshape(-1)[at[here]] = values.value[here]
            yield label, at[here], plane


def along_edges(
    picture: NDArray[np.uint8], pixels: NDArray[np.intp]
) -> Callable[[NDArray[np.float32], NDArray[np.intp]], None]:
    """What smooths (H, W) planes that are 0 but at some of `pixels` along the edges of the picture, in place."""
    size = picture.shape[:2]
    radius = max(1, round(RADIUS_SHARE * float(np.hypot(size[0], size[1]))))
    whole = _box(np.divmod(pixels, size[1]), 2 * radius)
    filtered = GuidedFilter(np.ascontiguousarray(picture[whole]), radius)

    def smooth(plane: NDArray[np.float32], pixels: NDArray[np.intp]) -> None:
        rows, columns = np.divmod(pixels, size[1])
        box = _box((rows - whole[0].start, columns - whole[1].start), 2 * radius)
        part = plane[whole]
        part[box] = filtered(np.ascontiguousarray(part[box]), box)

    return smooth


def resized(plane: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """(h, w) a plane at `size` (height, width), bilinear."""
    if plane.shape == size:
        return plane
    return np.asarray(cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _box(pixels: tuple[NDArray[np.intp], NDArray[np.intp]], margin: int) -> tuple[slice, slice]:
    """The part of an image about pixels (rows, columns)."""
    rows, columns = (slice(max(0, int(k.min()) - margin), int(k.max()) + margin + 1) for k in pixels)
    return rows, columns
