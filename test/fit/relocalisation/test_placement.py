"""An object that comes back after it was lost is put where its masks are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from fit_builders import make_horizon, make_state, move, texture

from motion4d_ros.config import Config
from motion4d_ros.fit.motion.object_motion import ObjectMotion
from motion4d_ros.fit.relocalisation.placement import place_returned
from motion4d_ros.fit.window.horizon import FrameState, Horizon
from motion4d_ros.types import Camera

CAMERA = Camera(150.0, 150.0, 79.5, 59.5, 160, 120)
DEPTH = 1.5
LEAST = Config().geometry.relocalise_min_pixels


def card(index: int, center: tuple[float, float] | None, seed: int, angle: float = 0.0) -> FrameState:
    """A textured square of 52 px at `center`, facing the camera; nothing if None."""
    labels = np.zeros(CAMERA.size, np.int32)
    gray = np.full(CAMERA.size, 110, np.uint8)
    if center is not None:
        cos, sin = np.cos(angle), np.sin(angle)
        A = np.array([[cos, -sin, 0], [sin, cos, 0]])
        A[:, 2] = np.array(center) - A[:, :2] @ [25.5, 25.5]
        patch, size = texture(52, 52, seed=seed), (CAMERA.width, CAMERA.height)
        labels = (cv2.warpAffine(np.ones_like(patch), A, size, flags=cv2.INTER_NEAREST) > 0).astype(np.int32)
        gray = np.where(labels > 0, cv2.warpAffine(patch, A, size, flags=cv2.INTER_CUBIC), gray).astype(np.uint8)
    return make_state(index, labels, np.where(labels > 0, DEPTH, 4.0), gray, camera=CAMERA)


def place(u: float, v: float) -> np.ndarray:
    return CAMERA.unproject(np.array([u, v]), np.array(DEPTH))


def lost_and_back() -> tuple[ObjectMotion, Horizon]:
    """Seen at (45, 50) in frames 0 and 1, hidden in 2 and 3, back at (110, 66), by another side, in 4 and 5; the motion
    believes it never moved.
    """
    where = [(45, 50), (45, 50), None, None, (110, 66), (110, 66)]
    horizon = make_horizon([card(k, p, 3 if k < 2 else 8) for k, p in enumerate(where)])
    motion = ObjectMotion(1, place(45, 50), {k: (np.eye(3), np.zeros(3)) for k in range(6)})
    motion.points = {k: place(45 + 6 * np.cos(k), 50 + 6 * np.sin(k)) for k in range(12)}
    motion.detached_at = 2
    return motion, horizon


@pytest.mark.parametrize("doubted", [False, True])
def test_what_comes_back_is_put_where_its_mask_is(doubted: bool) -> None:
    motion, horizon = lost_and_back()
    if doubted:
        motion.detached_at, motion.doubted_at = None, 2
    place_returned(motion, horizon, LEAST)
    # The middle of a solid body lies behind what shows of it; this one is flat.
    for k in (4, 5):
        assert move(motion.matrix(k), place(45, 50)[None])[0] == pytest.approx(place(110, 66), abs=0.1)
        assert motion.matrix(k)[:3, :3] == pytest.approx(np.eye(3))
    assert motion.matrix(1) == pytest.approx(np.eye(4))  # before the loss nothing changes
    assert not motion.points  # they are lifted anew
    before = motion.matrix(4)
    motion.set_matrix(4, np.eye(4))
    place_returned(motion, horizon, LEAST)  # once for a window is enough
    assert motion.matrix(4) == pytest.approx(np.eye(4)) != pytest.approx(before)


def test_an_object_that_stays_away_stays_lost() -> None:
    motion, horizon = lost_and_back()
    for state in horizon.frames[4:]:
        state.labels[:] = 0
    place_returned(motion, horizon, LEAST)
    assert motion.detached_at == 2
    assert motion.matrix(5) == pytest.approx(np.eye(4))


def test_an_object_that_was_not_lost_is_left_alone() -> None:
    motion, horizon = lost_and_back()
    motion.detached_at = None
    place_returned(motion, horizon, LEAST)
    assert motion.matrix(4) == pytest.approx(np.eye(4)) and motion.points
