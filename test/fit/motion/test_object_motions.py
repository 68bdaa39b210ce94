"""Motions of objects from tracked points, through gaps, and after a reunion."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from fit_builders import make_horizon, make_state, move, texture

from motion4d_ros.config import Config, GeometryConfig
from motion4d_ros.fit.motion.object_motion import ObjectMotion
from motion4d_ros.fit.motion.object_motions import ObjectMotions
from motion4d_ros.fit.relocalisation.relocaliser import Relocaliser
from motion4d_ros.fit.tracks.keyframes import Keyframes
from motion4d_ros.fit.tracks.point_table import PointTable
from motion4d_ros.fit.window.horizon import FrameState, Horizon
from motion4d_ros.types import Camera

CAMERA = Camera(150.0, 150.0, 79.5, 59.5, 160, 120)
DEPTH, LENGTH, STEP_PX = 1.5, 8, 3.0
STEP_M = STEP_PX * DEPTH / CAMERA.fx


def options(**values: float) -> GeometryConfig:
    config = Config()
    config.update({"geometry": {"max_parts": 1, **values}})
    return config.geometry


def drifting(hidden: tuple[int, ...] = ()) -> tuple[Horizon, PointTable]:
    """A patch of 30 points that goes 3 px a frame to the right; nobody sees it in the frames `hidden`."""
    rng = np.random.default_rng(0)
    start = rng.uniform([20, 35], [60, 80], (30, 2))
    uv = start[:, None] + np.arange(LENGTH)[None, :, None] * np.array([STEP_PX, 0.0])
    seen = np.ones((30, LENGTH), bool)
    seen[:, list(hidden)] = False
    states = []
    for k in range(LENGTH):
        labels = np.zeros(CAMERA.size, np.int32)
        if k not in hidden:
            labels[30:86, 15 + int(STEP_PX * k) : 66 + int(STEP_PX * k)] = 1
        states.append(make_state(k, labels, DEPTH, camera=CAMERA))
    table = PointTable(
        np.arange(30),
        np.zeros(30, np.int64),
        uv.astype(np.float32),
        seen,
        np.full(seen.shape, 0.2, np.float32),
        np.ones(30, np.int64),
        np.ones(30, np.float32),
    )
    return make_horizon(states), table


def tracked(hidden: tuple[int, ...] = (), **values: float) -> ObjectMotions:
    horizon, table = drifting(hidden)
    chosen = options(**values)
    motions = ObjectMotions(chosen, Keyframes(8, 8), window=4, seed=0)
    motions.update(horizon, {1: table})
    return motions


def path(motion: ObjectMotion) -> np.ndarray:
    """(T, 3) where the centre has gone since frame 0."""
    start = move(motion.matrix(0), motion.center[None])
    return np.stack([move(motion.between(0, k), start)[0] - start[0] for k in range(LENGTH)])


def test_points_give_their_object_a_motion() -> None:
    motion = tracked().by_id[1]
    assert path(motion) == pytest.approx(np.arange(LENGTH)[:, None] * np.array([STEP_M, 0, 0]), abs=0.004)
    assert all(motion.support[k] > 20 for k in range(LENGTH))
    assert motion.detached_at is None


def test_a_hidden_object_keeps_its_velocity() -> None:
    motion = tracked(hidden=(5, 6, 7)).by_id[1]
    assert path(motion)[-1] == pytest.approx([7 * STEP_M, 0, 0], abs=0.02)
    assert motion.support[7] == 0 and motion.detached_at == 5


def test_an_object_seen_again_by_the_same_points_is_not_detached() -> None:
    motion = tracked(hidden=(3, 4)).by_id[1]
    assert motion.detached_at is None
    assert path(motion)[3:5] == pytest.approx(np.array([[3, 0, 0], [4, 0, 0]]) * STEP_M, abs=0.01)


def test_few_points_say_nothing() -> None:
    horizon, table = drifting()
    motions = ObjectMotions(options(), Keyframes(8, 8), window=4, seed=0)
    motions.update(horizon, {1: table.select(np.arange(5))})
    assert motions.by_id == {}


def test_motions_are_bounded_by_the_horizon_and_coast_beyond_their_points() -> None:
    motions = tracked()
    motions.forget_before(4)
    assert sorted(motions.by_id[1].poses) == [4, 5, 6, 7]
    horizon, _ = drifting(hidden=tuple(range(LENGTH)))
    horizon.frames = horizon.frames[4:]
    horizon.append(make_state(LENGTH, camera=CAMERA, depth_m=DEPTH))
    motions.update(horizon, {})
    step = motions.by_id[1].between(7, 8)
    assert move(step, motions.by_id[1].center[None])[0] - motions.by_id[1].center == pytest.approx(
        [STEP_M, 0, 0], abs=0.005
    )


# -- reunions ----------------------------------------------------------------------------------------------------------


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


def lost_and_back(seed_after: int, angle: float) -> tuple[Relocaliser, ObjectMotion, Horizon]:
    """Seen at (45, 50) in frames 0 and 1, hidden in 2 and 3, back at (110, 66) in 4 and 5; the motion believes it never
    moved.
    """
    where = [(45, 50), (45, 50), None, None, (110, 66), (110, 66)]
    horizon = make_horizon(
        [card(k, p, 3 if k < 2 else seed_after, angle if k > 3 else 0.0) for k, p in enumerate(where)]
    )
    keyframes = Keyframes(8, 2)
    keyframes.add(horizon.get(0))
    motion = ObjectMotion(1, place(45, 50), {k: (np.eye(3), np.zeros(3)) for k in range(6)})
    motion.points = {k: place(45 + 6 * np.cos(k), 50 + 6 * np.sin(k)) for k in range(12)}
    motion.detached_at = 2
    return Relocaliser(options(), keyframes), motion, horizon


def test_a_sliver_and_a_full_view_are_no_two_views_of_the_usual_size() -> None:
    relocaliser, motion, horizon = lost_and_back(seed_after=3, angle=0.0)
    row, column = np.nonzero(horizon.get(4).labels)
    horizon.get(4).labels[row[200:], column[200:]] = 0  # it has only begun to come out
    assert relocaliser.seek(motion, horizon)  # features in the full view find it all the same


def test_a_recognised_object_moves_and_turns_to_where_it_is() -> None:
    relocaliser, motion, horizon = lost_and_back(seed_after=3, angle=0.6)
    relocaliser.seek(motion, horizon)
    assert motion.detached_at is None
    for k in (4, 5):
        assert move(motion.matrix(k), place(45, 50)[None])[0] == pytest.approx(place(110, 66), abs=0.02)
        assert np.arctan2(motion.matrix(k)[1, 0], motion.matrix(k)[0, 0]) == pytest.approx(0.6, abs=0.06)
    assert motion.matrix(1) == pytest.approx(np.eye(4))  # before the loss nothing changes
    assert {(0, 4), (0, 5)} <= relocaliser.links
    relocaliser.forget_before(1)
    assert relocaliser.links == set()


def test_what_cannot_be_recognised_is_put_where_its_mask_is() -> None:
    relocaliser, motion, horizon = lost_and_back(seed_after=8, angle=0.0)
    relocaliser.seek(motion, horizon)
    assert motion.detached_at == 2 and relocaliser.links == set()
    # The middle of a solid body lies behind what shows of it; this one is flat.
    assert move(motion.matrix(4), place(45, 50)[None])[0] == pytest.approx(place(110, 66), abs=0.1)
    assert motion.matrix(4)[:3, :3] == pytest.approx(np.eye(3))
    before = motion.matrix(4)
    relocaliser.seek(motion, horizon)  # once is enough
    assert motion.matrix(4) == pytest.approx(before)


def test_a_doubted_object_far_from_its_mask_is_put_there_too() -> None:
    relocaliser, motion, horizon = lost_and_back(seed_after=8, angle=0.0)
    motion.detached_at, motion.doubted_at = None, 2
    relocaliser.seek(motion, horizon)
    assert move(motion.matrix(4), place(45, 50)[None])[0] == pytest.approx(place(110, 66), abs=0.1)


def test_an_object_that_stays_away_stays_lost() -> None:
    relocaliser, motion, horizon = lost_and_back(seed_after=3, angle=0.0)
    for state in horizon.frames[4:]:
        state.labels[:] = 0
    relocaliser.seek(motion, horizon)
    assert motion.detached_at == 2
    assert motion.matrix(5) == pytest.approx(np.eye(4))
