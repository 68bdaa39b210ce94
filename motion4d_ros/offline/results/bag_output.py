"""`output.mcap`: a rosbag2 with the topics the node would have published, one final estimate per frame."""

from __future__ import annotations

from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore
from scipy.spatial.transform import Rotation

from motion4d_ros.offline.report.words import unit
from motion4d_ros.offline.resources import PACKAGE, find_files
from motion4d_ros.offline.results.frame_log import FrameLog
from motion4d_ros.types import Estimate, Health, Motion4DError, ObjectPhase, ObjectState, StaticPoints, TrackedPoints

NODE = "/motion4d"
_FOREVER = QosTime(2147483647, 4294967295)
_PALETTE = np.array(
    [[230, 80, 60], [60, 140, 230], [70, 180, 90], [240, 180, 40], [160, 90, 200], [40, 190, 190], [230, 120, 180]],
    float,
)


def own_typestore() -> Typestore:
    """ROS 2 Jazzy's messages and this package's own, read from its `.msg` files (else `Motion4DError`)."""
    store = get_typestore(Stores.ROS2_JAZZY)
    files = find_files("msg", "*.msg")
    if not files:
        raise Motion4DError("the .msg files of motion4d_ros are not installed beside it: reinstall the package")
    types: dict[str, Any] = {}
    for file in files:
        types.update(get_types_from_msg(file.read_text(encoding="utf-8"), f"{PACKAGE}/msg/{file.stem}"))
    store.register(types)
    return store


def write_output_bag(
    folder: Path, log: FrameLog, static: StaticPoints, health: Health, map_frame: str, *, publish_tf: bool, trail: int
) -> dict[str, int]:
    """Writes the bag; topic -> number of messages.

    The static map comes first, with transient-local durability, as a late subscriber of the node would get it. `trail`
    is the length of the trajectories among the markers, frames.
    """
    paths: dict[int, deque[Any]] = defaultdict(lambda: deque(maxlen=max(trail, 1)))
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = _Topics(writer, own_typestore())
        for index in range(log.finished):
            estimate = log.facts[index].estimate
            if index == 0:
                cloud = topics.cloud(_static_fields(static), topics.header(estimate.stamp_ns, map_frame))
                topics.write("static_points", cloud, estimate.stamp_ns, latched=True)
            _write_frame(topics, estimate, log, map_frame, paths, publish_tf=publish_tf)
        if log.finished:
            last = log.facts[log.finished - 1].estimate
            topics.write("status", _status(topics, health, last, log.finished, map_frame), last.stamp_ns)
        return topics.counts


def _write_frame(
    topics: _Topics,
    estimate: Estimate,
    log: FrameLog,
    map_frame: str,
    paths: dict[int, deque[Any]],
    *,
    publish_tf: bool,
) -> None:
    """Everything about one frame; `paths` (object id -> its recent positions) grow by it."""
    stamp_ns = estimate.stamp_ns
    header = topics.header(stamp_ns, map_frame)
    labels = log.masks(estimate.index)
    topics.write("semantic_mask", topics.image(labels, topics.header(stamp_ns, estimate.frame_id)), stamp_ns)
    topics.write("tracked_points", topics.cloud(_tracked_fields(log.points(estimate.index)), header), stamp_ns)
    pose = topics.new("geometry_msgs/msg/PoseStamped", header=header, pose=topics.pose(estimate.T_map_cam))
    topics.write("camera_pose", pose, stamp_ns)
    objects = sorted(estimate.objects, key=lambda s: s.object_id)
    array = topics.new(
        f"{PACKAGE}/msg/TrackedObjectArray",
        header=header,
        stage=estimate.stage.value,
        scale=estimate.scale.value,
        objects=[_object(topics, state) for state in objects],
    )
    topics.write("tracked_objects", array, stamp_ns)
    for state in objects:
        paths[state.object_id].append(topics.vector(state.T_map_object[:3, 3], "Point"))
    length = unit(estimate.scale.value)
    markers = [m for state in objects for m in _markers(topics, state, header, paths[state.object_id], length)]
    topics.write("markers", topics.new("visualization_msgs/msg/MarkerArray", markers=markers), stamp_ns)
    seen = [state for state in objects if state.phase is not ObjectPhase.LOST]
    if publish_tf and seen:
        transforms = [_transform(topics, state, header) for state in seen]
        topics.write("/tf", topics.new("tf2_msgs/msg/TFMessage", transforms=transforms), stamp_ns)


