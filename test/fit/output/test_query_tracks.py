"""Query tracks on exact snapshots, and what the archive keeps of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fit_builders import CAMERA, PERIOD_NS, move, pose
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from motion4d_ros.fit.output.query_tracks import MovingGaussians, Snapshot, follow, trace
from motion4d_ros.fit.output.track_confidence import SHARE_RIGHT
from motion4d_ros.fit.output.track_correction import FrameCorrections
from motion4d_ros.fit.window.archive import Archive, ArchivedFrame
from motion4d_ros.scene.scene import Scene
from motion4d_ros.types import FloatArray

LENGTH, FIRST = 6, 20
OBJECT_Z, WALL_Z = 1.5, 3.0
CENTER = np.array([-0.1, 0.0, OBJECT_Z])


def motion_at(k: int) -> FloatArray:
    """The object turns in the image plane and drifts to the right: (4, 4)."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec([0, 0, 0.1 * k]).as_matrix()
    T[:3, 3] = CENTER + np.array([0.06 * k, 0.01 * k, 0]) - T[:3, :3] @ CENTER
    return T


MOTIONS = np.stack([motion_at(k)[:3] for k in range(LENGTH)])[None]  # (1, T, 3, 4)


def shot(index: int) -> Snapshot:
    """A disc of 30 cm before a wall, seen by a camera that stands still."""
    k = index - FIRST
    rays = CAMERA.unproject(CAMERA.pixel_grid(), np.ones(CAMERA.size))
    center = move(motion_at(k), CENTER[None])[0]
    inside = np.linalg.norm((rays * OBJECT_Z - center)[..., :2], axis=-1) < 0.3
    depth = np.where(inside, OBJECT_Z, WALL_Z)
    return Snapshot(index * PERIOD_NS, np.eye(4), inside.astype(np.int32), depth)


def gaussians(label: int, index: int) -> MovingGaussians | None:
    return MovingGaussians(CENTER[None], np.ones((1, 1)), MOTIONS) if label == 1 else None


def run(queries: list[tuple[float, float, float]], snapshot=shot, moving=gaussians):
    return trace(np.array(queries), FIRST, LENGTH, snapshot, moving, CAMERA)


@pytest.mark.parametrize("t", [0, 3, 5])
def test_a_point_on_a_turning_object_is_followed_exactly_both_ways(t: int) -> None:
    start = move(motion_at(t), CENTER[None] + [[0.1, 0.05, 0.0]])
    u, v = CAMERA.project(start)[0]
    result = run([(FIRST + t, v, u)])
    expected = np.stack([move(motion_at(k) @ np.linalg.inv(motion_at(t)), start)[0] for k in range(LENGTH)])
    assert result.tracks_xyz[0] == pytest.approx(expected, abs=1e-5)
    assert result.tracks[0] == pytest.approx(CAMERA.project(expected), abs=1e-3)
    assert not result.occluded.any()
    assert result.stamps_ns.tolist() == [(FIRST + k) * PERIOD_NS for k in range(LENGTH)]
    assert result.confidence[0] == pytest.approx(SHARE_RIGHT, abs=0.005)


def test_the_background_stays_and_is_hidden_while_the_object_passes() -> None:
    u, v = 41.0, 23.0  # right of the object, which arrives there later
    result = run([(FIRST, v, u)])
    assert np.ptp(result.tracks_xyz[0], axis=0) == pytest.approx(0.0, abs=1e-6)
    assert result.tracks_xyz[0, 0, 2] == pytest.approx(WALL_Z)
    covered = [bool(shot(FIRST + k).labels[23, 41]) for k in range(LENGTH)]
    assert not covered[0] and any(covered)
    assert result.occluded[0].tolist() == covered


def test_an_object_behind_something_near_is_hidden_but_still_followed() -> None:
    def with_pillar(index: int) -> Snapshot:
        seen = shot(index)
        if index == FIRST + 2:
            seen.depth_m[:, 20:50] = 0.7
            seen.labels[:, 20:50] = 0
        return seen

    u, v = CAMERA.project(CENTER)
    result = run([(FIRST, v, u)], with_pillar)
    assert result.occluded[0].tolist() == [False, False, True, False, False, False]
    assert result.tracks_xyz[0, 2] == pytest.approx(move(motion_at(2), CENTER[None])[0], abs=1e-5)


