"""However many ids masks and prompts name: few objects, and ids that are never used twice."""

from __future__ import annotations

import numpy as np
import pytest

from motion4d_ros.fit.frontend.object_count import LARGEST_NAMED, ObjectCount
from motion4d_ros.imagery.conversions import LARGEST_ID
from motion4d_ros.types import Motion4DError


def masks(*ids: int) -> np.ndarray:
    found = np.zeros((4, 70_000), np.int32)
    found[0, : len(ids)] = ids
    return found


def test_a_frame_of_too_many_ids_is_refused_and_leaves_no_trace() -> None:
    count = ObjectCount(5, horizon=4)
    count.frame(masks(1, 2, 3, -1))
    with pytest.raises(Motion4DError, match="65535 objects in the horizon, at most 5"):
        count.frame(masks(*range(1, LARGEST_ID + 1)))
    count.frame(masks(1, 2, 3, 4, 5))
    with pytest.raises(Motion4DError, match="6 objects"):
        count.frame(masks(6))


def test_ids_that_left_the_horizon_make_room() -> None:
    count = ObjectCount(4, horizon=3)
    for number in range(400):  # a new id in every frame: never more than three in the horizon
        count.frame(masks(number + 1))
    count.frame(None)
    with pytest.raises(Motion4DError):
        count.frame(masks(1000, 1001, 1002, 1003))


def test_prompts_count_and_get_free_ids() -> None:
    count = ObjectCount(3, horizon=10)
    count.frame(masks(1, LARGEST_ID))
    assert count.prompt(0, {1, LARGEST_ID}) == 2, "none after the largest: the smallest that nothing had"
    assert count.prompt(2, {1, 2, LARGEST_ID}) == 2
    with pytest.raises(Motion4DError, match="at most 3"):
        count.prompt(0, {1, 2, LARGEST_ID})
    with pytest.raises(Motion4DError, match="must lie in"):
        count.prompt(LARGEST_ID + 1, set())
    with pytest.raises(Motion4DError, match="used up"):
        ObjectCount(10, 4).prompt(0, set(range(1, LARGEST_ID + 1)))


def test_a_prompt_cannot_use_up_the_ids_of_those_who_find_objects() -> None:
    """They count on from the largest id: after 65535 their objects would be shown as background."""
    count = ObjectCount(10, horizon=10)
    assert count.prompt(LARGEST_NAMED, set()) == LARGEST_NAMED
    with pytest.raises(
        Motion4DError, match=f"object {LARGEST_ID} is not known; new ones get ids up to {LARGEST_NAMED}"
    ):
        count.prompt(LARGEST_ID, {1})
    assert count.prompt(LARGEST_ID, {LARGEST_ID}) == LARGEST_ID, "one that a topic of masks has named"
