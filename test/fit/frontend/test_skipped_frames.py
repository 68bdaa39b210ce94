"""Frames that are only looked at: told about like the others, and gone without a trace."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine_builders import realtime_engine as engine

from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.evaluation.synthetic.scene import SyntheticScene
from motion4d_ros.fit.frontend.skipped_frames import carry_on
from motion4d_ros.fit.semantics.identity_association import overlap
from motion4d_ros.types import Motion4DError, PoseStatus, Stage

SIZE = (72, 96)


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return make_scene("stop_and_go", seed=1, frames=16, size=SIZE)


def test_while_a_window_waits_frames_are_only_looked_at(scene: SyntheticScene) -> None:
    one = engine()
    live = [one.add_frame(frame) for frame in scene.frames()[:7]]
    assert [estimate.index for estimate in live] == [0, 1, 2, 3, -1, -1, -1]
    assert {estimate.stage for estimate in live} == {Stage.LIVE}
    assert [estimate.stamp_ns for estimate in live] == scene.stamps_ns[:7].tolist()
    assert one.status().frames == 7 and one.status().live_only == 3
    assert live[6].T_map_cam == pytest.approx(scene.T_map_cam[6]) and live[6].pose_status is PoseStatus.OK
    assert live[6].masks.shape == SIZE and (live[6].masks == scene.masks[6]).mean() > 0.9

    assert [estimate.index for estimate in one.process_window()] == [0, 1, 2, 3]
    one.scheduler.stride = 1
    assert one.add_frame(scene.frames()[7]).index == 4, "no number is lost on them"


def test_labels_and_objects_follow_what_moves(scene: SyntheticScene) -> None:
    """Without masks of their own: carried by the flow, and by the objects' motion."""
    one = engine()
    frames = scene.frames()
    for frame in frames[:8]:
        one.scheduler.stride = 1
        one.push(frame)
    one.scheduler.stride = 100
    seen = [one.add_frame(replace(frame, masks=None)) for frame in frames[8:12]]
    assert all(estimate.index == -1 for estimate in seen)
    last, truth = seen[-1], scene.masks[11]
    ids = set(np.unique(truth).tolist()) - {0}
    assert np.mean([overlap(last.masks == k, truth == k) for k in ids]) > 0.5, "three tenths of a second later"
    moved = {item.object_id: item for item in last.objects}
    assert set(moved) == {item.object_id for item in seen[0].objects} > set()
    for item in seen[0].objects:
        expected = item.T_map_object[:3, 3] + 0.3 * item.twist[:3]
        assert moved[item.object_id].T_map_object[:3, 3] == pytest.approx(expected, abs=0.05)


def test_stamps_are_checked_against_frames_that_were_let_go(scene: SyntheticScene) -> None:
    one = engine()
    frames = scene.frames()
    for frame in frames[:6]:
        one.add_frame(frame)
    with pytest.raises(Motion4DError, match="same stamp"):
        one.add_frame(frames[5])
    assert one.add_frame(frames[4]).index == 4, "a jump back begins a new scene, whose first frame is kept"
    assert list(one.status().warnings) == ["restarted: the clock jumped back"]


def test_a_camera_without_given_poses_is_carried_on() -> None:
    a, b = np.eye(4), np.eye(4)
    angle = 0.2
    b[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    b[:3, 3] = [0.1, 0.0, 0.0]
    assert carry_on(a, b, 0.0) == pytest.approx(b)
    assert carry_on(a, b, 1.0) == pytest.approx(b @ b)
    half = carry_on(a, b, 0.5)
    assert half[:3, :3] @ half[:3, :3].T == pytest.approx(np.eye(3))
    assert np.arctan2(half[1, 0], half[0, 0]) == pytest.approx(1.5 * angle)
