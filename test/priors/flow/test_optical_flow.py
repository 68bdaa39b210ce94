"""Dense flow helpers: signs, borders, caching."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from motion4d_ros.geometry.image_warping import sample, warp
from motion4d_ros.priors.flow.optical_flow import FlowCache, chain, consistency, dis_flow
from motion4d_ros.types import Camera, Frame


def texture(height: int = 96, width: int = 128, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.0), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def frame_of(gray: np.ndarray, index: int) -> Frame:
    height, width = gray.shape
    camera = Camera(100.0, 100.0, width / 2, height / 2, width, height)
    return Frame(index * 10**8, np.repeat(gray[..., None], 3, -1), camera, index=index)


def test_flow_points_from_a_to_b() -> None:
    gray = texture()
    flow = dis_flow(gray, np.roll(gray, (2, 5), (0, 1)))
    assert np.median(flow[20:-20, 20:-20], axis=(0, 1)) == pytest.approx([5, 2], abs=0.3)


def test_tiny_images_have_a_flow() -> None:
    gray = texture(24, 40)
    assert dis_flow(gray, gray).shape == (24, 40, 2)


def test_flow_refuses_images_of_different_size() -> None:
    with pytest.raises(ValueError):
        dis_flow(texture(), texture(90, 128))


def test_consistency_is_small_where_true_and_infinite_outside() -> None:
    gray = texture()
    moved = np.roll(gray, 6, 1)
    error = consistency(dis_flow(gray, moved), dis_flow(moved, gray))
    assert np.median(error[10:-10, 10:100]) < 0.2
    away = np.full((10, 10, 2), 20, np.float32)
    assert np.isinf(consistency(away, -away)).all()


def test_warp_brings_b_back_to_a() -> None:
    gray = texture()
    flow = np.full((*gray.shape, 2), (5, 2), np.float32)
    back = warp(np.roll(gray, (2, 5), (0, 1)), flow)
    assert (back[:-2, :-5] == gray[:-2, :-5]).all()
    assert warp(gray > 100, flow, nearest=True).dtype == np.bool_


def test_sample_is_bilinear_and_takes_many_points() -> None:
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert sample(image, np.array([[0.5, 0.0], [1.0, 1.5], [99, 99]])) == pytest.approx([0.5, 7.0, 11.0])
    assert sample(image, np.zeros((0, 2))).shape == (0,)
    assert sample(image, np.ones((70_000, 2))).shape == (70_000,)


def test_chain_adds_motions() -> None:
    a = np.full((20, 20, 2), (1, 0), np.float32)
    b = np.full((20, 20, 2), (0, 2), np.float32)
    assert chain(a, b)[10, 10] == pytest.approx([1, 2])


def test_cache_is_bounded_and_starts_over_when_the_size_changes() -> None:
    cache = FlowCache(max_side=64, keep=3)
    for index in range(5):
        cache.push(frame_of(texture(), index))
    assert cache.indices == [2, 3, 4] and cache.size == (48, 64)
    assert cache.between(2, 3) is cache.between(2, 3)
    assert np.isfinite(cache.error(3, 4)).any()
    cache.push(frame_of(texture(), 5))
    assert not cache.has(2)
    with pytest.raises(KeyError):
        cache.between(2, 3)
    cache.push(frame_of(texture(60, 60), 6))
    assert cache.indices == [6]
