"""Records the node's outputs into a rosbag2 (mcap), as they come over DDS. On a robot: `ros2 bag record`."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosbags.rosbag2 import StoragePlugin, Writer

from motion4d_ros.offline.results.bag_output import own_typestore


def recording_qos(topic: str) -> QoSProfile:
    """Reliable, with room for the bursts of a global refinement; transient local where that is offered."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=500,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if topic.endswith("static_points") else DurabilityPolicy.VOLATILE,
    )


class Recorder:
    """Writes what is published on `topics` (name -> message class) to the folder `path`, between `with` and its end."""

    def __init__(self, node: Node, path: Path, topics: dict[str, type]) -> None:
        self._writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
        self._lock = threading.Lock()
        self._node = node
        self._topics = topics
        self.counts = dict.fromkeys(topics, 0)
        self._connections: dict[str, Any] = {}
        self._subscriptions: list[Any] = []

    def __enter__(self) -> Recorder:
        self._writer.open()
        store = own_typestore()
        for topic, kind in self._topics.items():
            name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
            self._connections[topic] = self._writer.add_connection(topic, name, typestore=store)
            self._subscriptions.append(
                self._node.create_subscription(kind, topic, self._write_to(topic), recording_qos(topic), raw=True)
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        with self._lock:
            self._writer.close()
            self._connections.clear()

    def _write_to(self, topic: str) -> Any:
        def write(data: bytes) -> None:
            with self._lock:
                if topic in self._connections:
                    self._writer.write(self._connections[topic], time.time_ns(), data)
                    self.counts[topic] += 1

        return write
