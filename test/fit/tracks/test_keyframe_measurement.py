"""Measuring points again on a textured plane whose true flow is known."""

from __future__ import annotations

import cv2
import numpy as np
from fit_builders import make_horizon, make_state, move, pose, texture
from numpy.typing import NDArray

from motion4d_ros.fit.motion.object_motion import Bending, ObjectMotion
from motion4d_ros.fit.tracks.keyframe_measurement import View, measure
from motion4d_ros.fit.tracks.keyframes import Keyframes
from motion4d_ros.fit.window.horizon import Horizon
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
    seen = measure(source, target, STATIC, uv, CAMERA)
    where, found, sigma = seen.uv_px, seen.found, seen.sigma_px
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
    seen = measure(source, target, {1: np.linalg.inv(motion)}, uv, CAMERA)
    assert seen.found.mean() > 0.7
    assert np.quantile(np.linalg.norm(seen.uv_px - truth, axis=1)[seen.found], 0.9) < 0.2


def test_of_a_turn_that_the_warp_has_missed_nothing_is_left() -> None:
    middle = np.array([0.0, 0.0, PLANE_M])
    turn = pose((0, 0, 0.12), (0.03, 0.02, 0.0))
    turn[:3, 3] += middle - turn[:3, :3] @ middle
    still = plane_image(A)
    uv = CAMERA.pixel_grid()
    on_disc = np.hypot(uv[..., 0] - 63.5, uv[..., 1] - 47.5) < 26
    place = move(np.linalg.inv(turn), CAMERA.unproject(uv, plane_depth(A)).reshape(-1, 3)).reshape(*CAMERA.size, 3)
    before = CAMERA.project(place.reshape(-1, 3)).reshape(*CAMERA.size, 2).astype(np.float32)
    there = cv2.remap(on_disc.astype(np.uint8), before, None, cv2.INTER_NEAREST) > 0
    surface = texture(96, 128, seed=5, blur=2.0)
    first = np.where(on_disc, surface, still)
    second = np.where(there, cv2.remap(surface, before, None, cv2.INTER_CUBIC), still)
    source = View(first, on_disc.astype(np.int32), plane_depth(A), A)
    target = View(second, there.astype(np.int32), plane_depth(A), A)
    points = grid(step=4)
    points = points[np.hypot(points[:, 0] - 63.5, points[:, 1] - 47.5) < 22]
    truth = true_place(points, A, A, turn)
    shifted = pose((0, 0, 0), (0.03, 0.02, 0.0))  # the scene knows of the shift, not of the turn
    seen = measure(source, target, {1: np.linalg.inv(shifted)}, points, CAMERA)
    assert seen.found.mean() > 0.7
    arm = truth - CAMERA.project(move(turn, middle[None]))
    across = np.stack([-arm[:, 1], arm[:, 0]], 1)
    missed = ((seen.uv_px - truth) * across)[seen.found].sum() / (arm[seen.found] ** 2).sum()
    assert abs(missed) < 0.05 * 0.12
    assert np.quantile(np.linalg.norm(seen.uv_px - truth, axis=1)[seen.found], 0.9) < 0.25
    assert np.quantile(np.linalg.norm(seen.warped_px - truth, axis=1), 0.9) < 0.25  # what is measured from is corrected


