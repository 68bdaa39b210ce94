"""Chains of flow: what they may link and what not."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.priors.tracks.flow_tracks import FlowTracks
from motion4d_ros.types import Camera, Frame

CAMERA = Camera(100, 100, 59.5, 39.5, 120, 80)


def texture(seed: int) -> NDArray[np.uint8]:
    """(90, 140, 3) random detail, coarse and fine."""
    rng = np.random.default_rng(seed)
    planes = [cv2.GaussianBlur(rng.normal(size=(90, 140, 3)), (0, 0), sigma) for sigma in (2, 8)]
    mixed = sum(plane / plane.std() for plane in planes)
    return np.asarray(cv2.normalize(mixed, None, 0, 255, cv2.NORM_MINMAX), np.uint8)


def shots(seed: int, first: int, count: int) -> list[Frame]:
    """Frames that slide over one texture, 2 px each."""
    image = texture(seed)
    return [Frame(k + 1, image[:80, 2 * k : 2 * k + 120].copy(), CAMERA, index=first + k) for k in range(count)]


def test_chains_follow_what_slides() -> None:
    source = FlowTracks(Config())
    for frame in shots(0, 0, 4):
        source.push(frame, None)
    tracks = source.tracks(0, 3)
    whole = tracks.visible.all(1)
    assert whole.sum() > 50
    assert np.abs(np.diff(tracks.uv_px[whole], axis=1) - (-2.0, 0.0)).mean() < 0.3


def test_no_chain_crosses_a_cut() -> None:
    source = FlowTracks(Config())
    for frame in [*shots(0, 0, 4), *shots(5, 4, 5)]:  # a fresh grid, traced backwards, falls behind the cut
        source.push(frame, None)
    visible = source.tracks(0, 8).visible
    assert visible[:, :4].any() and visible[:, 4:].any()
    assert not (visible[:, :4].any(1) & visible[:, 4:].any(1)).any()
