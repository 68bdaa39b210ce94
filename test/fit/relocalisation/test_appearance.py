"""An object is found again by how it looks, after its points are lost."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from fit_builders import make_state
from scipy.spatial.transform import Rotation

from motion4d_ros.fit.relocalisation.appearance import (
    Appearance,
    Look,
    appearance_of,
    centred,
    evidence,
    expectation,
    improved,
    look,
    searched,
)
from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.types import Camera, FloatArray

CAMERA = Camera(150.0, 150.0, 79.5, 59.5, 160, 120)
CENTER, RADIUS = np.array([0.1, 0.05, 2.0]), 0.45


def motion(turn_deg: tuple[float, float, float], shift: tuple[float, float, float]) -> FloatArray:
    """(4, 4) turn about the ball's middle, then a shift."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(np.radians(turn_deg)).as_matrix()
    T[:3, 3] = CENTER + np.array(shift) - T[:3, :3] @ CENTER
    return T


def ball(T: FloatArray, index: int = 0, seed: int = 3) -> FrameState:
    """A frame that shows a ball with blotches of grey, moved by `T`, before a dark wall at 4 m; exactly ray-cast."""
    uv = CAMERA.pixel_grid()
    ray = CAMERA.unproject(uv, np.ones(CAMERA.size))
    middle = T[:3, :3] @ CENTER + T[:3, 3]
    a, b = (ray**2).sum(-1), ray @ middle
    inside = b**2 - a * (middle @ middle - RADIUS**2)
    hit = inside > 0
    depth = np.where(hit, (b - np.sqrt(np.maximum(inside, 0))) / a, 4.0)
    surface = (ray * depth[..., None] - middle) @ T[:3, :3] / RADIUS  # canonical direction from the middle
    blotches = np.random.default_rng(seed).normal(size=(60, 3))
    blotches /= np.linalg.norm(blotches, axis=1, keepdims=True)
    shades = np.random.default_rng(seed + 1).uniform(40, 230, 60)
    gray = np.where(hit, shades[(surface @ blotches.T).argmax(-1)], 20)
    image = np.asarray(cv2.GaussianBlur(gray.astype(np.float32), (0, 0), 0.7), np.uint8)
    state = make_state(index, hit.astype(np.int32), image=image, camera=CAMERA)
    state.depth_m = depth.astype(np.float32)
    return state


def distance(a: FloatArray, b: FloatArray) -> float:
    """Mean distance of the ball's points under two motions, m."""
    points = CENTER + RADIUS * np.random.default_rng(0).normal(size=(200, 3)) / 1.7
    D = a - b
    return float(np.linalg.norm(points @ D[:3, :3].T + D[:3, 3], axis=1).mean())


def shown(*views: FloatArray) -> Appearance:
    """How the ball looks in frames with these motions."""
    result = appearance_of([(ball(T), T) for T in views], 1)
    assert result is not None
    return result


def seen(appearance: Appearance, state: FrameState, sigma: float = 0.01) -> Look:
    """A frame in which the ball is looked for."""
    result = look(appearance, state, 1, sigma)
    assert result is not None
    return result


@pytest.mark.parametrize("turn", [(0.0, 35.0, 0.0), (20.0, -25.0, 15.0), (0.0, 0.0, 60.0)])
def test_a_ball_that_turned_and_moved_unseen_is_found(turn):
    appearance, truth = shown(np.eye(4)), motion(turn, (0.3, -0.1, 0.2))
    where = seen(appearance, ball(truth))
    found = searched(appearance, where, [np.eye(4)])
    assert distance(found, truth) < 0.06 < distance(np.eye(4), truth)
    assert evidence(appearance, where, found) > 7 > evidence(appearance, where, np.eye(4))


def test_little_speaks_for_another_ball():
    appearance, truth = shown(np.eye(4)), motion((0, 20, 0), (0.1, 0, 0))
    itself, other = (seen(appearance, ball(truth, seed=seed)) for seed in (3, 9))
    mine, another = (evidence(appearance, where, searched(appearance, where, [np.eye(4)])) for where in (itself, other))
    assert another < 0.5 * mine  # not nothing: by chance, why several frames must agree


def test_a_side_never_seen_says_nothing():
    appearance, unseen = shown(np.eye(4)), motion((0, 180, 0), (0, 0, 0))
    assert evidence(appearance, seen(appearance, ball(unseen)), unseen) == 0.0


def test_improving_brings_a_pose_nearer():
    appearance, truth = shown(np.eye(4)), motion((0, 15, 0), (0.05, 0, 0))
    near, where = motion((5, 5, 3), (0.07, 0.02, 0.0)), seen(shown(np.eye(4)), ball(motion((0, 15, 0), (0.05, 0, 0))))
    pose, value = improved(appearance, where, near)
    assert value > evidence(appearance, where, near)
    assert distance(pose, truth) < 0.7 * distance(near, truth)


def test_nothing_to_see_is_nothing_found():
    appearance, empty = shown(np.eye(4)), ball(np.eye(4))
    empty.labels = np.zeros_like(empty.labels)
    assert look(appearance, empty, 1, 0.01) is None
    assert appearance_of([(empty, np.eye(4))], 1) is None


def test_what_something_nearer_hides_says_nothing_and_what_a_mask_denies_speaks_against_it():
    appearance, free, denied, hidden = shown(np.eye(4)), ball(np.eye(4)), ball(np.eye(4)), ball(np.eye(4))
    half = slice(0, CAMERA.width // 2)
    for state in (denied, hidden):
        state.labels = state.labels.copy()
        state.labels[:, half] = 0
    hidden.depth_m[:, half] = 1.0
    values = [evidence(appearance, seen(appearance, state), np.eye(4)) for state in (free, hidden, denied)]
    assert values[0] > values[1] > values[2]


def test_depth_that_contradicts_speaks_against_a_pose_as_far_as_it_is_sure():
    appearance, state, deeper = shown(np.eye(4)), ball(np.eye(4)), motion((0, 0, 0), (0, 0, 0.15))
    sure, unsure = (evidence(appearance, seen(appearance, state, sigma), deeper) for sigma in (0.01, 0.3))
    assert sure < 0 < unsure


def test_less_is_expected_the_farther_a_pose_is_turned_from_all_predictions():
    straight, turned = np.eye(4), motion((0, 45, 0), (0, 0, 0))
    assert expectation(straight, [straight]) == 0.0
    assert expectation(turned, [straight]) < expectation(turned, [straight, motion((0, 30, 0), (0, 0, 0))]) < 0


def test_an_object_is_put_behind_its_mask_without_being_turned():
    appearance, truth = shown(np.eye(4)), motion((0, 0, 0), (0.3, -0.1, 0.2))
    found = centred(appearance, seen(appearance, ball(truth)), motion((0, 0, 0), (-0.5, 0.4, 0.0)))
    assert found[:3, :3] == pytest.approx(np.eye(3))
    assert distance(found, truth) < 0.1
