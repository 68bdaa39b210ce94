"""Frames and prompts on their way in: numbering, restarts, working size."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fit_builders import PERIOD_NS, pose, texture

from motion4d_ros.config import Config
from motion4d_ros.fit.frontend.intake import Intake, shrink
from motion4d_ros.fit.window.horizon import Horizon
from motion4d_ros.priors.interfaces import DepthPrior, PosePrior, SceneHint
from motion4d_ros.types import Camera, Frame, IntArray, Motion4DError, PoseStatus, Prompt, Scale

CAMERA = Camera(70.0, 70.0, 39.5, 29.5, 80, 60)


def labels_of(label: int = 4) -> np.ndarray:
    labels = np.zeros(CAMERA.size, np.int32)
    labels[20:40, 30:50] = label
    return labels


def frame(k: int, **values: Any) -> Frame:
    gray = texture(*CAMERA.size, seed=1)
    base = Frame(
        (k + 1) * PERIOD_NS,
        np.repeat(gray[..., None], 3, -1),
        CAMERA,
        pose(),
        np.full(CAMERA.size, 2.0, np.float32),
        labels_of(),
    )
    return replace(base, **values)


def intake_of(**values: Any) -> Intake:
    config = Config()
    config.update({"masks.source": "topic", "depth.source": "topic", "pose.source": "odometry", **values})
    return Intake(config)


class Recorder:
    """A mask source that notes the prompts it gets."""

    accepts_prompts = True
    full_size = False

    def __init__(self) -> None:
        self.seen: list[tuple[int, Prompt]] = []

    def masks(self, frame: Frame, hint: SceneHint | None) -> IntArray:
        return np.zeros(frame.camera.size, np.int32)

    def refresh(self, frame: Frame, prompts: Sequence[Prompt]) -> IntArray | None:
        return None

    def prompt(self, frame: Frame, prompt: Prompt) -> None:
        self.seen.append((frame.index, prompt))

    def reset(self) -> None:
        self.seen.clear()


# -- frames ------------------------------------------------------------------------------------------------------------


def test_frames_are_numbered_and_wait_for_their_window() -> None:
    intake = intake_of()
    states = [intake.take(frame(k)) for k in range(3)]
    assert [state.index for state in states] == [0, 1, 2]
    assert states[0].scale is Scale.METRIC and intake.known_ids == {4}
    assert states[1].depth_m == pytest.approx(2.0)
    assert intake.close_window() == states and intake.pending == []
    assert intake.take(frame(3)).index == 3


def test_a_stamp_that_stands_still_is_refused_and_one_that_goes_back_restarts() -> None:
    intake = intake_of()
    assert intake.reason_to_restart(frame(0)) == ""
    intake.take(frame(1))
    with pytest.raises(Motion4DError, match="same stamp"):
        intake.reason_to_restart(frame(1))
    assert "clock" in intake.reason_to_restart(frame(0))
    assert intake.reason_to_restart(frame(2)) == ""


def test_another_camera_restarts_also_when_images_are_shrunk() -> None:
    for width in (0, 40):
        intake = intake_of(**{"budget.working_width": width})
        intake.take(frame(0))
        assert intake.reason_to_restart(frame(1)) == ""
        assert "camera" in intake.reason_to_restart(frame(1, camera=replace(CAMERA, fx=71.0)))


def test_intrinsics_that_flicker_are_those_of_one_camera_but_may_not_creep_away() -> None:
    intake = intake_of()
    intake.take(frame(0))
    for k in range(1, 4):  # focus and stabilisation move them by hundredths of a pixel
        flickering = frame(k, camera=replace(CAMERA, fx=CAMERA.fx + 0.01 * k, cy=CAMERA.cy - 0.02))
        assert intake.reason_to_restart(flickering) == ""
        assert intake.take(flickering).output_camera == CAMERA
    assert "camera" in intake.reason_to_restart(frame(4, camera=replace(CAMERA, fx=CAMERA.fx + 1.0)))


def test_counters_survive_a_reset() -> None:
    intake = intake_of()
    intake.take(frame(5))
    intake.reset()
    assert intake.pending == [] and intake.predicted is None
    assert intake.reason_to_restart(frame(0)) == ""  # any stamp starts anew
    assert intake.take(frame(0)).index == 1
    assert intake.prompt(Prompt(0, points_px=np.array([[3.0, 3.0]])), Horizon(8)) == 5  # 4 is taken for ever


def test_missing_depth_is_said_and_survived() -> None:
    intake = intake_of()
    state = intake.take(frame(0, depth_m=None))
    assert np.isnan(state.depth_m).all() and state.scale is Scale.METRIC  # the pose's
    assert any("without depth" in text for text in state.warnings)
    second = intake.take(frame(1, T_map_cam=None))
    assert second.scale is Scale.METRIC and "frame without depth" not in second.warnings
    flat = intake_of(**{"depth.source": "none"}).take(frame(0))
    assert flat.scale is Scale.UNKNOWN, "a guess has no metres, whatever the poses are"
    assert np.isfinite(flat.depth_m).all() and any("flat" in text for text in flat.warnings)


def test_holes_in_the_depth_stay_holes() -> None:
    depth = np.full(CAMERA.size, 2.0, np.float32)
    depth[:10], depth[10:20], depth[20:30] = np.nan, 0.0, np.inf
    state = intake_of().take(frame(0, depth_m=depth))
    assert np.isnan(state.depth_m[:30]).all() and (state.depth_m[30:] == 2.0).all()


def test_lost_poses_are_said() -> None:
    state = intake_of().take(frame(0, T_map_cam=None))
    assert state.pose_status is PoseStatus.LOST
    assert any("pose" in text for text in state.warnings)


def test_prediction_carries_labels_over_a_frame_whose_masks_are_missing() -> None:
    intake = intake_of()
    intake.take(frame(0))
    intake.take(frame(1, masks=None))
    assert intake.predicted is not None
    assert (intake.predicted == labels_of()).mean() > 0.98
    intake.take(frame(2, masks=labels_of() + 5 * (labels_of() == 0).astype(np.int32)))
    assert 5 in intake.predicted  # a new id is believed at once


def test_shrinking_keeps_labels_and_depth_unmixed() -> None:
    depth = np.where(labels_of() > 0, 1.0, 3.0).astype(np.float32)
    small = shrink(frame(0, depth_m=depth), 40)
    assert small.camera.size == (30, 40) and small.image.shape == (30, 40, 3)
    assert small.camera.fx == pytest.approx(35.0) and small.camera.cx == pytest.approx(19.5)
    assert small.masks is not None and set(np.unique(small.masks)) == {0, 4}
    assert small.depth_m is not None and set(np.unique(small.depth_m)) == {1.0, 3.0}
    assert ((small.masks == 4) == (small.depth_m == 1.0)).all()
    whole = frame(0)
    assert shrink(whole, 0) is whole and shrink(whole, 80) is whole


def test_deleted_objects_are_not_carried_on() -> None:
    intake = intake_of()
    intake.take(frame(0))
    intake.prompt(Prompt(0, 4, delete=True), NOTHING)
    intake.take(frame(1))
    assert intake.live is not None and 4 not in intake.live.labels
    assert intake.predicted is not None and 4 not in intake.predicted


# -- prompts -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def prompted() -> tuple[Intake, Recorder]:
    """An intake at half size that holds frames 0 to 2, and what its mask source hears."""
    intake, recorder = intake_of(**{"budget.working_width": 40}), Recorder()
    intake.masks = recorder
    for k in range(3):
        intake.take(frame(k))
    return intake, recorder


NOTHING = Horizon(8)


def test_points_and_boxes_are_brought_to_working_size(prompted: tuple[Intake, Recorder]) -> None:
    intake, recorder = prompted
    prompt = Prompt(
        2 * PERIOD_NS,
        7,
        np.array([[0.5, 0.5], [40.5, 20.5]]),
        np.array([True, False]),
        np.array([10.5, 4.5, 20.5, 30.5]),
    )
    assert intake.prompt(prompt, NOTHING) == 7
    ((index, heard),) = recorder.seen
    assert index == 1  # by its stamp
    assert heard.points_px.tolist() == [[0, 0], [20, 10]]
    assert heard.positive.tolist() == [True, False]
    assert heard.box_px is not None and heard.box_px.tolist() == [5, 2, 10, 15]
    assert prompt.points_px.tolist() == [[0.5, 0.5], [40.5, 20.5]]  # the caller's is untouched


def test_points_without_signs_are_positive_and_no_stamp_means_newest(prompted: tuple[Intake, Recorder]) -> None:
    intake, recorder = prompted
    intake.prompt(Prompt(0, points_px=np.array([[3.0, 4.0]])), NOTHING)
    ((index, heard),) = recorder.seen
    assert index == 2 and heard.positive.tolist() == [True]


def test_masks_are_written_into_the_frame(prompted: tuple[Intake, Recorder]) -> None:
    intake, recorder = prompted
    object_id = intake.prompt(Prompt(3 * PERIOD_NS, mask=labels_of() > 0), NOTHING)
    heard = recorder.seen[0][1].mask
    assert heard is not None and heard.shape == (30, 40) and heard.sum() == 100
    assert ((intake.pending[2].raw_labels == object_id) == heard).all()
    assert intake.predicted is not None and (intake.predicted == object_id).sum() == 100
    intake.prompt(Prompt(3 * PERIOD_NS, object_id, mask=np.roll(heard, 5, 1)), NOTHING)  # at working size already
    assert ((intake.pending[2].raw_labels == object_id) == np.roll(heard, 5, 1)).all()
    with pytest.raises(Motion4DError, match="mask has shape"):
        intake.prompt(Prompt(0, mask=np.ones((7, 9), bool)), NOTHING)


def test_a_click_in_the_map_becomes_a_point(prompted: tuple[Intake, Recorder]) -> None:
    intake, recorder = prompted
    camera = intake.pending[0].frame.camera
    xyz = camera.unproject(np.array([12.0, 9.0]), np.array(2.0))
    intake.prompt(Prompt(0, xyz_map=xyz), NOTHING)
    assert recorder.seen[0][1].points_px[0] == pytest.approx([12.0, 9.0])
    for outside in (np.array([50.0, 0, 2]), np.array([0.0, 0, -2])):
        with pytest.raises(Motion4DError, match="outside"):
            intake.prompt(Prompt(0, xyz_map=outside), NOTHING)


def test_names_pass_and_deleting_keeps_the_object_away() -> None:
    intake = intake_of()
    intake.take(frame(0))
    assert intake.prompt(Prompt(0, 4, name="cup"), NOTHING) == 4
    assert (intake.pending[0].raw_labels == 4).any()
    intake.prompt(Prompt(0, 4, delete=True), NOTHING)
    assert not (intake.pending[0].raw_labels == 4).any()
    assert not (intake.take(frame(1)).raw_labels == 4).any()  # though the source still names it
    with pytest.raises(Motion4DError, match="id"):
        intake.prompt(Prompt(0, delete=True), NOTHING)


def test_new_objects_get_new_ids_for_ever(prompted: tuple[Intake, Recorder]) -> None:
    intake, _ = prompted
    click = Prompt(0, points_px=np.array([[3.0, 3.0]]))
    first, second = intake.prompt(click, NOTHING), intake.prompt(click, NOTHING)
    intake.prompt(replace(click, object_id=second, delete=True), NOTHING)
    intake.reset()
    intake.take(frame(9))
    third = intake.prompt(click, NOTHING)
    assert first < second < third


def test_prompts_for_no_frame_or_a_forgotten_one_are_refused(prompted: tuple[Intake, Recorder]) -> None:
    intake, _ = prompted
    with pytest.raises(Motion4DError, match="left the horizon"):
        intake.prompt(Prompt(PERIOD_NS // 2, points_px=np.array([[3.0, 3.0]])), NOTHING)
    with pytest.raises(Motion4DError, match="before the first frame"):
        intake_of().prompt(Prompt(0), NOTHING)


# -- poses that change in hindsight ------------------------------------------------------------------------------------


class Finder:
    """A pose source that finds out in its fourth frame how the camera has moved since the first."""

    def pose(self, frame: Frame, hint: SceneHint | None) -> PosePrior:
        found = frame.index >= 3
        T = pose(t=(0.1 * frame.index, 0.0, 0.0)) if found else np.eye(4)
        self.revised = {k: pose(t=(0.1 * k, 0.0, 0.0)) for k in range(3)} if frame.index == 3 else {}
        return PosePrior(T, PoseStatus.OK, Scale.RELATIVE if found else Scale.UNKNOWN)

    def revised_poses(self) -> dict[int, np.ndarray]:
        revised, self.revised = self.revised, {}
        return revised

    def reset(self) -> None:
        self.revised = {}


def test_frames_fitted_before_the_camera_motion_was_known_get_their_poses() -> None:
    intake, horizon = intake_of(**{"window.length": 2, "window.horizon": 8}), Horizon(8)
    intake.poses = Finder()
    for k in range(2):
        intake.take(frame(k))
    assert not intake.adopt_revised_poses(horizon)
    horizon.frames += intake.close_window()
    for k in (2, 3):
        intake.take(frame(k))
    assert intake.adopt_revised_poses(horizon)
    states = [*horizon.frames, *intake.pending]
    assert [float(state.T_map_cam[0, 3]) for state in states] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert all(state.scale is Scale.RELATIVE for state in states)
    assert not intake.adopt_revised_poses(horizon)


class Still(Finder):
    """A pose source that never sees the camera move."""

    def pose(self, frame: Frame, hint: SceneHint | None) -> PosePrior:
        self.revised = {}
        return PosePrior(np.eye(4), PoseStatus.OK, Scale.UNKNOWN)


def test_depth_in_metres_stays_metric_before_a_still_camera() -> None:
    intake = intake_of(**{"pose.source": "visual"})
    intake.poses = Still()
    assert [intake.take(frame(k)).scale for k in range(3)] == [Scale.METRIC] * 3 and intake.scale is Scale.METRIC
    assert intake.take(frame(3, depth_m=None)).scale is Scale.METRIC, "one frame without depth does not unsay it"
    intake.reset()
    assert intake.take(frame(4, depth_m=None)).scale is Scale.UNKNOWN, "a new scene has yet to be measured"


def test_depth_in_metres_is_brought_to_a_visual_map_that_has_none() -> None:
    """The map's units hold then, in the frames before, too, and depth follows them."""
    intake, horizon = intake_of(**{"pose.source": "visual", "window.length": 2, "window.horizon": 8}), Horizon(8)
    intake.poses = Finder()
    before = [intake.take(frame(k)) for k in range(2)]
    assert [(state.scale, state.loose) for state in before] == [(Scale.METRIC, False)] * 2
    horizon.frames += intake.close_window()
    intake.take(frame(2))
    intake.take(frame(3))
    assert intake.adopt_revised_poses(horizon), "the poses are new: the frames are fitted again"
    states = [*horizon.frames, *intake.pending]
    assert [(state.scale, state.loose) for state in states] == [(Scale.RELATIVE, True)] * 4


