"""Rigid bodies told apart by their motion over several frames."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from boards import CAMERA, WALL, Board, path, shot

from motion4d_ros.config import Config
from motion4d_ros.geometry.image_warping import pixel_grid, remap
from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.priors.interfaces import PosePrior
from motion4d_ros.priors.masks.discovery.motion_masks import MotionMasks
from motion4d_ros.priors.masks.discovery.rigid_motion import (
    CAP,
    SPAN,
    Trajectories,
    apartness,
    fit_body,
    misfit,
    trajectories,
)
from motion4d_ros.priors.masks.discovery.rigid_segmentation import RigidSegmentation, Segment
from motion4d_ros.priors.masks.discovery.static_scene import stillness, views_of
from motion4d_ros.types import PoseStatus, Prompt, Scale

SHAPE = (60, 80)
LEFT = np.zeros(SHAPE, bool)
LEFT[10:50, 5:35] = True
RIGHT = np.zeros(SHAPE, bool)
RIGHT[10:50, 40:75] = True


def turning(
    where: np.ndarray, rate: float, axis: tuple[float, float, float], shift: float, height: float = 15.0
) -> np.ndarray:
    """(F, h, w, 2) flow of a thing that bulges by `height` px, turns about `axis` by `rate` rad a frame and drifts."""
    grid = pixel_grid(*SHAPE)
    centre = grid[where].mean(0)
    flat = grid - centre
    bulge = height * np.exp(-((flat / 15.0) ** 2).sum(-1))
    points = np.dstack([flat, bulge])
    flow = []
    for offset in (1, 2, 3, 4, -1, -2, -3, -4):
        R = cv2.Rodrigues(np.array(axis) * rate * offset)[0]
        flow.append((points @ R.T)[..., :2] - flat + shift * offset * np.array([1.0, 0.3]))
    return np.stack(flow).astype(np.float32)


def two_turning_things(noise: float = 0.1) -> Trajectories:
    flow = turning(LEFT, 0.1, (0.0, 1.0, 0.0), 1.0)
    other = turning(RIGHT, 0.08, (1.0, 0.3, 0.5), -0.5)
    flow[:, RIGHT] = other[:, RIGHT]
    flow += np.random.default_rng(0).normal(0, noise, flow.shape).astype(np.float32)
    offsets = [1, 2, 3, 4, -1, -2, -3, -4]
    valid = np.ones((8, *SHAPE), bool)
    return Trajectories(10, offsets, flow, valid, np.array([0.3 + 0.08 * abs(k) for k in offsets], np.float32))


def test_one_body_explains_a_turning_thing_and_no_other() -> None:
    tracks = two_turning_things()
    body = fit_body(tracks, LEFT)
    assert body is not None
    off = misfit(tracks, body, LEFT | RIGHT)
    assert np.percentile(off[LEFT], 90) < 0.6
    assert np.median(off[RIGHT]) > 2.0
    assert (off[~(LEFT | RIGHT)] == CAP).all()


def test_a_tenth_of_wrong_pixels_does_not_bend_the_fit() -> None:
    tracks = two_turning_things()
    wrong = RIGHT.copy()
    wrong[:, 43:] = False  # 120 px beside the 1200 that are right
    body = fit_body(tracks, LEFT | wrong)
    assert body is not None
    off = misfit(tracks, body, LEFT | RIGHT)
    assert np.median(off[LEFT]) < 0.75
    assert np.median(off[wrong]) > 1.5


def test_a_flat_thing_does_not_take_pixels_of_another_for_its_relief() -> None:
    tracks = two_turning_things()
    tracks.flow[:, LEFT] = turning(LEFT, 0.1, (0.0, 1.0, 0.0), 1.0, height=1.0)[:, LEFT]
    wrong = RIGHT.copy()
    wrong[:, 43:] = False
    body = fit_body(tracks, LEFT | wrong)
    assert body is not None
    off = misfit(tracks, body, LEFT | RIGHT)
    assert np.median(off[LEFT]) < 0.75
    assert np.median(off[wrong]) > 2.5


def test_halves_of_one_thing_are_one_and_two_things_are_two() -> None:
    tracks = two_turning_things()
    half = LEFT.copy()
    half[:, 14:] = False
    one, two = apartness(tracks, half, LEFT & ~half), apartness(tracks, LEFT, RIGHT)
    assert one is not None and two is not None
    assert one < 0.2 < 0.8 < two


def test_too_few_pixels_tell_nothing() -> None:
    tracks = two_turning_things()
    speck = np.zeros(SHAPE, bool)
    speck[20:24, 20:24] = True
    assert fit_body(tracks, speck) is None
    assert apartness(tracks, speck, LEFT) is None


NEAR = Board((-0.9, -0.4, 0.1, 0.5), 2.5, 7, velocity=(0.05, 0.01))
FAR = Board((0.0, -0.6, 1.1, 0.4), 3.0, 11, velocity=(-0.05, 0.0))


def cached(count: int, boards: tuple[Board, ...], step: float = 0.0) -> tuple[FlowCache, list[np.ndarray], dict]:
    """A cache of frames, the numbers of the boards in them, and the true poses."""
    cache, labels, poses = FlowCache(keep=count), [], {}
    for index in range(count):
        poses[index] = path(index, step) if step else np.eye(4)
        frame, _, shown = shot(boards, poses[index], index)
        cache.push(frame)
        labels.append(shown)
    return cache, labels, poses


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


@pytest.mark.parametrize("posed", [True, False])
def test_a_moving_camera_sees_still_things_still_and_moving_ones_move(posed: bool) -> None:
    still_board = Board((-1.9, -0.9, -0.9, 0.6), 3.0, 2)  # parallax, but no motion
    cache, labels, poses = cached(9, (WALL, still_board, NEAR), step=0.04)
    tracks = trajectories(cache, 4, 8)
    assert tracks is not None and sorted(tracks.offsets) == [-4, -3, -2, -1, 1, 2, 3, 4]
    still = stillness(cache, tracks, None, poses if posed else {}, CAMERA)
    assert np.median(still.misfit[labels[4] == 3]) > 1.1
    assert np.percentile(still.misfit[labels[4] == 1], 80) < 1.0
    if posed:  # without poses a few pixels of parallax may be motion as well
        assert np.percentile(still.misfit[labels[4] == 2], 80) < 1.0


def test_flow_that_is_wrong_does_not_make_a_still_thing_move() -> None:
    still_board = Board((0.3, -0.6, 1.5, 0.5), 3.0, 2)
    cache, labels, poses = cached(9, (WALL, still_board, NEAR), step=0.04)
    somewhere = np.zeros(cache.size, bool)
    somewhere[60:110, 150:210] = True
    for first in range(9):
        for second in (first - 1, first + 1):
            if 0 <= second < 9:  # half as fast, and astray, the same in every frame and there and back
                off = np.array([0.0, 0.9]) * (second - first)
                flow = cache.between(first, second)
                cache.replace(first, second, np.where(somewhere[..., None], 0.5 * flow + off, flow).astype(np.float32))
    tracks = trajectories(cache, 4, 8)
    assert tracks is not None
    inner = somewhere & (labels[4] == 2) & (tracks.seen >= 6)
    assert inner.sum() > 1000
    still = stillness(cache, tracks, None, poses, CAMERA)
    assert np.percentile(still.misfit[inner], 80) < 1.0
    assert np.median(still.misfit[labels[4] == 3]) > 1.1


def test_a_plane_is_seen_as_its_pixels_are() -> None:
    cache, _, poses = cached(9, (WALL, NEAR), step=0.04)
    tracks = trajectories(cache, 4, 8)
    assert tracks is not None
    image = cv2.GaussianBlur(cache.gray(8), (0, 0), 1.5).astype(np.float32)
    box = np.s_[50:120, 90:200]
    view = views_of(tracks, poses, CAMERA)[tracks.offsets.index(4)]
    plane = np.full((70, 110), 0.4, np.float32)
    one_by_one = remap(image, view.project(plane, box))
    assert np.abs(view.at_plane(image, 0.4, box) - one_by_one).max() < 1.0  # both look up 1/32 px


def test_two_things_that_pass_in_front_of_each_other_keep_apart() -> None:
    cache, labels, _ = cached(16, (WALL, NEAR, FAR))
    bodies = RigidSegmentation(cache)
    said = [bodies.step(index, 15) for index in range(16)]
    names = set()
    for number in (2, 3):
        scores = []
        for k in range(2, 14):
            assert said[k] is not None
            final = np.vectorize(bodies.final)(said[k])
            ids, counts = np.unique(final[(labels[k] == number) & (final > 0)], return_counts=True)
            best = int(ids[counts.argmax()])
            names.add((number, best))
            scores.append(iou(final == best, labels[k] == number))
        assert np.mean(scores) > 0.75
    assert len(names) == len({name for _, name in names}) == 2  # one steady id each
    assert bodies.clear


@pytest.mark.parametrize("ahead", [SPAN, 1])
def test_what_moves_decidedly_is_believed_after_three_frames(ahead: int) -> None:
    cache, _, _ = cached(12, (WALL, NEAR))
    bodies = RigidSegmentation(cache)
    proved = []
    for index in range(3, 6):
        bodies.step(index, index + ahead)
        proved.append(any(item.proved for item in bodies.objects.values()))
    assert len(bodies.objects) == 1
    assert proved == [False, False, ahead == SPAN]  # not where few frames are in view


def test_a_frame_that_stands_alone_says_nothing() -> None:
    cache, _, _ = cached(1, (WALL, NEAR))
    assert RigidSegmentation(cache).step(0, 0) is None


def followed(clip: list[tuple]) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Labels by the mask source as a whole before a fixed camera, with hindsight; and those revised at the end."""
    source, masks = MotionMasks(Config()), {}
    for frame, _, _ in clip:
        source.look(frame, PosePrior(np.eye(4), PoseStatus.OK, Scale.UNKNOWN), None)
        masks[frame.index] = source.masks(frame, None)
        masks.update(source.revised_masks())
    source.finish()
    revised = source.revised_masks()
    masks.update(revised)
    return masks, revised


