"""What a length means, by what depth and poses say."""

from __future__ import annotations

import numpy as np
import pytest
from engine_builders import given
from fit_builders import CAMERA, make_state

from motion4d_ros.fit.window.scene_scale import SceneScale, scene_scale, sight_of
from motion4d_ros.priors.interfaces import DepthPrior, PosePrior
from motion4d_ros.types import PoseStatus, Scale

METRIC, RELATIVE, UNKNOWN = Scale.METRIC, Scale.RELATIVE, Scale.UNKNOWN


@pytest.mark.parametrize(
    ("depth", "pose", "expected"),
    [
        (METRIC, METRIC, METRIC),  # a depth camera, and odometry or a map that has taken its metres from depth
        (METRIC, RELATIVE, RELATIVE),  # a visual map says otherwise
        (METRIC, UNKNOWN, METRIC),  # a depth camera on a tripod
        (RELATIVE, METRIC, METRIC),  # the metric one decides
        (RELATIVE, RELATIVE, RELATIVE),
        (RELATIVE, UNKNOWN, RELATIVE),  # a network's depth before a camera on a tripod
        (UNKNOWN, METRIC, UNKNOWN),  # odometry that says "still": nothing was measured
        (UNKNOWN, RELATIVE, RELATIVE),  # the map is consistent, whatever this frame's depth is
        (UNKNOWN, UNKNOWN, UNKNOWN),
        (None, METRIC, METRIC),  # no depth was told, and nothing was placed by a guess
        (None, RELATIVE, RELATIVE),
        (None, UNKNOWN, UNKNOWN),
    ],
)
def test_the_whole_table(depth: Scale | None, pose: Scale, expected: Scale) -> None:
    assert scene_scale(depth, pose) is expected


def pose(scale: Scale, status: PoseStatus = PoseStatus.OK) -> PosePrior:
    return PosePrior(np.eye(4), status, scale)


def depth(scale: Scale) -> DepthPrior:
    return DepthPrior(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32), scale)


def lengths(depth_source: str = "topic", pose_source: str = "visual") -> SceneScale:
    return SceneScale(given(**{"depth.source": depth_source, "pose.source": pose_source}))


def test_depth_in_metres_holds_until_a_visual_map_says_otherwise() -> None:
    scene = lengths()
    scene.hear_pose(pose(UNKNOWN))
    scene.hear_depth(depth(METRIC))
    assert scene.now is METRIC and scene.sensed and scene.own_metres
    scene.hear_depth(None)  # a frame without depth, in a scene that has it
    assert scene.now is METRIC
    scene.hear_pose(pose(UNKNOWN, PoseStatus.LOST))
    assert scene.now is METRIC
    scene.hear_pose(pose(METRIC))
    assert scene.now is METRIC
    scene.hear_pose(pose(RELATIVE))
    assert scene.now is RELATIVE
    scene.reset()
    assert scene.now is UNKNOWN and not scene.sensed


def test_a_lost_pose_changes_nothing() -> None:
    scene = lengths("geometry")
    scene.hear_pose(pose(METRIC, PoseStatus.LOST))  # odometry that has not come yet
    scene.hear_depth(depth(UNKNOWN))
    assert scene.now is UNKNOWN
    scene.hear_pose(pose(RELATIVE))
    scene.hear_pose(pose(UNKNOWN, PoseStatus.LOST))
    assert scene.now is RELATIVE


def test_a_guess_is_no_length_until_something_was_measured() -> None:
    scene = lengths("geometry", "odometry")
    scene.hear_pose(pose(METRIC))
    scene.hear_depth(depth(UNKNOWN))
    assert scene.now is UNKNOWN  # the robot stands still
    scene.hear_depth(depth(METRIC))
    scene.hear_depth(depth(UNKNOWN))
    assert scene.now is METRIC and not scene.sensed  # what moves is placed by what it stands on


@pytest.mark.parametrize(("told", "expected"), [(METRIC, METRIC), (RELATIVE, RELATIVE), (UNKNOWN, UNKNOWN)])
def test_a_camera_that_is_taken_for_still_lends_no_metres(told: Scale, expected: Scale) -> None:
    scene = lengths("model", "static")
    scene.hear_pose(pose(METRIC))
    scene.hear_depth(depth(told))
    assert scene.now is expected


def test_a_flat_scene_has_no_metres() -> None:
    scene = lengths("none", "odometry")
    scene.hear_pose(pose(METRIC))
    scene.hear_depth(None)
    assert scene.now is UNKNOWN


def test_where_there_are_no_metres_an_object_is_seen_as_surely_as_its_depth() -> None:
    labels = np.zeros(CAMERA.size, np.int32)
    labels[10:20, 10:20] = 3
    state = make_state(0, labels)
    assert sight_of(state, 3) is None
    state.scale = Scale.RELATIVE
    state.depth_sigma[labels == 3] = 0.8
    sight = sight_of(state, 3)
    assert sight is not None and sight.sigma == pytest.approx(0.8) and not sight.ranged
    other = sight_of(state, 7)  # of which nothing is seen
    assert other is not None and other.sigma == pytest.approx(0.02)
    state.sensed = True
    again = sight_of(state)
    assert again is not None and again.ranged
