"""A worker that dies is replaced, again and again with longer pauses; one that hangs is ended, or left behind."""

from __future__ import annotations

import pytest

from motion4d_ros.ros.pace import Pace
from motion4d_ros.ros.work.report import WorkerReport
from motion4d_ros.ros.work.watch import FRESH_S, GRACE_S, MOST_LEFT, PAUSES_S, Verdict, Watch


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Patient:
    """What a watch sees of a worker."""

    def __init__(self) -> None:
        self.alive, self.stopping, self.step_s = True, False, 0.0
        self.report = WorkerReport()
        self.told: list[str] = []

    def stop(self, timeout_s: float) -> bool:
        self.stopping = True
        return True

    def end_step(self, after_s: float) -> None:
        self.told.append("end")

    def leave(self) -> None:
        self.told.append("leave")


@pytest.fixture
def clock() -> Clock:
    return Clock()


def dead() -> Patient:
    patient = Patient()
    patient.alive = False
    return patient


def test_restarts_come_at_growing_pauses_and_never_end(clock: Clock) -> None:
    watch, waits = Watch(lambda text: None, clock), []
    for _ in range(6):
        patient, began = dead(), clock.now
        while watch.look(patient, 60.0) is Verdict.FINE:
            clock.now += 1.0
        waits.append(clock.now - began)
    assert waits == [*PAUSES_S, PAUSES_S[-1], PAUSES_S[-1]] and watch.restarts == 6
    clock.now += FRESH_S
    assert watch.look(dead(), 60.0) is Verdict.REPLACE, "what lived long is replaced at once"


def test_a_stopped_worker_is_nobodys_loss(clock: Clock) -> None:
    watch, patient = Watch(lambda text: None, clock), dead()
    patient.stopping = True
    assert watch.look(patient, 60.0) is Verdict.FINE and watch.restarts == 0


def test_a_step_that_hangs_is_ended_then_left_behind(clock: Clock) -> None:
    said: list[str] = []
    watch = Watch(said.append, clock)
    for number in range(MOST_LEFT):
        patient = Patient()
        patient.step_s = 61.0
        assert watch.look(patient, 0.0) is Verdict.FINE and not patient.told, "0: as long as it likes"
        assert watch.look(patient, 60.0) is Verdict.FINE and patient.told == ["end"]
        clock.now += GRACE_S + 0.1
        last = number == MOST_LEFT - 1
        assert watch.look(patient, 60.0) is (Verdict.HOPELESS if last else Verdict.RENEW)
        assert patient.told == ["end", "leave"]
    assert len(said) == MOST_LEFT


def test_a_pace_lets_few_through(clock: Clock) -> None:
    pace = Pace(3, 2.0, clock)
    assert [pace.take() for _ in range(5)] == [True, True, True, False, False]
    clock.now += 1.0
    assert [pace.take() for _ in range(3)] == [True, True, False]
    clock.now += 3600.0
    assert sum(pace.take() for _ in range(100)) == 3
