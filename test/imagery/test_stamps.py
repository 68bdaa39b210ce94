"""The order of images: by stamp, each once; what cannot be ordered is left out and said."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from motion4d_ros.imagery.stamps import HOLD_NS, StampOrder

T0, STEP, S = 1_700_000_000_000_000_000, 100_000_000, 10**9


def ordered(images):
    """(stamp, recorded) of each image in the order of recording -> the stamps that come out, and what was said."""
    said: Counter[str] = Counter()
    order: StampOrder[int] = StampOrder(lambda text: said.update([text]))
    out = []
    for number, (stamp, recorded) in enumerate(images):
        order.add(stamp, recorded, number)
        out += order.ready(recorded)
    out += order.rest()
    return out, said


def regular(count, stamp=T0, recorded=T0):
    return [(stamp + k * STEP, recorded + k * STEP) for k in range(count)]


def test_a_regular_recording_passes_as_it_is():
    out, said = ordered(regular(50))
    assert out == [(T0 + k * STEP, k) for k in range(50)] and not said


def test_images_come_out_soon():
    order: StampOrder[int] = StampOrder(print)
    for stamp, recorded in regular(10):
        order.add(stamp, recorded, 0)
    held = HOLD_NS // STEP
    assert len(list(order.ready(T0 + 9 * STEP))) == 10 - held


def test_a_gap_stays_a_gap():
    images = regular(10) + regular(10, T0 + 3 * S, T0 + 3 * S)
    assert [stamp for stamp, _ in ordered(images)[0]] == [stamp for stamp, _ in images]
    pause = regular(10) + regular(10, T0 + 3600 * S, T0 + 3600 * S)
    out, said = ordered(pause)
    assert [stamp for stamp, _ in out] == [stamp for stamp, _ in pause]
    assert [text for text in said if "stays a gap" in text]


@pytest.mark.parametrize("late_s", [0.15, 0.35])
def test_disorder_is_put_in_order(late_s):
    images = [
        (stamp, recorded + round(late_s * S) * (k in (3, 7, 11))) for k, (stamp, recorded) in enumerate(regular(20))
    ]
    out, said = ordered(sorted(images, key=lambda image: image[1]))
    assert [stamp for stamp, _ in out] == [T0 + k * STEP for k in range(20)] and not said


def test_one_image_that_comes_too_late_is_left_out_and_the_others_keep_their_time():
    images = [(stamp, recorded + 2 * S * (k == 5)) for k, (stamp, recorded) in enumerate(regular(50))]
    out, said = ordered(sorted(images, key=lambda image: image[1]))
    assert [stamp for stamp, _ in out] == [T0 + k * STEP for k in range(50) if k != 5]
    assert list(said.values()) == [1] and "late" in next(iter(said))


@pytest.mark.parametrize("delay", [0, 200_000, 900_000_000])
def test_images_that_stand_twice_are_taken_once(delay):
    images = regular(20) + [(stamp, recorded + delay) for stamp, recorded in regular(20)]
    out, said = ordered(sorted(images, key=lambda image: image[1]))
    assert [stamp for stamp, _ in out] == [T0 + k * STEP for k in range(20)]
    assert sum(said.values()) == 20 and all("the stamp of another" in text for text in said)


@pytest.mark.parametrize("wrong", [0, 7, 49])
@pytest.mark.parametrize("off_s", [-3600, 3600, 40 * 365 * 86400])
def test_one_wrong_stamp_costs_one_image(wrong, off_s):
    images = [(stamp + off_s * S * (k == wrong), recorded) for k, (stamp, recorded) in enumerate(regular(50))]
    out, said = ordered(images)
    assert [number for _, number in out] == [k for k in range(50) if k != wrong]
    assert [stamp for stamp, _ in out] == [T0 + k * STEP for k in range(50) if k != wrong]
    assert sum(said.values()) == 1 and "quite another time" in next(iter(said))


@pytest.mark.parametrize("off_ns", [1 * S, 1 * S + 30_000_000, 3 * S, -2 * S, -2 * S + 30_000_000])
def test_one_stamp_that_is_wrong_by_a_little_costs_one_image(off_ns):
    images = [(stamp + off_ns * (k == 25), recorded) for k, (stamp, recorded) in enumerate(regular(60))]
    out, said = ordered(images)
    assert [number for _, number in out] == [k for k in range(60) if k != 25]
    assert [stamp for stamp, _ in out] == [T0 + k * STEP for k in range(60) if k != 25]
    assert sum(said.values()) == 1


def test_a_clock_that_is_set_forward_leaves_a_gap():
    images = regular(20) + regular(20, T0 + 7200 * S, T0 + 20 * STEP)
    out, said = ordered(images)
    assert [stamp for stamp, _ in out] == [stamp for stamp, _ in images]
    assert sum(said.values()) == 1 and "jump forward by 7198.1 s" in next(iter(said))


@pytest.mark.parametrize("back_s", [2, 60, 7200])
def test_after_a_clock_that_is_set_back_time_goes_on_by_the_recording(back_s):
    images = regular(50) + regular(50, T0 + 5 * S - back_s * S, T0 + 5 * S)
    out, said = ordered(images)
    assert [number for _, number in out] == list(range(100))
    assert np.allclose(np.diff([stamp for stamp, _ in out]), STEP)
    assert sum(said.values()) == 1 and "jump back by" in next(iter(said))


def test_a_recording_played_twice_goes_on():
    images = regular(50) + regular(50, T0, T0 + 6 * S)
    out, _ = ordered(images)
    assert [number for _, number in out] == list(range(100))
    assert (np.diff([stamp for stamp, _ in out]) > 0).all()


def test_bursts_of_a_stalled_recorder_keep_their_stamps():
    images = regular(50)
    images = [
        (stamp, max(recorded, T0 + 3 * S) if 10 <= k < 30 else recorded) for k, (stamp, recorded) in enumerate(images)
    ]
    out, said = ordered(images)
    assert [stamp for stamp, _ in out] == [stamp for stamp, _ in images] and not said


def test_images_at_more_than_the_buffer_holds():
    images = [(T0 + k * STEP // 50, T0 + k * STEP // 50) for k in range(500)]
    assert [stamp for stamp, _ in ordered(images)[0]] == [stamp for stamp, _ in images]
