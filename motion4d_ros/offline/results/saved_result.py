"""The folder of an analysis, read again: what `motion4d view` and `motion4d render` start from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader

from motion4d_ros.offline.results.bag_output import NODE, own_typestore
from motion4d_ros.offline.results.workspace import MARKER, is_analysis
from motion4d_ros.offline.trajectory import pose_matrix
from motion4d_ros.options import no_such_path
from motion4d_ros.types import (
    Camera,
    Estimate,
    FloatArray,
    Motion4DError,
    ObjectPhase,
    ObjectState,
    PoseStatus,
    QueryTracks,
    Scale,
    Stage,
    StaticPoints,
    TrackedPoints,
)


@dataclass
class SavedResult:
    """One analysis on the disk. `missing` names the files that are not there; the rest is read as it is asked for."""

    folder: Path
    metrics: dict[str, Any]  # `metrics.json`
    stamps_ns: list[int]  # of every frame, ns
    T_map_cams: dict[int, FloatArray]  # frame number -> (4, 4) camera to map, m
    tracks: QueryTracks | None = None
    missing: list[str] = field(default_factory=list)

    @property
    def camera(self) -> Camera:
        """Of the images. Raises `Motion4DError` where the analysis could not say."""
        try:
            about = self.metrics["input"]
            fx, fy, cx, cy = (float(about["camera"][name]) for name in ("fx", "fy", "cx", "cy"))
            return Camera(fx, fy, cx, cy, int(about["width"]), int(about["height"]))
        except (KeyError, TypeError, ValueError):
            raise Motion4DError(f"{self.folder / MARKER}: does not say which camera it was: analyse again") from None

    @property
    def rate(self) -> float | None:
        """Frames a second."""
        seconds = (self.stamps_ns[-1] - self.stamps_ns[0]) / 1e9 if len(self.stamps_ns) > 1 else 0.0
        return (len(self.stamps_ns) - 1) / seconds if seconds > 0 else None

    @property
    def newest_start(self) -> int:
        """Number of the frame with which the newest scene begins: the saved one; earlier ones have other origins."""
        scenes = self.metrics.get("scenes") or [{"first_frame": 0}]
        return int(scenes[-1]["first_frame"])

    def labels(self, index: int) -> NDArray[np.uint16] | None:
        """(H, W) object ids of a frame, 0 = background; None where its image is not there."""
        labels = cv2.imread(str(self.folder / "masks" / f"{index:06d}.png"), cv2.IMREAD_UNCHANGED)
        return None if labels is None else np.asarray(labels, np.uint16)

    def costs(self) -> list[tuple[int, float, float]]:
        """Frame number, seconds of computing a frame, peak MiB, wherever the analysis noted them."""
        found, before = [], (0, 0.0)
        for frames, seconds, mib in self.metrics.get("memory", {}).get("growth", []):
            if frames > before[0]:
                found.append((int(frames) - 1, (seconds - before[1]) / (frames - before[0]), float(mib)))
                before = frames, seconds
        return found

    def static_points(self) -> StaticPoints | None:
        """The map of what stands still, map frame, m; None where the bag is not there."""
        for message in self._messages("static_points"):
            points = _cloud(message)
            return StaticPoints(_columns(points, "xyz"), _rgb(points), points["confidence"].copy())
        return None

    def estimates(self) -> Iterator[Estimate]:
        """What is believed of every frame, in order; its masks have the size of the input. None where the bag is not
        there: the iterator is then empty.
        """
        index_of = {stamp: index for index, stamp in enumerate(self.stamps_ns)}
        clouds = self._messages("tracked_points")
        for message in self._messages("tracked_objects"):
            points = _cloud(next(clouds))
            index = index_of.get(_stamp(message.header))
            if index is None or index not in self.T_map_cams:
                continue
            labels = self.labels(index)
            yield Estimate(
                index,
                self.stamps_ns[index],
                "camera",
                Stage(message.stage),
                self.camera,
                self.T_map_cams[index],
                PoseStatus.OK,
                Scale(message.scale),
                np.zeros(self.camera.size, np.uint16) if labels is None else labels,
                TrackedPoints(
                    points["point_id"].copy(), points["object_id"].copy(), _columns(points, "xyz"),
                    _columns(points, ("vx", "vy", "vz")), _rgb(points), points["confidence"].copy(),
                ),
                [_state(item) for item in message.objects],
            )  # fmt: skip

    def _messages(self, topic: str) -> Iterator[Any]:
        """Messages of a topic of `output.mcap`; none where the bag is not there."""
        bag = self.folder / "output.mcap"
        if not bag.is_dir():
            return
        with AnyReader([bag], default_typestore=own_typestore()) as reader:
            chosen = [connection for connection in reader.connections if connection.topic == f"{NODE}/{topic}"]
            for connection, _, data in reader.messages(chosen) if chosen else ():
                yield reader.deserialize(data, connection.msgtype)


def read_result(folder: Path) -> SavedResult:
    """Opens the `folder` of an analysis.

    Raises `Motion4DError` for a folder that is not there or holds no analysis, for damaged files, and where the
    camera's poses are missing.
    """
    if not folder.exists():
        raise no_such_path(folder)
    if not is_analysis(folder):
        raise Motion4DError(f"{folder}: is no folder of results (motion4d analyze INPUT --out DIR writes one)")
    metrics = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    poses = _read_trajectory(folder / "trajectory.tum")
    tracks = _read_tracks(folder / "tracks.npz")
    stamps = sorted(poses) if tracks is None else tracks.stamps_ns.tolist()
    files = ("tracks.npz", "trajectory.tum", "masks", "output.mcap")
    missing = [name for name in files if not (folder / name).exists()]
    numbers = {stamp: index for index, stamp in enumerate(stamps)}
    T_map_cams = {numbers[stamp]: T for stamp, T in poses.items() if stamp in numbers}
    if not T_map_cams:
        raise Motion4DError(f"{folder}: its trajectory.tum is missing or empty, and nothing can be placed without it")
    return SavedResult(folder, metrics, stamps, T_map_cams, tracks, missing)


def _read_tracks(path: Path) -> QueryTracks | None:
    try:
        with np.load(path, allow_pickle=False) as content:
            return QueryTracks(**{name: content[name] for name in content.files})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, EOFError):
        raise Motion4DError(f"{path}: is damaged, analyse again") from None


def _read_trajectory(path: Path) -> dict[int, FloatArray]:
    """Stamp in ns -> (4, 4), of our own `trajectory.tum`; {} where it is not there."""
    poses: dict[int, FloatArray] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return poses
    for line in lines:
        if line.startswith("#") or not line.strip():
            continue
        stamp, *numbers = line.split()
        seconds, _, fraction = stamp.partition(".")
        try:
            values = [float(number) for number in numbers]
            poses[int(seconds) * 10**9 + int(f"{fraction:0<9}"[:9])] = pose_matrix(tuple(values[:3]), tuple(values[3:]))
        except ValueError:
            raise Motion4DError(f"{path}: {line!r} is no pose") from None
    return poses


def _stamp(header: Any) -> int:
    return int(header.stamp.sec) * 10**9 + int(header.stamp.nanosec)


def _cloud(message: Any) -> NDArray[np.void]:
    """The rows of a `PointCloud2` of 32-bit fields."""
    kinds = {6: "<u4", 7: "<f4"}
    kind = np.dtype([(f.name, kinds[f.datatype]) for f in message.fields])
    return np.frombuffer(np.ascontiguousarray(message.data).tobytes(), kind)


def _columns(points: NDArray[np.void], names: Any) -> NDArray[np.float32]:
    return np.stack([points[name] for name in names], -1).astype(np.float32)


def _rgb(points: NDArray[np.void]) -> NDArray[np.uint8]:
    packed = np.ascontiguousarray(points["rgb"]).view(np.uint32)
    return np.stack([packed >> 16, packed >> 8, packed], -1).astype(np.uint8)


def _state(item: Any) -> ObjectState:
    pose, turn = item.pose.pose.position, item.pose.pose.orientation
    linear, angular = item.twist.twist.linear, item.twist.twist.angular
    return ObjectState(
        int(item.id),
        item.label,
        ObjectPhase(item.state),
        float(item.existence_probability),
        pose_matrix((pose.x, pose.y, pose.z), (turn.x, turn.y, turn.z, turn.w)),
        np.asarray(item.pose.covariance, float).reshape(6, 6),
        np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z]),
        np.asarray(item.twist.covariance, float).reshape(6, 6),
        np.array([item.size.x, item.size.y, item.size.z]),
        int(item.point_count),
        int(item.first_seen.sec) * 10**9 + int(item.first_seen.nanosec),
        int(item.last_seen.sec) * 10**9 + int(item.last_seen.nanosec),
        float(item.label_score),
    )
