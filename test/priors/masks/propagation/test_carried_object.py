"""Objects that go behind something, leave and come back: the mask goes with them, the id stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from motion4d_ros.config import Config
from motion4d_ros.evaluation.metrics.segmentation import match_labels, score_masks
from motion4d_ros.evaluation.monocular import load_clip, run_masks
from motion4d_ros.priors.masks.discovery.motion_masks import MotionMasks
from motion4d_ros.priors.masks.prompted import PromptedMasks
from motion4d_ros.priors.masks.propagation.carried_object import FADE_AFTER, JUST_STOPPED, STILL, Carried
from motion4d_ros.priors.masks.propagation.mask_cues import color_histogram, to_lab

RED, GREEN = (200, 40, 40), (40, 160, 60)
WHERE = np.zeros((60, 80), bool)
WHERE[20:40, 30:50] = True


def picture(inside: tuple[int, int, int]) -> np.ndarray:
    """(60, 80, 3) Lab: a square on a green ground, with a little noise."""
    rgb = np.where(WHERE[..., None], np.array(inside), np.array(GREEN))
    noise = np.random.default_rng(0).integers(-8, 8, rgb.shape)
    return to_lab((rgb + noise).astype(np.uint8))


def red_object() -> Carried:
    item = Carried(1, np.where(WHERE, 0.9, 0.02).astype(np.float32))
    item.inside = item.vouched = color_histogram(picture(RED), WHERE)
    return item


def tell(item: Carried, index: int, inside: tuple[int, int, int], pace: float) -> bool:
    lab = picture(inside)
    item.pace = pace
    return item.left_behind(index, lab, color_histogram(lab, WHERE))


def test_a_mask_that_stops_at_once_and_shows_the_ground_was_left_behind() -> None:
    item = red_object()
    assert not any(tell(item, k, RED, 3.0) for k in range(5))
    told = [tell(item, 5 + k, GREEN, 0.0) for k in range(FADE_AFTER)]
    assert told == [False] * (FADE_AFTER - 1) + [True]
    item.hide(5)
    assert item.hidden_for == 1 and item.area == 0
    assert item.uncovered(WHERE) == 1.0, "what it stood before is no return of it"
    for index in range(6, 6 + JUST_STOPPED):
        item.hide(index)
    assert item.uncovered(WHERE) == 0.0 and item.gone_at == 5


def test_an_object_that_stops_and_looks_as_it_did_stays() -> None:
    item = red_object()
    assert not any(tell(item, k, RED, 3.0) for k in range(5))
    assert not any(tell(item, 5 + k, RED, 0.0) for k in range(20))


def test_what_stood_for_long_may_change_its_looks() -> None:
    """The light goes on: nothing has moved, so nothing has left."""
    item = red_object()
    tell(item, 0, RED, 3.0)
    assert not any(tell(item, k, RED, 0.0) for k in range(1, 2 + JUST_STOPPED))
    assert not any(tell(item, 2 + JUST_STOPPED + k, GREEN, 0.5 * STILL) for k in range(10))


def test_nothing_is_learnt_from_a_mask_that_may_have_been_left() -> None:
    item = red_object()
    tell(item, 0, RED, 3.0)
    assert item.learns(0)
    tell(item, 1, RED, 0.0)
    assert not item.learns(1)
    for index in range(2, 3 + JUST_STOPPED):
        tell(item, index, RED, 0.0)
    assert item.learns(2 + JUST_STOPPED)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "given", "least"), [
    ("pillar", False, 0.70), ("leave_return", False, 0.74), ("pillar", True, 0.75), ("bounce:11", True, 0.5),
])  # fmt: skip
def test_who_comes_back_is_who_has_left(name: str, given: bool, least: float, tmp_path: Path) -> None:
    """Ids changed, or the mask stayed with what the object uncovered, and J was .55, .71, .60 and .39."""
    clip = load_clip(name, tmp_path, 48)
    assert clip.masks is not None
    _, final, _ = run_masks((PromptedMasks if given else MotionMasks)(Config()), clip, given)
    score = score_masks(final, clip.masks)
    assert float(score.J) > least
    if name != "bounce:11":  # whose ball and box are of one colour
        assert score.flips == 0 and len(match_labels(final, clip.masks)) == 2
