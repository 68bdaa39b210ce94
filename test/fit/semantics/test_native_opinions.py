"""What masks of neighbouring frames say, in C++ against the same in NumPy and OpenCV."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from motion4d_ros.fit.semantics.native_opinions import SILENT, Link, leads_to_label, opinions, packed, summed
from motion4d_ros.geometry.image_warping import sample

SIZE, FLOW_SIZE = (45, 61), (30, 40)  # (height, width)
LABELS, LIKENESS = 3, 20.0


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)


def made(seed: int, flow_size: tuple[int, int] = FLOW_SIZE) -> tuple[NDArray[np.uint8], Link]:
    """A picture, and a link with flow that leaves the image here and there and is once no number."""
    random = np.random.default_rng(seed)
    smooth = cv2.GaussianBlur(random.uniform(0, 255, (*SIZE, 3)).astype(np.float32), (0, 0), 2.0)
    look = np.asarray(cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX), np.uint8)
    flow = cv2.GaussianBlur(random.normal(0, 12, (*flow_size, 2)).astype(np.float32), (0, 0), 2.0)
    flow[3, 4] = np.nan
    coarse = random.integers(-1, LABELS, (9, 11)).astype(np.int32)
    numbers = cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_NEAREST)
    worth = random.uniform(0, 1, flow_size).astype(np.float32)
    return look, Link(False, flow, np.asarray(numbers, np.int32), packed(look), worth)


def chains(flow_size: tuple[int, int] = FLOW_SIZE) -> tuple[list[NDArray[np.uint8]], list[Link]]:
    """Two chains of three and of two links, and the pictures at their ends."""
    looks, links = zip(*(made(seed, flow_size) for seed in range(5)), strict=True)
    return list(looks), [replace(link, begins=k in (0, 3)) for k, link in enumerate(links)]


def walked(uv: NDArray[np.float32], links: Sequence[Link]) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Where pixels (n, 2) are at the end of each link, and what the flows on the way are worth (n,)."""

    def go(before: tuple[NDArray[np.float32], NDArray[np.float32]], link: Link) -> tuple:
        at, worth = (uv, np.ones(len(uv), np.float32)) if link.begins else before
        height, width = link.flow.shape[:2]
        ratio = np.array([width / SIZE[1], height / SIZE[0]], np.float32)
        here = at if (height, width) == SIZE else (at + np.float32(0.5)) * ratio - np.float32(0.5)
        good = worth if link.worth is None else worth * sample(link.worth, here)
        return np.asarray(at + sample(link.flow, here) / ratio[0], np.float32), good

    return list(accumulate(links, go, initial=(uv, np.ones(len(uv), np.float32))))[1:]


def reference(
    pixels: NDArray[np.intp], look: NDArray[np.uint8], numbers: NDArray[np.int32], looks: list, links: Sequence[Link]
) -> NDArray[np.float32]:
    uv = np.stack([pixels % SIZE[1], pixels // SIZE[1]], 1).astype(np.float32)

    def planes(labels: NDArray[np.int32]) -> NDArray[np.float32]:
        return np.stack([labels == k for k in range(LABELS)], -1).astype(np.float32)

    said = [planes(numbers).reshape(-1, LABELS)[pixels]]
    here = look.reshape(-1, 3)[pixels].astype(np.float32)
    for (at, worth), link, there in zip(walked(uv, links), links, looks, strict=True):
        unlike = np.abs(sample(there, at).astype(np.float32) - here).mean(1)
        alike = np.exp(-((unlike / LIKENESS) ** 2))
        said.append((worth * alike)[:, None] * sample(planes(link.numbers), at))
    return np.stack(said)


@pytest.mark.parametrize("flow_size", [FLOW_SIZE, SIZE])
def test_opinions_are_those_of_the_reference(flow_size: tuple[int, int]) -> None:
    looks, links = chains(flow_size)
    look, own = made(9)
    pixels = np.flatnonzero(np.random.default_rng(3).uniform(size=SIZE[0] * SIZE[1]) < 0.7)
    ours = opinions(pixels, packed(look), own.numbers, links, LABELS, LIKENESS)
    wanted = reference(pixels, look, own.numbers, looks, links)
    known = np.isfinite(wanted).all((0, 2))
    assert known.mean() > 0.8
    # places are rounded to 1/32 px, which may fall on either side: a few pixels may differ by as much
    differ = np.abs(ours - wanted)[:, known].max((0, 2))
    assert np.quantile(differ, 0.98) < 1e-5
    assert differ.max() < 0.3
    assert np.ptp(ours) > 0.9
    silent = np.asarray(own.numbers.reshape(-1)[pixels] == SILENT)
    assert silent.any()
    assert (ours[0][silent] == 0).all()


def test_labels_that_chains_lead_to_are_those_of_the_reference() -> None:
    _, links = chains()
    near = [replace(link, numbers=np.maximum(link.numbers, 0), look=None, worth=None) for link in links]
    pixels = np.arange(SIZE[0] * SIZE[1])
    uv = np.stack([pixels % SIZE[1], pixels // SIZE[1]], 1).astype(np.float32)
    wanted = np.zeros(len(pixels), bool)
    for (at, _), link in zip(walked(uv, near), near, strict=True):
        wanted |= sample(link.numbers.astype(np.uint8), at, nearest=True) > 0
    ours = leads_to_label(pixels, SIZE, near[:1])
    assert 0.1 < ours.mean() < 0.9
    assert (leads_to_label(pixels, SIZE, near) == wanted).mean() > 0.98


def test_shares_are_weighted_sums() -> None:
    random = np.random.default_rng(1)
    said = [random.uniform(0, 1, (5000, LABELS)).astype(np.float32) for _ in range(4)]
    shown = random.uniform(0, 1, (5000, LABELS)).astype(np.float32)
    for one in (*said, shown):
        one[7] = 0  # nobody says anything
    shares, largest = summed(said, [1.0, 0.5, 0.3, 0.1], shown)
    total = shown + sum(w * one.astype(float) for w, one in zip([1.0, 0.5, 0.3, 0.1], said, strict=True))
    total[7, 0] = 1.0
    assert shares == pytest.approx(total / total.sum(1, keepdims=True), abs=1e-6)
    assert (largest == shares.max(1)).all()
    assert shares[7].tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="opinions of"):
        summed([said[0][:9]], [1.0], shown)


def test_any_number_of_threads_says_the_same() -> None:
    _, links = chains()
    look, own = made(9)
    pixels = np.tile(np.arange(SIZE[0] * SIZE[1]), 5)  # several pieces of work
    found = []
    for threads in (1, 2, 3):
        cv2.setNumThreads(threads)
        said = opinions(pixels, packed(look), own.numbers, links, LABELS, LIKENESS)
        found.append((said.tobytes(), summed(list(said), [1.0] * 6, None)[0].tobytes()))
    assert found[0] == found[1] == found[2]


def test_packed_pictures_keep_their_grey_levels() -> None:
    look = np.random.default_rng(2).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    values = packed(look)
    assert [(values >> shift & 255).tolist() for shift in (0, 8, 16)] == [look[..., k].tolist() for k in range(3)]
    assert ctypes.sizeof(ctypes.c_uint32) == values.itemsize
