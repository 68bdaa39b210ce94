"""What is seen without a known distance goes on in bearing, never along its ray, and never behind the camera."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from motion4d_ros.geometry.sight import FARTHEST, Sight
from motion4d_ros.types import FloatArray

SEEDS = st.integers(0, 2**32 - 1)


def random_view(rng: np.random.Generator) -> FloatArray:
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = Rotation.random(random_state=rng.integers(2**31)).as_matrix(), rng.normal(0, 3, 3)
    return T


def in_front(T_map_cam: FloatArray, rng: np.random.Generator, count: int = 8) -> FloatArray:
    """(N, 3) map points within the view of a camera, near and far."""
    z = np.exp(rng.uniform(-3, 4, count))
    local = np.stack([z * rng.uniform(-0.8, 0.8, count), z * rng.uniform(-0.6, 0.6, count), z], 1)
    return local @ T_map_cam[:3, :3].T + T_map_cam[:3, 3]


def test_what_moves_across_goes_on_at_its_distance() -> None:
    sight = Sight(np.eye(4))
    here, velocity = (
        np.array([[0.0, 0.0, 2.0]]),
        np.array([[0.5, 0.0, -3.0]]),
    )  # -3 is a guess
    placed, moved = sight.onward(here, velocity, 2.0)
    bearing = np.array([0.5, 0.0, 1.0])  # 0.25 on the image plane in every second
    assert placed[0] == pytest.approx(2.0 * bearing / np.linalg.norm(bearing))
    before, after = (sight.onward(here, velocity, t)[0] for t in (1.999, 2.001))
    assert moved == pytest.approx((after - before) / 0.002, rel=1e-4, abs=1e-6)


def test_velocity_along_the_ray_is_not_told() -> None:
    sight = Sight(np.eye(4))
    xyz = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 3.0]])
    told = sight.told(xyz, np.array([[1.0, 0.2, 0.0], [0.1, 0.0, -7.0]]))
    assert told == pytest.approx(np.array([[0.5, 0.2, -0.5], [0.1, 0.0, 0.0]]))
    measured = np.array([[0.1, 0.0, -7.0]])
    assert Sight(np.eye(4), ranged=True).told(xyz[1:], measured) == pytest.approx(measured)


@given(SEEDS, st.floats(0.0, 1e4), st.booleans())
def test_nothing_leaves_its_side_or_its_distance(seed: int, seconds: float, ranged: bool) -> None:
    rng = np.random.default_rng(seed)
    sight = Sight(random_view(rng), 0.8, ranged)
    xyz = in_front(sight.T_map_cam, rng)
    velocity = rng.normal(0, 10 ** rng.uniform(-2, 2), xyz.shape)
    placed, moved = sight.onward(xyz, velocity, seconds)
    assert (sight.depth(placed) > 0).all()
    before, after = (np.linalg.norm(each - sight.centre, axis=1) for each in (xyz, placed))
    assert (after >= before / FARTHEST * (1 - 1e-9)).all() and (after <= before * FARTHEST * (1 + 1e-9)).all()
    assert np.isfinite(moved).all()
    if not ranged:
        assert after == pytest.approx(before, rel=1e-9)
        along = (moved * sight.direction(placed)).sum(1)
        assert np.abs(along) == pytest.approx(np.zeros(len(along)), abs=1e-8 * np.abs(velocity).max())


@given(SEEDS)
def test_many_small_steps_lead_where_one_large_one_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sight = Sight(random_view(rng))
    xyz, velocity = in_front(sight.T_map_cam, rng), rng.normal(0, 1, (8, 3))
    at_once, _ = sight.onward(xyz, velocity, 1.0)
    for _ in range(10):
        xyz, velocity = sight.onward(xyz, velocity, 0.1)
    assert xyz == pytest.approx(at_once, rel=1e-6, abs=1e-6)


@given(SEEDS)
def test_a_camera_that_moves_on_has_it_before_it_still(seed: int) -> None:
    """It runs up to a thing whose distance nobody knows, and would pass it: the thing keeps half its distance."""
    rng = np.random.default_rng(seed)
    sight = Sight(random_view(rng))
    xyz = in_front(sight.T_map_cam, rng)
    now = sight.T_map_cam.copy()
    way = rng.uniform(-100, 100)
    now[:3, 3] += way * sight.T_map_cam[:3, 2]
    placed, _ = sight.onward(xyz, np.zeros_like(xyz), 1.0, now)
    along = ((placed - now[:3, 3]) * sight.direction(xyz)).sum(1)
    distance = np.linalg.norm(xyz - sight.centre, axis=1)
    assert (along >= distance / FARTHEST * (1 - 1e-6)).all()
    if way < 0:
        assert placed == pytest.approx(xyz, rel=1e-6), "what is farther away now has not moved"
    same, _ = sight.onward(xyz, np.zeros_like(xyz), 1.0, sight.T_map_cam)
    assert same == pytest.approx(xyz, rel=1e-9, abs=1e-9)


def test_what_is_not_in_front_stays() -> None:
    behind = np.array([[0.1, 0.0, -2.0]])
    placed, moved = Sight(np.eye(4)).onward(behind, np.ones((1, 3)), 3.0, np.eye(4))
    assert placed == pytest.approx(behind) and not moved.any()


def test_measured_motion_along_the_ray_goes_on_and_levels_off() -> None:
    sight = Sight(np.eye(4), ranged=True)
    here, velocity = np.array([[0.0, 0.0, 2.0]]), np.array([[0.0, 0.0, -1.0]])
    soon, speed = sight.onward(here, velocity, 0.1)
    assert soon[0, 2] == pytest.approx(1.9, abs=0.01) and speed[0, 2] == pytest.approx(-1.0, abs=0.1)
    late, speed = sight.onward(here, velocity, 60.0)
    assert late[0, 2] == pytest.approx(2.0 / FARTHEST) and speed[0, 2] == pytest.approx(0.0, abs=1e-9)


def test_what_moves_out_of_sight_for_long_stays_in_front() -> None:
    sight = Sight(np.eye(4), 0.8, ranged=True)
    place, velocity = np.array([[0.5, 0.0, 1.0]]), np.array([[3.0, 0.4, -4.5]])
    for _ in range(40):
        place, velocity = sight.onward(place, velocity, 0.1)
        assert place[0, 2] > 0 and np.isfinite(velocity).all()
