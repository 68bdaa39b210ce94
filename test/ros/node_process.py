"""The node in a process of its own, that may be killed and started again, and a camera for it."""

from __future__ import annotations

import itertools
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Harness
from motion4d_ros.msg import PipelineStatus, TrackedObjectArray
from nav_msgs.msg import Odometry
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from motion4d_ros.children import environment, module_command
from motion4d_ros.ros_tools.soak.world import PERIOD_NS, World

SETTINGS = {
    "masks.source": "topic", "depth.source": "topic", "pose.source": "odometry", "run.threads": 1, "preset": "none",
    "window.length": 2, "window.horizon": 6, "window.global_every": 1, "fit.motion_iterations": 2,
    "fit.semantic_iterations": 2, "fit.global_iterations": 2, "budget.max_static": 600, "budget.max_dynamic": 300,
    "budget.mode": "lossless", "watchdog": 0.0,
}  # fmt: skip
KINDS = {"image": Image, "info": CameraInfo, "depth": Image, "masks": Image, "odometry": Odometry}
NAMES = {"image": "camera/image_raw", "info": "camera/camera_info", "depth": "depth", "masks": "masks",
         "odometry": "odometry"}  # fmt: skip


class Process:
    """The node in a process of its own, with a tiny engine's worth of settings, and a camera for it."""

    def __init__(self, h: Harness, folder: Path, **settings: Any) -> None:
        self.h, self.folder = h, folder
        words = ["--ros-args", "-p", "autostart:=true", "-r", f"__ns:={h.ns}/p"]
        for name, topic in NAMES.items():
            if name != "info":
                words += ["-r", f"{name}:={h.ns}/p/{topic}"]
            words += ["-p", f"qos_overrides.{h.ns}/p/{topic}.subscription.reliability:=reliable"]
        for name, value in {**SETTINGS, **settings}.items():
            words += ["-p", f"{name}:={value}"]
        self.command = module_command("motion4d_ros.ros.main", *words)
        self.statuses: list[PipelineStatus] = []
        self.objects: list[TrackedObjectArray] = []
        self.points: list[PointCloud2] = []
        h.tester.create_subscription(PointCloud2, f"{h.ns}/p/motion4d/tracked_points", self.points.append, 50)
        h.tester.create_subscription(PipelineStatus, f"{h.ns}/p/motion4d/status", self.statuses.append, 10)
        h.tester.create_subscription(TrackedObjectArray, f"{h.ns}/p/motion4d/tracked_objects", self.objects.append, 50)
        self.publishers = {
            name: h.tester.create_publisher(KINDS[name], f"{h.ns}/p/{topic}", 50) for name, topic in NAMES.items()
        }
        self.count = itertools.count(1)
        self.world = World(1)
        self.seconds, self.pace_s = 0.0, 0.1  # of the world, and how much of them passes per frame

    def start(self) -> subprocess.Popen[bytes]:
        log = (self.folder / "log").open("ab")
        return subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT, env=environment())

    def works(self) -> None:
        """Good frames go through."""
        self.statuses.clear()
        self.objects.clear()
        self.feed_until(lambda: self.statuses and self.statuses[-1].windows >= 1 and self.objects)
        s = self.statuses[-1]
        assert s.received == s.processed + s.dropped + s.rejected + s.queued

    def feed_until(self, condition: Callable[[], Any], timeout_s: float = 240.0) -> None:
        """Sends frames, a few at a time, until something holds."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            waiting = self.statuses[-1].queued if self.statuses else 0
            if waiting < 8:
                number = next(self.count)
                self.seconds += self.pace_s
                moment = self.world.at(self.seconds, 10**12 + number * PERIOD_NS)
                for name, message in moment.messages.items():
                    self.publishers[name].publish(message)
            time.sleep(0.1)

    @property
    def log(self) -> str:
        """What the node has written."""
        return (self.folder / "log").read_text()
