from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from motion4d_ros.config import ObjectsConfig
from motion4d_ros.geometry.pose_covariance import PoseCovariance
from motion4d_ros.geometry.sight import FARTHEST, Sight
from motion4d_ros.objects.observation import ObjectObservation
from motion4d_ros.objects.tracker import ObjectTracker, replay
from motion4d_ros.types import ObjectPhase, ObjectState

SIZE = np.array([0.4, 0.25, 0.1])
VELOCITY, RATE = np.array([0.3, -0.2, 0.1]), np.array([0.2, 0.5, -0.3])
START = np.array([1.0, 0.5, 2.0])
DT_NS = 100_000_000


def stamp(k: int) -> int:
    return 10**12 + k * DT_NS


def canonical_points(count: int = 400, seed: int = 0) -> np.ndarray:
    """(count, 3) points on and in a box about START, its corners among them."""
    corners = np.array(np.meshgrid(*[[-0.5, 0.5]] * 3)).reshape(3, -1).T
    inside = np.random.default_rng(seed).uniform(-0.5, 0.5, (count, 3))
    return np.concatenate([np.repeat(corners, 10, 0), inside]) * SIZE + START


def motion(k: float, center: np.ndarray = START) -> np.ndarray:
    """(4, 4) canonical -> frame k: turns about the box's centre, which moves steadily."""
    seconds = k * DT_NS * 1e-9
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(RATE * seconds).as_matrix()
    pose[:3, 3] = center + VELOCITY * seconds - pose[:3, :3] @ center
    return pose


def observe(
    k: float, object_id: int = 1, *, noise=None, points=None, base: bool = True, visible=900, expected=1000, **more
) -> ObjectObservation:
    pose = motion(k)
    if noise is not None:
        pose[:3, 3] += noise
    points = canonical_points() if points is None else points
    now = points @ pose[:3, :3].T + pose[:3, 3]
    return ObjectObservation(
        object_id, now, np.ones(len(now)), pose if base else None, visible, expected, **more
    )  # fmt: skip


def unseen(k: float, object_id: int = 1, **more) -> ObjectObservation:
    values = {"visible": 0, "hidden_share": 1.0} | more
    return observe(k, object_id, **values)


@pytest.fixture
def tracker() -> ObjectTracker:
    return ObjectTracker(ObjectsConfig())


def test_pose_size_and_twist_of_an_exact_motion(tracker):
    for k in range(20):
        (state,) = tracker.update(stamp(k), [observe(k, label="box")])
        box = state.T_map_object
        np.testing.assert_allclose(state.size_m, SIZE, atol=0.01)
        np.testing.assert_allclose(box[:3, 3], START + VELOCITY * 0.1 * k, atol=0.005)
        axes = np.abs(box[:3, :3].T @ motion(k)[:3, :3])
        np.testing.assert_allclose(axes, np.eye(3), atol=0.15)
    np.testing.assert_allclose(state.twist[:3], VELOCITY, atol=0.01)
    np.testing.assert_allclose(state.twist[3:], RATE, atol=0.03)
    for covariance in (state.pose_covariance, state.twist_covariance):
        assert np.linalg.eigvalsh(covariance).min() > 0
    assert (state.label, state.phase, state.point_count) == ("box", ObjectPhase.TRACKED, 480)
    assert (state.first_seen_ns, state.last_seen_ns) == (stamp(0), stamp(19))
    assert state.existence > 0.99


def test_the_box_rides_on_the_motion_without_jitter(tracker):
    """Every frame shows another sample of the surface; the box, seen from the object, hardly stirs."""
    relative = []
    for k in range(40):
        points = canonical_points(150, seed=k)
        (state,) = tracker.update(stamp(k), [observe(k, points=points)])
        relative.append(np.linalg.inv(motion(k)) @ state.T_map_object)
    shifts = np.linalg.norm(np.diff([pose[:3, 3] for pose in relative], axis=0), axis=1)
    assert shifts.max() < 0.002
    turns = [Rotation.from_matrix(a[:3, :3].T @ b[:3, :3]).magnitude() for a, b in pairwise(relative)]
    assert max(turns) < 1e-6


