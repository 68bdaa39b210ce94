"""Where masks have the middle of an object, and what that says of one that comes back by other points."""

from __future__ import annotations

import numpy as np
import pytest
from fit_builders import make_horizon, make_state, move

from motion4d_ros.config import Config
from motion4d_ros.fit.motion.object_motions import ObjectMotions
from motion4d_ros.fit.relocalisation.mask_middle import DEEP, middle_of
from motion4d_ros.fit.tracks.keyframes import Keyframes
from motion4d_ros.fit.tracks.point_table import PointTable
from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.types import Camera

CAMERA = Camera(150.0, 150.0, 79.5, 59.5, 160, 120)
DEPTH, RADIUS_PX = 1.5, 20


def disc(index: int, center: float | None, shown: float = 1.0) -> FrameState:
    """A disc at column `center`, of which the share `shown` of its width is left; nothing where that is None."""
    labels = np.zeros(CAMERA.size, np.int32)
    if center is not None:
        v, u = np.mgrid[: CAMERA.height, : CAMERA.width]
        labels[np.hypot(u - center, v - 60) < RADIUS_PX] = 1
        labels[:, : round(center - RADIUS_PX + 2 * RADIUS_PX * (1 - shown))] = 0
    return make_state(index, labels, DEPTH, camera=CAMERA)


def test_the_middle_lies_behind_the_mask() -> None:
    horizon = make_horizon([disc(0, 50.0), disc(1, None), disc(2, 70.0)])
    middle = middle_of(1, horizon)
    assert middle is not None
    assert middle.seen.tolist() == [True, False, True]
    assert middle.uv_px[[0, 2]] == pytest.approx(np.array([[50, 60], [70, 60]]), abs=0.5)
    radius_m = RADIUS_PX * DEPTH / CAMERA.fx
    assert middle.depth_m[0] == pytest.approx(DEPTH + DEEP * radius_m, rel=0.01)
    xyz = middle.lifted(horizon)
    assert np.isnan(xyz[1]).all() and CAMERA.project(xyz[2][None])[0] == pytest.approx([70, 60], abs=0.5)


def test_what_shows_in_part_says_less() -> None:
    middle = middle_of(1, make_horizon([disc(0, 50.0), disc(1, 50.0, shown=0.3), disc(2, 50.0)]))
    assert middle is not None
    assert middle.sigma_px[1] > 3 * middle.sigma_px[0]
    assert middle.sigma_px[1] > np.linalg.norm(middle.uv_px[1] - middle.uv_px[0])


def test_no_mask_has_no_middle() -> None:
    assert middle_of(1, make_horizon([disc(0, None), disc(1, None)])) is None


def test_an_object_that_comes_back_by_other_points_is_where_its_masks_are() -> None:
    """It goes to the right, is hidden, turns back there and comes out to the left: nothing but masks can tell."""
    columns = [40.0, 44.0, 48.0, 52.0, 56.0, None, None, None, None, None, 50.0, 46.0, 42.0, 38.0, 34.0]
    horizon = make_horizon([disc(k, column) for k, column in enumerate(columns)])
    rng = np.random.default_rng(0)
    count, length = 24, len(columns)
    offset = rng.uniform(-10, 10, (2 * count, 2))
    shown = np.array([column is not None for column in columns])
    way = np.array([column if column is not None else 0.0 for column in columns])
    uv = np.stack([way + offset[:, :1], np.broadcast_to(60 + offset[:, 1:], (2 * count, length))], -1)
    seen = np.zeros((2 * count, length), bool)
    seen[:count, :5], seen[count:, 10:] = True, True  # no point links both
    assert (seen.any(0) == shown).all()
    table = PointTable(
        np.arange(2 * count),
        np.repeat([0, 10], count),
        uv.astype(np.float32),
        seen,
        np.full(seen.shape, 0.2, np.float32),
        np.ones(2 * count, np.int64),
        np.ones(2 * count, np.float32),
    )
    config = Config()
    config.update({"geometry": {"max_parts": 1}})
    motions = ObjectMotions(config.geometry, Keyframes(8, 8), window=4, seed=0)
    for _ in range(2):
        motions.update(horizon, {1: table})
    motion = motions.by_id[1]
    start = CAMERA.unproject(np.array([40.0, 60.0]), np.array(DEPTH))
    for k in (0, 4, 10, 14):
        there = move(motion.between(0, k), start[None])[0]
        true = CAMERA.unproject(np.array([columns[k], 60.0]), np.array(DEPTH))
        assert there == pytest.approx(true, abs=0.03), k
