"""Masks from prompts and from motion, on little films whose truth is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from boards import CAMERA, WALL, Board, path, shot, texture

from motion4d_ros.config import Config
from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.priors.interfaces import SceneHint
from motion4d_ros.priors.masks.discovery.motion_evidence import explain, photometric_gain, shadow_like
from motion4d_ros.priors.masks.discovery.motion_masks import MotionMasks
from motion4d_ros.priors.masks.prompted import PromptedMasks
from motion4d_ros.priors.masks.propagation.carried_masks import SHADOW_SHARE
from motion4d_ros.priors.masks.propagation.mask_carrier import MaskCarrier
from motion4d_ros.priors.masks.propagation.mask_cues import (
    affine_motion,
    color_histogram,
    keep_main_parts,
    left_standing,
    relit_colors,
    similarity,
    to_lab,
)
from motion4d_ros.types import Frame, Motion4DError, Prompt

MOVER = Board((-0.7, -0.5, 0.3, 0.6), 3.0, 7, velocity=(0.05, 0.0))


def film(count: int, boards: tuple[Board, ...] = (WALL, MOVER), step: float = 0.0) -> list[tuple[Frame, np.ndarray]]:
    """Frames and the label image of the moving board (2)."""
    out = []
    for index in range(count):
        frame, _, labels = shot(boards, path(index, step) if step else np.eye(4), index)
        out.append((frame, labels == 2))
    return out


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def run(source: MotionMasks | PromptedMasks, clip: list[tuple[Frame, np.ndarray]]) -> list[np.ndarray]:
    """Final masks of every frame, revisions included."""
    masks: dict[int, np.ndarray] = {}
    for frame, _ in clip:
        masks[frame.index] = source.masks(frame, None)
        assert masks[frame.index].shape == frame.camera.size
        masks.update(source.revised_masks())
    return [masks[frame.index] for frame, _ in clip]


def test_a_mask_is_carried_with_its_object() -> None:
    clip = film(10)
    source = PromptedMasks(Config())
    source.prompt(clip[0][0], Prompt(0, object_id=5, mask=clip[0][1], name="board"))
    masks = run(source, clip)
    assert source.names == {5: "board"}
    assert min(iou(m == 5, truth) for m, (_, truth) in zip(masks, clip, strict=True)) > 0.85


def test_masks_that_come_with_the_first_frame_start_objects() -> None:
    clip = film(3)
    clip[0][0].masks = clip[0][1].astype(np.int32) * 9
    assert (run(PromptedMasks(Config()), clip)[2] == 9).any()


@pytest.mark.parametrize("kind", ["box", "points", "xyz"])
def test_other_prompts_find_the_object(kind: str) -> None:
    (frame, truth), *_ = film(1)
    ys, xs = np.nonzero(truth)
    box = np.array([xs.min() - 2, ys.min() - 2, xs.max() + 2, ys.max() + 2], float)
    centre = np.array([[xs.mean(), ys.mean()]])
    if kind == "box":
        prompt = Prompt(0, box_px=box)
    elif kind == "points":
        prompt = Prompt(0, points_px=centre, positive=np.array([True]), box_px=box)
    else:
        frame.T_map_cam = np.eye(4)
        prompt = Prompt(0, xyz_map=CAMERA.unproject(centre[0], np.array(3.0)))
    source = PromptedMasks(Config())
    source.prompt(frame, prompt)
    found = source.masks(frame, None) == 1
    assert found[int(ys.mean()), int(xs.mean())]
    if kind != "xyz":
        assert iou(found, truth) > 0.7


def test_a_late_prompt_for_an_old_frame_changes_the_frames_after_it() -> None:
    clip = film(8)
    source = PromptedMasks(Config())
    run(source, clip)
    source.prompt(clip[2][0], Prompt(0, mask=clip[2][1]))
    revised = source.revised_masks()
    assert set(revised) == {2, 3, 4, 5, 6, 7}
    assert iou(revised[7] == 1, clip[7][1]) > 0.8
    source.prompt(clip[7][0], Prompt(0, object_id=1, delete=True))
    assert not (source.revised_masks()[7] == 1).any()


def test_bad_prompts_are_one_clear_line() -> None:
    (frame, truth), *_ = film(1)
    source = PromptedMasks(Config())
    source.masks(frame, None)
    with pytest.raises(Motion4DError, match="empty prompt"):
        source.prompt(frame, Prompt(0))
    with pytest.raises(Motion4DError, match="resize"):
        source.prompt(frame, Prompt(0, mask=truth[::2]))
    with pytest.raises(Motion4DError, match="no longer kept"):
        source.prompt(frame.with_index(99), Prompt(0, mask=truth))
    with pytest.raises(Motion4DError, match="pose"):
        source.prompt(frame, Prompt(0, xyz_map=np.ones(3)))
    assert source.refresh(frame, []) is None


def test_what_moves_is_found_by_itself_and_followed_back() -> None:
    clip = film(14)
    masks = run(MotionMasks(Config()), clip)
    assert set(np.unique(masks[-1])) == {0, 1}
    assert iou(masks[-1] == 1, clip[-1][1]) > 0.75
    assert iou(masks[1] == 1, clip[1][1]) > 0.6


def test_it_is_found_by_a_moving_camera_too() -> None:
    clip = film(14, step=0.03)
    masks = run(MotionMasks(Config()), clip)
    labels = masks[-1]
    best = max((iou(labels == k, clip[-1][1]) for k in np.unique(labels[labels > 0])), default=0.0)
    assert best > 0.6


def test_a_pose_that_is_only_predicted_does_not_hide_what_moves() -> None:
    """Depth comes with the frames, poses don't: the hint still has the last frame's."""
    poses = [path(index, 0.0) for index in range(14)]
    for index, T in enumerate(poses):  # to and fro, so that the last step never tells the next
        T[0, 3] = 0.06 * (index % 2)
    source, found = MotionMasks(Config()), {}
    for index, T in enumerate(poses):
        frame, depth, labels = shot((WALL, MOVER), T, index)
        frame.depth_m = depth.astype(np.float32)
        hint = SceneHint(poses[index - 1], None, None, None) if index else None
        found[index], truth = source.masks(frame, hint), labels == 2
    best = max((iou(found[13] == k, truth) for k in np.unique(found[13][found[13] > 0])), default=0.0)
    assert best > 0.6


def test_what_is_known_of_pairs_goes_with_either_object() -> None:
    """Objects come and go for days, and each pair of them would leave a trace."""
    frame, _, labels = shot((WALL, MOVER), np.eye(4), 0)
    source = MotionMasks(Config())
    source._flow.push(frame)
    for object_id in (1, 2, 3):
        source._carrier.place(0, object_id, labels == 2)
    source._apart, source._together = {(1, 2), (1, 3)}, {(1, 2): 4, (2, 3): 1}
    still: np.ndarray = np.zeros((*labels.shape, 2), np.float32)
    source._mend(0, still, still[..., 0])
    assert source._apart == {(1, 2), (1, 3)} and source._together == {(1, 2): 4, (2, 3): 1}
    source.prompt(frame, Prompt(0, object_id=2, delete=True))
    source._mend(0, still, still[..., 0])
    assert source._apart == {(1, 3)} and not source._together


def test_a_turning_camera_sees_no_objects_in_a_still_room() -> None:
    source = MotionMasks(Config())
    for index in range(8):
        T = np.eye(4)
        T[:3, :3] = cv2.Rodrigues(np.array([0.0, 0.02 * index, 0.0]))[0]
        assert not source.masks(shot((WALL,), T, index)[0], None).any()


def test_an_object_that_stops_stays() -> None:
    clip = film(12)
    stopped = clip + [(Frame(k, clip[-1][0].image, CAMERA, index=k), clip[-1][1]) for k in range(12, 30)]
    masks = run(MotionMasks(Config()), stopped)
    assert iou(masks[-1] == 1, clip[-1][1]) > 0.7


def test_degraded_frames_never_raise() -> None:
    source = MotionMasks(Config())
    clip = film(6)
    for index, image in enumerate(
        [clip[0][0].image, clip[1][0].image, np.zeros_like(clip[0][0].image), clip[3][0].image, clip[3][0].image]
    ):
        source.masks(Frame(0, image, CAMERA, index=index), None)
    half = CAMERA.scaled(0.5)
    small = cv2.resize(clip[5][0].image, (half.width, half.height))
    assert source.masks(Frame(0, small, half, index=5), None).shape == half.size
    source.reset()
    assert source.masks(clip[0][0], None).shape == CAMERA.size


def test_ids_go_on_after_a_reset() -> None:
    clip = film(14)
    source = MotionMasks(Config())
    run(source, clip)
    source.reset()
    again = run(source, clip)
    assert again[-1].max() > 1


def test_a_hidden_object_starts_again_where_the_scene_predicts_it() -> None:
    clip = film(2)
    source = PromptedMasks(Config())
    source.prompt(clip[0][0], Prompt(0, object_id=3, mask=clip[0][1]))
    source.masks(clip[0][0], None)
    black = Frame(0, np.zeros_like(clip[0][0].image), CAMERA, index=1)
    source.masks(black, None)
    item = source._carrier.objects[3]
    item.hidden_for, item.soft = 1, np.full_like(item.soft, 0.02)
    hint = SceneHint(np.eye(4), None, clip[1][1].astype(np.int32) * 3, None)
    found = source.masks(Frame(0, clip[1][0].image, CAMERA, index=2), hint)
    assert iou(found == 3, clip[1][1]) > 0.8


def test_carrier_keeps_objects_apart() -> None:
    other = Board((0.9, -0.5, 1.6, 0.6), 3.0, 9, velocity=(-0.04, 0.0))
    cache = FlowCache()
    carrier = MaskCarrier(cache)
    for index in range(6):
        frame, _, labels = shot((WALL, MOVER, other), np.eye(4), index)
        cache.push(frame)
        if index == 0:
            carrier.place(0, 1, labels == 2)
            carrier.place(0, 2, labels == 3)
        carrier.advance(index)
    found = carrier.labels()
    assert iou(found == 1, labels == 2) > 0.8 and iou(found == 2, labels == 3) > 0.8


def test_affine_motion_ignores_what_does_not_fit() -> None:
    y, x = np.mgrid[0:40, 0:60].astype(np.float32)
    flow = np.stack([1 + 0.05 * x, -2 + 0.02 * y], -1)
    wrong = flow.copy()
    wrong[:8] += 10
    assert affine_motion(wrong, np.ones((40, 60), bool))[20, 30] == pytest.approx(flow[20, 30], abs=0.1)


def test_islands_go_and_main_parts_stay() -> None:
    soft = np.zeros((40, 60), np.float32)
    soft[5:30, 5:30] = 0.9
    soft[5:15, 40:55] = 0.9
    soft[35:37, 50:52] = 0.9
    kept = keep_main_parts(soft) > 0.5
    assert kept[10, 10] and kept[10, 45] and not kept[35, 50]


def test_shadow_is_told_from_object() -> None:
    floor = texture(11, 120)
    where = np.zeros(floor.shape[:2], bool)
    where[30:80, 30:80] = True
    shaded, covered = floor.copy(), floor.copy()
    shaded[where] = (shaded[where] * 0.6).astype(np.uint8)
    covered[where] = texture(12, 120)[where]
    assert shadow_like(shaded, floor, where) > 0.8 > 0.4 > shadow_like(covered, floor, where)
    assert shadow_like(floor, floor, np.zeros_like(where)) == 0.0


def test_static_explanation_needs_enough_flow_and_finds_the_homography() -> None:
    flow = np.full((60, 80, 2), (3.0, -1.0), np.float32)
    error = np.zeros((60, 80), np.float32)
    flow[20:40, 30:50] += 6.0
    static = explain(flow, error, None, None)
    assert static is not None and not static.parallax
    assert np.median(static.residual[20:40, 30:50]) > 6 and static.residual[5, 5] < 0.1
    assert explain(flow, np.full_like(error, 9.0), None, None) is None


def test_texture_that_stands_still_speaks_against_motion() -> None:
    gray = cv2.cvtColor(texture(13, 100), cv2.COLOR_RGB2GRAY)
    still, moved = np.zeros((100, 100, 2), np.float32), np.full((100, 100, 2), 4.0, np.float32)
    assert np.median(photometric_gain(gray, gray, still, moved)) < 0
    assert np.median(photometric_gain(gray, np.roll(gray, (4, 4), (0, 1)), still, moved)) > 0.3


def test_an_estimator_that_finds_no_model_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise cv2.error("no model")

    flow = np.random.default_rng(3).uniform(-4, 4, (60, 80, 2)).astype(np.float32)
    error = np.zeros((60, 80), np.float32)
    monkeypatch.setattr(cv2, "findFundamentalMat", fails)
    static = explain(flow, error, None, None)
    assert static is None or not static.parallax
    monkeypatch.setattr(cv2, "findHomography", lambda *_, **__: fails())
    assert explain(flow, error, None, None) is None


@pytest.mark.parametrize("given", [True, False])
def test_a_shadow_that_a_person_left_out_stays_out(given: bool) -> None:
    clip = film(8)
    flow = FlowCache()
    carrier = MaskCarrier(flow)
    for frame, truth in clip:
        shadow = shadow_below(truth)
        frame.image = np.where(shadow[..., None], frame.image // 2, frame.image).astype(np.uint8)
        flow.push(frame)
        if frame.index == 0:
            carrier.place(0, 1, truth, given=given)
        else:  # thing and shadow move alike
            carrier.advance(frame.index, np.where(truth | shadow, 2.0, 0.0).astype(np.float32))
    assert (carrier.denied(1, shadow) > SHADOW_SHARE) == given  # what a group of moving pixels must pass
    assert carrier.denied(1, truth) < 0.05
    assert (carrier.labels() == 1)[shadow].mean() < 0.1
    assert iou(carrier.labels() == 1, truth) > 0.95


def shadow_below(truth: np.ndarray) -> np.ndarray:
    """(h, w) a strip of 10 px that follows the object's lower edge."""
    rows = np.flatnonzero(truth.any(1))
    strip = np.zeros_like(truth)
    strip[rows[-1] + 1 : rows[-1] + 11] = truth[rows[-1] - 3]
    return strip & ~truth


