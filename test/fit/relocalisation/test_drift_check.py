"""A chequered board that slides: tracked to the neighbour square, it is seen where it is."""

from __future__ import annotations

import numpy as np
from fit_builders import make_horizon, make_state, move, pose

from motion4d_ros.config import Config
from motion4d_ros.fit.motion.object_motion import ObjectMotion
from motion4d_ros.fit.motion.object_motions import ObjectMotions
from motion4d_ros.fit.relocalisation.appearance import Appearance, appearance_of
from motion4d_ros.fit.relocalisation.drift_check import Search, seen_elsewhere
from motion4d_ros.fit.tracks.keyframes import Keyframes
from motion4d_ros.fit.tracks.point_table import PointTable
from motion4d_ros.fit.window.horizon import FrameState, Horizon
from motion4d_ros.types import Camera, FloatArray

CAMERA = Camera(150.0, 150.0, 79.5, 59.5, 160, 120)
DEPTH_M = 2.0
PX_M = DEPTH_M / 150.0  # of a pixel on the board
SQUARE_PX, SIDE_PX, STEP_PX = 6, 42, 3
FIRST = 4  # new frame


def board(index: int, at_px: float, covered: bool = False) -> FrameState:
    """A frame with the board's left edge `at_px`, before a grey wall; or with something smooth in front of it."""
    column, row = np.meshgrid(np.arange(CAMERA.width), np.arange(CAMERA.height))
    across, down = column - at_px, row - 30
    on = (across >= 0) & (across < SIDE_PX) & (down >= 0) & (down < SIDE_PX)
    squares = (np.floor(across / SQUARE_PX) + np.floor(down / SQUARE_PX)) % 2
    image = np.where(on, np.where(covered, 90, np.where(squares > 0, 220, 30)), 128).astype(np.uint8)
    depth = np.where(on, DEPTH_M, 4.0)
    return make_state(index, on.astype(np.int32), depth, image, camera=CAMERA)


def scene(covered: tuple[int, ...] = (), frames: int = 10) -> tuple[Horizon, Appearance]:
    horizon = make_horizon([board(k, 30.0 + STEP_PX * k, k in covered) for k in range(frames)])
    shown = appearance_of([(horizon.get(k), true(k)) for k in (0, FIRST - 1)], 1)
    assert shown is not None
    return horizon, shown


def true(index: int) -> FloatArray:
    return pose(t=(STEP_PX * index * PX_M, 0.0, 0.0))


def tracked(off_px: dict[int, float], frames: int = 10) -> ObjectMotion:
    """The board's motion, off by so many pixels in some frames."""
    motion = ObjectMotion(1, np.array([0.0, 0.0, DEPTH_M]), {})
    for k in range(frames):
        motion.set_matrix(k, pose(t=((STEP_PX * k + off_px.get(k, 0.0)) * PX_M, 0.0, 0.0)))
    return motion


def miss_px(found: dict[int, FloatArray]) -> list[float]:
    """By how much motions (4, 4) since frame 0 put the corners of the board elsewhere in the image than they are."""
    corners = np.array([(x, y) for x in (30.0, 30.0 + SIDE_PX) for y in (30.0, 30.0 + SIDE_PX)])
    xyz = CAMERA.unproject(corners, np.full(4, DEPTH_M))
    wrong = [CAMERA.project(move(T, xyz)) - CAMERA.project(move(true(k), xyz)) for k, T in found.items()]
    return [float(np.linalg.norm(shift, axis=1).max()) for shift in wrong]


def elsewhere(motion: ObjectMotion, shown: Appearance, horizon: Horizon) -> dict[int, FloatArray]:
    return seen_elsewhere(Search(motion, shown, horizon, 0.01), NEW, NEW)


NEW = range(FIRST, 10)
DRAGGED = dict.fromkeys(NEW, 2.0 * SQUARE_PX)  # by one period of the pattern


def test_a_board_that_is_where_it_was_tracked_is_left_alone() -> None:
    horizon, shown = scene()
    assert elsewhere(tracked({}), shown, horizon) == {}


def test_a_board_that_was_tracked_to_the_next_square_is_seen_where_it_is() -> None:
    horizon, shown = scene()
    found = elsewhere(tracked(DRAGGED), shown, horizon)
    assert sorted(found) == list(NEW)
    assert max(miss_px(found)) < 0.5


def test_frames_that_do_not_show_it_are_bridged() -> None:
    horizon, shown = scene(covered=(6, 7))
    found = elsewhere(tracked(DRAGGED), shown, horizon)
    assert sorted(found) == list(NEW)
    assert max(miss_px(found)) < 0.7


def test_a_single_frame_that_shows_it_clearly_is_believed() -> None:
    horizon, shown = scene()
    assert max(miss_px(elsewhere(tracked({9: 2.0 * SQUARE_PX}), shown, horizon))) < 0.5


def test_where_nothing_looks_like_it_nobody_can_tell() -> None:
    horizon, shown = scene(covered=tuple(NEW))
    assert elsewhere(tracked(DRAGGED), shown, horizon) == {}


def points(frames: int) -> PointTable:
    """Thirty points of the board, all of which take the next square for their own from the first new frame on."""
    start = np.random.default_rng(0).uniform([34, 34], [66, 66], (30, 2))
    off = np.array([STEP_PX * k + DRAGGED.get(k, 0.0) for k in range(frames)])
    uv = start[:, None] + np.stack([off, 0 * off], 1)[None]
    seen = np.ones((30, frames), bool)
    sigma = np.full(seen.shape, 0.2, np.float32)
    ones = np.ones(30)
    return PointTable(
        np.arange(30), np.zeros(30, np.int64), uv.astype(np.float32), seen, sigma, ones.astype(int), ones.astype("f4")
    )


def test_points_that_all_agree_on_the_next_square_do_not_move_the_board() -> None:
    whole, _ = scene()
    options = Config().geometry
    keyframes = Keyframes(options.keyframe_spacing, options.keyframe_reach)
    motions = ObjectMotions(options, keyframes, window=4, seed=0)
    horizon = make_horizon(whole.frames[:FIRST])
    motions.update(horizon, {1: points(FIRST)})
    keyframes.add(whole.get(0))
    keyframes.add(whole.get(FIRST - 1))
    for k in NEW:
        horizon.append(whole.get(k))
    motions.update(horizon, {1: points(len(whole))})
    motion = motions.by_id[1]
    assert max(miss_px({k: motion.between(0, k) for k in NEW})) < 1.0
