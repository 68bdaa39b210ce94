"""Objects that were lost are found again by their looks and their shape, and others are not taken for them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from fit_builders import make_state, move, pose, texture
from scipy.spatial.transform import Rotation

from motion4d_ros.fit.relocalisation.features import step_by_features
from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.types import Camera

CAMERA = Camera(150.0, 150.0, 79.5, 59.5, 160, 120)
DEPTH = 1.5
HALF = 26  # px


def showing(index: int, center: tuple[float, float], angle: float, seed: int, noise: float = 2.0) -> FrameState:
    """A square with the texture `seed`, parallel to the image, turned by `angle` about the optical axis."""
    patch = texture(2 * HALF, 2 * HALF, seed=seed, blur=1.5)
    cos, sin = np.cos(angle), np.sin(angle)
    middle = HALF - 0.5
    A = np.array([[cos, -sin, 0], [sin, cos, 0]])
    A[:, 2] = np.array(center) - A[:, :2] @ [middle, middle]
    size = (CAMERA.width, CAMERA.height)
    image = cv2.warpAffine(patch, A, size, flags=cv2.INTER_CUBIC)
    mask = cv2.warpAffine(np.full_like(patch, 255), A, size, flags=cv2.INTER_NEAREST) > 0
    rng = np.random.default_rng(index)
    gray = np.where(mask, image, 110) + noise * rng.standard_normal(CAMERA.size)
    depth = np.where(mask, DEPTH, 4.0)
    return make_state(index, mask.astype(np.int32), depth, np.clip(gray, 0, 255).astype(np.uint8), camera=CAMERA)


def ray(u: float, v: float) -> np.ndarray:
    return CAMERA.unproject(np.array([[u, v]]), np.array([DEPTH]))[0]


@pytest.mark.parametrize("angle", [0.0, 0.5, -1.2])
def test_an_object_that_moved_and_turned_is_found(angle: float) -> None:
    T = step_by_features(showing(0, (50, 50), 0.0, seed=3), showing(9, (105, 66), angle, seed=3), 1)
    assert T is not None
    assert move(T, ray(50, 50)[None])[0] == pytest.approx(ray(105, 66), abs=0.03)
    turn = Rotation.from_matrix(T[:3, :3] @ pose((0, 0, angle))[:3, :3].T).magnitude()
    assert turn < 0.1


def test_too_little_to_see_gives_no_features() -> None:
    state = showing(0, (50, 50), 0.0, seed=3)
    assert step_by_features(state, state, 2) is None  # not there
    blind = showing(0, (50, 50), 0.0, seed=3)
    blind.depth_m[:] = np.nan
    assert step_by_features(blind, state, 1) is None  # without depth
    flat = make_state(0, np.ones(CAMERA.size, np.int32), camera=CAMERA)
    assert step_by_features(state, flat, 1) is None  # without texture
