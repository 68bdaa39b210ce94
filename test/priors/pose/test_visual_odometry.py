"""Camera poses from images alone, on boards whose poses are known."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from boards import CAMERA, SCENE, path, shot

from motion4d_ros.config import Config
from motion4d_ros.priors.pose.scale_cues import ScaleCues, ground_distance
from motion4d_ros.priors.pose.sparse_map import detect, match
from motion4d_ros.priors.pose.visual_odometry import VisualPose
from motion4d_ros.types import Frame, PoseStatus, Scale


def turn(index: int) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(np.array([0.0, 0.015 * index, 0.0]))[0]
    return T


def run(source: VisualPose, frames: list[Frame]) -> tuple[np.ndarray, list[PoseStatus], list[Scale]]:
    """Final poses (revisions included), statuses and scales."""
    poses: dict[int, np.ndarray] = {}
    statuses, scales = [], []
    for frame in frames:
        prior = source.pose(frame, None)
        poses[frame.index] = prior.T_map_cam
        poses.update(source.revised_poses())
        statuses.append(prior.status)
        scales.append(prior.scale)
    return np.stack([poses[frame.index] for frame in frames]), statuses, scales


@pytest.fixture(scope="module")
def drive() -> list[Frame]:
    return [shot(SCENE, path(index), index)[0] for index in range(16)]


def centres(step: float = 0.06) -> np.ndarray:
    return np.stack([path(index, step)[:3, 3] for index in range(16)])


def test_the_path_is_found_up_to_its_scale(drive: list[Frame]) -> None:
    poses, statuses, scales = run(VisualPose(Config()), drive)
    assert all(status is PoseStatus.OK for status in statuses)
    assert scales[0] is Scale.UNKNOWN and scales[-1] is Scale.RELATIVE
    found, truth = poses[:, :3, 3], centres()
    scale = (truth * found).sum() / (found * found).sum()
    assert np.linalg.norm(scale * found - truth, axis=1).max() < 0.03
    R = poses[-1, :3, :3].T @ path(15)[:3, :3]
    assert np.arccos(np.clip((np.trace(R) - 1) / 2, -1, 1)) < np.radians(0.5)


def test_one_known_distance_makes_it_metric(drive: list[Frame]) -> None:
    config = Config()
    config.pose.known_distance = 5.0
    source = VisualPose(config)
    poses, _, scales = run(source, drive)
    assert scales[-1] is Scale.METRIC and source.cue == "known distance"
    assert np.linalg.norm(poses[-1, :3, 3]) == pytest.approx(np.linalg.norm(centres()[-1]), rel=0.1)


def test_odometry_that_comes_along_makes_it_metric(drive: list[Frame]) -> None:
    frames = [Frame(f.stamp_ns, f.image, CAMERA, path(f.index), index=f.index) for f in drive]
    source = VisualPose(Config())
    poses, _, scales = run(source, frames)
    assert scales[-1] is Scale.METRIC and "odometry" in source.cue
    assert poses[-1, :3, 3] == pytest.approx(centres()[-1], abs=0.06)


def test_a_camera_that_only_turns_invents_no_scale() -> None:
    poses, statuses, scales = run(VisualPose(Config()), [shot(SCENE, turn(i), i)[0] for i in range(10)])
    assert set(scales) == {Scale.UNKNOWN} and set(statuses) == {PoseStatus.OK}
    assert not poses[:, :3, 3].any()
    assert poses[-1, :3, :3] == pytest.approx(turn(9)[:3, :3], abs=0.01)


def test_a_camera_that_stands_still_has_one_pose() -> None:
    rng = np.random.default_rng(0)
    still = shot(SCENE, np.eye(4), 0)[0].image
    frames = [
        Frame(i, np.clip(still + rng.normal(0, 3, still.shape), 0, 255).astype(np.uint8), CAMERA, index=i)
        for i in range(6)
    ]
    poses, _, _ = run(VisualPose(Config()), frames)
    assert (poses == np.eye(4)).all()


def test_loss_is_bridged_then_reported_and_ended(drive: list[Frame]) -> None:
    source = VisualPose(Config())
    run(source, drive)
    black = np.zeros_like(drive[0].image)
    statuses = [source.pose(Frame(0, black, CAMERA, index=16 + k), None).status for k in range(5)]
    assert statuses == [PoseStatus.PREDICTED] * 3 + [PoseStatus.LOST] * 2
    before, _, _ = run(VisualPose(Config()), drive)
    again = source.pose(Frame(0, drive[12].image, CAMERA, index=30), None)
    assert again.status is PoseStatus.OK and source.lost_for == 0
    assert again.T_map_cam[:3, 3] == pytest.approx(before[12, :3, 3], abs=0.03)


def test_after_long_loss_known_things_are_still_found_and_the_map_is_searched_less_often(
    drive: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = VisualPose(Config())
    for frame in drive:
        source.pose(frame, None)
    searches = []
    place = VisualPose._place
    monkeypatch.setattr(VisualPose, "_place", lambda *given, **named: searches.append(1) or place(*given, **named))
    black = np.zeros_like(drive[0].image)
    lost = [source.pose(Frame(frame.stamp_ns, black, CAMERA, index=100 + k), None) for k, frame in enumerate(drive * 3)]
    assert lost[-1].status is PoseStatus.LOST
    assert len(searches) < len(lost) / 2 + 10
    found = [source.pose(drive[-1].with_index(1000 + k), None).status for k in range(4)]
    assert PoseStatus.OK in found


def test_nothing_to_see_from_the_start_is_lost_not_guessed() -> None:
    source = VisualPose(Config())
    black = np.zeros((*CAMERA.size, 3), np.uint8)
    assert [source.pose(Frame(0, black, CAMERA, index=k), None).status for k in range(5)][-1] is PoseStatus.LOST


def test_a_new_image_size_starts_over(drive: list[Frame]) -> None:
    source = VisualPose(Config())
    run(source, drive)
    half = CAMERA.scaled(0.5)
    small = cv2.resize(drive[0].image, (half.width, half.height))
    assert source.pose(Frame(0, small, half, index=16), None).scale is Scale.UNKNOWN


def test_features_spread_and_match() -> None:
    gray = cv2.cvtColor(shot(SCENE, np.eye(4), 0)[0].image, cv2.COLOR_RGB2GRAY)
    uv, _, descriptor = detect(gray, 200)
    assert len(uv) == 200
    quarter = (uv[:, 0] > 120).astype(int) + 2 * (uv[:, 1] > 90)
    assert np.bincount(quarter, minlength=4).min() > 15
    i, j = match(descriptor, descriptor[::-1].copy())
    assert len(i) > 150 and (j == 199 - i).all()
    assert len(match(descriptor, descriptor[:0])[0]) == 0
    assert len(detect(np.zeros((60, 80), np.uint8))[0]) == 0


def test_ground_is_the_plane_below() -> None:
    rng = np.random.default_rng(1)
    floor = np.stack([rng.uniform(-3, 3, 200), np.full(200, 1.4), rng.uniform(1, 8, 200)], -1)
    clutter = rng.uniform([-3, -2, 1], [3, 1, 8], (60, 3))
    assert ground_distance(np.vstack([floor, clutter])) == pytest.approx(1.4, abs=0.02)
    assert ground_distance(clutter[:5]) is None
    factor, cue = ScaleCues(known_height=2.8).factor(np.vstack([floor, clutter]), np.eye(4))
    assert factor == pytest.approx(2.0, abs=0.05) and "height" in cue
    assert ScaleCues().factor(floor, np.eye(4)) == (1.0, "")


def test_metric_depth_wins_over_other_cues() -> None:
    cues = ScaleCues(known_distance=99.0)
    cues.see(np.eye(4), None, (np.ones(30), np.full(30, 2.5)))
    assert cues.factor(np.ones((30, 3)), np.eye(4)) == (2.5, "metric depth")


@pytest.mark.parametrize("late", [0, 5])
def test_the_map_waits_for_a_depth_camera_that_starts_late(drive: list[Frame], late: int) -> None:
    depths = [shot(SCENE, path(index), index)[1] for index in range(16)]
    frames = [
        replace(frame, depth_m=depth if frame.index >= late else None)
        for frame, depth in zip(drive, depths, strict=True)
    ]
    config = Config()
    config.depth.source = "topic"
    source = VisualPose(config)
    poses, _, scales = run(source, frames)
    assert scales[-1] is Scale.METRIC and source.cue == "metric depth"
    assert np.linalg.norm(poses[-1, :3, 3]) == pytest.approx(np.linalg.norm(centres()[-1]), rel=0.05)


def test_a_depth_camera_that_never_starts_is_not_waited_for(drive: list[Frame], monkeypatch) -> None:
    monkeypatch.setattr("motion4d_ros.priors.pose.visual_odometry.INIT_BUFFER", 10)
    config = Config()
    config.depth.source = "topic"
    _, _, scales = run(VisualPose(config), drive)
    assert scales[5] is Scale.UNKNOWN and scales[-1] is Scale.RELATIVE


def test_a_saved_map_places_the_camera_in_another_run(drive: list[Frame]) -> None:
    """As after a crash: the first frame that shows what the map knows has its pose in it, in its units."""
    before, after = VisualPose(Config()), VisualPose(Config())
    assert before.saved_map() == {}, "there is none yet"
    poses, _, _ = run(before, drive[:14])
    after.go_on_in(before.saved_map())
    priors = [after.pose(frame, None) for frame in drive[13:]]
    assert [prior.status for prior in priors] == [PoseStatus.OK] * 3 and priors[0].scale is Scale.RELATIVE
    moved = np.linalg.norm(poses[13, :3, 3] - poses[0, :3, 3])
    assert np.linalg.norm(priors[0].T_map_cam[:3, 3] - poses[13, :3, 3]) < 0.05 * moved


def test_a_saved_map_of_another_place_is_not_believed(drive: list[Frame]) -> None:
    before, after = VisualPose(Config()), VisualPose(Config())
    run(before, drive[:14])
    after.go_on_in(before.saved_map())
    flipped = [replace(frame, image=np.ascontiguousarray(255 - frame.image[::-1])) for frame in drive[13:]]
    assert all(after.pose(frame, None).status is PoseStatus.LOST for frame in flipped)


@pytest.mark.parametrize("spoil", ["xyz", "descriptor", "counts", "metric"])
def test_what_is_no_map_is_refused(drive: list[Frame], spoil: str) -> None:
    source = VisualPose(Config())
    run(source, drive[:14])
    saved = source.saved_map()
    if spoil == "metric":
        del saved[spoil]
    else:
        saved[spoil] = saved[spoil][:-1]
    with pytest.raises((KeyError, ValueError)):
        VisualPose(Config()).go_on_in(saved)
