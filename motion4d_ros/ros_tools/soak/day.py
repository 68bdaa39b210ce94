"""The day's course: a frame every tenth of a second, and once a minute something happens. The seed decides what."""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from geometry_msgs.msg import Point
from lifecycle_msgs.msg import Transition
from std_srvs.srv import Trigger

from motion4d_ros.msg import ObjectPrompt
from motion4d_ros.ros.outputs.publishers import TOPICS
from motion4d_ros.ros_tools.soak.robot import Robot
from motion4d_ros.ros_tools.soak.world import PERIOD_NS, World

MINUTE = 600  # frames
EVERY = 5  # simulated minutes between two lines of progress
AHEAD = 8  # frames that may be on their way: the queue holds twice as many, so that little is dropped
PATIENCE_S = 60.0
LIVE: tuple[tuple[str, float | int], ...] = (
    *(("budget.load", 0.3), ("budget.load", 0.7), ("trail", 5), ("trail", 40), ("silence", 1.0), ("silence", 3.0)),
)
EVENTS = (
    *("cap", "stop", "clock", "vanish", "partner", "guest", "guest", "parameter", "parameter", "prompt", "reset"),
    *("refine", "save", "cycle", "spoilt", "calm", "calm"),
)


@dataclass
class Sample:
    """The node after one simulated minute."""

    hours: float  # simulated
    real_s: float
    rss_mib: float
    own_mib: float  # of that, what is neither a page of a file (a library) nor shared with others (DDS)
    files: int
    threads: int
    received: int
    processed: int
    dropped: int
    rejected: int
    queued: int
    windows: int
    gaussians: int
    live_p50_s: float
    live_p95_s: float
    live_p99_s: float

    def row(self) -> list[float]:
        """In the order of the fields."""
        return list(asdict(self).values())


@dataclass
class Course:
    """What became of a day."""

    samples: list[Sample] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    failures: list[str] = field(default_factory=list)
    ids_reused: int = 0


