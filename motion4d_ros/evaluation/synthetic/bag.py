"""A synthetic scene as a rosbag2 (mcap), with the topics a robot would have recorded. Needs `rosbags`, not ROS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

from motion4d_ros.evaluation.synthetic.scene import SyntheticScene
from motion4d_ros.types import Motion4DError

OPTICAL_FRAME = "camera_optical"
MAP_FRAME = "map"
TOPICS = {
    "/camera/image_raw": "sensor_msgs/msg/Image",
    "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
    "/camera/depth": "sensor_msgs/msg/Image",
    "/camera/mask": "sensor_msgs/msg/Image",
    "/odom": "nav_msgs/msg/Odometry",
}


def write_bag(scene: SyntheticScene, path: Path) -> None:
    """Writes the folder `path`: image rgb8, camera info, depth 32FC1 m, mask 16UC1 and odometry of the optical frame.

    Raises `Motion4DError` when `path` exists already.
    """
    if path.exists():
        raise Motion4DError(f"{path} exists already: give another place for the bag")
    path.parent.mkdir(parents=True, exist_ok=True)
    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {name: writer.add_connection(name, kind, typestore=store) for name, kind in TOPICS.items()}
        for t, stamp_ns in enumerate(scene.stamps_ns):
            messages = _Messages(store.types, int(stamp_ns))
            content = {
                "/camera/image_raw": messages.image(scene.images[t], "rgb8"),
                "/camera/camera_info": messages.camera_info(scene),
                "/camera/depth": messages.image(scene.in_depth_m[t].astype("<f4"), "32FC1"),
                "/camera/mask": messages.image(scene.in_masks[t].astype("<u2"), "16UC1"),
                "/odom": messages.odometry(scene.T_map_cam[t]),
            }
            for name, message in content.items():
                raw = store.serialize_cdr(message, TOPICS[name])
                writer.write(connections[name], int(stamp_ns), raw)


class _Messages:
    """Builds the messages of one instant."""

    def __init__(self, types: dict[str, Any], stamp_ns: int) -> None:
        self.types = types
        self.stamp = types["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)

    def header(self, frame_id: str) -> Any:
        return self.types["std_msgs/msg/Header"](stamp=self.stamp, frame_id=frame_id)

    def image(self, pixels: np.ndarray, encoding: str) -> Any:
        data = np.ascontiguousarray(pixels)
        return self.types["sensor_msgs/msg/Image"](
            header=self.header(OPTICAL_FRAME),
            height=data.shape[0],
            width=data.shape[1],
            encoding=encoding,
            is_bigendian=0,
            step=data.nbytes // data.shape[0],
            data=data.view(np.uint8).reshape(-1),
        )

    def camera_info(self, scene: SyntheticScene) -> Any:
        K = scene.camera.K
        roi = self.types["sensor_msgs/msg/RegionOfInterest"](
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        return self.types["sensor_msgs/msg/CameraInfo"](
            header=self.header(OPTICAL_FRAME),
            height=scene.camera.height,
            width=scene.camera.width,
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=K.reshape(-1),
            r=np.eye(3).reshape(-1),
            p=np.hstack([K, np.zeros((3, 1))]).reshape(-1),
            binning_x=0,
            binning_y=0,
            roi=roi,
        )

    def odometry(self, T_map_cam: np.ndarray) -> Any:
        types = self.types
        x, y, z, w = Rotation.from_matrix(T_map_cam[:3, :3]).as_quat()
        pose = types["geometry_msgs/msg/Pose"](
            position=types["geometry_msgs/msg/Point"](*map(float, T_map_cam[:3, 3])),
            orientation=types["geometry_msgs/msg/Quaternion"](x=float(x), y=float(y), z=float(z), w=float(w)),
        )
        zero = types["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=0.0)
        return types["nav_msgs/msg/Odometry"](
            header=self.header(MAP_FRAME),
            child_frame_id=OPTICAL_FRAME,
            pose=types["geometry_msgs/msg/PoseWithCovariance"](pose=pose, covariance=np.zeros(36)),
            twist=types["geometry_msgs/msg/TwistWithCovariance"](
                twist=types["geometry_msgs/msg/Twist"](linear=zero, angular=zero), covariance=np.zeros(36)
            ),
        )
