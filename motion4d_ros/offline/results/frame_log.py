"""Estimates as they come in, kept so that memory stays bounded: images and points on disk, small facts in memory."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from motion4d_ros.files import write_bytes
from motion4d_ros.geometry.label_images import compress_labels
from motion4d_ros.offline.trajectory import format_tum
from motion4d_ros.types import Estimate, FloatArray, Frame, ObjectState, Scale, Stage, TrackedPoints
from motion4d_ros.viewer.drawn import PICTURE_QUALITY, small_picture


@dataclass
class FrameFacts:
    """What is remembered of one frame: its newest estimate without images and points."""

    estimate: Estimate  # masks and points are empty
    areas: dict[int, int]  # object id -> px
    points: int
    mean_confidence: float


class FrameLog:
    """Collects the estimates of every frame; the newest one counts, the first one of its window is kept aside."""

    def __init__(self, products: Path, spool: Path) -> None:
        self._masks, self._online = products / "masks", products / "online" / "masks"
        self._spool = spool
        for folder in (self._masks, self._online):
            folder.mkdir(parents=True, exist_ok=True)
        self.stamps_ns: list[int] = []
        self.frame_ids: list[str] = []
        self.facts: dict[int, FrameFacts] = {}  # only frames whose window has closed
        self.has_pictures = True
        self._points_bytes: dict[int, int] = {}
        self._picture_bytes = 0

    @property
    def finished(self) -> int:
        """Frames 0 .. finished-1 have had their window closed."""
        count = 0
        while count in self.facts:
            count += 1
        return count

    @property
    def spooled_bytes(self) -> int:
        """What pictures and points take on the disk."""
        return self._picture_bytes + sum(self._points_bytes.values())

    def add_frame(self, frame: Frame, live: Estimate) -> None:
        """Remembers a frame that was just accepted, with a small picture of it for the report."""
        assert live.index == len(self.stamps_ns), "the engine counts its frames from 0"
        self.stamps_ns.append(frame.stamp_ns)
        self.frame_ids.append(frame.frame_id)
        self._picture_bytes += write_jpeg(self.picture(live.index), small_picture(frame.image), PICTURE_QUALITY)

    def add(self, estimates: list[Estimate]) -> list[Estimate]:
        """Keeps window and global estimates; those that were the first of their frame are returned."""
        first = []
        for estimate in estimates:
            if estimate.stage is Stage.LIVE:
                continue
            if estimate.index not in self.facts:
                first.append(estimate)
                write_labels(self._online / f"{estimate.index:06d}.png", estimate.masks)
            self._keep(estimate)
        return first

    def picture(self, index: int) -> Path:
        """The small JPEG of a frame."""
        return self._spool / f"{index:06d}.jpg"

    def masks(self, index: int) -> NDArray[np.uint16]:
        """(H, W) newest labels of a frame."""
        labels = cv2.imread(str(self._masks / f"{index:06d}.png"), cv2.IMREAD_UNCHANGED)
        return np.asarray(labels, np.uint16)

    def points(self, index: int) -> TrackedPoints:
        """Newest tracked points of a frame."""
        with np.load(self._spool / f"{index:06d}.npz", allow_pickle=False) as content:
            return TrackedPoints(**{name: content[name] for name in content.files})

    def drop_unfinished(self) -> None:
        """After an interruption: forgets frames whose window never closed, or whose files were not all written."""
        count = self.finished
        del self.stamps_ns[count:], self.frame_ids[count:]
        for index in [i for i in self.facts if i >= count]:
            del self.facts[index]
        for folder in (self._masks, self._online):
            for path in folder.glob("*.png"):
                if int(path.stem) >= count:
                    path.unlink()

    def drop_pictures(self) -> None:
        """Gives the pictures for the report up: their room is wanted."""
        self.has_pictures = False
        for path in self._spool.glob("*.jpg"):
            path.unlink(missing_ok=True)

    def objects(self) -> dict[int, list[tuple[int, ObjectState]]]:
        """Object id -> its states as (frame index, state), in order of time."""
        found: dict[int, list[tuple[int, ObjectState]]] = {}
        for index in range(self.finished):
            for state in self.facts[index].estimate.objects:
                found.setdefault(state.object_id, []).append((index, state))
        return found

    def scale(self) -> Scale:
        """What a length means, by the newest estimate."""
        return self.facts[self.finished - 1].estimate.scale if self.finished else Scale.UNKNOWN

    def _keep(self, estimate: Estimate) -> None:
        points = estimate.points
        packed = io.BytesIO()
        np.savez(packed, **vars(points))
        write_bytes(self._spool / f"{estimate.index:06d}.npz", packed.getvalue())
        self._points_bytes[estimate.index] = packed.tell()
        write_labels(self._masks / f"{estimate.index:06d}.png", estimate.masks)
        ids, areas = np.unique(estimate.masks, return_counts=True)
        confidence = float(points.confidence.mean()) if len(points.confidence) else float("nan")
        bare = replace(estimate, masks=np.zeros((0, 0), np.uint16), points=TrackedPoints.empty(), mask_confidence=None)
        pixels = {int(i): int(n) for i, n in zip(ids, areas, strict=True) if i}
        self.facts[estimate.index] = FrameFacts(bare, pixels, len(points.point_id), confidence)


def write_labels(path: Path, labels: NDArray[np.uint16]) -> None:
    """Writes a label image (fast compression: it may be replaced soon)."""
    write_bytes(path, compress_labels(np.asarray(labels, np.uint16), effort=3))


def write_jpeg(path: Path, bgr: NDArray[np.uint8] | cv2.typing.MatLike, quality: int) -> int:
    """Writes a picture; its bytes. Raises `OSError`, which `cv2.imwrite` would keep to itself."""
    good, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert good, "OpenCV always encodes 8-bit JPEG"
    write_bytes(path, data.tobytes())
    return data.nbytes


CSV_COLUMNS = (
    "frame", "stamp", "id", "label", "state", "existence",
    "x", "y", "z", "qx", "qy", "qz", "qw", "size_x", "size_y", "size_z",
    "vx", "vy", "vz", "speed", "wx", "wy", "wz",
    "sigma_x", "sigma_y", "sigma_z", "sigma_vx", "sigma_vy", "sigma_vz", "points", "pixels", "stage", "label_score",
)  # fmt: skip


def write_objects_csv(path: Path, log: FrameLog) -> None:
    """One row per object and frame; stamps in s, lengths in m (or units), angular rates in rad/s, map frame."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(CSV_COLUMNS)
        for index in range(log.finished):
            facts = log.facts[index]
            for state in sorted(facts.estimate.objects, key=lambda s: s.object_id):
                writer.writerow(_row(index, facts, state))