def test_velocity_of_the_boxs_centre_includes_the_turn_about_a_far_anchor(tracker):
    """Points appear on one side only: the box's centre moves away from the anchor, and its velocity must follow."""
    arm = np.array([2.0, 0, 0])
    first = canonical_points()
    for k in range(60):
        points = first if k < 5 else np.concatenate([first, canonical_points(1200) + arm])
        (state,) = tracker.update(stamp(k), [observe(k, points=points)])
    seconds = 59 * 0.1
    lever = state.T_map_object[:3, 3] - (START + VELOCITY * seconds)
    assert np.linalg.norm(lever) > 0.5
    np.testing.assert_allclose(state.twist[:3], VELOCITY + np.cross(RATE, lever), atol=0.02)
    at_anchor = np.trace(tracker._tracks[1].step.updated.linear.covariance[3:, 3:])
    assert np.trace(state.twist_covariance[:3, :3]) > at_anchor


def test_phases_through_an_occlusion_and_the_loss(tracker):
    phases, existence, spread = [], [], []
    for k in range(100):
        hidden = 10 <= k < 25 or k >= 30
        observation = unseen(k, base=False) if hidden else observe(k)
        (state,) = tracker.update(stamp(k), [observation])
        phases.append(state.phase)
        existence.append(state.existence)
        spread.append(np.trace(state.pose_covariance))
        error = np.linalg.norm(state.T_map_object[:3, 3] - (START + VELOCITY * 0.1 * k))
        assert error < 3 * np.sqrt(spread[-1]) + 0.02
        if k == 24:
            assert state.last_seen_ns == stamp(9)
    assert phases[:3] == [ObjectPhase.NEW, ObjectPhase.NEW, ObjectPhase.TRACKED]
    assert set(phases[10:25]) == {ObjectPhase.OCCLUDED}
    assert set(phases[25:30]) == {ObjectPhase.TRACKED}
    assert phases[30:80] == [ObjectPhase.OCCLUDED] * 50  # hidden for 5 s
    assert phases[81:] == [ObjectPhase.LOST] * 19
    assert np.all(np.diff(spread[10:25]) > 0) and spread[25] < spread[24] / 10
    assert 0.9 < existence[24] < existence[9]


def test_missing_in_plain_view_is_doubted_at_once(tracker):
    for k in range(6):
        tracker.update(stamp(k), [observe(k)])
    for k in range(6, 12):
        (state,) = tracker.update(stamp(k), [observe(k, visible=0, hidden_share=0.0)])
    assert state.phase is ObjectPhase.LOST and state.existence < 0.05


def test_a_hidden_object_stays_where_the_scene_puts_it(tracker):
    for k in range(8):
        tracker.update(stamp(k), [observe(k)])
    detour = np.array([0.0, 0.3, 0.0])  # the scene knows better than constant velocity
    (state,) = tracker.update(stamp(8), [unseen(8, noise=detour)])
    np.testing.assert_allclose(state.T_map_object[:3, 3], START + VELOCITY * 0.8 + detour, atol=0.01)
    np.testing.assert_allclose(state.twist[:3], VELOCITY, atol=0.02)  # but it is no measurement


def test_not_mentioned_means_not_seen(tracker):
    for k in range(8):
        tracker.update(stamp(k), [observe(k), observe(k, 4)])
    states = tracker.update(stamp(8), [observe(8, 4)])
    assert [(s.object_id, s.phase) for s in states] == [(1, ObjectPhase.OCCLUDED), (4, ObjectPhase.TRACKED)]
    np.testing.assert_allclose(states[0].T_map_object[:3, 3], START + VELOCITY * 0.8, atol=0.01)


def test_ids_appear_when_first_seen_and_go_when_forgotten():
    config = ObjectsConfig(forget_after=6.0)
    tracker = ObjectTracker(config)
    assert tracker.update(stamp(0), [unseen(0)]) == []
    assert tracker.update(stamp(1), [observe(1, points=np.full((3, 3), np.nan))]) == []
    assert [s.object_id for s in tracker.update(stamp(2), [observe(2), observe(2, 9)])] == [1, 9]
    for k in range(3, 70):
        states = tracker.update(stamp(k), [observe(k, 9)])
    assert [s.object_id for s in states] == [9]
    tracker.remove(9)
    assert tracker.update(stamp(70), []) == []


def test_points_without_poses_still_give_position_and_velocity(tracker):
    for k in range(25):
        steady = observe(0)
        steady.points_map = steady.points_map + VELOCITY * 0.1 * k
        steady.T_map_base = None
        (state,) = tracker.update(stamp(k), [steady])
    np.testing.assert_allclose(state.T_map_object[:3, 3], START + VELOCITY * 2.4, atol=0.01)
    np.testing.assert_allclose(state.twist[:3], VELOCITY, atol=0.02)
    np.testing.assert_allclose(state.size_m, SIZE, atol=0.01)
    assert np.trace(state.pose_covariance[3:, 3:]) > np.pi**2  # its orientation was never measured


