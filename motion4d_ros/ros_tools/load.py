"""Loads the node beyond what it can take: rates to 120 Hz, sizes to 4K, many objects, subscribers and nodes; a table.

    python -m motion4d_ros.ros_tools.load --out out/load [--seconds 20] [--doc PAGE.md] [--cases 320x240@30 …]

A case is WIDTHxHEIGHT@HZ[,objects=N][,subscribers=N][,nodes=N]. What is dropped must be counted and named, and live
latency stay bounded: the last columns say so. The nodes run in processes of their own; this process is the camera.
"""

from __future__ import annotations

import argparse
import platform
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import CameraInfo, Image

from motion4d_ros.failures import guarded
from motion4d_ros.files import write_text
from motion4d_ros.msg import PipelineStatus, TrackedObjectArray
from motion4d_ros.offline.resources import preset
from motion4d_ros.ros.outputs import messages
from motion4d_ros.ros.outputs.publishers import TOPICS
from motion4d_ros.ros_tools.document import replace_part
from motion4d_ros.ros_tools.node_process import NodeProcess, arguments
from motion4d_ros.types import Motion4DError

CASES = (
    "320x240@30", "320x240@120", "640x480@60", "1920x1080@30", "3840x2160@10", "320x240@30,objects=64",
    "320x240@30,subscribers=20", "320x240@10,nodes=4",
)  # fmt: skip
READY_S = 180.0
PICTURES = 8
"""Different pictures, sent in turn."""


@dataclass
class Case:
    """One row."""

    name: str
    width: int
    height: int
    rate_hz: float
    objects: int = 3
    subscribers: int = 1
    nodes: int = 1
    sent: int = 0
    live_s: list[float] = field(default_factory=list)
    statuses: list[Any] = field(default_factory=list)  # the last of each node
    unbalanced: int = 0
    said: set[str] = field(default_factory=set)  # keys of findings on /diagnostics

    @classmethod
    def parse(cls, text: str) -> Case:
        """Raises `Motion4DError` for what is no case."""
        head, *rest = text.split(",")
        try:
            size, rate = head.split("@")
            width, height = (int(side) for side in size.split("x"))
            extra: dict[str, Any] = {key: int(value) for key, value in (word.split("=") for word in rest)}
            return cls(text, width, height, float(rate), **extra)
        except (ValueError, TypeError):
            raise Motion4DError(f"{text!r}: a case is WIDTHxHEIGHT@HZ[,objects=N][,subscribers=N][,nodes=N]") from None