class Day:
    """Drives a robot through simulated hours."""

    def __init__(self, robot: Robot, seed: int) -> None:
        self.course = Course()
        self._robot, self._world = robot, World(seed)
        self._rng = np.random.default_rng(seed)
        self._stamp_ns = 1_000_000_000_000
        self._capped = 0  # frames for which the cap stays on
        self._without, self._away = "", 0  # the input that is missing, and for how many frames
        self._began = time.monotonic()
        self._activated_sent = 0  # frames sent since the node was activated

    def run(self, hours: float, budget_s: float) -> Course:
        """Lives through `hours`, or as many of them as `budget_s` of real time allow."""
        count = round(hours * 60 * MINUTE)
        for number in range(count):
            if number and number % MINUTE == 0:
                self._look(number)
                if time.monotonic() - self._began > budget_s:
                    break
                self._happen(EVENTS[int(self._rng.integers(len(EVENTS)))])
            self._frame(number)
        return self.course

    def _frame(self, number: int) -> None:
        self._stamp_ns += PERIOD_NS
        self._capped = max(0, self._capped - 1)
        self._away = max(0, self._away - 1)
        if self._without and self._away == 0:
            self._return()
        moment = self._world.at(number * 0.1, self._stamp_ns, capped=self._capped > 0)
        self._robot.send(moment, self._without)
        self.course.sent += 1
        if self._without != "image":
            self._activated_sent += 1
        self._robot.hear()
        self._keep_pace()

    def _keep_pace(self) -> None:
        """Waits until the node has all but the last few frames; a frame that got lost on the way is not waited for."""
        robot = self._robot

        def close() -> bool:
            s = robot.status
            return s is not None and self._activated_sent - (s.received - s.queued) <= AHEAD

        try:
            robot.wait(close, PATIENCE_S if not self._without else 0.05, "the node keeps up")
        except TimeoutError:
            s = robot.status
            self._activated_sent = 0 if s is None else s.received - s.queued
            self.course.events["frames lost on the way"] += not self._without

    def _look(self, number: int) -> None:
        robot, s = self._robot, self._robot.status
        with robot.usage.oneshot():
            memory, files, threads = robot.usage.memory_info(), robot.usage.num_fds(), robot.usage.num_threads()
        p50, p95, p99 = np.percentile(list(robot.live_s) or [np.nan], [50, 95, 99]).tolist()
        robot.live_s.clear()
        sample = Sample(
            number / (60 * MINUTE), time.monotonic() - self._began, memory.rss / 2**20,
            (memory.rss - memory.shared) / 2**20, files, threads, s.received, s.processed, s.dropped, s.rejected,
            s.queued, s.windows, s.gaussians_static + s.gaussians_dynamic, p50, p95, p99,
        )  # fmt: skip
        self.course.samples.append(sample)
        if number % (EVERY * MINUTE) == 0:
            sys.stdout.write(
                f"{sample.hours:5.2f} h  {sample.real_s:6.0f} s  {sample.rss_mib:6.1f} MiB  {files} files  "
                f"{threads} threads  live {p50:.3f} / {p99:.3f} s\n"
            )
            sys.stdout.flush()

    # --- what happens ------------------------------------------------------------------------------------------------

    def _happen(self, event: str) -> None:
        self.course.events[event] += 1
        getattr(self, f"_{event}")()

    def _calm(self) -> None:
        """Nothing."""

    def _cap(self) -> None:
        self._capped = int(self._rng.integers(20, 200))

    def _stop(self) -> None:
        """The camera stands still for half a minute: nothing comes."""
        self._stamp_ns += 30_000_000_000
        self._robot.pause(0.5)

    def _clock(self) -> None:
        """The clock is set, forward or back."""
        self._stamp_ns += int(self._rng.choice([-20, -2, 5, 60])) * 1_000_000_000

    def _vanish(self) -> None:
        """The camera's driver ends, and is started again."""
        self._robot.vanish("image")
        self._without, self._away = "image", 20

    def _partner(self) -> None:
        """Masks, depth or poses are not sent for some seconds."""
        self._without, self._away = str(self._rng.choice(["masks", "depth", "odometry"])), 30

    def _return(self) -> None:
        if self._without == "image":
            self._robot.open("image")
        self._without = ""

    def _guest(self) -> None:
        """Subscribers come and go."""
        if self._rng.random() < 0.5:
            self._robot.send_away()
        else:
            self._robot.invite(str(self._rng.choice(sorted(TOPICS))))

    def _parameter(self) -> None:
        name, value = LIVE[int(self._rng.integers(len(LIVE)))]
        if not self._robot.set(name, value):
            self.course.failures.append(f"{name} could not be set")

    def _prompt(self) -> None:
        """A person names an object; given masks take no other word."""
        number = int(self._rng.integers(1, 4))
        self._robot.prompt(ObjectPrompt(object_id=number, name=f"thing {number}"))
        self._robot.prompt(ObjectPrompt(points=[Point(x=1e9, y=0.0)]))  # and one that makes no sense

    def _reset(self) -> None:
        self._ask(Trigger, "reset")

    def _refine(self) -> None:
        self._ask(Trigger, "refine")

    def _save(self) -> None:
        if not self._robot.save(f"scene_{int(self._rng.integers(3))}"):
            self.course.failures.append("save_scene failed")

    def _spoilt(self) -> None:
        """Images that are cut, and of another size."""
        for cut in (7, 1000):
            self._stamp_ns += PERIOD_NS
            moment = self._world.at(0.0, self._stamp_ns)
            moment.messages["image"].data = moment.messages["image"].data[:-cut]
            self._robot.send(moment)
            self._activated_sent += 1

    def _cycle(self) -> None:
        """Deactivated and activated again: a new scene, whose ids are above all before."""
        highest = self._robot.point_ids[1]
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_ACTIVATE):
            if not self._robot.change_state(transition):
                self.course.failures.append(f"transition {transition} failed")
        self._robot.pause(0.3)  # what was still on its way
        self._robot.forget_ids()
        self._activated_sent = 0
        self._robot.status = None
        self._robot.wait(lambda: self._robot.status is not None, PATIENCE_S, "the first status")
        for name in [name for name in ("image", "info", "depth", "masks", "odometry") if name != self._without]:
            self._robot.vanish(name)
            self._robot.open(name)  # as soon as this returns, the node hears it
        for number in range(3 * 8):  # until a window of the new scene is there
            self._frame(number)
        low = self._robot.point_ids[0]
        self.course.ids_reused += bool(highest and low and low <= highest)

    def _ask(self, kind: Any, name: str) -> None:
        answer = self._robot.call(kind, name, kind.Request())
        if answer is None or not answer.success:
            self.course.failures.append(f"{name}: {'no answer' if answer is None else answer.message}")