def test_predict_looks_ahead_and_changes_nothing(tracker):
    for k in range(20):
        (before,) = tracker.update(stamp(k), [observe(k)])
    (ahead,) = tracker.predict(stamp(24))
    np.testing.assert_allclose(ahead.T_map_object[:3, 3], START + VELOCITY * 2.4, atol=0.01)
    agreement = ahead.T_map_object[:3, :3].T @ motion(24)[:3, :3] @ motion(19)[:3, :3].T @ before.T_map_object[:3, :3]
    np.testing.assert_allclose(agreement, np.eye(3), atol=0.02)
    assert np.trace(ahead.pose_covariance) > np.trace(before.pose_covariance)
    (after,) = tracker.update(stamp(20), [observe(20)])
    assert after.last_seen_ns == stamp(20)


def noisy_history(count: int = 40, gap: range = range(0)):
    rng = np.random.default_rng(0)
    return [
        (stamp(k), [unseen(k, base=False) if k in gap else observe(k, noise=rng.normal(0, 0.015, 3))])
        for k in range(count)
    ]


def test_replay_smooths_and_wears_one_box(tracker):
    history = noisy_history()
    live = [tracker.update(*frame)[0] for frame in history]
    smoothed = [states[0] for states in replay(history, ObjectsConfig())]

    def velocity_error(states):
        return np.sqrt(np.mean([(state.twist[:3] - VELOCITY) ** 2 for state in states[3:]]))

    assert velocity_error(smoothed) < 0.7 * velocity_error(live)
    assert all(np.array_equal(state.size_m, smoothed[0].size_m) for state in smoothed)
    assert np.trace(smoothed[5].twist_covariance) < np.trace(live[5].twist_covariance)
    assert velocity_error(smoothed[-4:]) < velocity_error(live[-4:])  # nothing follows, but its motion is known
    assert [state.phase for state in smoothed] == [state.phase for state in live]


def test_replay_bridges_a_gap_from_both_sides(tracker):
    history = noisy_history(gap=range(15, 25))
    live = [tracker.update(*frame)[0] for frame in history]
    smoothed = [states[0] for states in replay(history, ObjectsConfig())]

    def errors(states):
        centers = np.array([state.T_map_object[:3, 3] for state in states[15:25]])
        return np.linalg.norm(centers - START - VELOCITY * 0.1 * np.arange(15, 25)[:, None], axis=1)

    assert errors(smoothed).max() < 0.5 * errors(live).max()
    for state, error in zip(smoothed[15:25], errors(smoothed)):
        assert error < 3 * np.sqrt(np.trace(state.pose_covariance[:3, :3]))
        assert state.phase is ObjectPhase.OCCLUDED
    outside, middle, late_live = (
        np.trace(state.pose_covariance[:3, :3]) for state in (smoothed[10], smoothed[20], live[24])
    )
    assert 2 * outside < middle < late_live / 2


def test_replay_goes_on_from_before_the_history_and_live_goes_on_after_it():
    history = noisy_history(40)
    once, again = ObjectTracker(ObjectsConfig()), ObjectTracker(ObjectsConfig())
    for frame in history[:30]:
        once.update(*frame)
        again.update(*frame)
    redone = again.replay(history[20:30])
    assert [len(states) for states in redone] == [1] * 10
    assert redone[0][0].first_seen_ns == stamp(0) and redone[0][0].phase is ObjectPhase.TRACKED
    miss = []
    for frame in history[30:]:  # the same observations again: nothing has changed but that its motion is known now
        expected, actual = once.update(*frame)[0], again.update(*frame)[0]
        np.testing.assert_allclose(actual.T_map_object, expected.T_map_object)
        assert (actual.existence, actual.phase) == (expected.existence, expected.phase)
        miss.append([np.linalg.norm(each.twist[:3] - VELOCITY) for each in (expected, actual)])
    assert np.mean(miss, 0)[1] < 0.7 * np.mean(miss, 0)[0]


def test_replay_beyond_memory_keeps_when_objects_were_first_seen(tracker):
    history = noisy_history(10)
    for frame in history:
        tracker.update(*frame)
    tracker._snapshots.clear()
    states = tracker.replay(history[5:])
    assert states[0][0].first_seen_ns == stamp(0)
    assert tracker.replay([]) == []