def test_a_point_that_leaves_the_image_is_occluded() -> None:
    def panning(index: int) -> Snapshot:
        seen = shot(index)
        seen.T_map_cam = pose((0, 0.4 * (index - FIRST), 0))
        seen.labels[:] = 0
        seen.depth_m[:] = WALL_Z
        return seen

    result = run([(FIRST, 24.0, 5.0)], panning, lambda label, index: None)
    assert result.occluded[0].tolist() == [False, True, True, True, True, True]
    assert np.isfinite(result.tracks).all()


def test_a_query_without_depth_gets_no_confidence() -> None:
    def hole(index: int) -> Snapshot:
        seen = shot(index)
        seen.depth_m[:] = np.nan
        return seen

    result = run([(FIRST, 10.0, 10.0)], hole, lambda label, index: None)
    assert np.isfinite(result.tracks_xyz).all()
    assert (result.confidence == 0).all()


def test_times_without_a_base_take_the_nearest_pose() -> None:
    motions = MOTIONS.copy()
    motions[:, :2] = np.nan
    motions[:, 5] = np.nan
    start = move(motion_at(3), CENTER[None])
    path = follow(start, 3, MovingGaussians(CENTER[None], np.ones((1, 1)), motions))
    assert path[0, 0] == pytest.approx(path[0, 2]) and path[0, 1] == pytest.approx(path[0, 2])
    assert path[0, 5] == pytest.approx(path[0, 4])
    assert path[0, 4] == pytest.approx(move(motion_at(4), CENTER[None])[0])
    lost = MovingGaussians(CENTER[None], np.ones((1, 1)), np.full_like(motions, np.nan))
    assert follow(start, 3, lost)[0] == pytest.approx(np.repeat(start, LENGTH, 0))


def test_queries_share_the_motion_of_the_gaussians_around_them() -> None:
    still = np.tile(np.eye(4)[:3], (LENGTH, 1, 1))
    lifted = still.copy()
    lifted[:, 1, 3] = 0.1 * np.arange(LENGTH)
    means = np.concatenate(
        [np.random.default_rng(s).normal(0, 0.01, (10, 3)) + np.array([x, 0, 1]) for s, x in ((0, -0.3), (1, 0.3))]
    )
    weights = np.repeat(np.eye(2), 10, 0)
    moving = MovingGaussians(means, weights, np.stack([still, lifted]))
    path = follow(np.array([[-0.3, 0, 1], [0.3, 0, 1]]), 0, moving)
    assert path[0, -1] == pytest.approx([-0.3, 0, 1], abs=1e-9)
    assert path[1, -1] == pytest.approx([0.3, 0.5, 1], abs=1e-9)


def test_measured_points_pull_the_track_towards_them() -> None:
    def with_anchors(index: int) -> Snapshot:
        seen = shot(index)
        seen.labels[:] = 0
        seen.depth_m[:] = WALL_Z
        if index == FIRST + 3:
            places = np.array([[30.0, 20.0], [33.0, 20.0], [30.0, 23.0], [33.0, 23.0]])
            seen.corrections = FrameCorrections(
                np.zeros(4, np.int64), places + np.array([1.0, 0.0]), places, np.full(4, WALL_Z)
            )
        return seen

    result = run([(FIRST, 21.0, 31.0), (FIRST, 40.0, 60.0)], with_anchors, lambda label, index: None)
    assert 0.7 < result.tracks[0, 3, 0] - 31.0 < 1.0  # most of one pixel, with a little doubt
    assert result.tracks[0, 2] == pytest.approx([31.0, 21.0], abs=1e-3)
    assert result.tracks[1, 3] == pytest.approx([60.0, 40.0], abs=1e-3)  # too far away


# -- archive -----------------------------------------------------------------------------------------------------------


