"""Label images at other sizes: shrunk and enlarged without shifting an outline, and kept compressed."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.types import UNKNOWN_LABEL, IntArray

MOST_BINS = 1 << 20  # of a histogram of labels: beyond, they are sorted instead


def labels_in(labels: IntArray) -> NDArray[np.int64]:
    """The different values of a label image, ascending: as `np.unique`, which sorts all pixels and is several times
    slower.
    """
    if labels.size == 0:
        return np.zeros(0, np.int64)
    low = int(labels.min())
    if int(labels.max()) - low >= MOST_BINS:
        return np.unique(labels).astype(np.int64)
    return np.flatnonzero(np.bincount((labels - low).reshape(-1))) + low


def resize_labels(labels: IntArray, size: tuple[int, int]) -> NDArray[np.int32]:
    """(h, w) labels at `size` (height, width): every pixel takes the label that covers most of it.

    Picking the nearest pixel instead would move outlines by up to half a pixel of the smaller image.
    """
    if labels.shape == size:
        return labels.astype(np.int32)
    method = cv2.INTER_AREA if size[0] * size[1] < labels.size else cv2.INTER_LINEAR
    values = labels_in(labels)
    out = np.full(size, values[0], np.int32)
    if len(values) == 1:
        return out
    most = np.zeros(size, np.float32)
    for value in values:
        share = cv2.resize((labels == value).astype(np.float32), size[::-1], interpolation=method)
        wins = share > most
        out[wins], most[wins] = value, share[wins]
    return out


def resize_planes(planes: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """(h, w, C) planes at `size` (height, width), bilinear."""
    if planes.shape[:2] == size:
        return planes
    resized = [
        cv2.resize(np.ascontiguousarray(planes[..., c]), size[::-1], interpolation=cv2.INTER_LINEAR)
        for c in range(planes.shape[-1])
    ]
    return np.stack(resized, -1).astype(np.float32)


@dataclass(frozen=True)
class PackedLabels:
    """A label image, compressed without loss: a few kilobytes instead of megabytes."""

    png: bytes

    @staticmethod
    def pack(labels: IntArray) -> PackedLabels:
        """Compresses (H, W) labels from `UNKNOWN_LABEL` to 65534."""
        return PackedLabels(compress_labels((labels - UNKNOWN_LABEL).astype(np.uint16)))

    def unpack(self) -> NDArray[np.int32]:
        """(H, W) labels."""
        return decompress(self.png).astype(np.int32) + UNKNOWN_LABEL


def compress_labels(labels: NDArray[np.uint16], effort: int = 1) -> bytes:
    """An (H, W) label image as PNG, with an `effort` of 1 to 9.

    Row filters, which help photographs, take three quarters of the time and hardly change the size of labels.
    """
    plain = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE] if hasattr(cv2, "IMWRITE_PNG_FILTER") else []
    return _png(labels, [cv2.IMWRITE_PNG_COMPRESSION, effort, *plain])  # OpenCV before 4.11 has no choice


def compress(image: NDArray[np.uint16]) -> bytes:
    """An (H, W) image as PNG."""
    return _png(image, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def _png(image: NDArray[np.uint16], options: list[int]) -> bytes:
    ok, data = cv2.imencode(".png", image, options)
    if not ok:
        raise RuntimeError("OpenCV could not compress an image")
    return data.tobytes()


def decompress(data: bytes) -> NDArray[np.uint16]:
    """The (H, W) image that `compress` was given."""
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), np.uint16)