def test_hindsight_finds_what_flow_between_two_frames_confuses() -> None:
    """The same two things, by the mask source as a whole: labels of earlier frames are corrected, the last ones too."""
    clip = [shot((WALL, NEAR, FAR), np.eye(4), index) for index in range(20)]
    masks, revised = followed(clip)
    assert max(revised) > 19 - SPAN
    for number in (2, 3):
        scores = []
        for k in range(20):
            truth = clip[k][2] == number
            scores.append(max((iou(masks[k] == i, truth) for i in np.unique(masks[k][masks[k] > 0])), default=0.0))
        assert np.mean(scores) > 0.7
    assert len(np.unique(masks[10][masks[10] > 0])) == 2


def test_a_frame_is_told_of_as_soon_as_four_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(RigidSegmentation, "step", lambda _, index, newest, *others: asked.append((index, newest)))
    source = MotionMasks(Config())
    for index in range(7):
        source.masks(shot((WALL, NEAR), np.eye(4), index)[0], None)
    assert asked == [(0, 4), (1, 5), (2, 6)]


def test_what_comes_back_is_followed_to_where_it_came_into_view() -> None:
    mover = Board((-1.3, -0.4, -0.6, 0.4), 3.0, 7, velocity=(0.06, 0.0))
    pillar = Board((-0.15, -3.0, 0.5, 3.0), 1.9, 4)
    clip = [shot((WALL, mover, pillar), np.eye(4), index) for index in range(40)]
    masks, _ = followed(clip)
    sizes = [int((truth == 2).sum()) for _, _, truth in clip]
    gone = next(k for k, size in enumerate(sizes) if size == 0)
    back = [k for k in range(gone, 40) if sizes[k] > 150]
    assert gone > 8 and min(sizes[:8]) > 1000 and len(back) > 6
    (found,) = np.unique(masks[5][masks[5] > 0]).tolist()
    assert all(iou(masks[k] == found, clip[k][2] == 2) > 0.4 for k in back[:4])


