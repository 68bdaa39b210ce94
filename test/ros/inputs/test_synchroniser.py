"""The synchroniser: the stand-in's two classes, and the guard around `message_filters`' known defects."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from motion4d_ros.ros.inputs import synchroniser
from motion4d_ros.ros.inputs.synchroniser import Synchroniser, installed_classes

MS = 10**6
SOURCES = [synchroniser] if installed_classes()[0] == "stand-in" else [synchroniser, installed_classes()[1]]


def at(stamp_ns: int) -> Any:
    from builtin_interfaces.msg import Time

    stamp = Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return SimpleNamespace(header=SimpleNamespace(stamp=stamp), stamp_ns=stamp_ns)


class Collector:
    def __init__(
        self, source: Any, names: tuple[str, ...] = ("image", "depth"), slop: float = 0.0, queue: int = 5
    ) -> None:
        self.groups: list[tuple[int, ...]] = []
        self.lost: dict[str, int] = {}
        self.fails = 0
        self.sync = Synchroniser(names, self.emit, self.note, slop_s=slop, queue_size=queue, jump_s=0.5, classes=source)

    def emit(self, group: dict[str, Any]) -> None:
        if self.fails:
            self.fails -= 1
            raise RuntimeError("a callback that fails")
        self.groups.append(tuple(message.stamp_ns for message in group.values()))

    def note(self, count: int, reason: str) -> None:
        self.lost[reason] = self.lost.get(reason, 0) + count


@pytest.mark.parametrize("source", SOURCES)
def test_equal_stamps_meet_in_any_order(source: Any) -> None:
    c = Collector(source)
    for name, stamp in (("depth", 1), ("image", 1), ("image", 2), ("image", 3), ("depth", 3), ("depth", 2)):
        c.sync.add(name, at(stamp * 100 * MS))
    assert sorted(c.groups) == [(k * 100 * MS, k * 100 * MS) for k in (1, 2, 3)] and not c.lost


@pytest.mark.parametrize("source", SOURCES)
def test_slop_pairs_neighbours_and_only_them(source: Any) -> None:
    c = Collector(source, slop=0.02)
    c.sync.add("image", at(1000 * MS))
    c.sync.add("depth", at(1030 * MS))
    assert not c.groups
    c.sync.add("depth", at(1010 * MS))
    assert c.groups == [(1000 * MS, 1010 * MS)]


@pytest.mark.parametrize("source", SOURCES)
def test_three_inputs(source: Any) -> None:
    c = Collector(source, ("image", "depth", "odometry"), slop=0.05)
    for name, stamp in (("image", 1000), ("depth", 1010), ("odometry", 1020), ("image", 1100), ("odometry", 1100)):
        c.sync.add(name, at(stamp * MS))
    assert c.groups == [(1000 * MS, 1010 * MS, 1020 * MS)]


@pytest.mark.parametrize("source", SOURCES)
def test_images_without_partner_are_reported(source: Any) -> None:
    c = Collector(source, queue=3)
    for k in range(1, 11):
        c.sync.add("image", at(k * 100 * MS))
    assert c.lost == {"no partner": 7} and c.sync.missing() == ["depth"]
    c.sync.add("image", at(1000 * MS))
    assert c.lost["duplicate stamp"] == 1


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("slop", [0.0, 0.02])
def test_a_looped_bag_keeps_matching(source: Any, slop: float) -> None:
    c = Collector(source, slop=slop, queue=10)
    for _ in range(5):
        for k in range(180):
            stamp = (100 + k) * 100 * MS
            c.sync.add("image", at(stamp))
            c.sync.add("depth", at(stamp))
    assert len(c.groups) == 900, "message_filters alone stops after the first loop"
    assert c.sync.rebuilds >= 4


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("first", ["image", "depth"])
def test_topics_that_interleave_across_a_jump_lose_nothing(source: Any, first: str) -> None:
    """One topic begins anew while the other still delivers the end of the last turn."""
    c = Collector(source)
    second = "depth" if first == "image" else "image"
    turns = [[(10 + k) * 100 * MS for k in range(8)] for _ in range(3)]
    lag = 3
    early = [stamp for turn in turns for stamp in turn]
    for k in range(len(early) + lag):
        if k < len(early):
            c.sync.add(first, at(early[k]))
        if k >= lag:
            c.sync.add(second, at(early[k - lag]))
    assert [image for image, _ in c.groups] == early and not c.lost
    assert c.sync.rebuilds == 2


@pytest.mark.parametrize("source", SOURCES)
def test_a_single_stamp_gone_wrong_costs_one_frame(source: Any) -> None:
    c = Collector(source)
    for k in range(10, 30):
        c.sync.add("image", at(k * 100 * MS))
        c.sync.add("depth", at((k if k != 20 else 3) * 100 * MS))
    images = [image // (100 * MS) for image, _ in c.groups]
    assert images == [k for k in range(10, 30) if k != 20]


@pytest.mark.parametrize("source", SOURCES)
def test_what_a_silent_input_left_waiting_is_given_up_in_the_end(source: Any) -> None:
    c = Collector(source, queue=50)
    c.sync.add("depth", at(1000 * MS))
    for k in (*range(10, 20), *range(10, 20)):
        c.sync.add("image", at(k * 100 * MS))
    c.sync.rebuild()
    assert len(c.groups) == 1 and c.lost == {"clock jump": 19}


@pytest.mark.parametrize("source", SOURCES)
def test_what_waits_when_nothing_comes_any_more_is_given_up_once(source: Any) -> None:
    c = Collector(source)
    for stamp in (1, 2):
        c.sync.add("image", at(stamp * 100 * MS))
    c.sync.add("depth", at(100 * MS))
    c.sync.give_up()
    c.sync.give_up()
    assert c.groups == [(100 * MS, 100 * MS)] and c.lost == {"no partner": 1}
    c.sync.add("depth", at(200 * MS))  # too late: its image is gone
    for name in ("image", "depth"):
        c.sync.add(name, at(300 * MS))
    assert c.groups[1:] == [(300 * MS, 300 * MS)] and c.lost == {"no partner": 1}
    assert c.sync.missing() == []


@pytest.mark.parametrize("source", SOURCES)
def test_an_exception_downstream_neither_escapes_nor_blocks(source: Any) -> None:
    c = Collector(source)
    c.fails = 1
    for k in (1, 2):
        c.sync.add("image", at(k * 100 * MS))
        c.sync.add("depth", at(k * 100 * MS))
    assert c.groups == [(200 * MS, 200 * MS)] and c.lost == {"internal error": 1}


def test_a_single_input_passes_straight_through() -> None:
    c = Collector(synchroniser, ("image",))
    c.sync.add("image", at(5))
    assert c.groups == [(5,)]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("seed", range(20))
def test_stamps_of_a_stranger_do_not_keep_good_frames_apart_for_ever(source: Any, seed: int) -> None:
    """Stamps of the far future, and of the past, on some of the inputs: good frames meet soon after."""
    rng = np.random.default_rng(seed)
    names = ("image", "depth", "odometry")
    c = Collector(source, names)
    now = 10**12
    for _ in range(int(rng.integers(200))):
        now += 10**7
        stamp = int(rng.choice([now, now, now, (2**31 - 1) * 10**9, 10**9, now - 10**10]))
        c.sync.add(str(rng.choice(names)), at(stamp))
    before, good = len(c.groups), 2 * 10**18 if seed % 2 else now + 10**9
    for number in range(60):
        for name in names:
            c.sync.add(name, at(good + number * 100 * MS))
    assert len(c.groups) > before + 20
    assert c.groups[-1] == (good + 59 * 100 * MS,) * 3
