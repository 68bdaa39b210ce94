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

from motion4d_ros.fit.semantics.native_opinions import (
    PIECE,
    SCENE_LABELS,
    SILENT,
    Link,
    Rendered,
    counted,
    judged,
    leads_to_label,
    opinions,
    packed,
    shares,
)
from motion4d_ros.fit.semantics.sparse_labels import LabelValues, Said
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


def dense(said: Said) -> NDArray[np.float32]:
    """(R, n, K) of every rater, pixel and label."""
    found = np.zeros((said.raters, said.pixels, said.labels), np.float32)
    found[said.rater, said.pixel_of(), said.named] = said.weight
    return found


def dense_values(values: LabelValues, labels: int = LABELS) -> NDArray[np.float32]:
    found = np.zeros((values.pixels, labels), np.float32)
    found[values.pixel_of(), values.possible] = values.value
    return found


@pytest.mark.parametrize("flow_size", [FLOW_SIZE, SIZE])
def test_opinions_are_those_of_the_reference(flow_size: tuple[int, int]) -> None:
    looks, links = chains(flow_size)
    look, own = made(9)
    pixels = np.flatnonzero(np.random.default_rng(3).uniform(size=SIZE[0] * SIZE[1]) < 0.7)
    ours = dense(opinions(pixels, packed(look), own.numbers, links, LABELS, LIKENESS))
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


