"""Estimates to messages. Every message carries the stamp of the image it speaks of.

Large fields are filled through `array.array('B')`: `rclpy` copies that in one piece, `bytes` element by element.
"""

from __future__ import annotations

import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion, TransformStamped, Vector3
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header

from motion4d_ros.msg import TrackedObject, TrackedObjectArray
from motion4d_ros.types import Estimate, FloatArray, ObjectState, StaticPoints, TrackedPoints

_FIELD_TYPES = {"f": PointField.FLOAT32, "u": PointField.UINT32}


def stamp_from_ns(stamp_ns: int) -> Time:
    """Nanoseconds since the epoch as a message."""
    return Time(sec=int(stamp_ns // 1_000_000_000), nanosec=int(stamp_ns % 1_000_000_000))


def header(stamp_ns: int, frame_id: str) -> Header:
    """A header."""
    return Header(stamp=stamp_from_ns(stamp_ns), frame_id=frame_id)


def byte_array(values: NDArray[Any]) -> array.array[int]:
    """The bytes of `values`, the way `rclpy` takes them fast."""
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(values).tobytes())
    return data


def image_message(pixels: NDArray[Any], encoding: str, head: Header) -> Image:
    """(H, W[, C]) as an uncompressed image; `encoding` must fit the dtype (rgb8, 16UC1, 32FC1)."""
    step = pixels.strides[0] if pixels.flags.c_contiguous else pixels[0].nbytes
    return Image(
        header=head,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=0,
        step=int(step),
        data=byte_array(pixels),
    )


def cloud_message(columns: dict[str, NDArray[Any]], head: Header) -> PointCloud2:
    """Named columns of equal length (float32 or uint32) as an unordered cloud without padding."""
    dtype = np.dtype([(name, values.dtype) for name, values in columns.items()])
    count = len(next(iter(columns.values())))
    records = np.empty(count, dtype)
    for name, values in columns.items():
        records[name] = values
    fields = [
        PointField(name=name, offset=int(dtype.fields[name][1]), datatype=_FIELD_TYPES[values.dtype.kind], count=1)
        for name, values in columns.items()
        if dtype.fields is not None
    ]
    return PointCloud2(
        header=head,
        height=1,
        width=count,
        fields=fields,
        is_bigendian=False,
        point_step=dtype.itemsize,
        row_step=dtype.itemsize * count,
        data=byte_array(records),
        is_dense=True,
    )


def pack_rgb(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(P, 3) colours as RViz wants them: 0x00RRGGBB in the bits of a float32."""
    wide = rgb.astype(np.uint32)
    packed = (wide[:, 0] << 16) | (wide[:, 1] << 8) | wide[:, 2]
    return np.ascontiguousarray(packed, np.uint32).view(np.float32)


def tracked_points_message(points: TrackedPoints, head: Header) -> PointCloud2:
    """Points on moving things, map frame."""
    x, y, z = points.xyz_map.astype(np.float32).T
    vx, vy, vz = points.velocity.astype(np.float32).T
    return cloud_message(
        {
            "x": x, "y": y, "z": z, "rgb": pack_rgb(points.rgb),
            "point_id": points.point_id.astype(np.uint32), "object_id": points.object_id.astype(np.uint32),
            "vx": vx, "vy": vy, "vz": vz, "confidence": points.confidence.astype(np.float32),
        },
        head,
    )  # fmt: skip


def static_points_message(points: StaticPoints, head: Header) -> PointCloud2:
    """The static map, map frame."""
    x, y, z = points.xyz_map.astype(np.float32).T
    columns = {"x": x, "y": y, "z": z, "rgb": pack_rgb(points.rgb), "confidence": points.confidence.astype(np.float32)}
    return cloud_message(columns, head)


def pose_message(T: FloatArray) -> Pose:
    """(4, 4) as a pose."""
    x, y, z = (float(v) for v in T[:3, 3])
    qx, qy, qz, qw = (float(v) for v in Rotation.from_matrix(T[:3, :3]).as_quat())
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


def object_message(state: ObjectState) -> TrackedObject:
    """One object."""
    message = TrackedObject(
        id=int(state.object_id),
        label=state.label,
        label_score=float(state.label_score),
        state=state.phase.value,
        existence_probability=float(state.existence),
        size=_vector(state.size_m),
        point_count=int(state.point_count),
        first_seen=stamp_from_ns(state.first_seen_ns),
        last_seen=stamp_from_ns(state.last_seen_ns),
    )
    message.pose.pose = pose_message(state.T_map_object)
    message.pose.covariance = np.asarray(state.pose_covariance, np.float64).reshape(36)
    message.twist.twist.linear = _vector(state.twist[:3])
    message.twist.twist.angular = _vector(state.twist[3:])
    message.twist.covariance = np.asarray(state.twist_covariance, np.float64).reshape(36)
    return message


def objects_message(estimate: Estimate, map_frame: str) -> TrackedObjectArray:
    """All objects of one estimate, ascending ids."""
    return TrackedObjectArray(
        header=header(estimate.stamp_ns, map_frame),
        stage=estimate.stage.value,
        scale=estimate.scale.value,
        objects=[object_message(state) for state in sorted(estimate.objects, key=lambda state: state.object_id)],
    )


def object_transforms(estimate: Estimate, map_frame: str) -> list[TransformStamped]:
    """`map_frame` -> ``object_<id>`` for every object."""
    transforms = []
    for state in estimate.objects:
        pose = pose_message(state.T_map_object)
        message = TransformStamped(
            header=header(estimate.stamp_ns, map_frame), child_frame_id=f"object_{state.object_id}"
        )
        message.transform.translation = _vector(state.T_map_object[:3, 3])
        message.transform.rotation = pose.orientation
        transforms.append(message)
    return transforms


def _vector(values: FloatArray) -> Vector3:
    x, y, z = (float(v) for v in values)
    return Vector3(x=x, y=y, z=z)
