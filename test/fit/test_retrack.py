"""Measuring points again on a textured plane whose true flow is known."""

from __future__ import annotations

import cv2
import numpy as np
from fit_builders import make_horizon, make_state, move, pose, texture
from numpy.typing import NDArray

from motion4d_ros.fit.keyframes import Keyframes
from motion4d_ros.fit.retrack import View, correspondence, measure
from motion4d_ros.types import Camera, FloatArray

CAMERA = Camera(120.0, 120.0, 63.5, 47.5, 128, 96)
PLANE_M = 2.0
TEXTURE = texture(1200, 1200, seed=7, blur=5.0)
PX_PER_M = 250.0


def plane_depth(T_map_cam: FloatArray, plane_m: float = PLANE_M) -> FloatArray:
    """(H, W) depth of the map plane z = plane_m."""
    rays = CAMERA.unproject(CAMERA.pixel_grid(), np.ones(CAMERA.size)) @ T_map_cam[:3, :3].T
    return (plane_m - T_map_cam[2, 3]) / rays[..., 2]


def plane_image(T_map_cam: FloatArray, shift_m: FloatArray | None = None) -> NDArray[np.uint8]:
    """The textured plane as the camera sees it; the texture moved by `shift_m` (2,) in the map."""
    depth = plane_depth(T_map_cam)
    xyz = move(T_map_cam, CAMERA.unproject(CAMERA.pixel_grid(), depth).reshape(-1, 3)).reshape(*CAMERA.size, 3)
    where = (xyz[..., :2] - (0 if shift_m is None else shift_m)) * PX_PER_M + 600
    return np.asarray(cv2.remap(TEXTURE, where.astype(np.float32), None, cv2.INTER_LINEAR), np.uint8)


def view(T_map_cam: FloatArray, labels: NDArray[np.int32] | None = None, depth_error: float = 1.0) -> View:
    labels = np.zeros(CAMERA.size, np.int32) if labels is None else labels
    return View(plane_image(T_map_cam), labels, plane_depth(T_map_cam) * depth_error, T_map_cam)


def grid(margin: int = 16, step: int = 8) -> FloatArray:
    y, x = np.mgrid[margin : CAMERA.height - margin : step, margin : CAMERA.width - margin : step].reshape(2, -1)
    return np.stack([x, y], 1).astype(float)


def true_place(uv: FloatArray, source: FloatArray, target: FloatArray, motion: FloatArray | None = None) -> FloatArray:
    """Where points of the plane seen at `uv` in `source` are in `target`."""
    depth = plane_depth(source)[uv[:, 1].astype(int), uv[:, 0].astype(int)]
    xyz = move(source, CAMERA.unproject(uv, depth))
    return CAMERA.project(move(np.linalg.inv(target), move(np.eye(4) if motion is None else motion, xyz)))


A, B = pose(), pose((0.02, -0.05, 0.04), (0.12, -0.05, 0.08))
STATIC = {0: np.eye(4)}


def test_places_are_found_to_a_fifth_of_a_pixel_despite_a_wrong_depth() -> None:
    source, target = view(A), view(B, depth_error=1.04)
    uv = grid()
    truth = true_place(uv, A, B)
    guess = truth + np.array([1.5, -1.0])
    where, found, sigma = measure(source, target, STATIC, uv, guess, CAMERA)
    assert found.mean() > 0.8
    error = np.linalg.norm(where - truth, axis=1)[found]
    assert np.median(error) < 0.1
    assert np.quantile(error, 0.9) < 0.2
    assert np.isinf(sigma[~found]).all()
    assert (sigma[found] >= 0.2).all() and np.isfinite(sigma[found]).all()


def test_a_moving_body_is_followed_with_its_own_motion() -> None:
    motion = pose((0, 0, 0), (0.06, 0.04, 0.0))  # source -> target; in the plane
    labels = np.ones(CAMERA.size, np.int32)
    source = view(A, labels)
    target = View(plane_image(A, motion[:2, 3]), labels, plane_depth(A), A)
    uv = grid()
    truth = true_place(uv, A, A, motion)
    where, found, _ = measure(source, target, {1: np.linalg.inv(motion)}, uv, truth, CAMERA)
    assert found.mean() > 0.7
    assert np.quantile(np.linalg.norm(where - truth, axis=1)[found], 0.9) < 0.2


