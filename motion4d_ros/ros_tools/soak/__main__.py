"""A day of a 10 Hz camera, as fast as the node takes it, with all that happens to a robot; a plot and a verdict.

    python -m motion4d_ros.ros_tools.soak --out out/soak --hours 24 [--minutes 120] [--doc PAGE.md]

The node runs in a process of its own, over real DDS, on small images. Status 0: nothing grows, all books add up, no id
is given twice; 1 else, with a line for each fault. `--minutes` bounds the real time: what was lived through is judged.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rclpy
from rclpy.signals import SignalHandlerOptions

from motion4d_ros.failures import guarded
from motion4d_ros.files import write_text
from motion4d_ros.ros_tools.document import replace_part
from motion4d_ros.ros_tools.soak.day import Day
from motion4d_ros.ros_tools.soak.robot import Robot
from motion4d_ros.ros_tools.soak.verdict import COLUMNS, judge, plot


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of logs, numbers and the plot")
    parser.add_argument("--hours", type=float, default=24.0, help="simulated hours")
    parser.add_argument("--minutes", type=float, default=1e9, help="real minutes at most")
    parser.add_argument("--seed", type=int, default=0, help="of what happens when")
    parser.add_argument("--doc", type=Path, help="document whose section `soak` is rewritten")
    parser.add_argument("--note", default="", help="a remark on the circumstances")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    robot = Robot(options.out.resolve())
    day = Day(robot, options.seed)
    try:
        day.run(options.hours, 60.0 * options.minutes)
    except (KeyboardInterrupt, RuntimeError, TimeoutError) as error:  # what was lived through is judged all the same
        day.course.failures.append(str(error) or "interrupted")
    finally:
        robot.close()
        rclpy.try_shutdown()
    course = day.course
    if len(course.samples) < 4:
        sys.stdout.write("\n".join(course.failures) + "\nless than five simulated minutes: too few to judge\n")
        return 1
    data = np.array([sample.row() for sample in course.samples])
    np.savetxt(options.out / "soak.csv", data, delimiter=",", header=",".join(COLUMNS), comments="", fmt="%.6g")
    plot(course, options.out / "soak.png")
    verdict = judge(course, robot.statuses, robot.unbalanced)
    said = "Nothing grows." if not verdict.faults else "Faults: " + "; ".join(verdict.faults) + "."
    text = (
        f"`python -m motion4d_ros.ros_tools.soak --hours {options.hours:g} --seed {options.seed}`: "
        f"{verdict.text}\n{said} {options.note}"
    ).rstrip()
    sys.stdout.write(text + "\n")
    if options.doc:
        write_text(options.doc, replace_part(options.doc.read_text(encoding="utf-8"), "soak", text))
    return 1 if verdict.faults else 0


if __name__ == "__main__":
    sys.exit(guarded("soak", main))