def test_a_bending_body_is_followed_with_the_motion_of_its_parts() -> None:
    """Twelve pixels each way are more than flow may find beyond the warp of the whole, which rests."""
    aside = 12 * PLANE_M / CAMERA.fx
    left = np.broadcast_to(np.arange(CAMERA.width) < 64, CAMERA.size)
    labels = np.ones(CAMERA.size, np.int32)
    halves = [plane_image(A, np.array([way * aside, 0.0])) for way in (-1, 1)]
    target = View(np.where(left, *halves).astype(np.uint8), labels, plane_depth(A), A)
    whole = ObjectMotion(1, np.zeros(3), {0: (np.eye(3), np.zeros(3)), 1: (np.eye(3), np.zeros(3))})
    places = CAMERA.unproject(grid(4), np.full(len(grid(4)), PLANE_M))
    for way, mine in ((-1, places[:, 0] < 0), (1, places[:, 0] > 0)):
        part = ObjectMotion(
            1, np.zeros(3), {0: (np.eye(3), np.zeros(3)), 1: (np.eye(3), np.array([way * aside, 0, 0]))}
        )
        part.points = dict(enumerate(places[mine]))
        whole.parts.append(part)
    uv = grid(20)
    uv = uv[(np.abs(uv[:, 0] - 64) > 16) & (np.abs(uv[:, 0] - 64) < 36)]
    truth = uv + np.where(uv[:, :1] < 64, -12.0, 12.0) * np.array([1.0, 0.0])
    seen = measure(view(A, labels), target, {1: Bending(whole, 1, 0)}, uv, CAMERA)
    assert seen.found.mean() > 0.7
    assert np.quantile(np.linalg.norm(seen.uv_px - truth, axis=1)[seen.found], 0.9) < 0.2


def test_what_something_else_covers_is_not_found() -> None:
    target = view(A)
    target.labels = target.labels.copy()
    target.labels[:, 64:] = 1
    target.gray = target.gray.copy()
    target.gray[:, 64:] = texture(96, 64, seed=9)
    target.depth_m[:, 64:] = 1.0
    uv = grid()
    found = measure(view(A), target, STATIC, uv, CAMERA).found
    covered = uv[:, 0] > 66
    assert not found[covered].any()
    assert found[uv[:, 0] < 56].mean() > 0.8


def test_what_is_behind_the_surface_that_the_target_shows_is_not_found() -> None:
    target = view(A)
    target.depth_m = target.depth_m.copy()
    target.depth_m[20:60, 40:90] = 1.2  # something stands in front there that looks alike
    uv = grid()
    found = measure(view(A), target, STATIC, uv, CAMERA).found
    hidden = (uv[:, 0] >= 40) & (uv[:, 0] < 90) & (uv[:, 1] >= 20) & (uv[:, 1] < 60)
    assert not found[hidden].any()
    assert found[~hidden].mean() > 0.8


def test_light_that_changes_moves_nothing() -> None:
    target = view(B)
    dimmer = 0.6 * target.gray.astype(float) + np.linspace(0, 60, CAMERA.width)
    target.gray = np.clip(np.rint(dimmer), 0, 255).astype(np.uint8)
    uv = grid()
    seen = measure(view(A), target, STATIC, uv, CAMERA)
    assert seen.found.mean() > 0.7
    error = np.linalg.norm(seen.uv_px - true_place(uv, A, B), axis=1)[seen.found]
    assert np.quantile(error, 0.9) < 0.2


def test_a_surface_at_a_slant_is_warped_as_it_is() -> None:
    """The camera goes half round a wall that is no wall of equal depth: patches are squeezed by a third."""
    first, second = pose((0, 0.35, 0), (-0.6, 0, 0)), pose((0, -0.35, 0), (0.6, 0, 0))
    uv = grid()
    seen = measure(view(first), view(second), STATIC, uv, CAMERA)
    truth = true_place(uv, first, second)
    inside = (truth > 8).all(1) & (truth < np.array([119.0, 87.0])).all(1)
    assert seen.found[inside].mean() > 0.7
    assert np.quantile(np.linalg.norm(seen.uv_px - truth, axis=1)[seen.found], 0.9) < 0.2


def test_an_image_that_shows_something_else_is_refused() -> None:
    target = view(A)
    target.gray = texture(96, 128, seed=11)
    uv = grid()
    assert measure(view(A), target, STATIC, uv, CAMERA).found.mean() < 0.1


