"""A small bag player: publishes a recording's messages over DDS at their pace. For the demo, tests and benchmarks.

    python -m motion4d_ros.ros_tools.player BAG [--rate 0.5] [--loop 3] [--clock]

On a robot use `ros2 bag play`, which can do more. Messages are passed on as they are, without unpacking them.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rosbags.highlevel import AnyReader
from rosgraph_msgs.msg import Clock

from motion4d_ros.failures import guarded
from motion4d_ros.ros.outputs.messages import stamp_from_ns
from motion4d_ros.types import Motion4DError


def message_class(name: str) -> type:
    """The class of ``package/msg/Type``. Raises `Motion4DError` if it is not installed."""
    package, _, leaf = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), leaf)
    except (ImportError, AttributeError):
        raise Motion4DError(f"message type {name} is not installed") from None


class Player:
    """Plays one bag from `node`. Topics of unknown types are left out, and named in `skipped`."""

    def __init__(self, node: Node, bag: Path, *, clock: bool = False) -> None:
        if not bag.exists():
            raise Motion4DError(f"{bag}: no such bag")
        self._node = node
        self._bag = bag
        self.skipped: list[str] = []
        self._publishers: dict[str, Any] = {}
        with AnyReader([bag]) as reader:
            if not reader.is2:
                raise Motion4DError(f"{bag}: a ROS 1 bag; convert it with rosbags-convert")
            self.count = reader.message_count
            for connection in reader.connections:
                try:
                    kind = message_class(connection.msgtype)
                except Motion4DError:
                    self.skipped.append(connection.topic)
                    continue
                if connection.topic not in self._publishers:
                    self._publishers[connection.topic] = node.create_publisher(kind, connection.topic, 50)
        self._clock = node.create_publisher(Clock, "/clock", 10) if clock else None

    def wait_for(self, topic: str, timeout_s: float) -> bool:
        """Waits until somebody listens to `topic`; whether that happened."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if topic in self._publishers and self._publishers[topic].get_subscription_count() > 0:
                time.sleep(0.5)  # the other topics of the same node connect at the same time
                return True
            time.sleep(0.05)
        return False

    def play(self, rate: float, stop: threading.Event) -> int:
        """Plays it once, `rate` times as fast as it was recorded; how many messages were published."""
        published = 0
        with AnyReader([self._bag]) as reader:
            wanted = [item for item in reader.connections if item.topic in self._publishers]
            began, first_ns = time.monotonic(), None
            for connection, recorded_ns, raw in small_ones_last(reader.messages(connections=wanted)):
                first_ns = recorded_ns if first_ns is None else first_ns
                left = (recorded_ns - first_ns) * 1e-9 / rate - (time.monotonic() - began)
                if left > 0 and stop.wait(left):
                    break
                if self._clock is not None:
                    self._clock.publish(Clock(clock=stamp_from_ns(recorded_ns)))
                self._publishers[connection.topic].publish(bytes(raw))
                published += 1
                if stop.is_set():
                    break
        return published


def small_ones_last(messages: Iterable[tuple[Any, int, bytes]]) -> Iterator[tuple[Any, int, bytes]]:
    """Messages recorded at the same time, the largest first: in the shared memory of DDS a large message may push out
    what the same process has sent just before it, and small ones are not sent again as soon.
    """
    for _, together in groupby(messages, key=lambda item: item[1]):
        yield from sorted(together, key=lambda item: -len(item[2]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--rate", type=float, default=1.0, help="1 = as recorded")
    parser.add_argument("--loop", type=int, default=1, help="how often; 0 = until it is stopped")
    parser.add_argument("--clock", action="store_true", help="publish /clock, for use_sim_time")
    parser.add_argument("--wait-for", default="", help="a topic that somebody must listen to before it starts")
    options = parser.parse_args(arguments)
    if options.rate <= 0:
        parser.error("--rate must be positive")
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("bag_player")
    stop = threading.Event()
    try:
        player = Player(node, options.bag, clock=options.clock)
        if options.wait_for and not player.wait_for(options.wait_for, 60.0):
            raise Motion4DError(f"nobody listens to {options.wait_for}")
        turn = 0
        while not stop.is_set() and (options.loop == 0 or turn < options.loop):
            player.play(options.rate, stop)
            turn += 1
        time.sleep(0.5)  # let the last messages leave
    except Motion4DError as error:
        sys.stderr.write(f"player: {error}\n")
        return 2
    except KeyboardInterrupt:
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(guarded("player", main))
