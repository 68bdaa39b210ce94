"""The loop over all recordings, with a launcher that answers as it is told: what is tried again, kept, and said."""

from __future__ import annotations

import json
from collections import deque

import pytest

from motion4d_ros.batch.carriers import DONE, FAILED, OK, Needs, Outcome, Planned, Recording
from motion4d_ros.batch.driver import Driver
from motion4d_ros.batch.launchers.interfaces import LauncherGone
from motion4d_ros.batch.places import LocalPlace
from motion4d_ros.batch.plan import Plan


class Answers:
    """A launcher that gives each recording the outcomes it is told, one an attempt."""

    def __init__(self, outcomes: dict[int, list[Outcome]], gone_after: int = 10**6) -> None:
        self._outcomes = {number: deque(found) for number, found in outcomes.items()}
        self._queue: deque[int] = deque()
        self.most, self.ended, self.avoided, self._gone_after = 0, 0, list[str](), gone_after

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return

    def room(self):
        return 2

    def submit(self, number, task):
        json.dumps(task)
        self._queue.append(number)
        self.most = max(self.most, len(self._queue))

    def collect(self, wait_s):
        if self.ended >= self._gone_after:
            raise LauncherGone("the head node is gone")
        self.ended += 1
        number = self._queue.popleft()
        return [(number, self._outcomes[number].popleft())]

    def avoid(self, node_id):
        self.avoided.append(node_id)

    def notes(self):
        return []


class Lines:
    """What is said."""

    def __init__(self):
        self.lines, self.ended = [], 0

    def say(self, text):
        self.lines.append(text)

    def count(self, *, failed):
        self.ended += 1

    def tick(self):
        return


@pytest.fixture
def drive(tmp_path):
    """Runs recordings `r0`, `r1`, … with the given outcomes; (rows, lines, launcher, driver)."""
    place = LocalPlace(tmp_path / "out")
    place.open()

    def run(outcomes, *, retries=1, stop=lambda: False, kept=(), **more):
        recordings = [Recording(f"/r{number}", f"r{number}") for number in outcomes]
        todo = {n: Planned(recordings[n], {"input": "i"}, kept=n in kept) for n in outcomes}
        driver = Driver(Plan(recordings, todo), place, Needs(), retries, "1")
        launcher, lines = Answers(outcomes, **more), Lines()
        driver.run(launcher, lines, stop)
        driver.close()
        return list(driver.rows), lines, launcher, driver

    yield run
    place.close()


def test_what_may_go_well_is_tried_again_and_the_rest_is_not(drive, tmp_path):
    ok, lost = Outcome(OK, frames=3), Outcome(FAILED, "lost", "its node died")
    full = Outcome(FAILED, "full", "no space left on /tmp", node_id="abc")
    rows, lines, launcher, driver = drive(
        {0: [ok], 1: [lost, ok], 2: [lost, lost], 3: [full, ok], 4: [Outcome(FAILED, "input", "no video")]}
    )
    assert [row["state"] for row in rows] == ["ok", "ok", "failed", "ok", "failed"]
    assert [row["attempts"] for row in rows] == [1, 2, 2, 2, 1]
    assert launcher.avoided == ["abc"] and launcher.most <= 2 and lines.ended == 5 and driver.failed == 2
    assert lines.lines == [
        "r1: its node died; tried again (1 of 1)", "r2: its node died; tried again (1 of 1)",
        "r2: failed: its node died", "r3: no space left on /tmp; tried again (1 of 1)", "r4: failed: no video",
    ]  # fmt: skip
    done = json.loads((tmp_path / "out" / "r4" / DONE).read_text())
    assert (done["state"], done["reason"], done["input"]) == ("failed", "no video", "/r4")


def test_a_failure_does_not_replace_finished_results(drive, tmp_path):
    drive({0: [Outcome(FAILED, "input", "no video")]}, kept=(0,))
    assert not (tmp_path / "out" / "r0").exists()


def test_where_the_cluster_goes_away_what_is_done_is_kept(drive):
    rows, _, _, driver = drive({n: [Outcome(OK)] for n in range(4)}, gone_after=2)
    assert [row["state"] for row in rows] == ["ok", "ok", "open", "open"]
    assert driver.ended_early == "the head node is gone"


def test_a_wish_to_stop_is_heard(drive):
    calls = iter([False, False, True])
    rows, _, _, driver = drive({n: [Outcome(OK)] for n in range(4)}, stop=lambda: next(calls))
    assert [row["state"] for row in rows] == ["ok", "ok", "open", "open"] and driver.ended_early == "interrupted"