class Load:
    """The nodes of a case, their camera and their listeners."""

    def __init__(self, case: Case, options: argparse.Namespace) -> None:
        self.case = case
        self.node = rclpy.create_node("load")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self._sent_at: dict[int, float] = {}
        self._last: dict[int, Any] = {}
        self.processes = [self._start(number, options) for number in range(case.nodes)]
        self._publishers = [
            self.node.create_publisher(kind, f"/load/{name}", 5)
            for name, kind in (("camera_info", CameraInfo), ("masks", Image), ("image_raw", Image))
        ]
        for number in range(case.nodes):
            self._listen(number)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self._frames = self._draw()
        self.sending = False

    @staticmethod
    def _start(number: int, options: argparse.Namespace) -> NodeProcess:
        words = arguments(
            {"image": "/load/image_raw", "masks": "/load/masks"},
            {"masks.source": "topic", "pose.source": "static"},
            params_file=preset(options.preset),
            namespace=f"/load{number}",
            reliable=[f"/load/{topic}" for topic in ("image_raw", "camera_info", "masks")],
        )
        return NodeProcess(words, options.out / "nodes.log")

    def _listen(self, number: int) -> None:
        root = f"/load{number}/motion4d"
        self.node.create_subscription(PipelineStatus, f"{root}/status", lambda m: self._on_status(number, m), 10)
        self.node.create_subscription(TrackedObjectArray, f"{root}/tracked_objects", self._on_objects, 200)
        names = sorted(set(TOPICS) - {"status", "tracked_objects"})
        for turn in range(self.case.subscribers - 1):
            name = names[turn % len(names)]
            self.node.create_subscription(TOPICS[name], f"{root}/{name}", lambda m: None, 5)

    def _draw(self) -> list[list[Any]]:
        case, rng = self.case, np.random.default_rng(0)
        w, h = case.width, case.height
        head = messages.header(1, "camera")
        coarse = rng.integers(0, 255, (h // 8 + 1, w // 8 + 1, 3), dtype=np.uint8)
        wall = np.repeat(np.repeat(coarse, 8, 0), 8, 1)[:h, :w].copy()
        per_row = int(np.ceil(np.sqrt(case.objects)))
        side = max(4, min(w, h) // (2 * per_row))
        f = float(w)
        info = CameraInfo(
            header=head, width=w, height=h, distortion_model="plumb_bob", d=[0.0] * 5,
            k=[f, 0.0, w / 2, 0.0, f, h / 2, 0.0, 0.0, 1.0], r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
            p=[f, 0.0, w / 2, 0.0, 0.0, f, h / 2, 0.0, 0.0, 0.0, 1.0, 0.0],
        )  # fmt: skip
        frames = []
        for turn in range(PICTURES):
            image, masks = wall.copy(), np.zeros((h, w), np.uint16)
            for number in range(case.objects):
                x = (number % per_row) * (w // per_row) + turn * max(1, side // 16)
                y = (number // per_row) * (h // per_row)
                image[y : y + side, x : x + side] = (37 * number % 255, 91 * number % 255, 53 * number % 255)
                masks[y : y + side, x : x + side] = number + 1
            frames.append(
                [info, messages.image_message(masks, "16UC1", head), messages.image_message(image, "rgb8", head)]
            )
        return frames

    def ready(self) -> bool:
        """Whether all nodes listen."""
        return all(publisher.get_subscription_count() >= self.case.nodes for publisher in self._publishers)

    def send(self) -> None:
        """The next frame."""
        turn = self.case.sent % (2 * PICTURES - 2)
        stamp_ns = time.time_ns()
        stamp = messages.stamp_from_ns(stamp_ns)
        self._sent_at[stamp_ns] = time.monotonic()
        for publisher, message in zip(self._publishers, self._frames[min(turn, 2 * PICTURES - 2 - turn)], strict=True):
            message.header.stamp = stamp
            publisher.publish(message)
        self.case.sent += 1

    def spin(self, seconds: float) -> None:
        """Hears for a while. Raises `RuntimeError` if a node has ended."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 or seconds == 0.0:
            self.executor.spin_once(timeout_sec=max(0.0, left))
            if seconds == 0.0:
                break
        for process in self.processes:
            process.check()

    def close(self) -> None:
        """Ends the nodes."""
        self.case.statuses = list(self._last.values())
        for process in self.processes:
            process.ask_to_end()
        for process in self.processes:
            process.close()
        self.node.destroy_node()

    def _on_status(self, number: int, s: Any) -> None:
        self._last[number] = s
        whole = s.received == s.processed + s.dropped + s.rejected + s.queued
        self.case.unbalanced += not (whole and sum(s.drop_counts) == s.dropped)

    def _on_objects(self, message: Any) -> None:
        stamp = message.header.stamp
        sent_at = self._sent_at.get(stamp.sec * 10**9 + stamp.nanosec)
        if message.stage == "live" and sent_at is not None:
            self.case.live_s.append(time.monotonic() - sent_at)

    def _on_diagnostics(self, message: Any) -> None:
        if self.sending:  # a camera that has ended is no finding
            self.case.said |= {_short(s.message) for s in message.status if s.level != b"\x00" and s.message}


def _short(message: str) -> str:
    """What is said, without figures and advice."""
    return re.split(r" \(|[:;,] ", message)[0]


def measure(case: Case, options: argparse.Namespace) -> Case:
    """Runs one case."""
    load = Load(case, options)
    try:
        deadline = time.monotonic() + READY_S
        while not load.ready():
            load.spin(0.1)
            if time.monotonic() > deadline:
                raise RuntimeError(f"{case.name}: the nodes were not ready within {READY_S:g} s")
        load.sending = True
        began = due = time.monotonic()
        while time.monotonic() - began < options.seconds:
            load.send()
            due = max(due + 1.0 / case.rate_hz, time.monotonic() - 1.0)
            load.spin(max(0.0, due - time.monotonic()))
        load.sending = False
        load.spin(3.0)
    finally:
        load.close()
    return case


def row(case: Case) -> str:
    """A row of the table."""
    received = sum(s.received for s in case.statuses) / max(1, len(case.statuses))
    dropped = sum(s.dropped for s in case.statuses) / max(1, len(case.statuses))
    reasons = sorted({reason for s in case.statuses for reason in s.drop_reasons})
    fitted = sum(s.windows for s in case.statuses)
    live = "–"
    if case.live_s:
        live = " / ".join(f"{value:.2f}" for value in np.percentile(case.live_s, [50, 95, 99])) + " s"
    books = "yes" if case.statuses and not case.unbalanced else "**no**"
    return (
        f"| {case.name} | {case.sent} | {100 * received / max(1, case.sent):.0f} % | "
        f"{100 * dropped / max(1.0, received):.0f} % ({', '.join(reasons) or 'none'}) | {fitted} | {live} | {books} | "
        f"{'; '.join(sorted(case.said)) or 'nothing'} |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the nodes' log")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each case")
    parser.add_argument("--preset", default="cpu_small", help="config/<preset>.yaml")
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--doc", type=Path, help="document whose section `load` is rewritten")
    parser.add_argument("--note", default="", help="a remark on the circumstances")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    cases = [Case.parse(text) for text in options.cases]
    rclpy.init(args=[])
    lines = [
        f"`python -m motion4d_ros.ros_tools.load --seconds {options.seconds:g} --preset {options.preset}`: "
        f"{psutil.cpu_count()} cores ({platform.machine()}), no GPU. {options.note}".rstrip(),
        "",
        "| case | sent | arrived | dropped, and why | windows | image to live p50 / p95 / p99 | books add up | said |",
        "|---|---|---|---|---|---|---|---|",
    ]
    try:
        for case in cases:
            lines.append(row(measure(case, options)))
            sys.stdout.write(lines[-1] + "\n")
            sys.stdout.flush()
    finally:
        rclpy.try_shutdown()
    if options.doc:
        text = replace_part(options.doc.read_text(encoding="utf-8"), "load", "\n".join(lines))
        write_text(options.doc, text)
    return 1 if any(case.unbalanced or not case.statuses for case in cases) else 0


if __name__ == "__main__":
    sys.exit(guarded("load", main))