def packed(depth: NDArray[np.float64], labels: NDArray[np.int32]) -> ArchivedFrame:
    return ArchivedFrame.pack(3, 77, np.eye(4), labels, depth)


def test_an_archived_frame_comes_back() -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(0.5, 8.0, (20, 30))
    depth[0, :5], depth[1, :5] = np.nan, 0.0
    labels = rng.integers(0, 65535, (20, 30)).astype(np.int32)
    frame = packed(depth, labels)
    assert (frame.labels() == labels).all()
    back = frame.depth_m()
    assert np.isnan(back[:2, :5]).all()
    assert back[2:] == pytest.approx(depth[2:], rel=2e-4)
    assert (frame.index, frame.stamp_ns) == (3, 77)


def test_a_frame_that_saw_nothing_is_archived_too() -> None:
    assert np.isnan(packed(np.full((4, 5), np.nan), np.zeros((4, 5), np.int32)).depth_m()).all()


def test_queries_run_through_archived_frames() -> None:
    def half_archived(index: int) -> Snapshot:
        seen = shot(index)
        if index >= FIRST + 3:
            return seen
        old = ArchivedFrame.pack(index, seen.stamp_ns, seen.T_map_cam, seen.labels, seen.depth_m)
        return Snapshot(old.stamp_ns, old.T_map_cam, old.labels(), old.depth_m())

    u, v = CAMERA.project(move(motion_at(1), CENTER[None]))[0]
    result = run([(FIRST + 1, v, u)], half_archived)
    expected = np.stack([move(motion_at(k), CENTER[None])[0] for k in range(LENGTH)])
    assert result.tracks_xyz[0] == pytest.approx(expected, abs=1e-3)
    assert not result.occluded.any()
    assert result.confidence == pytest.approx(SHARE_RIGHT, abs=0.005)


def test_base_motions_that_leave_are_kept_by_base_and_frame() -> None:
    scene = Scene(1)
    scene.extend_times([k * PERIOD_NS for k in range(4)], first_index=10)
    quats = torch.tensor([1.0, 0, 0, 0]).repeat(1, 4, 1)
    trans = torch.arange(4.0)[None, :, None].repeat(1, 1, 3)
    (base,) = scene.append_bases(1, torch.tensor([0.5, 0.0, 0.0]), quats, trans).tolist()
    archive = Archive()
    archive.add_poses(scene.drop_times_before(12))
    assert sorted(archive.motions[base]) == [10, 11]
    assert archive.motions[base][11][:, 3] == pytest.approx([1.0, 1.0, 1.0])
    archive.clear()
    assert not archive.motions


def test_a_side_that_has_turned_away_is_hidden_though_hardly_behind_what_shows() -> None:
    """A coin of a few millimetres turns over: depth cannot tell its back from its front, its normal can."""
    turns = np.radians([0.0, 30.0, 60.0, 120.0, 150.0, 180.0])

    def turned(k: int) -> FloatArray:
        T = np.eye(4)
        T[:3, :3] = Rotation.from_rotvec([0, turns[k], 0]).as_matrix()
        T[:3, 3] = CENTER - T[:3, :3] @ CENTER
        return T

    def coin(index: int) -> Snapshot:
        rays = CAMERA.unproject(CAMERA.pixel_grid(), np.ones(CAMERA.size))
        R = turned(index - FIRST)[:3, :3]
        z = (CENTER @ R[:, 2]) / np.where(np.abs(rays @ R[:, 2]) < 1e-6, 1e-6, rays @ R[:, 2])
        inside = np.linalg.norm(rays * z[..., None] - CENTER, axis=-1) < 0.3
        depth = np.where(inside, z, WALL_Z)
        return Snapshot(index * PERIOD_NS, np.eye(4), inside.astype(np.int32), depth)

    motions = np.stack([turned(k)[:3] for k in range(LENGTH)])[None]
    u, v = CAMERA.project(CENTER[None])[0]
    result = run([(FIRST, v, u)], coin, lambda label, index: MovingGaussians(CENTER[None], np.ones((1, 1)), motions))
    assert result.occluded[0].tolist() == [False, False, False, True, True, True]
