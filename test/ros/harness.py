"""A node under test in this process, with a camera that feeds it and ears that hear it, over real DDS."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import rclpy
from engine_double import DoubleEngine
from nav_msgs.msg import Odometry
from rclpy.context import Context
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from motion4d_ros.ros.main import spin
from motion4d_ros.ros.node import Motion4DNode
from motion4d_ros.ros.outputs import messages
from motion4d_ros.ros.outputs.publishers import TOPICS

WIDTH, HEIGHT = 64, 48
STATIC_QOS = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE)
INPUTS = (
    "camera/image_raw",
    "camera/image_raw/compressed",
    "camera/image_rect",
    "camera/camera_info",
    "masks",
    "depth",
    "odometry",
    "detections",
)
_numbers = itertools.count()


def camera_info(stamp_ns: int, width: int = WIDTH, height: int = HEIGHT, frame: str = "camera") -> CameraInfo:
    """A calibrated pinhole without distortion."""
    f, cx, cy = float(width), width / 2 - 0.5, height / 2 - 0.5
    return CameraInfo(
        header=messages.header(stamp_ns, frame), width=width, height=height, distortion_model="plumb_bob",
        d=[0.0] * 5, k=[f, 0.0, cx, 0.0, f, cy, 0.0, 0.0, 1.0], r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[f, 0.0, cx, 0.0, 0.0, f, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )  # fmt: skip


def picture(stamp_ns: int, width: int = WIDTH, height: int = HEIGHT, frame: str = "camera") -> Image:
    """Texture that changes with the stamp."""
    pixels = np.random.default_rng(stamp_ns % 1000).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return messages.image_message(pixels, "rgb8", messages.header(stamp_ns, frame))


def labels(stamp_ns: int, width: int = WIDTH, height: int = HEIGHT, ids: tuple[int, ...] = (1, 2)) -> Image:
    """A square per object."""
    pixels = np.zeros((height, width), np.uint16)
    for number, object_id in enumerate(ids):
        pixels[10:20, 5 + 15 * number : 15 + 15 * number] = object_id
    return messages.image_message(pixels, "16UC1", messages.header(stamp_ns, "camera"))


def odometry(stamp_ns: int, x: float = 0.0, frame: str = "odom") -> Odometry:
    """The camera at (x, 0, 0)."""
    message = Odometry(header=messages.header(stamp_ns, frame), child_frame_id="camera")
    message.pose.pose.position.x = x
    message.pose.pose.orientation.w = 1.0
    return message


class Harness:
    """Node `node` (spun in a thread) and helper node `tester` in one context of their own."""

    def __init__(
        self,
        *,
        engine: Callable[..., Any] = DoubleEngine,
        parameters: dict[str, Any] | None = None,
        remap: dict[str, str] | None = None,
        start: bool = True,
        namespace: str | None = None,
        sensor_qos: bool = False,
    ) -> None:
        self.ns = namespace or f"/t{next(_numbers)}_{time.monotonic_ns() % 10**9}"
        self.context = Context()
        rclpy.init(context=self.context)
        remappings = {"image": f"{self.ns}/camera/image_raw", **(remap or {})}
        arguments = ["--ros-args", "-r", f"/diagnostics:={self.ns}/diagnostics"]
        for name, topic in remappings.items():
            arguments += ["-r", f"{name}:={topic}"]
        settings = dict(parameters or {})
        if not sensor_qos:  # best effort loses messages on a busy machine, and nobody can count what never arrived
            for topic in INPUTS:
                settings.setdefault(f"qos_overrides.{self.ns}/{topic}.subscription.reliability", "reliable")
                settings.setdefault(f"qos_overrides.{self.ns}/{topic}.subscription.depth", 1000)
        overrides = [Parameter(name, value=value) for name, value in settings.items()]
        self.engines: list[Any] = []

        def factory(config: Any) -> Any:
            self.engines.append(engine(config))
            return self.engines[-1]

        self.node = Motion4DNode(
            engine_factory=factory,
            context=self.context,
            namespace=self.ns,
            cli_args=arguments,
            parameter_overrides=overrides,
        )
        self.tester = Node("tester", context=self.context, namespace=self.ns)
        self.heard: dict[str, list[Any]] = defaultdict(list)
        self._publishers: dict[str, Any] = {}
        self._executors = [MultiThreadedExecutor(3, context=self.context), SingleThreadedExecutor(context=self.context)]
        self._threads = []
        self._stop = threading.Event()
        for executor, node in zip(self._executors, (self.node, self.tester), strict=True):
            executor.add_node(node)
            self._threads.append(threading.Thread(target=spin, args=(executor, self._stop), daemon=True))
            self._threads[-1].start()
        if start:
            assert self.node.autostart()

    @property
    def engine(self) -> Any:
        """The engine made last."""
        return self.engines[-1]

    def topic(self, name: str) -> str:
        """Full name of an output."""
        return f"{self.ns}/motion4d/{name}"

    def listen(self, *names: str) -> None:
        """Subscribes to outputs and waits until they are connected."""
        before = {name: self.tester.count_subscribers(self.topic(name)) for name in names}
        for name in names:
            qos: Any = STATIC_QOS if name == "static_points" else 500
            self.tester.create_subscription(TOPICS[name], self.topic(name), self.heard[name].append, qos)
        assert self.until(lambda: all(self.node.count_subscribers(self.topic(n)) > before[n] for n in names))
        time.sleep(0.1)

    def publisher(self, name: str, kind: type = Image, qos: Any = 1000) -> Any:
        """A publisher of an input, connected to the node. `name` is relative to the namespace."""
        if name not in self._publishers:
            self._publishers[name] = self.tester.create_publisher(kind, f"{self.ns}/{name}", qos)
            assert self.until(lambda: self._publishers[name].get_subscription_count() > 0), name
        return self._publishers[name]

    def connect(self) -> None:
        """Makes sure that image and camera_info are connected, so that the first message is not lost."""
        self.publisher("camera/image_raw", Image)
        self.publisher("camera/camera_info", CameraInfo)

    def send(self, stamp_ns: int, *, width: int = WIDTH, height: int = HEIGHT, info: bool = True) -> None:
        """One image with its calibration."""
        if info:
            self.publisher("camera/camera_info", CameraInfo).publish(camera_info(stamp_ns, width, height))
        self.publisher("camera/image_raw", Image).publish(picture(stamp_ns, width, height))

    def stream(self, count: int, *, start_ns: int = 10**9, pace_s: float = 0.01) -> list[int]:
        """Several images, 100 ms apart by their stamps; these."""
        stamps = [start_ns + 10**8 * number for number in range(count)]
        for stamp in stamps:
            self.send(stamp)
            time.sleep(pace_s)
        return stamps

    def counts(self) -> Any:
        """The books, whose sum is checked whenever anybody looks."""
        counts = self.node.queue.counts()
        assert counts.balanced, counts
        return counts

    def settled(self, received: int, timeout_s: float = 10.0) -> Any:
        """Waits until `received` images have arrived and none waits; the books."""

        def done() -> bool:
            counts = self.counts()
            return bool(counts.received >= received and counts.queued == 0)

        assert self.until(done, timeout_s), self.counts()
        return self.counts()

    @staticmethod
    def until(condition: Callable[[], Any], timeout_s: float = 10.0) -> bool:
        """Whether `condition` came true in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.01)
        return bool(condition())

    def call(self, kind: type, name: str, request: Any, timeout_s: float = 30.0) -> Any:
        """Calls a service of the node by its name under ~/."""
        client = self.tester.create_client(kind, self.topic(name))
        assert client.wait_for_service(timeout_s)
        future = client.call_async(request)
        assert self.until(future.done, timeout_s)
        return future.result()

    def close(self) -> None:
        """Ends everything."""
        if not self.context.ok():
            return
        self.node.take_down()
        self._stop.set()
        for thread in self._threads:
            thread.join(2.0)
        for executor in self._executors:
            executor.shutdown(timeout_sec=2.0)
        self.node.destroy_node()
        self.tester.destroy_node()
        self.context.try_shutdown()
