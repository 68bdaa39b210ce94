"""Depth of every frame aligned to static points."""

from __future__ import annotations

import numpy as np
import pytest
from fit_builders import make_horizon, make_state, pose

from motion4d_ros.config import Config
from motion4d_ros.fit.initialisation.affine_depth import anchor_disparity, robust_line
from motion4d_ros.fit.initialisation.depth_alignment import DepthAlignment
from motion4d_ros.fit.tracks.point_table import PointTable
from motion4d_ros.fit.window.horizon import Horizon
from motion4d_ros.types import Camera, FloatArray

CAMERA = Camera(120.0, 120.0, 63.5, 47.5, 128, 96)
LENGTH = 8
STATIONS = [pose((0, -0.03 * k, 0), (0.08 * k, 0, 0)) for k in range(LENGTH)]


def world(scale: FloatArray, step: float = 1.0) -> tuple[Horizon, PointTable, FloatArray]:
    """60 static points, tracked exactly; the depth of frame k is wrong by the factor `scale[k]`.

    `step`: how far the camera goes, by the way of `STATIONS`.
    """
    rng = np.random.default_rng(0)
    xyz = rng.uniform([-0.6, -0.5, 1.8], [1.0, 0.5, 3.5], (60, 3))
    uv = np.zeros((60, LENGTH, 2), np.float32)
    states = []
    for k, T in enumerate(STATIONS):
        T = np.block([[T[:3, :3], step * T[:3, 3:]], [T[3:]]])
        inverse = np.linalg.inv(T)
        xyz_cam = xyz @ inverse[:3, :3].T + inverse[:3, 3]
        uv[:, k] = CAMERA.project(xyz_cam)
        depth = np.full(CAMERA.size, np.nan, np.float32)
        for (u, v), z in zip(np.rint(uv[:, k]).astype(int), xyz_cam[:, 2], strict=True):
            if 1 <= u < CAMERA.width - 1 and 1 <= v < CAMERA.height - 1:
                depth[v - 1 : v + 2, u - 1 : u + 2] = z * scale[k]
        states.append(make_state(k, depth_m=depth, T_map_cam=T, camera=CAMERA))
    inside = (uv > 2).all(-1) & (uv[..., 0] < CAMERA.width - 3) & (uv[..., 1] < CAMERA.height - 3)
    table = PointTable(
        np.arange(60), np.zeros(60, np.int64), uv, inside, np.full((60, LENGTH), 0.2, np.float32),
        np.zeros(60, np.int64), np.ones(60, np.float32),
    )  # fmt: skip
    return make_horizon(states), table.select(inside.sum(1) >= 3), xyz


def test_breathing_depth_is_brought_to_one_scale() -> None:
    wrong = np.exp(0.05 * np.sin(np.arange(LENGTH)))
    horizon, table, xyz = world(wrong)
    alignment = DepthAlignment(Config().geometry)
    alignment.align(horizon, table)
    found = np.array([alignment.scale[k] for k in range(LENGTH)])
    assert np.std(np.log(wrong)) > 0.03
    assert np.std(np.log(wrong) - found) < 0.01  # what is common to all frames is held by the prior
    assert not alignment.contradicted
    for point_id, place in alignment.static_points.items():
        assert place == pytest.approx(xyz[point_id], abs=0.1)


def test_metric_depth_is_believed_against_parallax_that_cannot_be() -> None:
    horizon, table, _ = world(np.full(LENGTH, 2.5))
    alignment = DepthAlignment(Config().geometry)
    alignment.align(horizon, table)
    assert alignment.contradicted
    assert np.abs(list(alignment.scale.values())).max() < 0.15
    known = np.isfinite(horizon.frames[0].raw_inverse_depth)
    ratio = horizon.frames[0].depth_m[known] * horizon.frames[0].raw_inverse_depth[known]
    assert ratio == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(("step", "wrong", "told"), [(0.01, 1.0, False), (0.01, 1.1, False), (1.0, 1.1, True)])