def test_what_something_else_covers_is_not_found() -> None:
    target = view(A)
    target.labels = target.labels.copy()
    target.labels[:, 64:] = 1
    target.gray = target.gray.copy()
    target.gray[:, 64:] = texture(96, 64, seed=9)
    target.depth_m[:, 64:] = 1.0
    uv = grid()
    _, found, _ = measure(view(A), target, STATIC, uv, uv, CAMERA)
    covered = uv[:, 0] > 66
    assert not found[covered].any()
    assert found[uv[:, 0] < 56].mean() > 0.8


def test_what_is_behind_the_surface_of_the_keyframe_is_not_warped() -> None:
    source = view(A)
    source.depth_m = source.depth_m.copy()
    source.depth_m[20:60, 40:90] = 1.2  # in the keyframe something stood in front
    _, ok = correspondence(source, view(A), STATIC, CAMERA)
    assert not ok[25:55, 45:85].any()
    assert ok[70:90, 5:35].all()


def test_an_image_that_shows_something_else_is_refused() -> None:
    target = view(A)
    target.gray = texture(96, 128, seed=11)
    uv = grid()
    _, found, _ = measure(view(A), target, STATIC, uv, uv, CAMERA)
    assert found.mean() < 0.1


def test_no_points_and_no_overlap() -> None:
    where, found, sigma = measure(view(A), view(B), STATIC, np.zeros((0, 2)), np.zeros((0, 2)), CAMERA)
    assert where.shape == (0, 2) and found.shape == sigma.shape == (0,)
    away = pose((0, np.pi, 0))
    target = View(plane_image(A), np.zeros(CAMERA.size, np.int32), plane_depth(A), away)
    assert not measure(view(A), target, STATIC, grid(), grid(), CAMERA)[1].any()


# -- keyframes ---------------------------------------------------------------------------------------------------------


def panning(length: int = 5) -> list[FloatArray]:
    return [pose((0, 0.01 * k, 0), (0.04 * k, 0, 0)) for k in range(length)]


def make_sequence(labels: NDArray[np.int32] | None = None):
    states = []
    for k, T in enumerate(panning()):
        state = make_state(k, labels, plane_depth(T).astype(np.float32), plane_image(T), T, CAMERA)
        states.append(state)
    return make_horizon(states)


def still(start: int, end: int) -> dict[int, FloatArray]:
    return {0: np.eye(4), 1: np.eye(4)}


def test_keyframe_points_are_measured_once_in_every_frame_in_reach() -> None:
    horizon = make_sequence()
    keyframes = Keyframes(spacing=8, reach=3)
    keyframes.add(horizon.get(0))
    assert keyframes.link(horizon, still) == 3  # frame 4 is out of reach
    assert keyframes.link(horizon, still) == 0
    assert keyframes.link(horizon, still, {(0, 4)}) == 1  # unless a reunion names it
    table = keyframes.table(horizon)
    assert table.count > 50
    poses = panning()
    for column in (1, 3):
        rows = np.flatnonzero(table.seen[:, column])
        truth = true_place(table.uv_px[rows, 0].astype(float), poses[0], poses[column])
        assert np.quantile(np.linalg.norm(table.uv_px[rows, column] - truth, axis=1), 0.9) < 0.25


def test_objects_get_points_twice_as_dense_and_ids_are_unique() -> None:
    labels = np.zeros(CAMERA.size, np.int32)
    labels[:, 64:] = 1
    horizon = make_sequence(labels)
    keyframes = Keyframes(spacing=8, reach=4)
    for index in (0, 4):
        keyframes.add(horizon.get(index))
    keyframes.link(horizon, still)
    table = keyframes.table(horizon)
    assert len(np.unique(table.ids)) == table.count
    first = table.query == 0
    on_object = table.uv_px[first, 0, 0] >= 64
    assert on_object.sum() > 2 * (~on_object).sum()
    assert keyframes.best_for(1, horizon, before=4) == [0]
    assert keyframes.best_for(7, horizon, before=5) == []


def test_old_keyframes_and_measurements_go() -> None:
    horizon = make_sequence()
    keyframes = Keyframes(spacing=8, reach=8)
    for index in (0, 3):
        keyframes.add(horizon.get(index))
    keyframes.link(horizon, still)
    horizon.limit = 3
    assert [state.index for state in horizon.shrink()] == [0, 1]
    keyframes.forget_before(horizon.first_index)
    assert keyframes.count == 1
    table = keyframes.table(horizon)
    assert table.seen.shape[1] == 3
    assert (table.query == 3).all() and table.seen.any(0).all()
