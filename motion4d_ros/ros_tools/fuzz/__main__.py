"""Malformed messages on every input, malformed calls and parameters, against the real node over real DDS.

    python -m motion4d_ros.ros_tools.fuzz --out out/fuzz --count 1000000 [--seed 0] [--minutes 30]

The node runs in a process of its own. Status 0: it lived, no worker died, every status added up, and good frames go
through at the end. The same seed sends the same messages.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rclpy
from geometry_msgs.msg import PointStamped
from rcl_interfaces.srv import SetParameters
from rclpy.signals import SignalHandlerOptions

from motion4d_ros.failures import guarded
from motion4d_ros.ros_tools.fuzz.messages import Fuzz
from motion4d_ros.ros_tools.soak.robot import Robot
from motion4d_ros.ros_tools.soak.world import PERIOD_NS, World
from motion4d_ros.srv import SaveScene

BATCH = 50
"""Messages after which the node is given time to catch up, so that they are heard and do not push each other out."""
PATIENCE_S = 120.0


class Attack:
    """Sends what a `Fuzz` makes to a robot's node."""

    def __init__(self, robot: Robot, seed: int) -> None:
        self.sent: Counter[str] = Counter()
        self._robot, self._fuzz = robot, Fuzz(seed)
        self._clicks = robot.node.create_publisher(PointStamped, "/clicked_point", 10)
        fuzz = self._fuzz
        self._makers: dict[str, Callable[[], Any]] = {
            "image": lambda: fuzz.spoil_image(fuzz.good("image")),
            "info": fuzz.info,
            "masks": lambda: fuzz.spoil_image(fuzz.good("masks")),
            "depth": fuzz.depth,
            "odometry": fuzz.odometry,
            "prompt": fuzz.prompt,
            "click": fuzz.click,
        }

    def batch(self, count: int) -> None:
        """Sends `count` messages, a call now and then, and waits until the node has taken what it will."""
        for _ in range(count):
            name = str(self._fuzz.pick(list(self._makers)))
            self._robot.publish(name, self._makers[name](), self._clicks)
            self.sent[name] += 1
        chance = self._fuzz.rng.random()
        if chance < 0.1:
            values = [self._fuzz.parameter() for _ in range(5)]
            self._robot.call(SetParameters, "set_parameters", SetParameters.Request(parameters=values))
            self.sent["parameter"] += len(values)
        elif chance < 0.15:
            self._robot.call(SaveScene, "save_scene", SaveScene.Request(folder=self._fuzz.folder()))
            self.sent["save_scene"] += 1
        statuses = self._robot.statuses
        self._robot.wait(lambda: self._robot.statuses > statuses, PATIENCE_S, "the node says how it is")


def good_frames_go_through(robot: Robot, seed: int) -> bool:
    """Whether, after everything, windows are fitted."""
    world, began = World(seed), time.monotonic()
    for name, value in (("budget.load", 0.7), ("silence", 2.0)):
        robot.set(name, value)
    windows, number = robot.status.windows, 0
    while time.monotonic() - began < PATIENCE_S:
        number += 1
        robot.send(world.at(0.1 * number, 2 * 10**18 + number * PERIOD_NS))
        robot.pause(0.1)
        robot.wait(lambda: robot.status.queued < 4, PATIENCE_S, "the node keeps up")
        if robot.status.windows >= windows + 2:
            return True
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the node's log")
    parser.add_argument("--count", type=int, default=1_000_000, help="messages")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="real minutes at most")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    robot = Robot(options.out.resolve())
    attack, began, memory = Attack(robot, options.seed), time.monotonic(), [0.0]
    faults: list[str] = []
    try:
        robot.wait(lambda: robot.status is not None, PATIENCE_S, "the first status")
        while attack.sent.total() < options.count and time.monotonic() - began < 60 * options.minutes:
            attack.batch(BATCH)
            memory.append(robot.usage.memory_info().rss / 2**20)
        if not good_frames_go_through(robot, options.seed):
            s = robot.status
            dropped = dict(zip(s.drop_reasons, s.drop_counts, strict=True))
            faults.append(
                f"good frames do not go through afterwards: {s.processed} processed, {s.queued} queued, "
                f"dropped {dropped}"
            )
    except (RuntimeError, TimeoutError) as error:
        faults.append(str(error))
    finally:
        robot.close()
        rclpy.try_shutdown()
    log = (options.out / "node.log").read_text(encoding="utf-8", errors="replace")
    deaths, survived = log.count("the worker died"), log.count("exception in ")
    if deaths or survived or robot.unbalanced:
        faults.append(f"{deaths} workers died, {survived} exceptions, {robot.unbalanced} statuses do not add up")
    taken = f"{time.monotonic() - began:.0f} s, {robot.status.received} images heard, {robot.status.rejected} rejected"
    sys.stdout.write(
        f"{attack.sent.total()} malformed messages and calls (seed {options.seed}) in {taken}: {dict(attack.sent)}\n"
        f"Memory {memory[len(memory) // 4]:.0f} MiB after a quarter, {memory[-1]:.0f} MiB at the end.\n"
        + (f"Faults: {'; '.join(faults)}\n" if faults else "It lives, and good frames go through.\n")
    )
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(guarded("fuzz", main))