def test_what_the_scene_shows_is_read_between_pixels() -> None:
    look, own = made(9)
    pixels = np.arange(SIZE[0] * SIZE[1])
    uv = np.stack([pixels % SIZE[1], pixels // SIZE[1]], 1).astype(np.float32)
    small = (23, 31)
    share = np.random.default_rng(4).uniform(0.1, 1, (*small, 3)).astype(np.float32)
    numbers = np.array([2, 0, 2], np.int32)  # two channels of one label
    said = opinions(pixels, packed(look), own.numbers, [], LABELS, LIKENESS, Rendered(share, numbers))
    assert said.raters == 2
    at = (uv + np.float32(0.5)) * np.array([small[1] / SIZE[1], small[0] / SIZE[0]], np.float32) - np.float32(0.5)
    planes = np.stack([sample(np.ascontiguousarray(share[..., k]), at) for k in range(3)], 1)
    wanted = np.stack([planes[:, 1], np.zeros(len(pixels)), planes[:, 0] + planes[:, 2]], 1)
    assert np.quantile(np.abs(dense(said)[1] - wanted), 0.99) < 1e-5


def test_of_many_labels_that_the_scene_shows_the_largest_are_heard() -> None:
    look, own = made(9)
    share = np.random.default_rng(5).permuted(np.tile(np.arange(1.0, 31.0), (*SIZE, 1)), axis=-1).astype(np.float32)
    scene = Rendered(share, np.arange(30, dtype=np.int32))
    pixels = np.arange(SIZE[0] * SIZE[1])
    said = opinions(pixels, packed(look), own.numbers, [], 30, LIKENESS, scene)
    heard = said.weight[said.rater == 1].reshape(len(pixels), SCENE_LABELS)
    assert (heard == np.arange(30, 30 - SCENE_LABELS, -1)).all()


def made_said(count: int, labels: int = LABELS, raters: int = 4) -> tuple[Said, NDArray[np.float32]]:
    """Sparse words about pixels of more than one piece, and the same as (R, n, K); nothing is said of pixel 7."""
    random = np.random.default_rng(1)
    words = random.uniform(0, 1, (raters, count, labels)).astype(np.float32)
    words[random.uniform(size=words.shape) < 0.6] = 0
    words[:, 7] = 0
    by_pixel = words.transpose(1, 0, 2)
    pixel, rater, named = np.nonzero(by_pixel)
    start = np.searchsorted(pixel, np.arange(count + 1)).astype(np.int64)
    weight = by_pixel[pixel, rater, named]
    return Said(raters, labels, start, rater.astype(np.uint8), named.astype(np.uint16), weight), words


def test_shares_are_weighted_sums() -> None:
    said, words = made_said(PIECE + 900)
    worth = [1.0, 0.5, 0.3, 0.1]
    found = shares(said, worth)
    total = np.einsum("r,rnk->nk", worth, words.astype(float))
    total[total.sum(1) == 0, 0] = 1.0
    assert dense_values(found) == pytest.approx(total / total.sum(1, keepdims=True), abs=1e-6)
    assert (found.possible[found.first[:-1]] == 0).all(), "background is always possible"
    assert (found.largest() == dense_values(found).max(1)).all()
    assert (found.best() == dense_values(found).argmax(1)).all()
    assert dense_values(found)[7].tolist() == [1, 0, 0]


def test_posteriors_are_those_of_dense_sums() -> None:
    said, words = made_said(PIECE + 900)
    random = np.random.default_rng(6)
    likelihoods = [np.log(random.uniform(0.05, 1, (LABELS, LABELS))).astype(np.float32) for _ in range(4)]
    worth = [1.0, 0.5, 0.3, 2.0]
    for unheard in (-1, 3):
        heard = [k for k in range(4) if k != unheard]
        logits = sum(worth[k] * words[k].astype(float) @ likelihoods[k].T for k in heard)
        possible = words[heard].sum(0) > 0
        possible[~possible.any(1), 0] = True
        wanted = np.where(possible, np.exp(logits), 0)
        wanted /= wanted.sum(1, keepdims=True)
        ours = judged(said, shares(said, worth), worth, likelihoods, unheard=unheard)
        assert dense_values(ours) == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(ValueError, match="4 raters"):
        judged(said, shares(said, worth), worth[:2], likelihoods)


def test_confusion_is_counted_with_soft_truth() -> None:
    said, words = made_said(500)
    truth = shares(said, [1.0] * 4)
    found = counted(said, truth, [True, False, True, True])
    assert list(found) == [0, 2, 3]
    for rater, counts in found.items():
        assert counts == pytest.approx(dense_values(truth).T.astype(float) @ words[rater], rel=1e-5)


def test_parts_of_what_is_said() -> None:
    said, words = made_said(300)
    chosen = np.arange(300) % 3 == 0
    assert (dense(said.take(chosen)) == words[:, chosen]).all()
    rest = dense(said.without(said.rater == 2))
    assert not rest[2].any() and (rest[[0, 1, 3]] == words[[0, 1, 3]]).all()
    values = shares(said, [1.0] * 4)
    assert (dense_values(values.take(chosen)) == dense_values(values)[chosen]).all()
    part = values.take(chosen)
    doubled = LabelValues(part.first, part.possible, part.value * 2)
    replaced = dense_values(values.replaced(chosen, doubled))
    assert (replaced == dense_values(values) * np.where(chosen, 2, 1)[:, None]).all()


def test_any_number_of_threads_says_the_same() -> None:
    _, links = chains()
    look, own = made(9)
    pixels = np.tile(np.arange(SIZE[0] * SIZE[1]), 5)  # several pieces of work
    share = np.random.default_rng(4).uniform(0, 1, (*SIZE, 3)).astype(np.float32)
    scene = Rendered(share, np.arange(3, dtype=np.int32))
    likelihoods = [np.log(np.eye(LABELS) * 0.8 + 0.1).astype(np.float32)] * 7
    found = []
    for threads in (1, 2, 3):
        cv2.setNumThreads(threads)
        said = opinions(pixels, packed(look), own.numbers, links, LABELS, LIKENESS, scene)
        told = shares(said, [1.0] * 7)
        after = judged(said, told, [1.0] * 7, likelihoods)
        arrays = [said.start, said.rater, said.named, said.weight, told.value, told.possible, after.value]
        found.append([array.tobytes() for array in arrays])
    assert found[0] == found[1] == found[2]


def test_packed_pictures_keep_their_grey_levels() -> None:
    look = np.random.default_rng(2).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    values = packed(look)
    assert [(values >> shift & 255).tolist() for shift in (0, 8, 16)] == [look[..., k].tolist() for k in range(3)]
    assert ctypes.sizeof(ctypes.c_uint32) == values.itemsize