def test_little_parallax_proves_nothing_against_depth(step: float, wrong: float, told: bool) -> None:
    """Flow that errs by a twentieth of a pixel, everywhere alike: with 0.3 px of parallax that is any scale."""
    horizon, table, _ = world(np.full(LENGTH, wrong), step)
    table.uv_px[..., 0] += 0.05 * np.linspace(-1, 1, LENGTH, dtype=np.float32)
    table.sigma_px[:] = 0.05
    alignment = DepthAlignment(Config().geometry)
    alignment.align(horizon, table)
    assert abs(alignment.conflict) > alignment.options.scale_conflict
    assert alignment.contradicted is told
    assert np.median(list(alignment.scale.values())) == pytest.approx(0.0, abs=0.01)  # depth is believed


def test_without_points_depth_stays_as_it_is_and_new_frames_follow_old_ones() -> None:
    horizon, table, _ = world(np.ones(LENGTH))
    alignment = DepthAlignment(Config().geometry)
    alignment.align(horizon, table.select(np.arange(3)))
    known = np.isfinite(horizon.frames[0].raw_inverse_depth)
    assert horizon.frames[0].depth_m[known] * horizon.frames[0].raw_inverse_depth[known] == pytest.approx(1.0)
    assert alignment._start({3: 0.2, 4: 0.4}, [3, 4, 5]).tolist() == pytest.approx([0.2, 0.4, 0.3])
    assert alignment._start({}, [3]).tolist() == [0.0]


def test_what_is_old_is_forgotten() -> None:
    alignment = DepthAlignment(Config().geometry)
    alignment.scale, alignment.offset = {1: 0.0, 5: 0.1}, {1: 0.0, 5: 0.1}
    alignment.forget_before(3)
    assert list(alignment.scale) == list(alignment.offset) == [5]


def test_disparity_without_scale_and_offset_is_brought_to_what_parallax_says() -> None:
    horizon, table, _ = world(np.ones(LENGTH))
    true = [state.raw_inverse_depth.copy() for state in horizon.frames]
    for k, state in enumerate(horizon.frames):
        state.raw_inverse_depth = ((40.0 + k) * state.raw_inverse_depth + 7.0).astype(np.float32)
        state.loose = True
    DepthAlignment(Config().geometry).align(horizon, table)
    for state, expected in zip(horizon.frames, true, strict=True):
        assert not state.loose
        known = np.isfinite(expected)
        assert np.median(np.abs(state.depth_m[known] * expected[known] - 1)) < 0.02


def test_disparity_without_parallax_is_put_at_a_plain_distance_and_kept_there() -> None:
    horizon, table, _ = world(np.ones(LENGTH))
    for state in horizon.frames:
        state.T_map_cam = np.eye(4)
        state.raw_inverse_depth = np.where(np.isfinite(state.raw_inverse_depth), 300.0, np.nan).astype(np.float32)
        state.loose = True
    none = table.select(np.zeros(0, int))
    line = anchor_disparity(horizon, none, None)
    for state in horizon.frames:
        assert np.nanmedian(state.raw_inverse_depth) == pytest.approx(0.5)
    assert line == (pytest.approx(1 / 600), 0.0)


def test_a_line_is_not_bent_by_outliers() -> None:
    x = np.linspace(1, 5, 60)
    y = 0.3 * x + 0.1
    y[::6] = 4.0
    assert robust_line(x, y) == pytest.approx((0.3, 0.1), abs=1e-3)
    assert robust_line(np.full(20, 2.0), np.full(20, 1.0)) == (0.5, 0.0)


def test_noise_is_not_taken_for_an_offset() -> None:
    """What a network gets wrong flattens a fitted line: near things would be put too far, far ones too near."""
    rng = np.random.default_rng(4)
    inverse_depth = rng.uniform(0.2, 1.0, 300)
    disparity = 50.0 * inverse_depth * np.exp(0.25 * rng.standard_normal(300))
    slope, offset = robust_line(disparity, inverse_depth)
    assert offset == 0.0 and slope == pytest.approx(1 / 50, rel=0.05)
