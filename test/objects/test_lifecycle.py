import pytest
from hypothesis import given
from hypothesis import strategies as st

from motion4d_ros.config import ObjectsConfig
from motion4d_ros.objects.lifecycle import (
    UNSEEN,
    Sighting,
    is_seen,
    next_phase,
    observability,
    update_existence,
)
from motion4d_ros.types import ObjectPhase

CONFIG = ObjectsConfig()
NEW, TRACKED, OCCLUDED, LOST = ObjectPhase.NEW, ObjectPhase.TRACKED, ObjectPhase.OCCLUDED, ObjectPhase.LOST


@pytest.mark.parametrize(
    ("sighting", "seen"),
    [
        (Sighting(500, 600, 0.0, True), True),
        (Sighting(50, 600, 0.0, True), False),  # a shred where the whole should be
        (Sighting(50, 600, 0.9, True), True),  # the shred that shows beside what hides it
        (Sighting(5, 6, 0.0, True), False),  # too small to be sure
        (Sighting(500, 0, 0.0, False), True),  # expected nowhere, but there it is
        (UNSEEN, False),
    ],
)
def test_what_counts_as_a_sighting(sighting, seen):
    assert is_seen(sighting, CONFIG) is seen


@pytest.mark.parametrize(
    ("sighting", "share"),
    [
        (Sighting(0, 100, 0.25, True), 0.75),
        (Sighting(0, 100, 1.0, True), 0.0),
        (Sighting(0, 100, 0.0, False), 0.0),
        (UNSEEN, 0.0),
        (Sighting(0, 100, 1.5, True), 0.0),
    ],
)
def test_observability(sighting, share):
    assert observability(sighting) == share


def test_bayes_by_hand():
    # prior 1/2, detection 0.9, false alarm 0.1: odds 1 -> 9 after a hit, 1/9 after a miss (no time passed)
    assert update_existence(0.5, True, 1.0, 0.1, CONFIG) == pytest.approx(0.9)
    assert update_existence(0.5, False, 1.0, 0.0, CONFIG) == pytest.approx(0.1)


@given(st.floats(0, 1), st.booleans(), st.floats(0, 1), st.floats(0, 100))
def test_existence_stays_a_probability_and_moves_the_right_way(prior, seen, observable, seconds):
    posterior = update_existence(prior, seen, observable, seconds, CONFIG)
    assert 0 <= posterior <= 1
    assert posterior >= prior - 1e-12 if seen else posterior <= prior + 1e-12


def test_a_hidden_object_is_doubted_slowly_a_missing_one_quickly():
    hidden = missing = 0.99
    for _ in range(20):  # 2 s at 10 Hz
        hidden = update_existence(hidden, False, 0.0, 0.1, CONFIG)
        missing = update_existence(missing, False, 1.0, 0.1, CONFIG)
    assert hidden == pytest.approx(0.99 * 0.5 ** (2 / CONFIG.hidden_half_life))
    assert missing < 1e-6


@pytest.mark.parametrize(
    ("phase", "seen", "frames", "unseen_seconds", "existence", "expected"),
    [
        (NEW, True, 1, 0, 0.9, NEW),
        (NEW, True, 3, 0, 0.9, TRACKED),
        (NEW, False, 1, 0.2, 0.9, NEW),
        (NEW, False, 1, 0.2, 0.1, LOST),
        (TRACKED, True, 50, 0, 0.9, TRACKED),
        (TRACKED, False, 50, 0.2, 0.9, OCCLUDED),
        (TRACKED, False, 50, 0.2, 0.1, LOST),
        (OCCLUDED, False, 50, 4.9, 0.9, OCCLUDED),
        (OCCLUDED, False, 50, 5.1, 0.9, LOST),
        (OCCLUDED, True, 50, 0, 0.9, TRACKED),
        (LOST, False, 50, 9, 0.9, LOST),
        (LOST, True, 50, 0, 0.9, TRACKED),
        (LOST, True, 2, 0, 0.9, NEW),
    ],
)
def test_phases(phase, seen, frames, unseen_seconds, existence, expected):
    assert next_phase(phase, seen, frames, unseen_seconds, existence, CONFIG) is expected
