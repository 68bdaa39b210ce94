"""The loop over all recordings: hands them out, takes what comes back, tries again what may go well."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from motion4d_ros.batch.carriers import AGAIN, DONE, FAILED, OF_THE_NODE, OK, OPEN, Needs, Outcome, Planned, Task
from motion4d_ros.batch.launchers.interfaces import Launcher, LauncherGone
from motion4d_ros.batch.overview.rows import Rows
from motion4d_ros.batch.places import Place
from motion4d_ros.batch.plan import Plan, done_text
from motion4d_ros.errors import Motion4DError

WAIT_S = 0.5


class Told(Protocol):
    """What the loop says on its way."""

    def say(self, text: str) -> None:
        """One line."""

    def count(self, *, failed: bool) -> None:
        """One recording more has come to its end."""

    def tick(self) -> None:
        """Time goes by."""


class Driver:
    """Runs a plan. `ended_early` says why it did not come to its end, "" if it did."""

    def __init__(self, plan: Plan, place: Place, needs: Needs, retries: int, version: str) -> None:
        self._plan, self._place, self._needs, self._retries, self._version = plan, place, needs, retries, version
        self.rows = Rows(len(plan.recordings))
        self.ended_early = ""
        self.failed = len(plan.failed)
        for number, done in plan.done.items():
            self.rows.put(number, {**done, "folder": plan.recordings[number].folder})
        plan.done.clear()  # on the disk now

    def run(self, launcher: Launcher, told: Told, stop: Callable[[], bool]) -> None:
        """Until all have ended, `stop()` says so, or there is nobody left to run them. Never raises for a recording."""
        waiting, running = deque(sorted(self._plan.todo)), set[int]()
        try:
            self._tell_hopeless(told)
            while (waiting or running) and not stop():
                while waiting and len(running) < launcher.room():
                    number = waiting.popleft()
                    self._submit(launcher, number)
                    running.add(number)
                for number, outcome in launcher.collect(WAIT_S):
                    running.discard(number)
                    if self._again(number, outcome, launcher, told):
                        waiting.appendleft(number)
                for note in launcher.notes():
                    told.say(note)
                told.tick()
            self.ended_early = "interrupted" if waiting or running else ""
        except (LauncherGone, Motion4DError) as error:
            self.ended_early = str(error)

    def close(self) -> None:
        """Notes what has not come to its end. Whoever reads the rows does it after this."""
        for number, recording in enumerate(self._plan.recordings):
            if number not in self.rows:
                row = {"input": recording.input, "folder": recording.folder, "state": OPEN, "reason": ""}
                self.rows.put(number, row)

    def _submit(self, launcher: Launcher, number: int) -> None:
        planned = self._plan.todo[number]
        planned.attempts += 1
        recording, needs = planned.recording, self._needs
        task = Task(
            recording.input, recording.folder, planned.words, self._place.name, self._place.token, planned.key,
            self._version, planned.attempts, needs.gpus, needs.memory, needs.timeout_s,
        )  # fmt: skip
        launcher.submit(number, task.as_dict())

    def _again(self, number: int, outcome: Outcome, launcher: Launcher, told: Told) -> bool:
        """Notes how an attempt ended; whether there is to be another."""
        planned = self._plan.todo[number]
        folder = planned.recording.folder
        if outcome.kind in OF_THE_NODE and outcome.node_id:
            launcher.avoid(outcome.node_id)
        if outcome.state == OK:
            self._end(number, planned, outcome.figures())
            told.count(failed=False)
            return False
        if outcome.kind in AGAIN and planned.attempts <= self._retries:
            told.say(f"{folder}: {outcome.reason}; tried again ({planned.attempts} of {self._retries})")
            return True
        told.say(f"{folder}: failed: {outcome.reason}")
        self._fail(number, planned, outcome)
        told.count(failed=True)
        return False

    def _fail(self, number: int, planned: Planned, outcome: Outcome) -> None:
        self.failed += 1
        figures: dict[str, Any] = {**outcome.figures(), "state": FAILED}
        self._end(number, planned, figures)
        if not planned.kept:
            self._place.write_text(f"{planned.recording.folder}/{DONE}", done_text(planned, figures))

    def _end(self, number: int, planned: Planned, figures: dict[str, Any]) -> None:
        recording = planned.recording
        row = {**figures, "input": recording.input, "folder": recording.folder, "attempts": planned.attempts}
        self.rows.put(number, row)
        del self._plan.todo[number]

    def _tell_hopeless(self, told: Told) -> None:
        """What cannot even be tried: a line each, and nothing is written over."""
        for number, reason in self._plan.failed.items():
            recording = self._plan.recordings[number]
            where = f" ({recording.origin})" if recording.origin and recording.origin != recording.input else ""
            told.say(f"{recording.folder or recording.input}{where}: failed: {reason}")
            row = {"input": recording.input, "folder": recording.folder, "state": FAILED, "reason": reason}
            self.rows.put(number, row)
