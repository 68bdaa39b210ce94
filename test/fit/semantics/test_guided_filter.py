"""The guided filter against its definition."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from motion4d_ros.fit.semantics.guided_filter import GuidedFilter


def test_it_is_the_mean_of_local_affine_fits():
    """At one pixel, by least squares in every window around it."""
    rng = np.random.default_rng(0)
    guide = rng.integers(0, 256, (15, 17, 3)).astype(np.uint8)
    image = rng.random((15, 17)).astype(np.float32)
    radius, epsilon = 2, 1e-2
    said = []
    for y in range(5, 10):
        for x in range(6, 11):  # windows that contain the pixel (7, 8)
            colours = guide[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3) / 255.0
            values = image[y - 2 : y + 3, x - 2 : x + 3].ravel().astype(float)
            centred = colours - colours.mean(0)
            slope = np.linalg.solve(
                centred.T @ centred / 25 + epsilon * np.eye(3), centred.T @ (values - values.mean()) / 25
            )
            said.append(values.mean() + slope @ (guide[7, 8] / 255.0 - colours.mean(0)))
    assert GuidedFilter(guide, radius, epsilon)(image)[7, 8] == pytest.approx(np.mean(said), abs=1e-4)


def test_it_keeps_to_the_edges_of_the_guide():
    guide = np.zeros((40, 40, 3), np.uint8)
    guide[:, 20:] = (200, 120, 40)
    ragged = (np.arange(40)[None] >= 20 + np.round(3 * np.sin(np.arange(40)))[:, None]).astype(np.float32)
    smooth = GuidedFilter(guide, 6)(cv2.GaussianBlur(ragged, (0, 0), 1.0))
    assert ((smooth[4:-4] > 0.5) == (guide[4:-4, :, 0] > 0)).mean() > 0.995


def test_what_is_the_same_everywhere_stays_so():
    guide = np.random.default_rng(1).integers(0, 256, (20, 20, 3)).astype(np.uint8)
    assert GuidedFilter(guide, 3)(np.full((20, 20), 0.3, np.float32)) == pytest.approx(0.3, abs=1e-4)
