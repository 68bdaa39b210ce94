"""Bags as they come from the field, message by message: `FieldBag` collects them and writes them in order of time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from scipy.spatial.transform import Rotation

T0, STEP, S = 1_700_000_000_000_000_000, 100_000_000, 10**9
WIDTH, HEIGHT, FOCAL = 64, 48, 60.0
FFMPEG = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket"
FOXGLOVE = "foxglove_msgs/msg/CompressedVideo"
_DEFINITIONS = {
    FFMPEG: "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\n"
    "bool is_bigendian\nuint8[] data\n",
    FOXGLOVE: "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n",
}


def picture(k: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """(H, W, 3) RGB: a smooth pattern that moves with k, different in every channel."""
    y, x = np.mgrid[:height, :width]
    planes = [128 + 90 * np.sin((x + 3 * k) / (6 + c) + c) * np.cos(y / (7 + c)) for c in range(3)]
    return np.rint(np.stack(planes, -1)).astype(np.uint8)


class FieldBag:
    """Messages of one recording. `at` is a time of recording, `stamp` a header's, both ns after the start."""

    def __init__(self) -> None:
        self.store = get_typestore(Stores.ROS2_JAZZY)
        for name, text in _DEFINITIONS.items():
            self.store.register(get_types_from_msg(text, name))
        self.messages: list[tuple[str, int, Any]] = []

    def new(self, kind: str, **fields: Any) -> Any:
        return self.store.types[kind](**fields)

    def time(self, stamp_ns: int) -> Any:
        return self.new("builtin_interfaces/msg/Time", sec=int(stamp_ns // S), nanosec=int(stamp_ns % S))

    def header(self, stamp_ns: int, frame: str) -> Any:
        return self.new("std_msgs/msg/Header", stamp=self.time(stamp_ns), frame_id=frame)

    def add(self, topic: str, at: int, message: Any) -> None:
        self.messages.append((topic, T0 + at, message))

    def image(
        self, topic: str, array: np.ndarray, encoding: str, stamp: int, *, at: int | None = None, frame: str = "cam",
        height: int | None = None, absolute: bool = False,
    ) -> None:  # fmt: skip
        stamp_ns = stamp if absolute else T0 + stamp
        data = np.ascontiguousarray(array)
        message = self.new(
            "sensor_msgs/msg/Image", header=self.header(stamp_ns, frame), height=height or len(data),
            width=data.shape[1], encoding=encoding, is_bigendian=0, step=data.nbytes // len(data),
            data=data.view(np.uint8).reshape(-1),
        )  # fmt: skip
        self.add(topic, stamp if at is None else at, message)

    def compressed(self, topic: str, data: bytes, kind: str, stamp: int, frame: str = "cam") -> None:
        values = np.frombuffer(bytes(data), np.uint8)
        header = self.header(T0 + stamp, frame)
        self.add(topic, stamp, self.new("sensor_msgs/msg/CompressedImage", header=header, format=kind, data=values))

    def info(
        self, topic: str, at: int, *, size: tuple[int, int] = (HEIGHT, WIDTH), focal: float = FOCAL, frame: str = "cam",
        binning: int = 0, roi: tuple[int, int, int, int] = (0, 0, 0, 0), centre: tuple[float, float] | None = None,
        d: tuple[float, ...] = (),
    ) -> None:  # fmt: skip
        height, width = size
        cx, cy = centre or ((width - 1) / 2, (height - 1) / 2)
        region = self.new(
            "sensor_msgs/msg/RegionOfInterest", x_offset=roi[0], y_offset=roi[1], width=roi[2], height=roi[3],
            do_rectify=False,
        )  # fmt: skip
        one = 1.0 if focal else 0.0
        message = self.new(
            "sensor_msgs/msg/CameraInfo", header=self.header(T0 + at, frame), height=height, width=width,
            distortion_model="plumb_bob", d=np.array(d, float), k=np.array([focal, 0, cx, 0, focal, cy, 0, 0, one]),
            r=np.eye(3).reshape(-1), p=np.array([focal, 0, cx, 0, 0, focal, cy, 0, 0, 0, one, 0]), binning_x=binning,
            binning_y=binning, roi=region,
        )  # fmt: skip
        self.add(topic, at, message)

    def tf(
        self,
        parent: str,
        child: str,
        at: int,
        xyz: tuple[float, float, float],
        *,
        yaw: float = 0.0,
        static: bool = False,
    ) -> None:
        x, y, z, w = Rotation.from_euler("z", yaw).as_quat()
        transform = self.new(
            "geometry_msgs/msg/Transform",
            translation=self.new("geometry_msgs/msg/Vector3", x=float(xyz[0]), y=float(xyz[1]), z=float(xyz[2])),
            rotation=self.new("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w),
        )
        item = self.new(
            "geometry_msgs/msg/TransformStamped", header=self.header(T0 + at, parent), child_frame_id=child,
            transform=transform,
        )  # fmt: skip
        self.add("/tf_static" if static else "/tf", at, self.new("tf2_msgs/msg/TFMessage", transforms=[item]))

    def odometry(self, stamp: int, xyz: tuple[float, float, float], body: str = "base", topic: str = "/odom") -> None:
        zero = self.new("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
        pose = self.new(
            "geometry_msgs/msg/Pose", position=self.new("geometry_msgs/msg/Point", x=xyz[0], y=xyz[1], z=xyz[2]),
            orientation=self.new("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
        )  # fmt: skip
        twist = self.new("geometry_msgs/msg/Twist", linear=zero, angular=zero)
        message = self.new(
            "nav_msgs/msg/Odometry", header=self.header(T0 + stamp, "odom"), child_frame_id=body,
            pose=self.new("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36)),
            twist=self.new("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
        )  # fmt: skip
        self.add(topic, stamp, message)

    def imu(self, topic: str, at: int) -> None:
        zero = self.new("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
        level = self.new("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
        message = self.new(
            "sensor_msgs/msg/Imu", header=self.header(T0 + at, "imu"), orientation=level, angular_velocity=zero,
            linear_acceleration=zero, orientation_covariance=np.zeros(9), angular_velocity_covariance=np.zeros(9),
            linear_acceleration_covariance=np.zeros(9),
        )  # fmt: skip
        self.add(topic, at, message)

    def camera(
        self, count: int = 10, topic: str = "/camera/image_raw", frame: str = "cam", every_info: bool = True
    ) -> None:
        """The usual: colour images and their camera infos."""
        for k in range(count):
            self.image(topic, picture(k), "rgb8", k * STEP, frame=frame)
            if every_info or k == 0:
                self.info(f"{topic.rpartition('/')[0]}/camera_info", k * STEP, frame=frame)

    def write(self, path: Path, storage: str = "mcap", *, split_types: bool = False) -> Path:
        plugin = StoragePlugin.SQLITE3 if storage == "sqlite3" else StoragePlugin.MCAP
        with Writer(path, version=9, storage_plugin=plugin) as writer:
            connections: dict[str, Any] = {}
            for topic, at, message in sorted(self.messages, key=lambda item: item[1]):
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, message.__msgtype__, typestore=self.store)
                data = self.store.serialize_cdr(message, message.__msgtype__)
                writer.write(connections[topic], at, data)
        return path


def realsense(count: int = 10, *, aligned: bool = True) -> FieldBag:
    """As `realsense2_camera` publishes: colour, two infrared, depth, IMU, two camera infos, extrinsics on /tf_static.

    A wall at 2 m; the depth camera sits 15 mm beside the colour camera and has another lens.
    """
    bag = FieldBag()
    ns = "/camera/camera"
    for parent, child, xyz in (
        ("camera_link", "camera_depth_optical_frame", (0.0, 0.0, 0.0)),
        ("camera_link", "camera_color_optical_frame", (0.015, 0.0, 0.0)),
    ):
        bag.tf(parent, child, 3 * STEP, xyz, static=True)  # latched; the recorder was late
    for k in range(count):
        at = k * STEP
        colour, grey = picture(k), picture(k)[..., 0]
        bag.image(f"{ns}/color/image_raw", colour, "rgb8", at, frame="camera_color_optical_frame")
        bag.info(f"{ns}/color/camera_info", at, frame="camera_color_optical_frame")
        depth = np.full((HEIGHT, WIDTH), 2000, np.uint16)
        depth[10:20, 10:20] = 0
        bag.image(f"{ns}/depth/image_rect_raw", depth, "16UC1", at, frame="camera_depth_optical_frame")
        bag.info(f"{ns}/depth/camera_info", at, frame="camera_depth_optical_frame", focal=40.0)
        for eye in ("infra1", "infra2"):
            bag.image(f"{ns}/{eye}/image_rect_raw", grey, "mono8", at, frame=f"camera_{eye}_optical_frame")
            bag.info(f"{ns}/{eye}/camera_info", at, frame=f"camera_{eye}_optical_frame", focal=40.0)
        if aligned:
            topic = f"{ns}/aligned_depth_to_color"
            bag.image(f"{topic}/image_raw", depth, "16UC1", at, frame="camera_color_optical_frame")
            bag.info(f"{topic}/camera_info", at, frame="camera_color_optical_frame")
        bag.imu(f"{ns}/imu", at)
    return bag
