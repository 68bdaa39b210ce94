"""The process around the node: start, signals, an orderly end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

import rclpy
from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, ExternalShutdownException, MultiThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from motion4d_ros.ros.engine import make_engine
from motion4d_ros.ros.node import EngineFactory, Motion4DNode
from motion4d_ros.ros.work.memory import share_arenas
from motion4d_ros.types import Motion4DError

THREADS = 6
"""Of the executor: services wait for the worker, and must not keep images from arriving."""

SWITCH_S = 0.002
"""Python hands the interpreter from thread to thread this often. Longer, and images wait too long for a busy worker to
let go of it (at 5 ms some get lost); shorter, and callbacks, which take a tenth of a millisecond, are interrupted and
wait for the worker again: at 0.5 ms that made their 99th percentile 6 ms instead of 1.
"""


def main(args: Sequence[str] | None = None, engine_factory: EngineFactory = make_engine) -> int:
    """Runs the node until SIGINT or SIGTERM; 0, 1 if too many workers hang, or 2 if it could not start."""
    share_arenas()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve their neighbours
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    sys.setswitchinterval(SWITCH_S)
    try:
        return run(stop, engine_factory)
    except Motion4DError as error:
        sys.stderr.write(f"motion4d_node: {error}\n")
        return 2
    finally:
        rclpy.try_shutdown()
        for number in (signal.SIGINT, signal.SIGTERM):
            # Ctrl-C reaches the node twice, from the terminal and from `ros2 launch`, and Python unloading its modules
            # dies of the second one, which launch reports as a crash.
            signal.signal(number, signal.SIG_IGN)


def run(stop: threading.Event, engine_factory: EngineFactory) -> int:
    """Spins until `stop`, then takes the node down in order: no window half-fitted, no topic half-published."""
    node = Motion4DNode(engine_factory=engine_factory)
    executor = MultiThreadedExecutor(num_threads=THREADS)
    executor.add_node(node)
    try:
        if node.parameters.read().ros.autostart and not node.autostart():
            return 2
        spin(executor, stop, lambda: node.hopeless)
    finally:
        node.take_down()
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
    return 1 if node.hopeless else 0


def spin(executor: Executor, stop: threading.Event, hopeless: Callable[[], bool] = lambda: False) -> None:
    """Spins until `stop` is set, the context goes down, or the node is `hopeless`.

    `rclpy` trips over a subscription that a transition destroys, in another thread, at the very moment when it gathers
    what to wait for. Nothing is wrong then: the next round no longer sees it.
    """
    while not stop.is_set() and not hopeless():
        try:
            executor.spin_once(timeout_sec=0.1)
        except InvalidHandle:
            continue
        except ExternalShutdownException:
            return


def end(status: int) -> NoReturn:
    """Ends the process. Threads that hang in a library would keep Python from ending by itself."""
    sys.stdout.flush()
    sys.stderr.flush()
    if status == 1:
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    end(main())
