"""Times the node: callbacks, latencies, CPU and memory, with a made-up camera at several rates and sizes.

    python -m motion4d_ros.ros_tools.bench_node --out out/bench [--doc docs/explanation/performance.md]

The node runs in a process of its own with a preset; the camera is this process. `--doc` rewrites the section of the
document between ``<!-- begin: node -->`` and its end. Whether the node grows over hours is for `ros_tools.soak`.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CameraInfo, Image

from motion4d_ros.evaluation.synthetic import SyntheticScene, make_scene
from motion4d_ros.failures import guarded
from motion4d_ros.files import write_text
from motion4d_ros.msg import PipelineStatus, TrackedObjectArray
from motion4d_ros.offline.resources import preset
from motion4d_ros.ros.outputs import messages
from motion4d_ros.ros_tools.document import replace_part
from motion4d_ros.ros_tools.node_process import NodeProcess, arguments

SOURCES = {"masks.source": "topic", "depth.source": "topic", "pose.source": "odometry"}
REMAP = {"image": "/camera/image_raw", "depth": "/camera/depth", "masks": "/camera/mask", "odometry": "/odom"}


@dataclass
class Case:
    """One row of the table."""

    width: int
    height: int
    rate_hz: float
    live_s: list[float] = field(default_factory=list)
    window_s: list[float] = field(default_factory=list)
    callback_ms: tuple[float, float] = (0.0, 0.0)  # p50, p99
    cpu: float = 0.0  # cores
    rss_mb: float = 0.0
    status: Any = None
    sent: int = 0
    measured: int = 0  # of these, sent while it was measured


class MadeUpCamera:
    """Publishes a scene to and fro for ever, stamped with the present time."""

    def __init__(self, node: Any, scene: SyntheticScene, width: int, height: int) -> None:
        self._node = node
        self._publishers = {
            name: node.create_publisher(kind, topic, 10)
            for name, kind, topic in (
                ("image", Image, "/camera/image_raw"), ("info", CameraInfo, "/camera/camera_info"),
                ("depth", Image, "/camera/depth"), ("masks", Image, "/camera/mask"), ("odometry", Odometry, "/odom"),
            )
        }  # fmt: skip
        self._frames = [self._messages(scene, t, width, height) for t in range(len(scene.images))]
        self._turn = 0

    def listened_to(self) -> bool:
        """Whether the node has subscribed to everything."""
        return all(publisher.get_subscription_count() > 0 for publisher in self._publishers.values())

    def publish(self) -> int:
        """The next frame; its stamp, ns."""
        count = len(self._frames)
        at = self._turn % (2 * count - 2)
        frame = self._frames[at if at < count else 2 * count - 2 - at]
        self._turn += 1
        stamp_ns = time.time_ns()
        for name, message in frame.items():
            message.header.stamp = messages.stamp_from_ns(stamp_ns)
            self._publishers[name].publish(message)
        return stamp_ns

    @staticmethod
    def _messages(scene: SyntheticScene, t: int, width: int, height: int) -> dict[str, Any]:
        head = messages.header(1, "camera_optical")
        size = (width, height)
        depth = cv2.resize(scene.in_depth_m[t], size, interpolation=cv2.INTER_NEAREST)
        masks = cv2.resize(scene.in_masks[t], size, interpolation=cv2.INTER_NEAREST)
        camera = scene.camera.scaled(width / scene.camera.width)
        K = camera.K
        odometry = Odometry(header=messages.header(1, "map"), child_frame_id="camera_optical")
        odometry.pose.pose = messages.pose_message(scene.T_map_cam[t])
        return {  # the small ones last: in shared memory, a large message may push out what was sent just before it
            "depth": messages.image_message(depth, "32FC1", head),
            "masks": messages.image_message(masks, "16UC1", head),
            "image": messages.image_message(cv2.resize(scene.images[t], size), "rgb8", head),
            "odometry": odometry,
            "info": CameraInfo(
                header=head, width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5,
                k=K.reshape(-1), p=np.hstack([K, np.zeros((3, 1))]).reshape(-1),
            ),
        }  # fmt: skip


class Measurement:
    """The node in its process, and what is heard of it."""

    def __init__(self, params_file: Path, log: Path) -> None:
        self.node = rclpy.create_node("motion4d_bench")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.heard: list[tuple[float, Any]] = []
        self.status: Any = None
        self.callback_ms = (0.0, 0.0)
        self.node.create_subscription(
            TrackedObjectArray, "/motion4d/tracked_objects", lambda m: self.heard.append((time.time(), m)), 200
        )
        self.node.create_subscription(PipelineStatus, "/motion4d/status", self._on_status, 10)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        log.unlink(missing_ok=True)
        topics = [*REMAP.values(), "/camera/camera_info"]
        self.process = NodeProcess(arguments(REMAP, SOURCES, params_file=params_file, reliable=topics), log)
        self.usage = self.process.usage

    def spin(self, seconds: float) -> None:
        """Hears for a while. Raises `RuntimeError` if the node has ended."""
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            self.executor.spin_once(timeout_sec=max(0.0, left))
            if left <= 0:
                break
        self.process.check()

    def close(self) -> None:
        """Ends the node."""
        self.process.close()
        self.node.destroy_node()

    def _on_status(self, message: Any) -> None:
        self.status = message

    def _on_diagnostics(self, message: Any) -> None:
        values = {item.key: item.value for status in message.status for item in status.values}
        if "callback p99 ms" in values:
            self.callback_ms = (float(values["callback p50 ms"]), float(values["callback p99 ms"]))


def measure(case: Case, scene: SyntheticScene, seconds: float, options: argparse.Namespace) -> Case:
    """Runs one case: warm-up of two windows, then `seconds` of measurement."""
    m = Measurement(preset(options.preset), options.out / "node.log")
    try:
        camera = MadeUpCamera(m.node, scene, case.width, case.height)
        deadline = time.monotonic() + 60
        while not camera.listened_to() and time.monotonic() < deadline:
            m.spin(0.1)
        for phase, length in (("warm-up", options.warm_up), ("measure", seconds)):
            if phase == "measure":
                m.heard.clear()
                m.usage.cpu_percent()
            began, due = time.monotonic(), time.monotonic()
            while time.monotonic() - began < length:
                camera.publish()
                case.sent += 1
                case.measured += phase == "measure"
                due += 1.0 / case.rate_hz
                m.spin(max(0.0, due - time.monotonic()))
        case.cpu = m.usage.cpu_percent() / 100.0
        case.rss_mb = m.usage.memory_info().rss / 2**20
        m.spin(1.5)
        for heard_s, message in m.heard:
            age = heard_s - (message.header.stamp.sec + message.header.stamp.nanosec * 1e-9)
            if message.stage in ("live", "window"):
                (case.live_s if message.stage == "live" else case.window_s).append(age)
        case.callback_ms, case.status = m.callback_ms, m.status
    finally:
        m.close()
    return case


def table(cases: Sequence[Case], options: argparse.Namespace) -> str:
    """The section of the document."""
    remark = f"; {options.note}" if options.note else ""
    lines = [
        f"`python -m motion4d_ros.ros_tools.bench_node --seconds {options.seconds:g} --preset {options.preset}`: "
        f"masks, depth and odometry given, {psutil.cpu_count()} cores ({platform.machine()}), no GPU{remark}",
        "",
        "| image | camera | callback p50 / p99 | image → live p50 / p95 | image → window p50 / p95 | "
        "arrived | told live | fitted | dropped | windows | CPU | memory |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for c in cases:
        share = c.status.dropped / max(1, c.status.received)
        live = min(1.0, len(c.live_s) / max(1, c.measured))
        lines.append(
            f"| {c.width}×{c.height} | {c.rate_hz:g} Hz | {c.callback_ms[0]:.2f} / {c.callback_ms[1]:.2f} ms | "
            f"{_pair(c.live_s)} | {_pair(c.window_s)} | {100 * c.status.received / max(1, c.sent):.0f} % | "
            f"{100 * live:.0f} % | every {c.status.stride}. | {100 * share:.0f} % | {c.status.windows} | "
            f"{c.cpu:.1f} cores | {c.rss_mb:.0f} MB |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the log")
    parser.add_argument("--doc", type=Path, help="document whose section is rewritten")
    parser.add_argument("--preset", default="cpu_small", help="config/<preset>.yaml")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a measurement")
    parser.add_argument("--warm-up", type=float, default=15.0, help="seconds before it")
    parser.add_argument("--rates", type=float, nargs="+", default=[5.0, 10.0, 30.0])
    parser.add_argument("--sizes", nargs="+", default=["320x240", "640x480"])
    parser.add_argument("--frames", type=int, default=24, help="length of the made-up scene")
    parser.add_argument("--note", default="", help="a remark on the circumstances")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    scene = make_scene("tabletop_like", seed=1, frames=options.frames, size=(240, 320))
    rclpy.init(args=[])
    try:
        cases = []
        for size in options.sizes:
            width, height = (int(side) for side in size.split("x"))
            for rate in options.rates:
                cases.append(measure(Case(width, height, rate), scene, options.seconds, options))
                sys.stdout.write(table(cases[-1:], options).splitlines()[-1] + "\n")
    finally:
        rclpy.try_shutdown()
    text = table(cases, options)
    sys.stdout.write(text + "\n")
    if options.doc:
        write_text(options.doc, replace_part(options.doc.read_text(encoding="utf-8"), "node", text))
    return 0


def _pair(values: list[float]) -> str:
    if not values:
        return "–"
    low, high = np.percentile(values, [50, 95])
    return f"{low:.2f} / {high:.2f} s"


if __name__ == "__main__":
    sys.exit(guarded("bench_node", main))