class _Topics:
    """Creates messages by name and writes them to topics, which are announced at first use."""

    def __init__(self, writer: Writer, store: Typestore) -> None:
        self._writer, self._store = writer, store
        self._connections: dict[str, Any] = {}
        self.counts: dict[str, int] = {}

    def new(self, kind: str, **fields: Any) -> Any:
        """A message with the given fields; the message's constants need not be given."""
        return self._store.types[kind](**fields)

    def write(self, name: str, message: Any, stamp_ns: int, *, latched: bool = False) -> None:
        """Appends a message to `/motion4d/<name>`, or to an absolute topic."""
        topic = name if name.startswith("/") else f"{NODE}/{name}"
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, message.__msgtype__, typestore=self._store, offered_qos_profiles=[_qos(latched=latched)]
            )
        data = self._store.serialize_cdr(message, message.__msgtype__)
        self._writer.write(self._connections[topic], stamp_ns, data)
        self.counts[topic] = self.counts.get(topic, 0) + 1

    def time(self, stamp_ns: int) -> Any:
        return self.new("builtin_interfaces/msg/Time", sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)

    def header(self, stamp_ns: int, frame_id: str) -> Any:
        return self.new("std_msgs/msg/Header", stamp=self.time(stamp_ns), frame_id=frame_id)

    def vector(self, xyz: Any, kind: str = "Vector3") -> Any:
        x, y, z = (float(value) for value in xyz)
        return self.new(f"geometry_msgs/msg/{kind}", x=x, y=y, z=z)

    def quaternion(self, rotation: NDArray[Any]) -> Any:
        x, y, z, w = (float(value) for value in Rotation.from_matrix(rotation).as_quat(canonical=True))
        return self.new("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)

    def pose(self, T: NDArray[Any]) -> Any:
        position = self.vector(T[:3, 3], "Point")
        return self.new("geometry_msgs/msg/Pose", position=position, orientation=self.quaternion(T[:3, :3]))

    def image(self, labels: NDArray[np.uint16], header: Any) -> Any:
        height, width = labels.shape
        return self.new(
            "sensor_msgs/msg/Image",
            header=header,
            height=height,
            width=width,
            encoding="16UC1",
            is_bigendian=0,
            step=2 * width,
            data=np.ascontiguousarray(labels, "<u2").view(np.uint8).reshape(-1),
        )

    def cloud(self, fields: dict[str, NDArray[Any]], header: Any) -> Any:
        """`PointCloud2` of equally long columns of float32 or uint32."""
        points = np.zeros(
            len(fields["x"]), [(name, "<u4" if c.dtype == np.uint32 else "<f4") for name, c in fields.items()]
        )
        for name, column in fields.items():
            points[name] = column
        codes = {"u": 6, "f": 7}  # PointField.UINT32, FLOAT32
        described = [
            self.new("sensor_msgs/msg/PointField", name=n, offset=4 * i, datatype=codes[points.dtype[n].kind], count=1)
            for i, n in enumerate(fields)
        ]
        return self.new(
            "sensor_msgs/msg/PointCloud2",
            header=header,
            height=1,
            width=len(points),
            fields=described,
            is_bigendian=False,
            point_step=points.dtype.itemsize,
            row_step=points.nbytes,
            data=points.view(np.uint8).reshape(-1) if len(points) else np.zeros(0, np.uint8),
            is_dense=bool(np.isfinite(fields["x"]).all()),
        )


def _qos(*, latched: bool) -> Qos:
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    depth = 1 if latched else 10
    return Qos(
        QosHistory.KEEP_LAST, depth, QosReliability.RELIABLE, durability, _FOREVER, _FOREVER, QosLiveliness.AUTOMATIC,
        _FOREVER, False,
    )  # fmt: skip


def _packed_rgb(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(P, 3) -> (P,) PCL's colour: 0x00rrggbb seen as a float."""
    wide = rgb.astype(np.uint32)
    return (wide[:, 0] << 16 | wide[:, 1] << 8 | wide[:, 2]).astype(np.uint32).view(np.float32)


def _static_fields(points: StaticPoints) -> dict[str, NDArray[Any]]:
    x, y, z = points.xyz_map.astype(np.float32).reshape(-1, 3).T
    return {"x": x, "y": y, "z": z, "rgb": _packed_rgb(points.rgb), "confidence": points.confidence.astype(np.float32)}


def _tracked_fields(points: TrackedPoints) -> dict[str, NDArray[Any]]:
    x, y, z = points.xyz_map.astype(np.float32).reshape(-1, 3).T
    vx, vy, vz = points.velocity.astype(np.float32).reshape(-1, 3).T
    return {
        "x": x, "y": y, "z": z, "rgb": _packed_rgb(points.rgb),
        "point_id": points.point_id.astype(np.uint32), "object_id": points.object_id.astype(np.uint32),
        "vx": vx, "vy": vy, "vz": vz, "confidence": points.confidence.astype(np.float32),
    }  # fmt: skip


def _object(topics: _Topics, state: ObjectState) -> Any:
    twist = topics.new(
        "geometry_msgs/msg/Twist", linear=topics.vector(state.twist[:3]), angular=topics.vector(state.twist[3:])
    )
    return topics.new(
        f"{PACKAGE}/msg/TrackedObject",
        id=state.object_id,
        label=state.label,
        label_score=float(state.label_score),
        state=state.phase.value,
        existence_probability=float(state.existence),
        pose=topics.new(
            "geometry_msgs/msg/PoseWithCovariance",
            pose=topics.pose(state.T_map_object),
            covariance=np.asarray(state.pose_covariance, np.float64).reshape(-1),
        ),
        twist=topics.new(
            "geometry_msgs/msg/TwistWithCovariance",
            twist=twist,
            covariance=np.asarray(state.twist_covariance, np.float64).reshape(-1),
        ),
        size=topics.vector(state.size_m),
        point_count=state.point_count,
        first_seen=topics.time(state.first_seen_ns),
        last_seen=topics.time(state.last_seen_ns),
    )


def _transform(topics: _Topics, state: ObjectState, header: Any) -> Any:
    T = state.T_map_object
    transform = topics.new(
        "geometry_msgs/msg/Transform", translation=topics.vector(T[:3, 3]), rotation=topics.quaternion(T[:3, :3])
    )
    child = f"object_{state.object_id}"
    return topics.new("geometry_msgs/msg/TransformStamped", header=header, child_frame_id=child, transform=transform)


def _markers(topics: _Topics, state: ObjectState, header: Any, path: deque[Any], length: str) -> list[Any]:
    """A box, a label, a velocity arrow and the recent path; lost objects are removed. Lengths are in `length`."""
    lost = state.phase is ObjectPhase.LOST
    red, green, blue = _PALETTE[(state.object_id - 1) % len(_PALETTE)] / 255.0
    alpha = 0.35 if state.phase is ObjectPhase.TRACKED else 0.15
    centre, top = state.T_map_object[:3, 3], state.T_map_object.copy()
    top[:3, :3], top[2, 3] = np.eye(3), centre[2] + 0.6 * float(np.max(state.size_m)) + 0.05
    tip = centre + 0.5 * state.twist[:3]
    text = f"{state.named or 'object'} {state.object_id}  {np.linalg.norm(state.twist[:3]):.2f} {length}/s"

    def marker(namespace: str, kind: int, T: NDArray[Any], scale: Any, a: float, points: list[Any], words: str) -> Any:
        return topics.new(
            "visualization_msgs/msg/Marker",
            header=header,
            ns=namespace,
            id=state.object_id,
            type=kind,
            action=2 if lost else 0,
            pose=topics.pose(T),
            scale=topics.vector(scale),
            color=topics.new("std_msgs/msg/ColorRGBA", r=float(red), g=float(green), b=float(blue), a=a),
            lifetime=topics.new("builtin_interfaces/msg/Duration", sec=0, nanosec=0),
            frame_locked=False,
            points=points,
            colors=[],
            texture_resource="",
            texture=topics.new(
                "sensor_msgs/msg/CompressedImage", header=topics.header(0, ""), format="", data=np.zeros(0, np.uint8)
            ),
            uv_coordinates=[],
            text=words,
            mesh_resource="",
            mesh_file=topics.new("visualization_msgs/msg/MeshFile", filename="", data=np.zeros(0, np.uint8)),
            mesh_use_embedded_materials=False,
        )

    size = np.maximum(state.size_m, 1e-3)
    arrow = [topics.vector(centre, "Point"), topics.vector(tip, "Point")]
    drawn = [
        marker("box", 1, state.T_map_object, size, alpha, [], ""),
        marker("label", 9, top, (0.0, 0.0, 0.08), 1.0, [], text),
        marker("velocity", 0, np.eye(4), (0.02, 0.04, 0.0), 1.0, arrow, ""),
    ]
    if len(path) >= 2:
        drawn.append(marker("trajectory", 4, np.eye(4), (0.01, 0.0, 0.0), 0.9, list(path), ""))
    return drawn


def _status(topics: _Topics, health: Health, last: Estimate, frames: int, map_frame: str) -> Any:
    zeros = dict.fromkeys(
        ("dropped", "rejected", "queued", "memory_gpu", "memory_rss"), 0
    ) | dict.fromkeys(
        ("input_rate", "latency_live", "latency_live_p95", "latency_window", "latency_window_p95"), 0.0
    )  # fmt: skip
    return topics.new(
        f"{PACKAGE}/msg/PipelineStatus",
        header=topics.header(last.stamp_ns, map_frame),
        received=frames,
        processed=frames,
        live_only=health.live_only,
        stride=health.stride,
        drop_reasons=[],
        drop_counts=np.zeros(0, np.uint64),
        reject_reasons=[],
        reject_counts=np.zeros(0, np.uint64),
        stage_names=list(health.stage_seconds),
        stage_seconds=np.array(list(health.stage_seconds.values()), np.float64),
        raster_seconds=float(health.raster_seconds),
        uptime=float(sum(health.stage_seconds.values())),
        windows=health.windows,
        refinements=health.refinements,
        gaussians_static=health.gaussians_static,
        gaussians_dynamic=health.gaussians_dynamic,
        bases=health.bases,
        objects=health.objects,
        horizon=health.horizon,
        scale=last.scale.value,
        pose_status=last.pose_status.value,
        live_consistency=float(health.live_consistency),
        device="cpu",
        warnings=list(health.warnings),
        warning_counts=np.array(list(health.warnings.values()), np.uint64),
        **zeros,
    )
