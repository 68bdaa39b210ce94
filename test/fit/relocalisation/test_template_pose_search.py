"""An object is found again by how it looks, after its points are lost."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from fit_builders import make_state
from scipy.spatial.transform import Rotation

from motion4d_ros.fit.relocalisation.template_pose_search import (
    LEAST_SCORE,
    make_template,
    needed_score,
    placed,
    polish,
    score_of,
    search_template_pose,
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


@pytest.mark.parametrize("turn", [(0.0, 35.0, 0.0), (20.0, -25.0, 15.0), (0.0, 0.0, 60.0)])
def test_a_ball_that_turned_and_moved_unseen_is_found(turn):
    template = make_template([(ball(np.eye(4)), np.eye(4))], 1)
    truth = motion(turn, (0.3, -0.1, 0.2))
    found = search_template_pose(template, ball(truth), 1, np.eye(4))
    assert found is not None
    pose, score, predicted = found
    assert distance(pose, truth) < 0.06 < distance(np.eye(4), truth)
    assert score > 0.8 > predicted


def test_another_ball_fits_worse_than_the_ball_itself():
    template = make_template([(ball(np.eye(4)), np.eye(4))], 1)
    truth = motion((0, 20, 0), (0.1, 0, 0))
    itself, other = (search_template_pose(template, ball(truth, seed=seed), 1, np.eye(4)) for seed in (3, 9))
    assert itself is not None
    assert other is None or other[1] < itself[1] - 0.05  # by chance: why two frames must agree


def test_a_side_never_seen_is_not_recognised():
    template = make_template([(ball(np.eye(4)), np.eye(4))], 1)
    unseen = motion((0, 180, 0), (0, 0, 0))
    assert polish(template, ball(unseen), 1, [unseen])[1] == -1.0


def test_polish_takes_the_better_candidate_and_improves_it():
    template = make_template([(ball(np.eye(4)), np.eye(4))], 1)
    truth = motion((0, 15, 0), (0.05, 0, 0))
    near = motion((5, 5, 3), (0.07, 0.02, 0.0))
    pose, score = polish(template, ball(truth), 1, [np.eye(4), near])
    assert score > LEAST_SCORE
    assert distance(pose, truth) < 0.7 * distance(near, truth)


def test_nothing_to_see_is_nothing_found():
    template = make_template([(ball(np.eye(4)), np.eye(4))], 1)
    empty = ball(np.eye(4))
    empty.labels = np.zeros_like(empty.labels)
    assert search_template_pose(template, empty, 1, np.eye(4)) is None
    assert make_template([(empty, np.eye(4))], 1) is None


def test_an_object_farther_than_what_is_seen_there_looks_less_like_it():
    template = make_template([(ball(np.eye(4)), np.eye(4))], 1)
    here, deeper = (score_of(template, ball(np.eye(4)), 1, motion((0, 0, 0), (0, 0, away))) for away in (0.0, 0.15))
    unsure = ball(np.eye(4))
    unsure.depth_sigma[:] = 0.2
    assert deeper < 0.5 * here
    assert score_of(template, unsure, 1, motion((0, 0, 0), (0, 0, 0.15))) > 0.8 * here


def test_more_likeness_is_needed_the_farther_a_pose_is_turned_from_what_was_expected():
    straight, turned = np.eye(4), motion((0, 45, 0), (0, 0, 0))
    assert needed_score(straight, [straight]) == LEAST_SCORE
    assert needed_score(turned, [straight]) > needed_score(turned, [straight, motion((0, 30, 0), (0, 0, 0))])


def test_an_object_is_put_behind_its_mask_without_being_turned():
    template = make_template([(ball(np.eye(4)), np.eye(4))], 1)
    truth, elsewhere = motion((0, 0, 0), (0.3, -0.1, 0.2)), motion((0, 0, 0), (-0.5, 0.4, 0.0))
    found = placed(template, ball(truth), 1, elsewhere)
    assert found is not None and found[:3, :3] == pytest.approx(np.eye(3))
    assert distance(found, truth) < 0.1
