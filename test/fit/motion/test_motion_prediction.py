"""Objects out of sight go on as they moved; found again, they keep the motion that was seen since."""

from __future__ import annotations

import numpy as np
import pytest
from fit_builders import make_state
from scipy.spatial.transform import Rotation

from motion4d_ros.fit.motion.motion_prediction import bridge, hold_unseen, onward, predict_motion, predicted_at
from motion4d_ros.fit.motion.object_motion import ObjectMotion
from motion4d_ros.fit.tracks.point_table import PointTable
from motion4d_ros.fit.window.horizon import Horizon
from motion4d_ros.geometry.sight import Sight
from motion4d_ros.types import Camera, FloatArray, Scale

MIDDLE = np.array([0.4, -0.1, 2.0])
SPIN, STEP_M = np.array([0.0, 0.15, 0.05]), np.array([0.04, 0.0, -0.02])


def truth(index: float) -> FloatArray:
    """(4, 4) a body that turns steadily about `MIDDLE`, which goes straight on."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(index * SPIN).as_matrix()
    T[:3, 3] = MIDDLE + index * STEP_M - T[:3, :3] @ MIDDLE
    return T


def tracked(last: int, support: dict[int, int]) -> ObjectMotion:
    motion = ObjectMotion(1, np.zeros(3), {}, support=support)
    for k in range(last + 1):
        motion.set_matrix(k, truth(k))
    return motion


def test_a_turning_body_coasts_on_a_straight_line() -> None:
    motion = tracked(8, dict.fromkeys(range(9), 40))
    found = predict_motion(motion, MIDDLE, since=9, index=30)
    assert found is not None and found == pytest.approx(truth(30), abs=1e-9)


def test_glimpses_at_the_occluders_edge_do_not_count() -> None:
    motion = tracked(12, {k: 40 if k < 9 else 5 for k in range(13)})
    for k in range(9, 13):  # held back at the edge
        motion.set_matrix(k, truth(8))
    found = predict_motion(motion, MIDDLE, since=13, index=20)
    assert found is not None and found == pytest.approx(truth(20), abs=1e-9)


def test_too_little_was_seen_to_coast() -> None:
    assert predict_motion(tracked(3, {3: 40}), MIDDLE, since=4, index=9) is None
    assert predict_motion(tracked(3, {}), MIDDLE, since=4, index=9) is None


def test_going_on_repeats_the_last_step() -> None:
    assert onward(truth(3), truth(5), MIDDLE) == pytest.approx(truth(7), abs=1e-9)
    assert onward(truth(3), truth(5), MIDDLE, -1.0) == pytest.approx(truth(3), abs=1e-9)


def test_a_pose_found_in_one_frame_keeps_the_motion_measured_since() -> None:
    """Points picked after a return have canonical places of their own: what they measured is where the body went from
    frame to frame, in the map.
    """
    wrong = Rotation.from_rotvec([0.3, -1.0, 0.2]).as_matrix()
    motion = ObjectMotion(1, np.zeros(3), {})
    for k in range(5):
        G = np.eye(4)
        G[:3, :3], G[:3, 3] = wrong, (0.2, 0.1, 0.0)
        motion.set_matrix(k, truth(k) @ G)
    motion.regauge(2, truth(2), range(5))
    for k in range(5):
        assert motion.matrix(k) == pytest.approx(truth(k), abs=1e-9)


def test_points_beside_an_occluder_are_not_believed() -> None:
    camera = Camera(100.0, 100.0, 39.5, 29.5, 80, 60)
    labels, depth = np.zeros((60, 80), np.int32), np.full((60, 80), 4.0, np.float32)
    labels[20:40, 30:60], depth[20:40, 30:60] = 1, 2.0
    labels[:, 50:], depth[:, 50:] = 0, 1.0  # a pillar hides its right part
    horizon = Horizon(4)
    for k in range(3):
        state = make_state(k, labels, camera=camera)
        state.depth_m = depth
        horizon.append(state)
    u = np.array([32.0, 40.0, 44.0, 47.0, 49.0])
    uv = np.repeat(np.stack([u, np.full(5, 30.0)], 1)[:, None], 3, axis=1).astype(np.float32)
    everywhere = np.ones((5, 3), bool)
    table = PointTable(
        np.arange(5),
        np.zeros(5, np.int64),
        uv,
        everywhere.copy(),
        np.ones((5, 3), np.float32),
        np.ones(5, np.int64),
        np.ones(5, np.float32),
    )
    table.hide_beside_occluders(1, horizon)
    assert table.seen[:, 0].tolist() == [True, True, True, False, False]  # the wall behind it is no occluder
    labels[20:40, 30:60] = 0
    table.seen = everywhere.copy()
    table.hide_beside_occluders(0, horizon)
    assert table.seen.all()  # the static scene is not hidden by itself


def test_a_bridge_meets_what_was_known_before_and_what_is_known_after() -> None:
    motion = tracked(8, dict.fromkeys(range(9), 40))
    motion.set_matrix(20, truth(20))
    steady = bridge(motion, MIDDLE, since=9, known=20, index=14)
    assert steady is not None and steady == pytest.approx(truth(14), abs=1e-9)
    off = np.eye(4)
    off[:3, 3] = 0.0, 0.3, 0.0
    motion.set_matrix(20, off @ truth(20))  # it did not quite coast: what is missing is made up for on the way
    ends = [bridge(motion, MIDDLE, since=9, known=20, index=k) for k in (8, 14, 20)]
    gaps = [
        np.linalg.norm((end - truth(k))[:3, 3]) for end, k in zip(ends, (8, 14, 20), strict=True) if end is not None
    ]
    assert gaps == pytest.approx([0.0, 0.15, 0.3], abs=1e-9)


def test_without_a_past_there_is_no_bridge() -> None:
    motion = tracked(3, {3: 40})
    motion.set_matrix(9, truth(9))
    assert bridge(motion, MIDDLE, since=4, known=9, index=6) is None


def approaching(shown: int, length: int = 30) -> ObjectMotion:
    """A body 2 units away that seems to come 0.1 nearer in every frame; it shows points in the first frames only."""
    motion = ObjectMotion(1, np.array([0.0, 0.0, 2.0]), {}, support={k: 40 if k < shown else 0 for k in range(length)})
    for k in range(length):
        turn = Rotation.from_rotvec([0.0, 0.1 * k, 0.0]).as_matrix()
        motion.poses[k] = (turn, k * np.array([0.02, 0.0, -0.1]))
    return motion


def test_without_metres_a_body_is_carried_on_at_its_distance() -> None:
    motion = approaching(shown=6, length=6)
    for k in range(6, 40):
        motion.poses[k] = predicted_at(motion, k, 1, Sight(np.eye(4)))
    last, late = (motion.center + motion.poses[k][1] for k in (5, 39))
    assert np.linalg.norm(late) == pytest.approx(np.linalg.norm(last)) and late[2] > 0
    assert late[0] > last[0] + 0.3, "across the ray it goes on"
    assert motion.poses[39][0] == pytest.approx(Rotation.from_rotvec([0.0, 3.9, 0.0]).as_matrix()), "and turns on"
    _, t = predicted_at(approaching(6, 6), 6, 1, None)
    assert t == pytest.approx(6 * np.array([0.02, 0.0, -0.1])), "metres are continued as they are"


@pytest.mark.parametrize("scale", list(Scale))
def test_what_an_adjustment_says_of_unseen_frames_is_held_at_its_distance(scale: Scale) -> None:
    horizon = Horizon(64)
    for k in range(30):
        horizon.append(make_state(k))
        horizon.frames[-1].scale = scale
    motion, before = approaching(shown=6), approaching(shown=6)
    hold_unseen(motion, horizon, least=6)
    for k in range(6):
        assert motion.poses[k][1] == pytest.approx(before.poses[k][1]), "what was seen stays"
    distances = [float(np.linalg.norm(motion.center + motion.poses[k][1])) for k in range(5, 30)]
    if scale is Scale.METRIC:
        assert motion.poses[29][1] == pytest.approx(before.poses[29][1])
    else:
        assert distances == pytest.approx([distances[0]] * 25)
        assert (motion.center + motion.poses[29][1])[2] > 0 > (before.center + before.poses[29][1])[2]


def test_frames_before_the_first_sight_are_held_too() -> None:
    horizon = Horizon(64)
    for k in range(30):
        horizon.append(make_state(k))
        horizon.frames[-1].scale = Scale.UNKNOWN
    motion = approaching(shown=30)
    motion.support = {k: 0 if k < 20 else 40 for k in range(30)}
    hold_unseen(motion, horizon, least=6)
    distances = [float(np.linalg.norm(motion.center + motion.poses[k][1])) for k in range(21)]
    assert distances == pytest.approx([distances[20]] * 21)
