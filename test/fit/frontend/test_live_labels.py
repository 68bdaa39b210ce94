"""Labels of the newest frame: names from the past, outlines from the source, swaps and noise taken out."""

from __future__ import annotations

import numpy as np

from motion4d_ros.fit.frontend.live_labels import LiveLabels, called_by_history, carry_labels, own_outlines
from motion4d_ros.fit.semantics.mask_selection import overlap
from motion4d_ros.types import UNKNOWN_LABEL, BoolArray, FloatArray, IntArray

SIZE = (48, 64)
STILL: FloatArray = np.zeros((*SIZE, 2))
TRUSTED: BoolArray = np.ones(SIZE, bool)


def squares(**boxes: tuple[int, int]) -> IntArray:
    """(H, W) labels: a 16 px square per keyword ``a`` = 1, ``b`` = 2, … with its top left corner at (row, column)."""
    labels = np.zeros(SIZE, np.int32)
    for name, (row, column) in boxes.items():
        labels[row : row + 16, column : column + 16] = ord(name) - ord("a") + 1
    return labels


def test_swapped_names_are_given_back() -> None:
    past, swapped = squares(a=(4, 4), b=(20, 40)), squares(b=(4, 4), a=(20, 40))
    assert (called_by_history(swapped, past) == past).all()
    labels = LiveLabels.of(past)
    for _ in range(6):  # however long the source insists: the next window decides
        labels = labels.carried(swapped, STILL, TRUSTED)
    assert (labels.labels == past).all()


def test_swaps_leave_no_specks_where_the_flow_is_not_trusted() -> None:
    past, swapped = squares(a=(4, 4), b=(20, 40)), squares(b=(4, 4), a=(20, 40))
    doubtful = np.random.default_rng(0).random(SIZE) < 0.5
    assert (LiveLabels.of(past).carried(swapped, STILL, doubtful).labels == past).all()


def test_a_name_taken_back_is_not_left_to_another() -> None:
    past = squares(a=(4, 4))
    raw = squares(b=(4, 4), a=(30, 40))  # the old object under a new name, and its own name somewhere else
    named = called_by_history(raw, past)
    assert ((named == 1) == (past == 1)).all() and (named[30:46, 40:56] == UNKNOWN_LABEL).all()


def test_what_covers_its_own_past_keeps_its_name() -> None:
    past = squares(a=(4, 4))
    raw = squares(a=(4, 11))  # moved on
    raw[4:20, 4:11] = 7  # something new stands where most of it was
    assert (called_by_history(raw, past) == raw).all()


def test_new_objects_keep_theirs_at_once() -> None:
    past, raw = squares(a=(4, 4)), squares(a=(4, 4), c=(20, 40))
    assert (LiveLabels.of(past).carried(raw, STILL, TRUSTED).labels == raw).all()


def test_a_source_gives_the_outline_where_it_means_the_same_object() -> None:
    carried, raw = squares(a=(4, 4), b=(4, 40)), squares(a=(4, 5))
    raw[4:20, 40:44] = 2  # worn down: a quarter of it
    raw[30:34, 30:34] = 3  # nothing of the kind was carried
    told = own_outlines(carried, raw)
    assert ((told == 1) == (raw == 1)).all()
    assert ((told == 2) == (carried == 2)).all() and 3 not in told


def test_unknown_pixels_are_carried() -> None:
    past = squares(a=(4, 4))
    unknown = np.full(SIZE, UNKNOWN_LABEL, np.int32)
    assert (carry_labels(past, STILL, ~TRUSTED, unknown) == past).all()
    assert (LiveLabels.of(past).carried(unknown, STILL, ~TRUSTED).labels == past).all()


def test_outlines_of_unsteady_sources_are_averaged() -> None:
    rng, truth = np.random.default_rng(1), squares(a=(16, 20))
    labels, alone, averaged = LiveLabels.of(truth), [], []
    for k in range(12):
        grown = squares(a=(16, 20))
        grow = int(rng.integers(-3, 4))
        grown[:] = 0
        grown[16 - grow : 32 + grow, 20 + k - grow : 36 + k + grow] = 1
        truth = np.roll(squares(a=(16, 20)), k, 1)
        back = np.zeros((*SIZE, 2))
        back[..., 0] = -1 if k else 0
        labels = labels.carried(grown, back, TRUSTED)
        alone.append(overlap(labels.told([]) == 1, truth == 1))
        averaged.append(overlap(labels.told([1]) == 1, truth == 1))
    assert np.mean(averaged) > np.mean(alone) + 0.05


def test_told_leaves_steady_objects_alone() -> None:
    past, raw = squares(a=(4, 4), b=(20, 40)), squares(a=(4, 6), b=(20, 42))
    labels = LiveLabels.of(past).carried(raw, STILL, TRUSTED)
    told = labels.told([2, 99])
    assert ((told == 1) == (raw == 1)).all() and 2 in told
    assert (LiveLabels.of(np.full(SIZE, UNKNOWN_LABEL, np.int32)).told([1]) == 0).all()
