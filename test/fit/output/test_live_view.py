"""A view tells what the engine would have told, and goes on telling it while the engine's scene changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from engine_builders import realtime_engine as engine

from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.evaluation.synthetic.scene import SyntheticScene
from motion4d_ros.fit.output.scene_readout import MIN_VISIBLE_OPACITY, tracked_points
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.scene.frozen_points import FrozenPoints
from motion4d_ros.types import Estimate, Motion4DError, Stage

SIZE = (72, 96)


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return make_scene("stop_and_go", seed=1, frames=16, size=SIZE)


@pytest.fixture(scope="module")
def fitted(scene: SyntheticScene) -> Motion4D:
    """After two windows; the next frames are only looked at."""
    one = engine()
    for frame in scene.frames()[:8]:
        one.scheduler.stride = 1
        one.push(frame)
    one.scheduler.stride = 100
    return one


def told(estimate: Estimate) -> list[tuple[Any, ...]]:
    return [(o.object_id, o.T_map_object.round(9).tolist(), o.twist.round(9).tolist()) for o in estimate.objects]


def test_points_are_those_of_the_scene_at_any_time(fitted: Motion4D) -> None:
    frozen = FrozenPoints(fitted.mapper.scene, MIN_VISIBLE_OPACITY)
    for when in (3.0, 7.0, 8.5):
        mine, theirs = frozen.at(when), tracked_points(fitted.mapper, when)
        assert len(mine.point_id) > 50 and mine.point_id.tolist() == theirs.point_id.tolist()
        assert mine.xyz_map == pytest.approx(theirs.xyz_map, abs=1e-5)
        assert mine.velocity == pytest.approx(theirs.velocity, abs=1e-4)
        assert np.array_equal(mine.rgb, theirs.rgb) and np.array_equal(mine.object_id, theirs.object_id)


def test_a_view_tells_what_the_engine_tells(fitted: Motion4D, scene: SyntheticScene) -> None:
    view, frame = fitted.live_view, scene.frames()[8]
    assert view is not None and view.continues(frame)
    mine, theirs = view.look(frame), fitted.add_frame(frame)
    assert mine.index == theirs.index == -1 and mine.stage is Stage.LIVE and mine.stamp_ns == theirs.stamp_ns
    assert told(mine) == told(theirs) != []
    assert mine.T_map_cam == pytest.approx(theirs.T_map_cam) and mine.scale is theirs.scale
    assert mine.points.xyz_map == pytest.approx(theirs.points.xyz_map, abs=1e-5)
    assert mine.masks.shape == SIZE and (mine.masks == theirs.masks).mean() > 0.97, "flow is coarser"
    bare = view.look(scene.frames()[9], with_labels=False, with_points=False)
    assert bare.masks.shape == (0, 0) and len(bare.points.point_id) == 0 and len(bare.objects) == len(mine.objects)


def test_a_view_stays_as_it_was_while_the_scene_changes(scene: SyntheticScene) -> None:
    one = engine()
    for frame in scene.frames()[:8]:
        one.scheduler.stride = 1
        one.push(frame)
    view, frame = one.live_view, scene.frames()[12]
    assert view is not None
    before = view.look(frame)
    for other in scene.frames()[8:12]:
        one.scheduler.stride = 1
        one.push(other)
    assert one.live_view is not view, "a new window, a new view"
    one.reset("for a test")
    assert one.live_view is None
    after = view.look(frame)
    assert told(before) == told(after) and np.array_equal(before.points.xyz_map, after.points.xyz_map)


def test_masks_that_name_too_much_are_refused(scene: SyntheticScene) -> None:
    one = engine(**{"objects.most": 16})
    one.add_frame(scene.frames()[0])
    many = np.arange(SIZE[0] * SIZE[1], dtype=np.int32).reshape(SIZE) % 40
    assert one.live_view is not None
    with pytest.raises(Motion4DError, match="raise objects"):
        one.live_view.look(replace(scene.frames()[1], masks=many))


@pytest.mark.parametrize("setting", [{"budget.mode": "lossless"}, {"pose.source": "visual"}])
def test_where_sources_say_more_there_is_no_view(scene: SyntheticScene, setting: dict[str, Any]) -> None:
    one = engine(**setting)
    one.add_frame(scene.frames()[0])
    assert one.live_view is None
