"""What is learnt of an object's motion: how lively it is, and about which point it turns."""

import numpy as np
from scipy.spatial.transform import Rotation

from motion4d_ros.fit.motion.motion_prior import learn_motion_prior

T = 24
SECONDS = np.arange(T) * 0.1
GENERAL = (4.0, 8.0)
PLACE, RADIUS = np.array([0.2, 0.0, 2.0]), 0.15


def poses(path, turn, pivot, center):
    """Poses about `center` of a body whose `pivot` follows `path` (T, 3) while it turns by `turn` (T, 3)."""
    R = Rotation.from_rotvec(turn).as_matrix()
    t = path - center - np.einsum("tij,j->ti", R, pivot - center)
    return R, t


def learn(R, t, center, support=None):
    support = np.full(T, 100) if support is None else support
    return learn_motion_prior(R, t, center, SECONDS, support, PLACE, RADIUS, GENERAL)


def test_a_steady_roll_is_stiff_about_its_pivot():
    pivot = PLACE + np.array([0.0, 0.0, 0.12])
    path = pivot + SECONDS[:, None] * [0.3, 0.0, 0.1]
    R, t = poses(path, SECONDS[:, None] * [0.0, 2.0, 0.0], pivot, np.zeros(3))
    found = learn(R, t, np.zeros(3))
    assert np.linalg.norm((found.pivot - pivot)[[0, 2]]) < 0.02  # the axis of turning leaves y open
    assert found.sigma_acceleration < 0.06 * GENERAL[0]
    assert found.sigma_angular_acceleration < 0.06 * GENERAL[1]


def test_what_does_not_turn_keeps_its_place_as_pivot():
    path = PLACE + SECONDS[:, None] * [0.3, 0.0, 0.1]
    R, t = poses(path, np.zeros((T, 3)), PLACE, np.zeros(3))
    assert np.allclose(learn(R, t, np.zeros(3)).pivot, PLACE, atol=1e-6)


def test_a_lively_object_is_soft():
    path = PLACE + np.stack([0.2 * np.sin(6 * SECONDS), 0 * SECONDS, 0 * SECONDS], 1)
    R, t = poses(path, np.zeros((T, 3)), PLACE, np.zeros(3))
    assert learn(R, t, np.zeros(3)).sigma_acceleration > 2.0  # 0.2 * 36 = 7.2 m/s^2 at the turning points


def test_one_impact_does_not_make_a_body_lively():
    path = PLACE + np.abs(SECONDS - 1.2)[:, None] * [0.5, 0.0, 0.0]
    R, t = poses(path, np.zeros((T, 3)), PLACE, np.zeros(3))
    assert learn(R, t, np.zeros(3)).sigma_acceleration < 0.1 * GENERAL[0]


def test_poorly_seen_frames_teach_nothing():
    rng = np.random.default_rng(0)
    R, t = poses(PLACE + rng.normal(0, 0.1, (T, 3)), np.zeros((T, 3)), PLACE, np.zeros(3))
    found = learn(R, t, np.zeros(3), np.full(T, 10))
    assert (found.sigma_acceleration, found.sigma_angular_acceleration) == GENERAL
    assert np.array_equal(found.pivot, PLACE)