@pytest.mark.parametrize("free", [None, 6])
def test_what_was_taken_for_a_part_of_another_is_given_back(free: int | None) -> None:
    """Until the seventh frame both were told to be one, but for a frame in which nobody had what comes out."""
    source, truth = MotionMasks(Config()), []
    cover = Board((-0.5, -0.4, 0.5, 0.5), 2.5, 7, velocity=(-0.04, 0.01))
    comes_out = Board((-0.1, -0.5, 0.9, 0.4), 3.0, 11, velocity=(0.04, 0.0))
    for index in range(12):
        frame, _, shown = shot((WALL, cover, comes_out), np.eye(4), index)
        source.masks(frame, None)
        truth.append(shown)
    source._told = {k: np.where(shown > 1, 1 if k < 7 else shown, 0).astype(np.int32) for k, shown in enumerate(truth)}
    if free is not None:
        source._told[free][truth[free] == 3] = 0
    source._trace_back(3, [7, 8, 9])
    for k in range(2, 7):
        if free is None or k >= free:
            assert iou(source._told[k] == 3, truth[k] == 3) > 0.7
            assert iou(source._told[k] == 1, truth[k] == 2) > 0.7
        else:  # it was not a part of the other then, and is not taken from it
            assert (source._told[k][truth[k] > 1] == 3).sum() < 100


def test_a_name_changes_nothing_else_and_a_deleted_object_stays_away() -> None:
    clip = [shot((WALL, NEAR), np.eye(4), index) for index in range(18)]
    source = MotionMasks(Config())
    for frame, _, _ in clip[:14]:
        labels = source.masks(frame, None)
    (found,) = np.unique(labels[labels > 0]).tolist()
    source.prompt(clip[13][0], Prompt(clip[13][0].stamp_ns, found, name="board"))
    labels = source.masks(clip[14][0], None)
    assert source.names == {found: "board"} and (labels == found).any()
    source.prompt(clip[14][0], Prompt(clip[14][0].stamp_ns, found, delete=True))
    for frame, _, _ in clip[15:]:
        assert not (source.masks(frame, None) == found).any()


def test_what_is_long_gone_is_forgotten() -> None:
    bodies = RigidSegmentation(FlowCache(keep=4), next_id=10)
    soft, colors = np.zeros(SHAPE, np.float32), np.zeros(8)
    bodies.objects = {
        1: Segment(1, soft, colors, hidden=True, index=5),
        2: Segment(2, soft, colors, hidden=True, index=95),
        3: Segment(3, soft, colors, index=100),
    }
    bodies.last, bodies.became = 100, {4: 5, 5: 3, 6: 0, 7: 3}
    bodies.forget({4, 6}, after=64)
    assert set(bodies.objects) == {2, 3}
    assert bodies.became == {4: 3, 6: 0}
    assert [bodies.final(k) for k in (3, 4, 6)] == [3, 3, 0]