class Metres(Finder):
    """The same, and its map has metres, taken from the depth."""

    def pose(self, frame: Frame, hint: SceneHint | None) -> PosePrior:
        found = super().pose(frame, hint)
        return replace(found, scale=Scale.METRIC if found.scale is Scale.RELATIVE else found.scale)


def test_a_visual_map_in_metres_and_a_depth_camera_agree() -> None:
    intake, horizon = intake_of(**{"pose.source": "visual", "window.length": 2, "window.horizon": 8}), Horizon(8)
    intake.poses = Metres()
    for k in range(2):
        intake.take(frame(k))
    horizon.frames += intake.close_window()
    for k in (2, 3):
        intake.take(frame(k))
    assert intake.adopt_revised_poses(horizon)
    states = [*horizon.frames, *intake.pending]
    assert [(state.scale, state.loose) for state in states] == [(Scale.METRIC, False)] * 4


class Measuring:
    """A depth source that guesses until the camera's motion is known, and measures what it is asked about again."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def depth(self, frame: Frame, pose: PosePrior, hint: SceneHint | None) -> DepthPrior:
        return _flat_depth(2.0, pose.scale)

    def revise(self, poses: dict[int, np.ndarray]) -> None:
        pass

    def again(self, frame: Frame, T_map_cam: np.ndarray, scale: Scale, labels: np.ndarray) -> DepthPrior | None:
        assert scale is Scale.RELATIVE and (labels == 4).any()
        self.asked.append(frame.index)
        return None if frame.index == 1 else _flat_depth(0.5 + T_map_cam[0, 3], scale)

    def reset(self) -> None:
        pass


def _flat_depth(depth_m: float, scale: Scale) -> DepthPrior:
    flat = np.full(CAMERA.size, depth_m, np.float32)
    return DepthPrior(flat, np.full(CAMERA.size, 0.1, np.float32), scale, affine=False)


def test_guesses_of_depth_are_measured_again_once_the_camera_motion_is_known() -> None:
    intake, horizon = intake_of(**{"window.length": 2, "window.horizon": 8}), Horizon(8)
    intake.poses, intake.depths = Finder(), Measuring()
    for k in range(2):
        intake.take(frame(k))
    horizon.frames += intake.close_window()
    for k in (2, 3):
        intake.take(frame(k))
    intake.adopt_revised_poses(horizon)
    intake.measure_again(horizon)
    intake.measure_again(horizon)
    assert intake.depths.asked == [0, 1, 2]  # once, and not the one that came when it was known
    states = [*horizon.frames, *intake.pending]
    depth = [float(np.median(state.depth_m)) for state in states]
    assert depth == pytest.approx([0.5, 2.0, 0.7, 2.0]), "what can't be measured stays a guess"
    assert np.median(1 / states[2].raw_inverse_depth) == pytest.approx(0.7)


def test_poses_are_found_in_the_whole_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 320 px instead of 480 the camera's path through a real room was 12.7 cm off instead of 2.2."""
    intake = intake_of(**{"budget.working_width": 40})
    seen = []
    given = intake.poses.pose

    def noting(frame: Frame, hint: SceneHint | None) -> PosePrior:
        seen.append(frame.camera)
        return given(frame, hint)

    monkeypatch.setattr(intake.poses, "pose", noting)
    state = intake.take(frame(0))
    assert seen == [CAMERA]
    assert state.frame.camera.width == 40