def test_stamps_must_ascend(tracker):
    tracker.update(stamp(3), [])
    with pytest.raises(ValueError, match="replay"):
        tracker.update(stamp(3), [])
    tracker.reset()
    assert tracker.update(stamp(0), [observe(0)])[0].phase is ObjectPhase.NEW


def known(k: float, variance: float) -> PoseCovariance:
    """What a fit says of the pose `observe` gives at frame k; a tenth of it is jitter."""
    return PoseCovariance(START + VELOCITY * 0.1 * k, variance * np.eye(6), 0.1 * variance * np.eye(6))


def test_given_covariances_are_believed():
    trusted, doubted = ObjectTracker(ObjectsConfig()), ObjectTracker(ObjectsConfig())
    for k in range(5):
        (sure,) = trusted.update(stamp(k), [observe(k, pose_covariance=known(k, 1e-6))])
        (unsure,) = doubted.update(stamp(k), [observe(k, pose_covariance=known(k, 1e-2))])
    assert np.trace(unsure.pose_covariance) > 100 * np.trace(sure.pose_covariance)


def test_an_object_is_given_a_name(tracker):
    tracker.update(stamp(5), [observe(5)])
    tracker.rename(1, "red box")
    assert tracker.predict(stamp(6))[0].label == "red box"


# -- where lengths are not metres --------------------------------------------------------------------------------------

SIGHT = Sight(np.eye(4), 0.8)  # a camera at the map's origin that looks along z


def drift(k: float) -> np.ndarray:
    """(3,) a place two units ahead that moves across at a steady rate, while it drifts along its ray to the camera."""
    return (2.0 - 0.07 * k) * np.array([-0.15 + 0.015 * k, 0.0, 1.0])


def across(k: float) -> np.ndarray:
    """(3,) its velocity across its ray."""
    velocity, ray = (drift(k + 0.5) - drift(k - 0.5)) / 0.1, drift(k) / np.linalg.norm(drift(k))
    return velocity - (velocity @ ray) * ray


def adrift(k: float, **more) -> ObjectObservation:
    """A box that is seen there."""
    pose = np.eye(4)
    pose[:3, 3] = drift(k) - START
    now = canonical_points() + pose[:3, 3]
    values = {"pose_covariance": PoseCovariance(drift(k), np.eye(6) * 1e-6, np.eye(6) * 1e-6), "sight": SIGHT} | more
    return ObjectObservation(1, now, np.ones(len(now)), pose, 900, 1000, **values)


def along_ray(state: ObjectState) -> tuple[float, float, float]:
    """Distance, velocity and its standard deviation along the ray from the origin to the object's centre."""
    centre = state.T_map_object[:3, 3]
    ray = centre / np.linalg.norm(centre)
    sigma = np.sqrt(ray @ state.twist_covariance[:3, :3] @ ray)
    return float(np.linalg.norm(centre)), float(state.twist[:3] @ ray), float(sigma)


def test_velocity_along_the_ray_is_withheld_and_its_covariance_says_so(tracker):
    for k in range(16):
        (state,) = tracker.update(stamp(k), [adrift(k)])
    distance, speed, sigma = along_ray(state)
    assert speed == pytest.approx(0.0, abs=1e-9) and sigma > 1.5
    assert state.twist[:3] == pytest.approx(across(15), abs=0.05), "across the ray it is known"
    assert np.sqrt(state.twist_covariance[0, 0]) < 0.5
    ray = state.T_map_object[:3, 3] / distance
    assert np.sqrt(ray @ state.pose_covariance[:3, :3] @ ray) == pytest.approx(0.8 * distance, rel=0.05)
    metric = ObjectTracker(ObjectsConfig())
    for k in range(16):
        (state,) = metric.update(stamp(k), [adrift(k, sight=None)])
    whole = (drift(15.5) - drift(14.5)) / 0.1
    assert state.twist[:3] == pytest.approx(whole, abs=0.05) and whole[2] < -0.6, "metres are told in full"


def test_a_live_prediction_without_metres_stays_before_the_camera(tracker):
    for k in range(10):
        (seen,) = tracker.update(stamp(k), [adrift(k)])
    distance = along_ray(seen)[0]
    for k in (10, 12, 20, 60, 600):  # at the velocity that was measured, it would be behind the camera from 30 on
        (state,) = tracker.predict(stamp(k), np.eye(4))
        there, speed, _ = along_ray(state)
        assert there == pytest.approx(distance) and state.T_map_object[2, 3] > 0
        assert speed == pytest.approx(0.0, abs=1e-6) and state.phase is ObjectPhase.TRACKED
    soon, late = (tracker.predict(stamp(k))[0] for k in (10, 20))
    assert soon.T_map_object[0, 3] < late.T_map_object[0, 3], "it goes on across the ray"
    assert np.trace(soon.pose_covariance) < np.trace(late.pose_covariance)


