"""The hand-over between callbacks: nobody waits, nothing is lost, order is kept."""

from __future__ import annotations

import threading
from typing import Any

from motion4d_ros.ros.work.handover import Handover


def no_failure(error: Exception) -> None:
    raise AssertionError from error


def test_nobody_waits_for_one_who_is_held_up() -> None:
    held, go_on = threading.Event(), threading.Event()
    taken: list[int] = []

    def sink(item: int) -> None:
        if item == 0:
            held.set()
            assert go_on.wait(10.0)
        taken.append(item)

    handover = Handover(sink, no_failure)
    first = threading.Thread(target=handover.put, args=(0,))
    first.start()
    assert held.wait(10.0)
    for item in (1, 2, 3):
        handover.put(item)  # returns although the first one is still at it
    assert taken == []
    go_on.set()
    first.join(10.0)
    assert taken == [0, 1, 2, 3]


def test_many_threads_lose_nothing_and_never_meet() -> None:
    inside = threading.Semaphore(1)
    taken: list[tuple[int, int]] = []

    def sink(item: tuple[int, int]) -> None:
        assert inside.acquire(blocking=False)
        taken.append(item)
        inside.release()

    handover = Handover(sink, no_failure)

    def bring(thread: int) -> None:
        for number in range(500):
            handover.put((thread, number))

    threads = [threading.Thread(target=bring, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert len(taken) == 3000
    for number in range(6):
        assert [item for thread, item in taken if thread == number] == list(range(500))


def test_an_exception_is_reported_and_the_next_item_taken() -> None:
    taken: list[Any] = []
    failures: list[Exception] = []

    def sink(item: int) -> None:
        if item == 1:
            raise ValueError("one")
        taken.append(item)

    handover = Handover(sink, failures.append)
    for item in range(3):
        handover.put(item)
    assert taken == [0, 2] and [str(error) for error in failures] == ["one"]


def test_what_came_before_an_action_is_consumed_first() -> None:
    taken: list[Any] = []
    handover = Handover(taken.append, no_failure)
    handover.put(1)
    handover.exclusively(lambda: taken.append("action"))
    handover.put(2)
    assert taken == [1, "action", 2]


def test_what_an_exclusive_action_brings_is_consumed() -> None:
    taken: list[int] = []
    handover = Handover(taken.append, no_failure)
    handover.exclusively(lambda: handover.put(1))
    assert taken == [1]
