"""What the node said, read back from the bag that was recorded."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader

from motion4d_ros.imagery.validation import nanoseconds
from motion4d_ros.offline.results.bag_output import own_typestore
from motion4d_ros.ros.inputs.transforms import matrix_from_pose
from motion4d_ros.types import FloatArray

STAGES = ("live", "window", "final")
NODE = "/motion4d"


@dataclass
class Cloud:
    """Tracked points of one frame."""

    point_id: NDArray[np.int64]  # (P,)
    object_id: NDArray[np.int64]  # (P,)
    xyz_map: FloatArray  # (P, 3) m


@dataclass
class Said:
    """What was said about each stamp (ns), at first (`live`), when its window closed, and in the end (`final`)."""

    masks: dict[str, dict[int, NDArray[np.uint16]]] = field(default_factory=lambda: {s: {} for s in STAGES})
    clouds: dict[str, dict[int, Cloud]] = field(default_factory=lambda: {s: {} for s in STAGES})
    objects: dict[str, dict[int, list[Any]]] = field(default_factory=lambda: {s: {} for s in STAGES})
    poses: dict[int, FloatArray] = field(default_factory=dict)  # (4, 4) T_map_cam, final
    status: Any = None
    counts: dict[str, int] = field(default_factory=dict)  # topic -> messages

    @property
    def stamps(self) -> list[int]:
        """Stamps of all frames, ascending."""
        return sorted(self.masks["final"])


def read_results(bag: Path) -> Said:
    """Reads a recorded bag.

    Only `tracked_objects` names its stage. The node publishes the topics of one estimate together, so that the n-th
    message about a stamp on another topic belongs to the n-th on this one.
    """
    said = Said(counts=defaultdict(int))
    stages: dict[int, list[str]] = defaultdict(list)
    seen: dict[tuple[str, int], int] = defaultdict(int)
    later: list[tuple[str, int, int, Any]] = []
    store = own_typestore()
    with AnyReader([bag], default_typestore=store) as reader:
        for connection, _, raw in reader.messages():
            topic = connection.topic.removeprefix(f"{NODE}/")
            said.counts[topic] += 1
            if topic not in ("tracked_objects", "tracked_points", "semantic_mask", "camera_pose", "status"):
                continue
            message: Any = store.deserialize_cdr(raw, connection.msgtype)
            if topic == "status":
                said.status = message
                continue
            stamp = nanoseconds(message.header.stamp)
            if topic == "tracked_objects":
                stages[stamp].append(message.stage)
                _keep(said.objects, message.stage, stamp, list(message.objects))
            else:
                later.append((topic, stamp, seen[topic, stamp], message))
                seen[topic, stamp] += 1
    for topic, stamp, number, message in later:
        known = stages[stamp]
        stage = known[min(number, len(known) - 1)] if known else "live"
        if topic == "semantic_mask":
            pixels = np.frombuffer(bytes(message.data), np.uint16).reshape(message.height, message.width)
            _keep(said.masks, stage, stamp, pixels)
        elif topic == "tracked_points":
            _keep(said.clouds, stage, stamp, _cloud(message))
        else:
            said.poses[stamp] = matrix_from_pose(message.pose, "camera_pose")
    return said


def _keep(table: dict[str, dict[int, Any]], stage: str, stamp: int, value: Any) -> None:
    if stage in ("live", "window"):
        table[stage][stamp] = value
    table["final"][stamp] = value


def _cloud(message: Any) -> Cloud:
    names = [(item.name, "<u4" if item.datatype == 6 else "<f4") for item in message.fields]
    records = np.frombuffer(bytes(message.data), np.dtype(names))
    xyz = np.stack([records["x"], records["y"], records["z"]], -1).astype(float)
    return Cloud(records["point_id"].astype(np.int64), records["object_id"].astype(np.int64), xyz)
