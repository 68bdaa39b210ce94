"""The whole engine on a tiny synthetic scene: stages, stamps, bounds, gaps, queries, reproducibility."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_builders import given

from motion4d_ros.config import Config
from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.evaluation.synthetic.scene import SyntheticScene
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.priors.interfaces import PosePrior, SceneHint
from motion4d_ros.scene.storage import load_scene
from motion4d_ros.types import Estimate, Frame, Motion4DError, PoseStatus, Prompt, Scale, Stage

SIZE = (72, 96)
LENGTH = 10


def quick(**values: Any) -> Config:
    """Everything switched on, hardly any steps."""
    config = given(
        window={"length": 4, "horizon": 16, "global_every": 0},
        fit={"motion_iterations": 4, "semantic_iterations": 4, "global_iterations": 4, "final_iterations": 6},
        geometry={"iterations": 3, "static_points": 80, "object_points": 60, "max_parts": 1},
    )
    config.update(values)
    return config


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return make_scene("stop_and_go", seed=1, frames=LENGTH, size=SIZE)


def run(config: Config, frames: list[Frame]) -> tuple[Motion4D, list[Estimate]]:
    engine = Motion4D(config)
    estimates = [estimate for frame in frames for estimate in engine.push(frame)]
    return engine, estimates + engine.flush()


@pytest.fixture(scope="module")
def finished(scene: SyntheticScene) -> tuple[Motion4D, list[Estimate]]:
    return run(quick(), scene.frames())


def stages(estimates: list[Estimate]) -> list[tuple[str, int]]:
    return [(estimate.stage.value, estimate.index) for estimate in estimates]


# -- stages and stamps -------------------------------------------------------------------------------------------------


def test_every_frame_is_live_then_windowed_then_global(
    finished: tuple[Motion4D, list[Estimate]], scene: SyntheticScene
) -> None:
    _, estimates = finished
    expected: list[tuple[str, int]] = []
    for window in ((0, 1, 2, 3), (4, 5, 6, 7)):
        expected += [("live", k) for k in window] + [("window", k) for k in window]
    expected += [("live", 8), ("live", 9), ("window", 8), ("window", 9)] + [("global", k) for k in range(LENGTH)]
    assert stages(estimates) == expected
    for estimate in estimates:
        assert estimate.stamp_ns == scene.stamps_ns[estimate.index]
        assert estimate.frame_id == "camera_optical"
        assert estimate.camera == scene.camera and estimate.masks.shape == SIZE and estimate.masks.dtype == np.uint16
        assert estimate.T_map_cam == pytest.approx(scene.T_map_cam[estimate.index])
        assert estimate.pose_status is PoseStatus.OK and estimate.scale is Scale.METRIC


def test_masks_and_points_resemble_the_truth(finished: tuple[Motion4D, list[Estimate]], scene: SyntheticScene) -> None:
    _, estimates = finished
    final = [estimate for estimate in estimates if estimate.stage is Stage.GLOBAL]
    ids = set(np.unique(scene.masks).tolist()) - {0}
    for object_id in ids:
        pairs = [(estimate.masks == object_id, scene.masks[estimate.index] == object_id) for estimate in final]
        assert np.mean([(ours & truth).sum() / (ours | truth).sum() for ours, truth in pairs]) > 0.65
    assert set(final[5].points.object_id.tolist()) <= ids
    assert {item.object_id for item in final[5].objects} == ids
    assert len(set(final[5].points.point_id.tolist())) == len(final[5].points.point_id)
    for object_id in ids:  # points lie where the object is: within the image of its mask, nearly all
        mine = final[5].points.object_id == object_id
        T = np.linalg.inv(final[5].T_map_cam)
        uv = scene.camera.project(final[5].points.xyz_map[mine] @ T[:3, :3].T + T[:3, 3])
        pixel = np.clip(np.rint(np.nan_to_num(uv)).astype(int), 0, [SIZE[1] - 1, SIZE[0] - 1])
        hits = [
            (scene.masks[5, max(0, v - 2) : v + 3, max(0, u - 2) : u + 3] == object_id).any() for u, v in pixel.tolist()
        ]
        assert np.mean(hits) > 0.8


def test_the_same_seed_gives_the_same_result(finished: tuple[Motion4D, list[Estimate]], scene: SyntheticScene) -> None:
    engine, estimates = finished
    again, repeated = run(quick(), scene.frames())
    for one, other in zip(estimates, repeated, strict=True):
        assert (one.masks == other.masks).all()
        assert (one.points.xyz_map == other.points.xyz_map).all()
    queries = scene.queries[:10]
    assert (engine.query(queries).tracks == again.query(queries).tracks).all()


def test_accept_and_advance_are_what_push_does(scene: SyntheticScene) -> None:
    engine = Motion4D(quick())
    for frame in scene.frames()[:3]:
        assert engine.add_frame(frame).stage is Stage.LIVE
        assert engine.process_window() == []
    assert engine.add_frame(scene.frames()[3]).objects == []  # nothing has been fitted yet
    assert stages(engine.process_window()) == [("window", k) for k in range(4)]
    assert engine.process_window() == []
    assert {item.object_id for item in engine.add_frame(scene.frames()[4]).objects} > set()  # predicted


def test_global_rounds_come_when_due_and_can_be_switched_off(scene: SyntheticScene) -> None:
    engine = Motion4D(quick(**{"window.global_every": 2}))
    found = [stages(engine.push(frame)) for frame in scene.frames()[:8]]
    assert all(stage != "global" for step in found[:7] for stage, _ in step)
    assert [index for stage, index in found[7] if stage == "global"] == list(range(8))
    off = Motion4D(quick(**{"window.global_every": 1, "fit.global_stage": False}))
    emitted = [estimate for frame in scene.frames()[:5] for estimate in off.push(frame)] + off.flush() + off.refine()
    assert {estimate.stage for estimate in emitted} == {Stage.LIVE, Stage.WINDOW}


def test_refinement_gives_way_and_keeps_the_gain(scene: SyntheticScene) -> None:
    engine = Motion4D(quick(**{"fit.global_iterations": 50}))
    assert engine.refine() == []  # nothing to refine
    for frame in scene.frames()[:4]:
        engine.push(frame)
    before = engine.mapper.trainer.iterations
    assert engine.refine(lambda: True) == []
    assert engine.mapper.trainer.iterations == before and engine.status().refinements == 0
    calls = iter([False, False, False, True])
    assert stages(engine.refine(lambda: next(calls))) == [("global", k) for k in range(4)]
    assert engine.mapper.trainer.iterations == before + 3 and engine.status().refinements == 1


# -- pauses ------------------------------------------------------------------------------------------------------------


def test_frames_accepted_in_mid_window_change_nothing_of_it(scene: SyntheticScene) -> None:
    """Fitted in peace, and fitted while frames come in at every pause: the same windows, bit by bit."""
    frames = scene.frames()[:8]
    calm = Motion4D(quick())
    expected = [estimate for frame in frames for estimate in calm.push(frame) if estimate.stage is Stage.WINDOW]

    busy = Motion4D(quick())
    waiting, live, pauses = frames[4:], [], 0

    def between() -> None:
        nonlocal pauses
        pauses += 1
        if pauses % 5 == 0 and waiting:
            live.append(busy.add_frame(waiting.pop(0)))

    for frame in frames[:4]:
        busy.add_frame(frame)
    found = busy.process_window(between=between)
    assert [estimate.index for estimate in live] == [4, 5, 6, 7], "all came in during the first window"
    assert pauses > 30 and busy.window_is_full
    assert {estimate.stage for estimate in live} == {Stage.LIVE}
    found += busy.process_window(between=between)
    assert len(found) == len(expected) == 8
    for one, other in zip(found, expected, strict=True):
        assert (one.masks == other.masks).all()
        assert (one.points.xyz_map == other.points.xyz_map).all()
        assert [item.object_id for item in one.objects] == [item.object_id for item in other.objects]


def test_what_a_window_corrects_reaches_the_frames_that_came_meanwhile(scene: SyntheticScene) -> None:
    engine = Motion4D(quick())
    frames = scene.frames()
    for frame in frames[:4]:
        engine.add_frame(frame)
    blind = [replace(frame, masks=np.zeros(SIZE, np.int32)) for frame in frames[4:7]]  # their source shows nothing
    waiting = blind[:2]

    def between() -> None:
        if waiting:
            engine.add_frame(waiting.pop(0))

    engine.process_window(between=between)
    objects = scene.masks[6] > 0
    live = engine.add_frame(blind[2])
    assert (live.masks[objects] > 0).mean() > 0.6


def test_a_window_can_be_abandoned_and_the_engine_goes_on(scene: SyntheticScene) -> None:
    engine = Motion4D(quick())
    frames = scene.frames()

    class Enough(Exception):
        pass

    for at in (1, 20, 45):  # in geometry, in the middle, in the report
        pauses = iter(range(at))

        def between(pauses: Any = pauses) -> None:
            if next(pauses, None) is None:
                raise Enough

        for frame in frames[:4]:
            engine.add_frame(frame)
        with pytest.raises(Enough):
            engine.process_window(between=between)
        engine.reset("abandoned")
    estimates = [estimate for frame in frames[:4] for estimate in engine.push(frame)]
    assert [estimate.stage.value for estimate in estimates] == ["live"] * 4 + ["window"] * 4


def test_a_new_scene_does_not_begin_in_mid_window(scene: SyntheticScene) -> None:
    engine = Motion4D(quick())
    frames = scene.frames()
    for frame in frames[1:5]:
        engine.add_frame(frame)
    refused = []

    def between() -> None:
        if not refused:
            with pytest.raises(Motion4DError, match="clock jumped back") as error:
                engine.add_frame(frames[0])
            refused.append(error)

    assert len(engine.process_window(between=between)) == 4 and refused
    assert engine.add_frame(frames[5]).index == 4


# -- unusual input -----------------------------------------------------------------------------------------------------


def test_one_frame_alone(scene: SyntheticScene) -> None:
    engine, estimates = run(quick(), scene.frames()[:1])
    assert stages(estimates) == [("live", 0), ("window", 0), ("global", 0)]
    tracks = engine.query(np.array([[0.0, 30.0, 40.0]]))
    assert tracks.tracks[0, 0].tolist() == [40, 30] and not tracks.occluded[0, 0]
    assert np.isfinite(engine.render(0).alpha).all()


def test_no_frame_at_all() -> None:
    engine = Motion4D(quick())
    assert engine.flush() == [] and engine.refine() == [] and engine.process_window() == []
    assert engine.status().frames == 0
    with pytest.raises(Motion4DError, match="no frame"):
        engine.query(np.zeros((1, 3)))


def test_without_a_depth_source_the_scale_is_unknown(scene: SyntheticScene) -> None:
    frames = [replace(frame, T_map_cam=None, depth_m=None) for frame in scene.frames()[:5]]
    _, estimates = run(quick(**{"depth.source": "none", "pose.source": "static"}), frames)
    assert all(estimate.scale is Scale.UNKNOWN for estimate in estimates)
    assert all(any("no depth" in text for text in estimate.warnings) for estimate in estimates)
    assert all(np.isfinite(estimate.points.xyz_map).all() for estimate in estimates)


TRIPOD = {"pose.source": "visual", "masks.source": "topic"}


@pytest.fixture(scope="module")
def tripod() -> SyntheticScene:
    """A camera on a tripod; an object leaves the picture, another stays."""
    return make_scene("leave_return", seed=1, frames=12, size=SIZE)


def test_depth_in_metres_stays_metric_on_a_tripod(tripod: SyntheticScene) -> None:
    frames = [replace(frame, T_map_cam=None) for frame in tripod.frames()]
    engine, estimates = run(quick(**TRIPOD), frames)
    assert {estimate.scale for estimate in estimates} == {Scale.METRIC} and engine.status().scale is Scale.METRIC
    points = estimates[-1].points
    for object_id in (1, 2):
        depth = float(np.median(tripod.depth_m[-1][tripod.masks[-1] == object_id]))
        found = float(np.median(points.xyz_map[points.object_id == object_id, 2]))
        assert found == pytest.approx(depth, rel=0.05), "metres, as the depth camera says"


def test_without_metres_nothing_moves_along_its_ray_nor_behind_the_camera(tripod: SyntheticScene) -> None:
    """The same without depth. The fit is late, as on a slow machine: live estimates go on from its last window."""
    engine = Motion4D(quick(**TRIPOD, **{"depth.source": "geometry"}))
    frames = [replace(frame, T_map_cam=None, depth_m=None) for frame in tripod.frames()]
    fitted = [estimate for frame in frames[:8] for estimate in engine.push(frame)][-1]
    late = [replace(frames[-1], stamp_ns=frames[7].stamp_ns + k * 500_000_000) for k in range(1, 9)]
    told = [*[engine.add_frame(frame) for frame in late], *engine.flush()]
    assert {estimate.scale for estimate in told} == {Scale.UNKNOWN}
    known = {state.object_id: np.linalg.norm(state.T_map_object[:3, 3]) for state in fitted.objects}
    distance = dict(zip(fitted.points.point_id.tolist(), np.linalg.norm(fitted.points.xyz_map, axis=1), strict=True))
    assert known and distance
    for estimate in told:
        for state in estimate.objects:
            centre = state.T_map_object[:3, 3]
            ray = centre / np.linalg.norm(centre)
            assert centre[2] > 0 and state.twist[:3] @ ray == pytest.approx(0.0, abs=1e-6)
            assert ray @ state.twist_covariance[:3, :3] @ ray > 1.0
            assert ray @ state.pose_covariance[:3, :3] @ ray > (0.5 * np.linalg.norm(centre)) ** 2
            if estimate.stage is Stage.LIVE:
                assert np.linalg.norm(centre) == pytest.approx(known[state.object_id], rel=1e-6)
        if estimate.stage is Stage.LIVE:
            away = np.linalg.norm(estimate.points.xyz_map, axis=1)
            assert away == pytest.approx([distance[k] for k in estimate.points.point_id.tolist()], rel=1e-3)
        along = (estimate.points.velocity * estimate.points.xyz_map).sum(1)
        assert along == pytest.approx(np.zeros(len(along)), abs=1e-3)


@pytest.mark.parametrize("bad", [slice(0, 1), slice(2, 4), slice(4, 8)], ids=["first", "inside", "a window"])
def test_frames_without_depth_are_survived(scene: SyntheticScene, bad: slice) -> None:
    frames = scene.frames()
    for frame in frames[bad]:
        frame.depth_m = np.full(SIZE, np.nan, np.float32)
    engine, estimates = run(quick(), frames)
    assert Counter(estimate.stage for estimate in estimates)[Stage.GLOBAL] == LENGTH
    final = estimates[-1]
    assert np.isfinite(final.points.xyz_map).all()
    assert (final.masks == scene.masks[-1]).mean() > 0.85
    assert np.isfinite(engine.query(scene.queries[:8]).tracks_xyz).all()


def test_gaps_in_the_poses_are_bridged_then_reported(scene: SyntheticScene) -> None:
    frames = scene.frames()
    for frame in frames[4:9]:
        frame.T_map_cam = None
    _, estimates = run(quick(), frames)
    by_stage = {estimate.index: estimate.pose_status for estimate in estimates if estimate.stage is Stage.WINDOW}
    assert [by_stage[k] for k in range(LENGTH)] == (
        [PoseStatus.OK] * 4 + [PoseStatus.PREDICTED] * 3 + [PoseStatus.LOST] * 2 + [PoseStatus.OK]
    )
    assert all(np.isfinite(estimate.T_map_cam).all() for estimate in estimates)


def test_frames_without_masks_and_scenes_without_objects(scene: SyntheticScene) -> None:
    frames = [replace(frame, masks=None) for frame in scene.frames()[:5]]
    _, estimates = run(quick(), frames)
    assert all((estimate.masks == 0).all() and estimate.objects == [] for estimate in estimates)
    engine, estimates = run(quick(**{"masks.source": "none"}), scene.frames()[:5])
    assert all((estimate.masks == 0).all() for estimate in estimates)
    assert engine.status().gaussians_dynamic == 0 < engine.status().gaussians_static


def test_images_are_fitted_small_and_answered_at_full_size(scene: SyntheticScene) -> None:
    engine, estimates = run(quick(**{"budget.working_width": 48}), scene.frames()[:5])
    assert all(estimate.masks.shape == SIZE for estimate in estimates)
    assert engine.horizon.camera.size == (36, 48)
    assert engine.render(4).rgb.shape == (*SIZE, 3) and engine.render(4).depth_m.shape == SIZE
    tracks = engine.query(np.array([[0.0, 31.0, 41.0]]))
    assert tracks.tracks[0, 0] == pytest.approx([41, 31], abs=1e-3)  # in the input's pixels


def test_a_horizon_too_short_for_the_window_is_refused() -> None:
    with pytest.raises(Motion4DError, match=r"window\.horizon"):
        Motion4D(quick(**{"window.length": 8, "window.horizon": 8}))


# -- restarts ----------------------------------------------------------------------------------------------------------


def test_a_stamp_twice_is_refused_and_the_scene_goes_on(scene: SyntheticScene) -> None:
    engine = Motion4D(quick())
    frames = scene.frames()
    engine.push(frames[0])
    with pytest.raises(Motion4DError, match="same stamp"):
        engine.push(frames[0])
    assert engine.push(frames[1])[0].index == 1
    assert engine.status().frames == 2 and engine.status().warnings == {}


def test_a_clock_that_jumps_back_starts_a_new_scene_with_new_ids(scene: SyntheticScene) -> None:
    engine = Motion4D(quick())
    frames = scene.frames()
    first = [estimate for frame in frames[4:8] for estimate in engine.push(frame)][-1]
    assert stages(engine.push(frames[0])) == [("live", 4)]
    assert engine.status().horizon == 0 and engine.status().gaussians_static == 0
    second = [estimate for frame in frames[1:4] for estimate in engine.push(frame)][-1]
    assert second.stage is Stage.WINDOW and len(second.points.point_id)
    assert second.points.point_id.min() > first.points.point_id.max()
    assert any("clock" in text for text in engine.status().warnings)
    assert sum(engine.status().warnings.values()) == 1


def test_another_camera_starts_a_new_scene(scene: SyntheticScene) -> None:
    engine = Motion4D(quick())
    frames = scene.frames()
    for frame in frames[:4]:
        engine.push(frame)
    other = replace(frames[4], camera=replace(scene.camera, fx=scene.camera.fx * 1.1))
    engine.push(other)
    assert any("camera changed" in text for text in engine.status().warnings)
    assert engine.status().horizon == 0


# -- prompts -----------------------------------------------------------------------------------------------------------


def test_objects_are_renamed_and_deleted(scene: SyntheticScene) -> None:
    engine = Motion4D(quick())
    frames = scene.frames()
    for frame in frames[:4]:
        engine.push(frame)
    assert engine.prompt(Prompt(0, 1, name="the mug")) == 1
    assert engine.prompt(Prompt(0, 2, delete=True)) == 2
    later = [estimate for frame in frames[4:8] for estimate in engine.push(frame)]
    window = [estimate for estimate in later if estimate.stage is Stage.WINDOW]
    assert {item.label for estimate in window for item in estimate.objects if item.object_id == 1} == {"the mug"}
    assert all(2 not in np.unique(estimate.masks) for estimate in window)
    assert all(2 not in estimate.points.object_id for estimate in window)


# -- queries, rendering, saving ----------------------------------------------------------------------------------------


def test_queries_follow_the_truth(finished: tuple[Motion4D, list[Estimate]], scene: SyntheticScene) -> None:
    engine, _ = finished
    result = engine.query(scene.queries)
    assert result.tracks.shape == (len(scene.queries), LENGTH, 2) and (result.query_points == scene.queries).all()
    assert result.stamps_ns.tolist() == scene.stamps_ns.tolist()
    rows = np.arange(len(scene.queries))
    at = scene.queries[:, 0].astype(int)
    assert result.tracks[rows, at] == pytest.approx(scene.queries[:, :0:-1], abs=1e-3)
    assert not result.occluded[rows, at].any()
    error = np.linalg.norm(result.tracks - scene.tracks_yx[..., ::-1], axis=-1)[scene.visible]
    assert np.median(error) < 0.5
    moving = np.broadcast_to((scene.query_object > 0)[:, None], scene.visible.shape)[scene.visible]
    assert np.median(error[moving]) < 1.5
    assert np.median(np.linalg.norm(result.tracks_xyz - scene.tracks_xyz, axis=-1)[scene.visible]) < 0.1
    assert (result.confidence >= 0).all() and (result.confidence <= 1).all()


@pytest.mark.parametrize("points", [np.zeros((2, 2)), np.zeros(3), np.array([[0.0, np.nan, 1.0]])])
def test_malformed_queries_are_refused(finished: tuple[Motion4D, list[Estimate]], points: np.ndarray) -> None:
    with pytest.raises(Motion4DError, match="queries"):
        finished[0].query(points)


def test_the_archive_lets_queries_reach_back(scene: SyntheticScene) -> None:
    config = quick(**{"window.horizon": 8, "run.archive": True})
    engine, _ = run(config, scene.frames())
    assert len(engine.horizon) == 8 and sorted(engine.archive.frames) == [0, 1]
    result = engine.query(scene.queries)
    assert result.tracks.shape[1] == LENGTH and result.stamps_ns.tolist() == scene.stamps_ns.tolist()
    assert np.isfinite(result.tracks_xyz).all()
    static = scene.query_object == 0
    error = np.linalg.norm(result.tracks - scene.tracks_yx[..., ::-1], axis=-1)
    assert np.median(error[static][scene.visible[static]]) < 1.5
    assert sorted(engine.T_map_cams) == list(range(LENGTH))


def test_without_the_archive_queries_cover_the_horizon(scene: SyntheticScene) -> None:
    engine, _ = run(quick(**{"window.horizon": 8}), scene.frames())
    result = engine.query(np.array([[8.0, 30.0, 40.0]]))
    assert result.tracks.shape[1] == 8
    assert result.stamps_ns.tolist() == scene.stamps_ns[-8:].tolist()
    assert engine.archive.frames == {} and sorted(engine.T_map_cams) == list(range(2, LENGTH))


def test_frames_in_the_horizon_are_rendered_and_others_refused(
    finished: tuple[Motion4D, list[Estimate]], scene: SyntheticScene
) -> None:
    engine, _ = finished
    shown = engine.render(5)
    covered = shown.alpha > 0.5
    assert covered.mean() > 0.9
    assert np.abs(shown.rgb.astype(float) - scene.images[5])[covered].mean() < 30
    relative = np.abs(shown.depth_m / scene.depth_m[5] - 1)[covered]
    assert np.median(relative) < 0.08
    assert (shown.confidence >= 0).all() and (shown.confidence <= 1).all()
    for index in (-1, LENGTH, 99):
        with pytest.raises(Motion4DError, match="horizon"):
            engine.render(index)


def test_a_saved_scene_loads_again(finished: tuple[Motion4D, list[Estimate]], tmp_path: Path) -> None:
    engine, _ = finished
    paths = engine.save_scene(str(tmp_path / "deep" / "folder"))
    (tmp_path / "file").write_text("")
    with pytest.raises(Motion4DError, match="cannot be made"):
        engine.save_scene(str(tmp_path / "file" / "folder"))
    assert all(Path(path).is_file() for path in paths) and len(paths) == 2
    loaded, extra = load_scene(Path(paths[0]))
    mine = engine.mapper.scene
    assert loaded.count == mine.count and (loaded.ids == mine.ids).all()
    for time in (0, 4.5, 9):
        assert torch.equal(loaded.at(time).means, mine.at(time).means)
    assert extra["objects"] == {str(label): channel for label, channel in engine.mapper.channel_of.items()}


def test_the_status_adds_up(finished: tuple[Motion4D, list[Estimate]]) -> None:
    engine, estimates = finished
    health, mapped = engine.status(), engine.mapper.scene
    assert (health.frames, health.windows, health.refinements, health.horizon) == (LENGTH, 3, 1, LENGTH)
    assert health.gaussians_static + health.gaussians_dynamic == mapped.count
    assert health.objects == len({item.object_id for item in estimates[-1].objects})
    assert health.bases == mapped.bases.count > 0
    assert set(health.stage_seconds) >= {"intake", "geometry", "spawn", "motion", "semantic", "global", "report"}
    assert all(seconds > 0 for seconds in health.stage_seconds.values())
    static = engine.static_points()
    assert len(static.xyz_map) == len(static.rgb) == len(static.confidence) == health.gaussians_static


def test_cuda_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Motion4DError, match="cuda"):
        Motion4D(quick(**{"run.device": "cuda"}))


def test_hurried_windows_get_few_steps_and_all_their_estimates(scene: SyntheticScene) -> None:
    config = quick(**{"budget.mode": "realtime", "fit.motion_iterations": 60, "fit.semantic_iterations": 20})
    engine = Motion4D(config)
    for k, frame in enumerate(scene.frames()[:4]):  # a thousand frames a second: no time at all
        estimates = engine.push(replace(frame, stamp_ns=10**9 + k * 10**6))
    assert stages(estimates)[1:] == [("window", k) for k in range(4)]
    assert engine.mapper.trainer.iterations == 3  # a twentieth of 60; of 20 in two rounds nothing
    assert engine.status().stride > 1, "from now on, frames are left out"
    assert engine.refine() == [], "no time for that either"
    engine.set_timing(60.0)  # a frame a minute
    assert [index for _, index in stages(engine.refine())] == list(range(4))
    assert engine.mapper.trainer.iterations == 3 + 4
    assert [index for _, index in stages(engine.flush())] == list(range(4)), "when it is asked for, there is time"


def test_depth_that_parallax_contradicts_is_said() -> None:
    config = quick(**{"masks.source": "none", "geometry.iterations": 8, "fit.motion_iterations": 0})
    moving = make_scene("tabletop_like", seed=2, frames=8, size=SIZE).frames()
    wrong = [replace(frame, depth_m=frame.depth_m * 1.5) for frame in moving if frame.depth_m is not None]
    engine, estimates = run(config, wrong)
    assert any("parallax" in text for text in engine.status().warnings)
    assert any("parallax" in text for estimate in estimates for text in estimate.warnings)
    calm, _ = run(config, moving)
    assert calm.status().warnings == {}


def test_objects_that_nobody_shows_retire_but_queries_remember_them(scene: SyntheticScene) -> None:
    frames = scene.frames()
    for frame in frames[4:]:
        assert frame.masks is not None
        frame.masks = np.where(frame.masks == 2, 0, frame.masks)
    engine, estimates = run(quick(**{"window.length": 2, "window.horizon": 4, "run.archive": True}), frames)
    assert 2 in {item.object_id for e in estimates if e.stage is Stage.WINDOW and e.index < 4 for item in e.objects}
    assert 2 not in engine.mapper.geometry.motions and 2 not in engine.mapper.scene.objects()
    assert engine.status().objects == 1
    queries = scene.queries[(scene.query_object == 2) & (scene.queries[:, 0] == 0)][:6]
    tracks = engine.query(queries)
    truth = scene.tracks_yx[(scene.query_object == 2) & (scene.queries[:, 0] == 0)][:6, :4, ::-1]
    assert np.median(np.linalg.norm(tracks.tracks[:, :4] - truth, axis=-1)) < 1.5
    assert np.isfinite(tracks.tracks_xyz).all()


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_nothing_grows_with_the_length_of_the_run() -> None:
    long = make_scene("stop_and_go", seed=3, frames=20, size=(48, 64))
    config = quick(**{"window.horizon": 8, "fit.motion_iterations": 2, "fit.semantic_iterations": 2})
    config.update({"budget.max_static": 400, "budget.max_dynamic": 150, "window.global_every": 3})
    engine = Motion4D(config)
    frames = long.frames()
    sequence = [*frames, *frames[::-1], *frames]  # there, back and there again
    for k, frame in enumerate(sequence):
        engine.push(replace(frame, stamp_ns=10**9 + k * 10**8))
        first = engine.horizon.first_index
        assert len(engine.horizon) <= 8
        assert len(engine.intake.pending) < 4
        assert len(engine.mapper.targets) <= 8 and min(engine.mapper.targets, default=first) >= first
        assert engine.mapper.scene.bases.length <= 8
        assert all(len(motion.poses) <= 8 for motion in engine.mapper.geometry.motions.values())
        assert engine.mapper.geometry.keyframes.count <= 4
        assert len(engine.mapper.geometry.alignment.scale) <= 8 and len(engine.T_map_cams) <= 8 + 4
        assert len(engine.intake.tracks.flows.indices) <= 8 + 4
    health = engine.status()
    assert health.frames == 60 and health.windows == 15
    assert health.gaussians_static <= 400 and health.gaussians_dynamic <= 150
    assert engine.archive.frames == {} and engine.archive.motions == {}
    assert engine.horizon.frames[-1].index == 59


def test_a_camera_motion_found_late_builds_the_scene_anew(scene: SyntheticScene) -> None:
    class Late:
        """Knows the true poses from the sixth frame on, and then those before it."""

        def __init__(self) -> None:
            self.given: dict[int, Any] = {}
            self.revised: dict[int, Any] = {}

        def pose(self, frame: Frame, hint: SceneHint | None) -> PosePrior:
            assert frame.T_map_cam is not None
            self.given[frame.index] = frame.T_map_cam
            if frame.index < 5:
                return PosePrior(scene.T_map_cam[0], PoseStatus.OK, Scale.UNKNOWN)
            self.revised = dict(self.given) if frame.index == 5 else {}
            return PosePrior(frame.T_map_cam, PoseStatus.OK, Scale.RELATIVE)

        def revised_poses(self) -> dict[int, Any]:
            revised, self.revised = self.revised, {}
            return revised

        def reset(self) -> None:
            self.given.clear()

    engine = Motion4D(quick())
    engine.intake.poses = Late()
    estimates = [estimate for frame in scene.frames()[:8] for estimate in engine.push(frame)]
    told = stages(estimates)
    assert told[-8:] == [("global", k) for k in range(4)] + [("window", k) for k in range(4, 8)]
    for estimate in estimates[-8:]:
        assert estimate.T_map_cam == pytest.approx(scene.T_map_cam[estimate.index])
    assert engine.mapper.scene.bases.length == 8
    former = max(int(each.points.point_id.max(initial=0)) for each in estimates[:-8])
    assert int(engine.mapper.scene.ids.min()) > former  # ids of points are never used again
