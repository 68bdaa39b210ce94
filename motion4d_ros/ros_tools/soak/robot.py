"""The robot around the node: its process, the camera's publishers, ears on its topics, hands on its services."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from nav_msgs.msg import Odometry
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from motion4d_ros.msg import ObjectPrompt, PipelineStatus, TrackedObjectArray
from motion4d_ros.ros.outputs.publishers import TOPICS
from motion4d_ros.ros_tools.node_process import NodeProcess, arguments
from motion4d_ros.ros_tools.soak.world import Moment
from motion4d_ros.srv import SaveScene

SETTINGS: dict[str, Any] = {
    "masks.source": "topic", "depth.source": "topic", "pose.source": "odometry", "run.threads": 1,
    "window.length": 4, "window.horizon": 12, "fit.motion_iterations": 4, "fit.semantic_iterations": 2,
    "fit.global_iterations": 4, "budget.max_static": 1500, "budget.max_dynamic": 600, "status_period": 0.1,
    "run.checkpoint": 30.0,
}  # fmt: skip
INPUTS = {"image": Image, "info": CameraInfo, "depth": Image, "masks": Image, "odometry": Odometry}
TOPIC_OF = {"image": "/soak/image_raw", "info": "/soak/camera_info", "depth": "/soak/depth", "masks": "/soak/masks",
            "odometry": "/soak/odometry"}  # fmt: skip
READY_S, ANSWER_S = 120.0, 60.0


class Robot:
    """Starts the node on construction; `close` ends it."""

    def __init__(self, out: Path) -> None:
        self.node = rclpy.create_node("soak_robot")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.status: Any = None
        self.statuses = self.unbalanced = 0
        self.live_s: deque[float] = deque(maxlen=2000)
        self.point_ids = (0, 0)  # smallest and largest that were heard since `forget_ids`
        self._sent_at: dict[int, float] = {}
        self._publishers: dict[str, Any] = {}
        self._guests: list[Any] = []
        self.node.create_subscription(PipelineStatus, "/motion4d/status", self._on_status, 10)
        self.node.create_subscription(TrackedObjectArray, "/motion4d/tracked_objects", self._on_objects, 200)
        self.node.create_subscription(PointCloud2, "/motion4d/tracked_points", self._on_points, 64)
        self._prompts = self.node.create_publisher(ObjectPrompt, "/prompt", 10)
        self.process = self._start(out)
        self.usage = self.process.usage
        for name in INPUTS:
            self.open(name)

    @staticmethod
    def _start(out: Path) -> NodeProcess:
        log = out / "node.log"
        log.unlink(missing_ok=True)
        own = {"save_root": out / "scenes", "preset": "none"}
        remap = {name: topic for name, topic in TOPIC_OF.items() if name != "info"}
        return NodeProcess(arguments(remap, {**own, **SETTINGS}, reliable=TOPIC_OF.values(), depth=100), log)

    # --- the camera --------------------------------------------------------------------------------------------------

    def open(self, name: str) -> None:
        """The publisher of an input appears; returns when the node listens to it."""
        self._publishers[name] = self.node.create_publisher(INPUTS[name], TOPIC_OF[name], 100)
        self.wait(lambda: self._publishers[name].get_subscription_count() > 0, READY_S, f"the node hears {name}")

    def vanish(self, name: str) -> None:
        """The publisher of an input goes away."""
        self.node.destroy_publisher(self._publishers.pop(name))

    def send(self, moment: Moment, without: str = "") -> None:
        """Publishes what belongs to one stamp, but for the input `without`."""
        self._sent_at[moment.stamp_ns] = time.monotonic()
        if len(self._sent_at) > 500:
            self._sent_at.pop(next(iter(self._sent_at)))
        for name, message in moment.messages.items():
            if name != without and name in self._publishers:
                self._publishers[name].publish(message)

    def publish(self, name: str, message: Any, clicks: Any) -> None:
        """One message of any input, whatever it holds; `clicks` publishes clicked points."""
        {"prompt": self._prompts, "click": clicks, **self._publishers}[name].publish(message)

    # --- people and programs -----------------------------------------------------------------------------------------

    def call(self, kind: type, name: str, request: Any) -> Any:
        """A service of the node; its answer, None if none came in time."""
        client = self.node.create_client(kind, f"/motion4d/{name}")
        try:
            future = client.call_async(request)
            with contextlib.suppress(TimeoutError):
                self.wait(future.done, ANSWER_S, name)
            return future.result() if future.done() else None
        finally:
            self.node.destroy_client(client)

    def change_state(self, transition: int) -> bool:
        """A transition of the life cycle; whether it worked."""
        answer = self.call(ChangeState, "change_state", ChangeState.Request(transition=Transition(id=transition)))
        return bool(answer is not None and answer.success)

    def set(self, name: str, value: Any) -> bool:
        """A parameter; whether it was taken."""
        wanted = [Parameter(name, value=value).to_parameter_msg()]
        answer = self.call(SetParameters, "set_parameters", SetParameters.Request(parameters=wanted))
        return bool(answer is not None and answer.results[0].successful)

    def save(self, folder: str) -> bool:
        """Saves the scene; whether it worked."""
        answer = self.call(SaveScene, "save_scene", SaveScene.Request(folder=folder))
        return bool(answer is not None and answer.success)

    def prompt(self, message: ObjectPrompt) -> None:
        """A word on an object."""
        self._prompts.publish(message)

    def invite(self, topic: str) -> None:
        """A subscriber to an output comes."""
        self._guests.append(self.node.create_subscription(TOPICS[topic], f"/motion4d/{topic}", lambda m: None, 10))

    def send_away(self) -> None:
        """The subscriber that came first goes."""
        if self._guests:
            self.node.destroy_subscription(self._guests.pop(0))

    # --- what is heard -----------------------------------------------------------------------------------------------

    def forget_ids(self) -> None:
        """A new scene is known to begin: its ids are looked at apart."""
        self.point_ids = (0, 0)

    def wait(self, condition: Callable[[], Any], timeout_s: float, what: str) -> None:
        """Hears until `condition` holds. Raises `TimeoutError`, and `RuntimeError` if the node has ended."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.executor.spin_once(timeout_sec=0.02)
            self.process.check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {timeout_s:g} s: {what}")

    def pause(self, seconds: float) -> None:
        """Hears for a while."""
        until = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= until, seconds + READY_S, "a pause")

    def hear(self) -> None:
        """Takes what has come, and waits for nothing."""
        for _ in range(20):
            self.executor.spin_once(timeout_sec=0.0)

    def close(self) -> None:
        """Ends the node."""
        self.process.close()
        self.node.destroy_node()

    def _on_status(self, s: Any) -> None:
        self.status = s
        self.statuses += 1
        whole = s.received == s.processed + s.dropped + s.rejected + s.queued
        reasons = sum(s.drop_counts) == s.dropped and sum(s.reject_counts) == s.rejected
        self.unbalanced += not (whole and reasons)

    def _on_objects(self, message: Any) -> None:
        stamp = message.header.stamp
        sent_at = self._sent_at.get(stamp.sec * 10**9 + stamp.nanosec)
        if message.stage == "live" and sent_at is not None:
            self.live_s.append(time.monotonic() - sent_at)

    def _on_points(self, message: Any) -> None:
        if message.width == 0:
            return
        offset = next(field.offset for field in message.fields if field.name == "point_id")
        rows = np.frombuffer(message.data, np.uint8).reshape(message.width, message.point_step)
        ids = rows[:, offset : offset + 4].copy().view(np.uint32)
        low, high = self.point_ids
        self.point_ids = (min(low or int(ids.min()), int(ids.min())), max(high, int(ids.max())))
