"""Masks of a textured square that moves over a textured ground, fused over time."""

from __future__ import annotations

import numpy as np
import pytest
from fit_builders import texture
from numpy.typing import NDArray

from motion4d_ros.fit.semantics.mask_fusion import MaskedFrame, fuse
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


def fused(pictures: list[NDArray[np.uint8]], masks: list[IntArray], reach: int = 4) -> list[IntArray]:
    flows = FlowCache(max_side=0, keep=COUNT)
    for k, picture in enumerate(pictures):
        flows.push(Frame(k + 1, picture, CAMERA, index=k))
    frames = [MaskedFrame(k, picture, labels) for k, (picture, labels) in enumerate(zip(pictures, masks, strict=True))]
    return [one.labels for one in fuse(frames, flows, reach)]


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
    flows = FlowCache(max_side=0, keep=COUNT)
    for k, picture in enumerate(pictures):
        flows.push(Frame(k + 1, picture, CAMERA, index=k))
    frames = [MaskedFrame(k, picture, labels) for k, (picture, labels) in enumerate(zip(pictures, truth, strict=True))]
    for one in fuse(frames, flows, 2):
        assert one.confidence.min() >= 0.0 and one.confidence.max() <= 1.0
        assert one.confidence[0, 0] == pytest.approx(1.0)
