import numpy as np
import pytest

from motion4d_ros.objects.appearance import Appearance, Candidate, LostObject, reidentify


def look(color, seed=0, spread=0.04, count=800, gain=1.0) -> Appearance:
    rng = np.random.default_rng(seed)
    return Appearance.of((np.array(color) + rng.normal(0, spread, (count, 3))) * gain)


RED, BLUE, GREEN = (0.8, 0.2, 0.2), (0.2, 0.3, 0.8), (0.3, 0.7, 0.3)
TIGHT = np.eye(3) * 0.05**2


def lost(object_id, color, position, sigma=0.3, size=None) -> LostObject:
    return LostObject(object_id, look(color, seed=object_id), np.array(position, float), np.eye(3) * sigma**2, size)


def candidate(color, position, size=None) -> Candidate:
    return Candidate(look(color, seed=99), np.array(position, float), TIGHT, size)


def test_distance_separates_colours_but_not_samples_or_a_little_shade():
    red = look(RED, 1)
    assert red.distance(red) == pytest.approx(0, abs=1e-3)
    assert red.distance(look(RED, 2)) < 0.1
    assert red.distance(look(RED, 2, gain=0.9)) < 0.45
    assert red.distance(look(BLUE, 3)) > 0.8
    assert red.distance(look(BLUE, 3)) == pytest.approx(look(BLUE, 3).distance(red))


def test_the_one_whose_looks_and_motion_fit_comes_back():
    known = [lost(3, RED, (1, 0, 0)), lost(5, BLUE, (1, 0, 0)), lost(7, RED, (4, 0, 0))]
    assert reidentify(candidate(RED, (1.2, 0.1, 0)), known) == 3
    assert reidentify(candidate(BLUE, (1.2, 0.1, 0)), known) == 5
    assert reidentify(candidate(RED, (3.8, 0.1, 0)), known) == 7


def test_strangers_get_no_old_id():
    known = [lost(3, RED, (1, 0, 0))]
    assert reidentify(candidate(GREEN, (1, 0, 0)), known) is None  # right place, other looks
    assert reidentify(candidate(RED, (4, 0, 0)), known) is None  # right looks, too far for its uncertainty
    assert reidentify(candidate(RED, (4, 0, 0)), [lost(3, RED, (1, 0, 0), sigma=2.0)]) == 3  # long unseen: not too far
    assert reidentify(candidate(RED, (1, 0, 0)), []) is None


def test_twins_at_the_same_distance_are_not_guessed():
    known = [lost(3, RED, (0, 0, 0), sigma=1.0), lost(4, RED, (2, 0, 0), sigma=1.0)]
    assert reidentify(candidate(RED, (1, 0, 0)), known) is None
    assert reidentify(candidate(RED, (0.1, 0, 0)), known) == 3


def test_size_must_be_plausible():
    small, big = np.full(3, 0.1), np.full(3, 1.0)
    assert reidentify(candidate(RED, (1, 0, 0), small), [lost(3, RED, (1, 0, 0), size=big)]) is None
    assert reidentify(candidate(RED, (1, 0, 0), small * 2), [lost(3, RED, (1, 0, 0), size=small)]) == 3


def test_without_pixels_nothing_can_be_recognised():
    nothing = Appearance.of(np.zeros((0, 3)))
    blank = LostObject(3, nothing, np.zeros(3), TIGHT)
    assert reidentify(Candidate(look(RED), np.zeros(3), TIGHT), [blank]) is None
    assert nothing.merged(look(RED)).pixels == look(RED).merged(nothing).pixels == look(RED).pixels > 0
    assert np.isfinite(Appearance.of(np.full((4, 3), np.nan)).histogram).all()


def test_merging_follows_slowly():
    merged = look(RED)
    for _ in range(40):
        merged = merged.merged(look(BLUE))
    assert merged.distance(look(BLUE)) < 0.2 and look(RED).merged(look(BLUE)).distance(look(RED)) < 0.3