def test_objects_that_people_named_are_not_followed_for_ever_when_ever_new_ones_come() -> None:
    """Those out of sight longest go, and with them the pictures that are kept of them."""
    most, length = 3, 6
    values = {"masks.source": "propagation", "masks.discovery": "none", "objects.most": most}
    intake = intake_of(**values, **{"window.horizon": 4, "window.length": 2})
    horizon, mask = Horizon(4), labels_of() > 0
    given, shown = set(), []
    for k in range(8 * length):
        gray = texture(*CAMERA.size, seed=k // length)  # a cut: what was there before is gone
        image = np.repeat(gray[..., None], 3, -1)
        new = frame(k, image=image, masks=None)
        intake.admit(new)
        state = intake.take(new)
        for each in intake.close_window():
            horizon.append(each)
        horizon.shrink()
        intake.forget_before(horizon.first_index)
        if k % length == 0:
            with contextlib.suppress(Motion4DError):  # too many are still in view
                given.add(intake.prompt(Prompt(new.stamp_ns, mask=mask), horizon))
        shown.append(len(set(np.unique(state.raw_labels).tolist()) - {0}))
    followed = intake.masks.source._carrier.objects
    assert len(given) > most + 2, shown
    assert len(followed) <= most and max(given) in followed, "the newest stays"
