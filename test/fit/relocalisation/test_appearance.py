"""How an object looks says where it is."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from fit_builders import make_state
from scipy.spatial.transform import Rotation

from motion4d_ros.fit.relocalisation.appearance import (
    BEHIND,
    FACING,
    NOISE,
    OFF_MASK,
    POINTS,
    Appearance,
    Look,
    appearance_of,
    centred,
    evidence,
    evidence_of,
    improved,
    look,
)
from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.geometry.image_warping import sample
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


def test_little_speaks_for_another_ball():
    appearance, truth = shown(np.eye(4)), motion((0, 20, 0), (0.1, 0, 0))
    itself, other = (seen(appearance, ball(truth, seed=seed)) for seed in (3, 9))
    mine, another = (improved(appearance, where, truth)[1] for where in (itself, other))
    assert another < 0.5 * mine  # not nothing: by chance


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


def test_an_object_is_put_behind_its_mask_without_being_turned():
    appearance, truth = shown(np.eye(4)), motion((0, 0, 0), (0.3, -0.1, 0.2))
    found = centred(appearance, seen(appearance, ball(truth)), motion((0, 0, 0), (-0.5, 0.4, 0.0)))
    assert found[:3, :3] == pytest.approx(np.eye(3))
    assert distance(found, truth) < 0.1


def reference_evidence(shown: Appearance, where: Look, T: FloatArray, shift_px: FloatArray) -> float:
    """What speaks for one pose (4, 4), canonical -> camera, point by point."""
    camera, (height, width) = where.state.frame.camera, where.gray.shape
    there, expected, visible, off = [], [], 0, []
    for xyz, side, gray in zip(shown.xyz, shown.side, shown.gray, strict=True):
        p = T[:3, :3] @ xyz + T[:3, 3]
        if -(T[:3, :3] @ side) @ p <= FACING * np.linalg.norm(p) or p[2] <= 0:
            continue
        u, v = camera.project(p) + shift_px
        column, row = round(u), round(v)
        if not (0 <= column < width and 0 <= row < height) or where.cover[row, column] <= BEHIND * p[2]:
            continue
        visible += 1
        if where.mask[row, column]:
            there.append(float(sample(where.gray, np.array([[u, v]]))[0]))
            expected.append(gray)
            if np.isfinite(where.surface[row, column]):
                off.append(np.log(p[2] / where.surface[row, column]))
    rho = float(np.corrcoef(there, expected)[0, 1]) if np.ptp(there or [0.0]) > 0 else 0.0
    values = shown.detail * where.pixels / POINTS
    alike = -0.5 * min(len(there), POINTS) * values * np.log(1 - (1 - NOISE) * rho * abs(rho))
    beside = min(visible - len(there), POINTS) * values * OFF_MASK
    return alike + beside - 0.5 * (np.mean(off or [0.0]) / where.sigma) ** 2


@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (10.0, -20.0, 5.0), (0.0, 170.0, 0.0)])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (4.0, -3.0), (300.0, 0.0)])
def test_evidence_is_that_of_the_reference(turn: tuple[float, float, float], shift: tuple[float, float]) -> None:
    shown = appearance_of([(ball(np.eye(4)), np.eye(4))], 1)
    state = ball(motion((5.0, 0.0, 0.0), (0.05, 0.0, 0.02)), index=4)
    state.depth_m[60:64, 70:80] = np.nan
    state.depth_m[:50] = np.where(state.labels[:50] == 0, 1.0, state.depth_m[:50])  # something in front
    assert shown is not None
    where = look(shown, state, 1, 0.02)
    assert where is not None
    T = state.T_cam_map @ motion(turn, (0.05, 0.0, 0.02))
    other = state.T_cam_map @ motion((0.0, 0.0, 30.0), (0.0, 0.0, 0.0))
    ours = evidence_of(shown, where, np.stack([other, T]), np.array([(1.0, 1.0), shift]))
    assert ours.shape == (2, 2)
    assert ours[1, 1] == pytest.approx(reference_evidence(shown, where, T, np.array(shift)), abs=1e-3, rel=1e-3)


def test_evidence_wants_images_of_one_size() -> None:
    shown = appearance_of([(ball(np.eye(4)), np.eye(4))], 1)
    assert shown is not None
    where = look(shown, ball(np.eye(4)), 1, 0.02)
    assert where is not None
    with pytest.raises(ValueError, match="images of"):
        evidence_of(shown, replace(where, mask=where.mask[1:]), np.eye(4)[None], np.zeros((1, 2)))
