"""Masks of a textured square that moves over a textured ground, fused over time."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from fit_builders import texture
from numpy.typing import NDArray

from motion4d_ros.config import MasksConfig
from motion4d_ros.fit.semantics.mask_fusion import Fused, MaskFusion, SceneLabels
from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.types import UNKNOWN_LABEL, Camera, Frame, IntArray

SIZE = (72, 96)
COUNT = 9
SIDE = 24
CAMERA = Camera(90.0, 90.0, 47.5, 35.5, SIZE[1], SIZE[0])
LOOK = [texture(SIDE, SIDE, seed=k) for k in (7, 8)]


def place(k: int, which: int) -> tuple[slice, slice]:
    x = 8 + 3 * k if which == 0 else 64 - 2 * k
    y = 6 if which == 0 else 42
    return slice(y, y + SIDE), slice(x, x + SIDE)


def world() -> tuple[list[NDArray[np.uint8]], list[IntArray]]:
    ground = texture(*SIZE, seed=3)
    pictures, truth = [], []
    for k in range(COUNT):
        gray, labels = ground.copy(), np.zeros(SIZE, np.int32)
        for which in (0, 1):
            gray[place(k, which)], labels[place(k, which)] = LOOK[which], which + 1
        pictures.append(np.repeat(gray[..., None], 3, -1))
        truth.append(labels)
    return pictures, truth


@dataclass
class Shown:
    """A `MaskedFrame` from arrays."""

    index: int
    rgb: NDArray[np.uint8]
    labels: IntArray
    concluded: IntArray | None = None
    output_size: tuple[int, int] = SIZE

    def picture(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        return np.asarray(cv2.resize(self.rgb, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)

    def named_source(self) -> IntArray:
        return self.labels


def flow_of(pictures: list[NDArray[np.uint8]], max_side: int = 0) -> FlowCache:
    flows = FlowCache(max_side=max_side, keep=COUNT)
    for k, picture in enumerate(pictures):
        flows.push(Frame(k + 1, picture, CAMERA, index=k))
    return flows


def shown(pictures: list[NDArray[np.uint8]], masks: list[IntArray]) -> list[Shown]:
    return [Shown(k, picture, labels) for k, (picture, labels) in enumerate(zip(pictures, masks, strict=True))]


def fuse_all(pictures: list[NDArray[np.uint8]], masks: list[IntArray], max_side: int = 0) -> list[Fused]:
    fusion = MaskFusion(MasksConfig(fusion_reach=4))
    found = fusion.fuse(shown(pictures, masks), flow_of(pictures, max_side), range(COUNT))
    return [found[k] for k in range(COUNT)]


def fused(pictures: list[NDArray[np.uint8]], masks: list[IntArray]) -> list[IntArray]:
    return [one.labels for one in fuse_all(pictures, masks)]


def overlap(a: IntArray, b: IntArray, label: int) -> float:
    return float(((a == label) & (b == label)).sum() / ((a == label) | (b == label)).sum())


def test_right_masks_stay_right():
    pictures, truth = world()
    for found, true in zip(fused(pictures, truth), truth, strict=True):
        assert min(overlap(found, true, label) for label in (1, 2)) > 0.9


def test_what_one_frame_gets_wrong_its_neighbours_mend():
    pictures, truth = world()
    masks = [labels.copy() for labels in truth]
    masks[2] = np.array([0, 2, 1], np.int32)[truth[2]]  # swapped
    masks[4][masks[4] == 1] = 0  # missed
    masks[6][50:70, 2:22] = 1  # a false alarm on the ground
    found = fused(pictures, masks)
    assert overlap(found[2], truth[2], 1) > 0.85 and overlap(found[2], truth[2], 2) > 0.85
    assert overlap(found[4], truth[4], 1) > 0.85
    assert (found[6][50:70, 2:22] == 1).mean() < 0.05


def test_a_frame_without_masks_gets_those_of_its_neighbours():
    pictures, truth = world()
    masks = [labels.copy() for labels in truth]
    masks[4][:] = UNKNOWN_LABEL
    found = fused(pictures, masks)
    assert min(overlap(found[4], truth[4], label) for label in (1, 2)) > 0.85


def test_nothing_but_background_stays_background():
    pictures, _ = world()
    found = fused(pictures, [np.zeros(SIZE, np.int32)] * COUNT)
    assert not np.any(found)


def test_confidence_is_a_probability():
    pictures, truth = world()
    for one in fuse_all(pictures, truth):
        assert one.confidence.min() >= 0.0 and one.confidence.max() <= 1.0
        assert one.confidence[0, 0] == pytest.approx(1.0)


def test_flow_of_another_size_serves():
    pictures, truth = world()
    masks = [labels.copy() for labels in truth]
    masks[4][:] = UNKNOWN_LABEL
    found = fuse_all(pictures, masks, max_side=SIZE[1] // 2)[4].labels
    assert min(overlap(found, truth[4], label) for label in (1, 2)) > 0.8


def test_what_the_scene_shows_is_one_rater_more():
    pictures, truth = world()
    masks = [np.zeros(SIZE, np.int32) for _ in truth]  # the source sees nothing
    masks[0] = truth[0]
    probability = np.stack([(truth[4] == label).astype(np.float32) for label in range(3)], -1)
    scene = {4: SceneLabels(probability, np.array([0, 1, 2]))}
    fusion = MaskFusion(MasksConfig(fusion_reach=0))
    found = fusion.fuse(shown(pictures, truth), flow_of(pictures), [4], scene)[4].labels
    assert min(overlap(found, truth[4], label) for label in (1, 2)) > 0.95


def test_the_newest_frame_is_told_by_the_frames_before_it():
    pictures, truth = world()
    frames = shown(pictures, [*truth[:-1], np.full(SIZE, UNKNOWN_LABEL, np.int32)])
    for frame in frames[:5]:
        frame.concluded = frame.labels
    found = MaskFusion(MasksConfig(fusion_reach=4)).fuse_newest(frames, flow_of(pictures)).labels
    assert min(overlap(found, truth[-1], label) for label in (1, 2)) > 0.8


def test_a_new_object_is_believed_at_once():
    pictures, truth = world()
    frames = shown(pictures, [np.where(labels == 1, 1, 0).astype(np.int32) for labels in truth])
    for frame in frames[:-1]:
        frame.concluded = frame.labels
    frames[-1].labels = truth[-1]
    found = MaskFusion(MasksConfig(fusion_reach=4)).fuse_newest(frames, flow_of(pictures)).labels
    assert overlap(found, truth[-1], 2) > 0.9


def test_the_answer_has_the_size_of_the_input():
    pictures, truth = world()
    frames = shown(pictures, truth)
    for frame in frames:
        frame.output_size = (2 * SIZE[0], 2 * SIZE[1])
    one = MaskFusion(MasksConfig(fusion_reach=1, fusion_width=SIZE[1])).fuse(frames, flow_of(pictures), [3])[3]
    assert one.labels.shape == one.confidence.shape == (144, 192)
    true = np.repeat(np.repeat(truth[3], 2, 0), 2, 1)
    assert min(overlap(one.labels, true, label) for label in (1, 2)) > 0.9


def tiled(ids: int) -> tuple[list[NDArray[np.uint8]], list[IntArray]]:
    """A ground full of tiles, each with an id, that slides to the right by two pixels a frame."""
    ground = texture(SIZE[0], SIZE[1] + 2 * COUNT, seed=3)
    columns = 20 if ids > 50 else 6
    rows = ids // columns
    y, x = np.mgrid[0 : SIZE[0], 0 : SIZE[1] + 2 * COUNT]
    tiles = 1 + (y * rows // SIZE[0]) * columns + x * columns // (SIZE[1] + 2 * COUNT)
    starts = [2 * (COUNT - k) for k in range(COUNT)]
    pictures = [np.repeat(ground[:, a : a + SIZE[1], None], 3, -1) for a in starts]
    return pictures, [tiles[:, a : a + SIZE[1]].astype(np.int32) for a in starts]


@pytest.mark.parametrize("ids", [30, 200])
def test_memory_and_masks_hardly_depend_on_the_number_of_ids(ids: int):
    pictures, truth = tiled(ids)
    masks = [labels.copy() for labels in truth]
    masks[4] = np.roll(truth[4], 1, 0)  # a frame with shifted outlines
    frames, flows = shown(pictures, masks), flow_of(pictures)
    probability = np.eye(ids + 1, dtype=np.float32)[truth[4]]
    scene = {4: SceneLabels(probability, np.arange(ids + 1))}
    flows.between(0, 1)
    tracemalloc.start()
    try:
        found = MaskFusion(MasksConfig(fusion_reach=4)).fuse(frames, flows, range(COUNT), scene)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    of_all_labels = 4 * (ids + 1) * SIZE[0] * SIZE[1] * sum(min(k, 4) + min(COUNT - 1 - k, 4) + 1 for k in range(COUNT))
    assert of_all_labels > (2.5e8 if ids == 200 else 3e7), "bytes of a float of every label, rater, pixel and frame"
    assert peak < 4e7
    given, right = ((masks[4] == truth[4]).mean(), (found[4].labels == truth[4]).mean())
    assert right > given + 0.3 * (1 - given)
