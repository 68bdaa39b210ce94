"""Where an object is believed to be: carried outlines, less what stood there before, and with what did not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.priors.masks.outline_belief import OutlineBelief
from motion4d_ros.types import Camera, Frame

HEIGHT, WIDTH = 120, 160
CAMERA = Camera(120.0, 120.0, 80.0, 60.0, WIDTH, HEIGHT)


def textured(height: int, width: int, seed: int, low: int, high: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(low, high, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def frame(k: int, moving: bool = True) -> Frame:
    image = textured(HEIGHT, WIDTH, 0, 20, 120)
    image[square(k if moving else 0)] = textured(30, 30, 1, 140, 250)
    return Frame(k, image, CAMERA, index=k)


def square(k: int) -> tuple[slice, slice]:
    return slice(40, 70), slice(10 + 5 * k, 40 + 5 * k)


def mask_of(k: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[square(k)] = True
    return mask


def watched(frames: list[Frame], masks: list[np.ndarray]) -> OutlineBelief:
    """The belief after these frames; of the newest one no mask is known yet."""
    flow = FlowCache(keep=16)
    belief = OutlineBelief(flow)
    for k, each in enumerate(frames):
        flow.push(each)
        belief.link(k, k - 1 if k else None, masks[k - 1] if k else None)
        if k < len(frames) - 1:
            belief.occupy(k, masks[k])
    return belief


@pytest.mark.parametrize(("side", "free"), [("ahead", slice(90, 100)), ("behind", slice(10, 20))])
def test_what_looks_as_when_it_was_free_is_not_believed_to_be_the_object(side: str, free: slice) -> None:
    last = 10
    belief = watched([frame(k) for k in range(last + 1)], [mask_of(k) for k in range(last)])
    carried = mask_of(last)
    carried[40:70, free] = True  # has leaked
    told = belief.of(last, carried.astype(np.float32), 0, last - 1)
    assert (told[42:68, free] < 0).mean() > 0.75, side  # within two pixels of the object nobody can say
    assert (told[mask_of(last)] > 0).mean() > 0.95


def test_what_does_not_look_as_when_it_was_free_is_won_back() -> None:
    last = 10
    belief = watched([frame(k) for k in range(last + 1)], [mask_of(k) for k in range(last)])
    carried = mask_of(last) & (np.arange(WIDTH) < 82)
    assert not carried[55, 84]
    told = belief.of(last, carried.astype(np.float32), 0, last - 1)
    assert (told[42:68, 83:88] > 0).mean() > 0.8


def test_a_thing_that_stands_still_keeps_its_outline() -> None:
    frames = [frame(k, moving=False) for k in range(11)]
    for masks in ([mask_of(0)] * 10, [np.zeros((HEIGHT, WIDTH), bool)] * 10):  # known, or not noticed until now
        belief = watched(frames, masks)
        assert (belief.of(10, mask_of(0).astype(np.float32), 0, 9)[mask_of(0)] > 0).mean() > 0.95


def test_frames_before_an_object_was_marked_are_not_asked() -> None:
    """A person stands there unnoticed, and is marked as they begin to walk."""
    still, go = 6, 12
    frames = [frame(max(0, k - still)) for k in range(go + 1)]
    for k, each in enumerate(frames):
        each.index = k
    nobody = np.zeros((HEIGHT, WIDTH), bool)
    belief = watched(frames, [nobody if k < still else mask_of(k - still) for k in range(go)])
    here = mask_of(go - still)
    assert (belief.of(go, here.astype(np.float32), still, go - 1)[here] > 0).mean() > 0.95
