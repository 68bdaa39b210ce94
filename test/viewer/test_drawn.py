"""What a viewer is shown, as numbers."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from motion4d_ros.offline.queries import objects_of_queries
from motion4d_ros.types import ObjectPhase, ObjectState, QueryTracks
from motion4d_ros.viewer import drawn


def state(object_id=1, covariance=None, phase=ObjectPhase.TRACKED):
    T = np.eye(4)
    T[:3, 3] = (1, 2, object_id)
    covariance = np.eye(6) if covariance is None else covariance
    return ObjectState(object_id, "", phase, 1.0, T, covariance, np.zeros(6), np.eye(6), np.ones(3), 9, 0, 0)


def test_ellipsoids_are_two_sigma_of_the_position():
    turn = Rotation.from_rotvec([0.3, -0.5, 0.8]).as_matrix()
    covariance = np.eye(6)
    covariance[:3, :3] = turn @ np.diag([0.04, 0.01, 0.25]) @ turn.T
    unknown = np.full((6, 6), np.inf)
    half, quats, centres = drawn.ellipsoids([state(1, covariance), state(2, unknown)])
    axes = Rotation.from_quat(quats[0]).as_matrix() * half[0]
    assert np.allclose(axes @ axes.T, 4 * covariance[:3, :3])
    assert np.allclose(half[1], 0) and np.allclose(centres, [[1, 2, 1], [1, 2, 2]])
    assert all(len(part) == 0 for part in drawn.ellipsoids([]))


def test_lost_objects_are_not_shown():
    assert [s.object_id for s in drawn.present([state(5), state(2, phase=ObjectPhase.LOST), state(1)])] == [1, 5]


def test_trails_hold_what_was_seen():
    count = 40
    uv = np.stack(np.broadcast_arrays(np.arange(count, dtype=np.float32), 7.0), -1)[None].repeat(3, 0)
    xyz = np.concatenate([uv, np.ones((3, count, 1))], -1).astype(np.float32)
    occluded = np.zeros((3, count), bool)
    occluded[0, 28] = occluded[1, 30] = True
    xyz[2, 30] = np.nan
    queries = np.zeros((3, 3))
    tracks = QueryTracks(queries, uv.astype(np.float32), occluded, xyz, np.ones((3, count)), np.arange(count))
    shown = drawn.trails(tracks, np.arange(3), 30)
    assert shown.rows.tolist() == [0, 2]  # the other is hidden now
    assert np.allclose(shown.uv, [[30, 7], [30, 7]]) and np.isnan(shown.xyz[1]).all()
    assert 28 not in shown.paths_uv[0][:, 0] and len(shown.paths_uv[0]) == drawn.TRAIL_FRAMES
    assert len(shown.paths_xyz[1]) == drawn.TRAIL_FRAMES and shown.paths_xyz[1][-1, 0] == 29
    assert len(drawn.trails(tracks, np.arange(3), 0).paths_uv[0]) == 1


def test_queries_know_their_objects():
    labels = np.zeros((4, 6), np.uint16)
    labels[1, 2] = 9
    points = np.array([[0, 1.2, 1.9], [0, 99, 99], [1, 1, 2], [5, 1, 2]])
    assert objects_of_queries(points, lambda index: labels if index == 0 else None, 2) == [9, 0, 0, 0]
