"""The books of the frame queue balance at every moment, whoever does what at the same time."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motion4d_ros.ros.work.queue import FrameQueue


@settings(deadline=None)
@given(st.lists(st.sampled_from(["put", "lose", "refuse", "take", "done", "bad", "give up", "clear"]), max_size=80))
def test_books_balance_after_every_step(steps: list[str]) -> None:
    queue: FrameQueue[int] = FrameQueue(3)
    in_hand = 0
    for number, step in enumerate(steps):
        if step in ("put", "lose", "refuse"):
            queue.arrive()
            assert queue.counts().balanced
        if step == "put":
            queue.put(number)
        elif step == "lose":
            queue.drop_waiting("lost")
        elif step == "refuse":
            queue.reject_waiting("bad")
        elif step == "take":
            in_hand += queue.take(0.0) is not None
        elif step == "clear":
            queue.clear("deactivated")
        elif in_hand:
            in_hand -= 1
            if step == "done":
                queue.finish_processed()
            elif step == "bad":
                queue.finish_rejected("x")
            else:
                queue.finish_dropped("y")
        counts = queue.counts()
        assert counts.balanced and len(queue) <= 3
        assert counts.queued == len(queue) + in_hand


def test_the_oldest_gives_way() -> None:
    queue: FrameQueue[int] = FrameQueue(2)
    for number in range(5):
        queue.arrive()
        queue.put(number)
    assert [queue.take(0.0), queue.take(0.0), queue.take(0.0)] == [3, 4, None]
    assert queue.counts().dropped == {"queue full": 3}


def test_books_balance_under_many_threads() -> None:
    queue: FrameQueue[int] = FrameQueue(4)
    stop = threading.Event()
    unbalanced = []

    def produce() -> None:
        for number in range(3000):
            queue.arrive()
            queue.put(number)

    def consume() -> None:
        while not stop.is_set() or len(queue):
            if queue.take(0.001) is not None:
                queue.finish_processed()

    def look() -> None:
        while not stop.is_set():
            if not queue.counts().balanced:
                unbalanced.append(queue.counts())

    workers = [threading.Thread(target=consume), threading.Thread(target=look)]
    producers = [threading.Thread(target=produce) for _ in range(3)]
    for thread in workers + producers:
        thread.start()
    for thread in producers:
        thread.join()
    stop.set()
    for thread in workers:
        thread.join()
    counts = queue.counts()
    assert not unbalanced and counts.received == 9000 and counts.queued == 0


def test_the_period_counts_what_was_dropped_and_not_the_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    queue: FrameQueue[int] = FrameQueue(2)
    assert queue.period_s is None
    for number in range(20):
        now += 30.0 if number == 10 else 0.1 + 0.05 * (-1) ** number
        queue.arrive()
        queue.put(number)
    assert queue.counts().dropped == {"queue full": 18}
    assert queue.period_s == pytest.approx(0.1, rel=0.1)