def test_no_points_and_no_overlap() -> None:
    nothing = measure(view(A), view(B), STATIC, np.zeros((0, 2)), CAMERA)
    assert nothing.uv_px.shape == (0, 2) and nothing.found.shape == nothing.sigma_px.shape == (0,)
    away = pose((0, np.pi, 0))
    target = View(plane_image(A), np.zeros(CAMERA.size, np.int32), plane_depth(A), away)
    assert not measure(view(A), target, STATIC, grid(), CAMERA).found.any()
    source = view(A, np.ones(CAMERA.size, np.int32))
    assert not measure(source, view(A), {1: np.eye(4)}, grid(), CAMERA).found.any()  # the object is gone
    assert not measure(source, source, STATIC, grid(), CAMERA).found.any()  # nothing is known of its motion


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


def test_an_object_is_measured_again_where_the_scene_has_moved_it_or_its_labels_have_changed() -> None:
    labels = np.zeros(CAMERA.size, np.int32)
    labels[20:76, 40:100] = 1
    horizon = make_sequence(labels)
    keyframes = Keyframes(spacing=8, reach=4)
    for index in (0, 4):
        keyframes.add(horizon.get(index))

    def strayed(start: int, end: int) -> dict[int, FloatArray]:
        return {0: np.eye(4), 1: pose((0, 0, 0), (0.3 * (end - start), 0, 0))}

    keyframes.link(horizon, strayed)
    by_chance = object_points(keyframes, horizon)
    assert keyframes.correct(horizon, still) == 8  # both keyframes in all other frames
    assert object_points(keyframes, horizon) > 5 * by_chance
    assert keyframes.correct(horizon, still) == 0  # nothing has changed

    before = keyframes.table(horizon)
    keyframes.start_again({2, 4}, horizon)
    assert keyframes.correct(horizon, still) == 6  # keyframe 0 in both, and 4, picked anew, in all others
    after = keyframes.table(horizon)
    assert after.count >= 0.9 * before.count
    static = before.labels == 0
    kept = np.isin(before.ids[static], after.ids)
    assert kept.all()  # what stands still is not measured again
    keyframes.unlink(horizon, 4, {1, 2})
    assert keyframes.correct(horizon, still) == 2  # keyframe 0 alone is older than frame 4


def object_points(keyframes: Keyframes, horizon: Horizon) -> int:
    table = keyframes.table(horizon)
    return int((table.labels == 1).sum())


def test_an_object_that_is_never_where_it_is_expected_is_not_measured_for_ever() -> None:
    labels = np.zeros(CAMERA.size, np.int32)
    labels[20:76, 40:100] = 1
    horizon = make_sequence(labels)
    keyframes = Keyframes(spacing=8, reach=4)
    keyframes.add(horizon.get(0))
    keyframes.link(horizon, still)
    counts = []
    for turn in range(8):
        away = 0.02 * (1 + turn % 2)
        counts.append(
            keyframes.correct(
                horizon, lambda a, b, away=away: {0: np.eye(4), 1: pose((0, 0, 0), (0, away * (b - a), 0))}
            )
        )
    assert counts[0] > 0 and counts[-1] == 0


def test_a_thing_of_one_colour_is_followed_by_its_outline() -> None:
    def square(left: int) -> View:
        image, labels = plane_image(A), np.zeros(CAMERA.size, np.int32)
        image[40:52, left : left + 12] = 40
        labels[40:52, left : left + 12] = 1
        return View(image, labels, plane_depth(A), A)

    uv = np.stack(np.meshgrid(np.arange(52.0, 60.0), np.arange(42.0, 50.0)), -1).reshape(-1, 2)
    seen = measure(square(50), square(51), {0: np.eye(4), 1: np.eye(4)}, uv, CAMERA)
    assert seen.found.mean() > 0.3
    off = seen.uv_px[seen.found] - uv[seen.found] - [1.0, 0.0]
    assert np.median(np.linalg.norm(off, axis=1)) < 0.5