def test_smoothed_states_withhold_it_too(tracker):
    states = [each for (each,) in tracker.replay([(stamp(k), [adrift(k)]) for k in range(16)])]
    assert [along_ray(state)[1] for state in states] == pytest.approx([0.0] * 16, abs=1e-9)
    assert min(along_ray(state)[2] for state in states) > 1.5
    for k, state in enumerate(states[2:], 2):
        assert state.twist[:3] == pytest.approx(across(k), abs=0.05)


def test_an_object_that_nothing_observes_any_more_keeps_its_distance(tracker):
    for k in range(10):
        (seen,) = tracker.update(stamp(k), [adrift(k)])
    for k in range(10, 50):
        (state,) = tracker.update(stamp(k), [])
        assert along_ray(state)[0] == pytest.approx(along_ray(seen)[0])
    assert state.phase is ObjectPhase.OCCLUDED and state.T_map_object[2, 3] > 0


def test_what_the_scene_puts_behind_the_camera_that_sees_it_is_not_believed(tracker):
    lost = adrift(60)  # z = -2.2
    assert tracker.update(stamp(0), [lost]) == []
    for k in range(1, 10):
        (seen,) = tracker.update(stamp(k), [adrift(k)])
    (state,) = tracker.update(stamp(10), [lost])
    assert state.phase is ObjectPhase.TRACKED
    assert along_ray(state)[0] == pytest.approx(along_ray(seen)[0]) and state.T_map_object[2, 3] > 0


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=30)
def test_no_random_track_without_metres_ends_behind_the_camera(seed, ranged):
    rng = np.random.default_rng(seed)
    tracker, sight = ObjectTracker(ObjectsConfig()), Sight(np.eye(4), 0.8, ranged)
    place, velocity = np.array([0.0, 0.0, 2.0]), rng.normal(0, 3, 3)
    states: list[ObjectState] = []
    for k in range(12):
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_rotvec(rng.normal(0, 0.5, 3)).as_matrix()
        pose[:3, 3] = place + 0.1 * k * velocity + rng.normal(0, 0.1, 3) - pose[:3, :3] @ START
        now = canonical_points(20) @ pose[:3, :3].T + pose[:3, 3]
        shown = int(rng.integers(0, 2)) * 900
        states = tracker.update(
            stamp(k), [ObjectObservation(1, now, np.ones(len(now)), pose, shown, 1000, sight=sight)]
        )
        for state in states:
            assert state.T_map_object[2, 3] > 0
    for state in states:
        (ahead,) = tracker.predict(stamp(12 + int(rng.integers(1, 100))), np.eye(4))
        ratio = np.linalg.norm(ahead.T_map_object[:3, 3]) / np.linalg.norm(state.T_map_object[:3, 3])
        assert ahead.T_map_object[2, 3] > 0 and ratio * (1 + 1e-9) >= 1 / FARTHEST and ratio <= FARTHEST * (1 + 1e-9)


def test_what_no_replay_goes_back_to_is_forgotten() -> None:
    """A replay from the first frame of the horizon comes out the same, whether older frames are remembered or not."""
    horizon, trackers = 8, (ObjectTracker(ObjectsConfig()), ObjectTracker(ObjectsConfig()))
    for k in range(40):
        for tracker in trackers:
            tracker.predict(stamp(k))
            tracker.update(stamp(k), [observe(k), unseen(k, 2) if k > 20 else observe(k, 2)])
        trackers[1].forget_before(stamp(k - horizon + 1))
        assert len(trackers[1]._snapshots) <= horizon + 1 and len(trackers[1].consistency._waiting) <= 2 * horizon
    history = [(stamp(k), [observe(k), unseen(k, 2)]) for k in range(40 - horizon, 40)]
    whole, short = (tracker.replay(history) for tracker in trackers)
    for before, now in zip(whole, short, strict=True):
        assert [state.object_id for state in now] == [state.object_id for state in before]
        for one, other in zip(before, now, strict=True):
            np.testing.assert_array_equal(one.T_map_object, other.T_map_object)
            np.testing.assert_array_equal(one.pose_covariance, other.pose_covariance)
