"""Motions of objects from tracked points, through gaps, and after a reunion."""

from __future__ import annotations

import numpy as np
import pytest
from fit_builders import make_horizon, make_state, move

from motion4d_ros.config import Config, GeometryConfig
from motion4d_ros.fit.motion.object_motion import ObjectMotion
from motion4d_ros.fit.motion.object_motions import ObjectMotions
from motion4d_ros.fit.tracks.keyframes import Keyframes
from motion4d_ros.fit.tracks.point_table import PointTable
from motion4d_ros.fit.window.horizon import Horizon
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