def test_light_that_slides_over_an_object_and_ground_it_uncovers_do_not_hold_its_mask_back() -> None:
    clip = film(16)
    for frame, truth in clip:
        image = frame.image.astype(np.float32)
        rows = np.flatnonzero(truth.any(1))
        plain = truth.copy()
        plain[: rows.mean().astype(int)] = False  # the lower half of the board has no texture
        image[plain] = 90.0
        image[:, int(0.55 * CAMERA.width) :] *= 1.7  # the edge of the light stands still
        frame.image = np.clip(image, 0, 255).astype(np.uint8)
    source = PromptedMasks(Config())
    source.prompt(clip[0][0], Prompt(0, object_id=1, mask=clip[0][1]))
    masks = run(source, clip)
    assert min(iou(m == 1, truth) for m, (_, truth) in zip(masks, clip, strict=True)) > 0.93


def test_what_stands_is_told_from_an_object_that_moves_on() -> None:
    soft = np.zeros((60, 80), np.float32)
    soft[20:40, 20:70] = 1.0
    static, error = np.full((60, 80, 2), (1.0, 0.0), np.float32), np.zeros((60, 80), np.float32)
    flow = static.copy()
    flow[20:40, 20:55] += (4.0, 1.0)  # 15 columns that it has left behind are still in its mask
    found = left_standing(flow, static, soft, error)
    assert found[20:40, 55:70].min() > 0.9 and found[20:40, 20:55].max() < 0.1
    assert not left_standing(flow, None, soft, error).any()
    assert not left_standing(static, static, soft, error).any()  # it has stopped


def test_colors_in_other_light_are_those_a_camera_would_see() -> None:
    floor = (texture(3) // 8 + np.array([150, 130, 110])).astype(np.uint8)
    everywhere = np.ones(floor.shape[:2], bool)
    shade = 255 * (0.4 * (floor / 255) ** 2.2) ** (1 / 2.2)  # 0.4 of the light, as a camera writes it
    seen, shaded = (color_histogram(to_lab(image.astype(np.uint8)), everywhere) for image in (floor, shade))
    assert similarity(relit_colors(seen, (0.4,)), shaded) > 0.75 > 0.25 > similarity(seen, shaded)
    assert relit_colors(seen, (0.4, 0.7)).sum() == pytest.approx(1.0, abs=1e-3)
    assert not relit_colors(np.zeros(0), (0.4,)).any()