def _row(index: int, facts: FrameFacts, state: ObjectState) -> list[object]:
    stamp = facts.estimate.stamp_ns
    quaternion = Rotation.from_matrix(state.T_map_object[:3, :3]).as_quat(canonical=True)
    speed = float(np.linalg.norm(state.twist[:3]))
    sigma = np.sqrt(np.maximum(np.diag(state.pose_covariance)[:3], 0.0))
    sigma_v = np.sqrt(np.maximum(np.diag(state.twist_covariance)[:3], 0.0))
    numbers = [
        *state.T_map_object[:3, 3], *quaternion, *state.size_m, *state.twist[:3], speed, *state.twist[3:],
        *sigma, *sigma_v,
    ]  # fmt: skip
    return [
        index,
        f"{stamp // 10**9}.{stamp % 10**9:09d}",
        state.object_id,
        state.label,
        state.phase.value,
        f"{state.existence:.4f}",
        *[f"{value:.6g}" for value in numbers],
        state.point_count,
        facts.areas.get(state.object_id, 0),
        facts.estimate.stage.value,
        f"{state.label_score:.4f}",
    ]


def write_trajectory(path: Path, log: FrameLog, T_map_cams: dict[int, FloatArray]) -> None:
    """`trajectory.tum`: the camera poses used, of the finished frames."""
    poses = {log.stamps_ns[i]: T_map_cams[i] for i in range(log.finished) if i in T_map_cams}
    path.write_text(format_tum(poses), encoding="utf-8")
