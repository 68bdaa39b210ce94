"""Messages as no driver should send them, made by the million from a seed."""

from __future__ import annotations

import array
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import Point, PointStamped
from nav_msgs.msg import Odometry
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from motion4d_ros.imagery.validation import ENCODINGS
from motion4d_ros.msg import ObjectPrompt
from motion4d_ros.ros.parameters import node_config, parameter_name
from motion4d_ros.ros_tools.soak.world import HEIGHT, WIDTH, World

ABSURD = [0, 1, 7, 2**16, 2**31 - 1, 2**32 - 1]
NUMBERS = [0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), -float("inf"), 42.0]


class Fuzz:
    """Makes messages that are wrong in some way, and now and then right. The same seed makes the same."""

    def __init__(self, seed: int) -> None:
        self._world = World(seed)
        self.rng = np.random.default_rng(seed)
        self.now_ns = 10**12
        self.names = [parameter_name(item.path) for item in node_config().tunables()]

    def good(self, name: str) -> Any:
        """A good message of an input."""
        return self._world.at(0.0, 1).messages[name]

    def parameter(self) -> Any:
        """A parameter of ours, a misspelt one or none at all, and some value."""
        name = self.pick([*self.names, "window.lenght", "", "x" * 300, "use_sim_time"])
        value = self.pick([0, -1, 10**12, 1.5, float("nan"), float("inf"), "", "text", True, [1, 2], ["a"], "y" * 9000])
        return Parameter(name, value=value).to_parameter_msg()

    def folder(self) -> str:
        """A name for `save_scene`."""
        return str(self.pick(["a", "..", "/tmp", "a/../..", "", "a" * 5000, "b/c", "\n", "a/b/c/d/e", ".x", "~"]))

    def pick(self, values: Any) -> Any:
        """One of `values`."""
        return values[int(self.rng.integers(len(values)))]

    def stamp(self, message: Any) -> Any:
        """Gives a message a stamp and a frame: usable ones more often than not."""
        self.now_ns += 10**7
        kind = int(self.rng.integers(12))
        stamp = message.header.stamp
        stamp.sec, stamp.nanosec = self.now_ns // 10**9, self.now_ns % 10**9
        if kind == 0:
            stamp.sec, stamp.nanosec = 0, 0
        elif kind == 1:
            stamp.sec = self.pick([-5, -(2**31)])
        elif kind == 2:
            stamp.nanosec = self.pick([10**9, 2**32 - 1])
        elif kind == 3 and self.rng.random() < 0.1:
            stamp.sec = self.pick([2**31 - 1, 1])  # far ahead, then far behind: clock jumps
        message.header.frame_id = self.pick(["camera", "camera", "", "x" * 1000, "ü/ß"])
        return message

    def spoil_image(self, message: Image) -> Image:
        """Breaks an image in one of eight ways, of which one is none."""
        kind = int(self.rng.integers(8))
        if kind == 0:
            message.data = message.data[: int(self.rng.integers(len(message.data)))]
        elif kind == 1:
            message.step = self.pick(ABSURD)
        elif kind == 2:
            message.width = self.pick(ABSURD)
        elif kind == 3:
            message.height = self.pick(ABSURD)
        elif kind == 4:
            message.encoding = self.pick([*ENCODINGS, "", "none", "rgb8 ", "\t", "32FC4"])
        elif kind == 5:
            message.is_bigendian = self.pick([1, 2, 255])
        elif kind == 6:
            message.data = array.array("B")
        return self.stamp(message)

    def info(self) -> CameraInfo:
        """A calibration."""
        message = self.good("info")
        for name in ("k", "d", "p"):
            if self.rng.random() < 0.3:
                values = list(getattr(message, name))
                values[int(self.rng.integers(len(values)))] = self.pick(NUMBERS)
                setattr(message, name, values)
        if self.rng.random() < 0.2:
            message.d = [self.pick(NUMBERS) for _ in range(int(self.rng.integers(20)))]
        if self.rng.random() < 0.2:
            message.width, message.binning_x = self.pick([*ABSURD, WIDTH]), self.pick(ABSURD)
            message.roi.width, message.roi.x_offset = self.pick(ABSURD), self.pick(ABSURD)
        message.distortion_model = self.pick(["plumb_bob", "equidistant", "", "x"])
        return self.stamp(message)

    def depth(self) -> Image:
        """A depth image."""
        message = self.good("masks")
        if self.rng.random() < 0.5:
            message.encoding, message.step = "32FC1", 4 * WIDTH
            message.data = array.array("B", self.rng.bytes(4 * WIDTH * HEIGHT))
        return self.spoil_image(message)

    def odometry(self) -> Odometry:
        """A pose."""
        message = self.good("odometry")
        where = message.pose.pose.position if self.rng.random() < 0.5 else message.pose.pose.orientation
        where.x = self.pick(NUMBERS)
        return self.stamp(message)

    def prompt(self) -> ObjectPrompt:
        """A word on an object."""
        message = ObjectPrompt(object_id=self.pick(ABSURD), name=self.pick(["", "cup", "x" * 500]))
        count = int(self.rng.integers(4))
        message.points = [Point(x=self.pick(NUMBERS), y=self.pick(NUMBERS)) for _ in range(count)]
        message.positive = [True] * int(self.rng.integers(4))
        message.box = [float(self.pick(NUMBERS[:4])) for _ in range(int(self.rng.integers(5)))]
        message.remove = bool(self.rng.random() < 0.1)
        if self.rng.random() < 0.3:
            message.mask = self.spoil_image(self.good("masks"))
        return self.stamp(message)

    def click(self) -> PointStamped:
        """A click in the scene."""
        message = PointStamped()
        message.point.x, message.point.z = self.pick(NUMBERS), self.pick(NUMBERS)
        return self.stamp(message)

    def compressed(self) -> CompressedImage:
        """A picture file with some bytes changed, or cut."""
        pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        data = bytearray(cv2.imencode(self.pick([".jpg", ".png"]), pixels)[1].tobytes())
        for _ in range(int(self.rng.integers(4))):
            data[int(self.rng.integers(len(data)))] = int(self.rng.integers(256))
        if self.rng.random() < 0.3:
            data = data[: int(self.rng.integers(len(data)))]
        message = CompressedImage(format=self.pick(["jpeg", "png", "", "rgb8; jpeg compressed bgr8", "x"]))
        message.data = array.array("B", bytes(data))
        return self.stamp(message)
