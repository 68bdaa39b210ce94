import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from motion4d_ros.objects.boxes import oriented_box, weighted_percentiles

SIZE = np.array([0.6, 0.3, 0.15])


def cuboid(rng: np.random.Generator, count: int = 1500, size: np.ndarray = SIZE) -> np.ndarray:
    """(count, 3) points spread evenly over the surface of a box at the origin."""
    areas = np.prod(size) / size
    points = rng.uniform(-0.5, 0.5, (count, 3))
    face = rng.choice(3, count, p=areas / areas.sum())
    points[np.arange(count), face] = rng.choice([-0.5, 0.5], count)
    return points * size


def turned(points: np.ndarray, rotation: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return points @ rotation.T + shift


@given(st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_finds_a_cuboid_however_it_lies(seed):
    rng = np.random.default_rng(seed)
    rotation, shift = Rotation.random(random_state=seed % 2**31).as_matrix(), rng.normal(0, 3, 3)
    pose, size = oriented_box(turned(cuboid(rng), rotation, shift))
    np.testing.assert_allclose(size, SIZE, atol=0.02)
    np.testing.assert_allclose(pose[:3, 3], shift, atol=0.01)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    agreement = np.abs(pose[:3, :3].T @ rotation)
    np.testing.assert_allclose(agreement, np.eye(3), atol=0.12)


def test_a_cube_has_no_principal_axes_but_a_smallest_box():
    rng = np.random.default_rng(3)
    for seed in range(5):
        rotation = Rotation.random(random_state=seed).as_matrix()
        _, size = oriented_box(turned(cuboid(rng, 3000, np.ones(3)), rotation, np.zeros(3)))
        assert np.prod(size) < 1.15  # boxes along arbitrary axes hold up to 5 times the volume


def test_axes_and_signs_stay_with_the_previous_box():
    rng = np.random.default_rng(0)
    points = cuboid(rng)
    previous = np.eye(4)
    previous[:3, :3] = [[0, 1, 0], [0, 0, -1], [-1, 0, 0]]  # some naming of its own: y is the long axis
    assert np.linalg.det(previous) == pytest.approx(1)
    for step in range(60):  # three full turns
        rotation = Rotation.from_rotvec(np.array([0.1, 0.3, -0.2]) * step).as_matrix()
        pose, size = oriented_box(turned(points, rotation, np.zeros(3)), previous=previous)
        np.testing.assert_allclose(size, [SIZE[2], SIZE[0], SIZE[1]], atol=0.02)
        if step:
            jump = Rotation.from_matrix(pose[:3, :3] @ previous[:3, :3].T).magnitude()
            assert jump == pytest.approx(np.linalg.norm([0.1, 0.3, 0.2]), abs=0.1)
        previous = pose


def test_stray_points_do_not_stretch_it():
    rng = np.random.default_rng(1)
    points = np.concatenate([cuboid(rng, 2000), rng.normal(0, 2, (10, 3)), [[np.nan] * 3]])
    _, size = oriented_box(points)
    np.testing.assert_allclose(size, SIZE, atol=0.05)


def test_weights_count():
    rng = np.random.default_rng(2)
    far = turned(cuboid(rng, 500), np.eye(3), np.array([5.0, 0, 0]))
    points, weights = np.concatenate([cuboid(rng, 500), far]), np.repeat([1.0, 1e-6], 500)
    pose, size = oriented_box(points, weights)
    np.testing.assert_allclose(size, SIZE, atol=0.03)
    np.testing.assert_allclose(pose[:3, 3], 0, atol=0.02)


@pytest.mark.parametrize(
    "points", [np.zeros((1, 3)), np.ones((5, 3)), np.linspace([0, 0, 0], [1, 2, 3], 30), np.eye(3), np.zeros((40, 3))]
)
def test_degenerate_sets_give_a_proper_box(points):
    pose, size = oriented_box(points)
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    assert np.isfinite(pose).all() and (size >= 0).all()
    np.testing.assert_allclose(pose[:3, 3], (points.min(0) + points.max(0)) / 2, atol=0.35)


def test_nothing_to_box():
    with pytest.raises(ValueError, match="finite point"):
        oriented_box(np.full((3, 3), np.nan))
    with pytest.raises(ValueError, match="finite point"):
        oriented_box(np.zeros((0, 3)))


def test_weighted_percentiles_repeat_heavier_values():
    values = np.array([3.0, 1.0, 2.0])
    spread = np.repeat(values, [2, 1, 5])
    np.testing.assert_allclose(
        weighted_percentiles(values, np.array([2.0, 1.0, 5.0]), (0.5,)), np.median(spread), atol=0.2
    )
    np.testing.assert_allclose(weighted_percentiles(np.arange(101.0), np.ones(101), (0.25, 0.75)), [25, 75], atol=0.5)
