"""Ten thousand malformed messages over DDS: the node lives, its books balance, its memory stays flat."""

from __future__ import annotations

import array
import os
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
from geometry_msgs.msg import Point, PointStamped
from harness import HEIGHT, WIDTH, Harness, camera_info, labels, odometry, picture
from motion4d_ros.msg import ObjectPrompt
from nav_msgs.msg import Odometry
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from motion4d_ros.imagery.validation import ENCODINGS
from motion4d_ros.ros.pace import Pace

ABSURD = [0, 1, 7, 2**16, 2**31 - 1, 2**32 - 1]
NUMBERS = [0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), -float("inf"), 42.0]
RELIABLE = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
TOTAL = int(os.environ.get("MOTION4D_FUZZ", "10000"))


class Fuzz:
    """Makes messages that are wrong in some way, and now and then right."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.now_ns = 10**12

    def pick(self, values: Any) -> Any:
        return values[int(self.rng.integers(len(values)))]

    def stamp(self, message: Any) -> Any:
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
        message = camera_info(1)
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
        message = labels(1)
        if self.rng.random() < 0.5:
            message.encoding, message.step = "32FC1", 4 * WIDTH
            message.data = array.array("B", self.rng.bytes(4 * WIDTH * HEIGHT))
        return self.spoil_image(message)

    def odometry(self) -> Odometry:
        message = odometry(1)
        where = message.pose.pose.position if self.rng.random() < 0.5 else message.pose.pose.orientation
        where.x = self.pick(NUMBERS)
        return self.stamp(message)

    def prompt(self) -> ObjectPrompt:
        message = ObjectPrompt(object_id=self.pick(ABSURD), name=self.pick(["", "cup", "x" * 500]))
        count = int(self.rng.integers(4))
        message.points = [Point(x=self.pick(NUMBERS), y=self.pick(NUMBERS)) for _ in range(count)]
        message.positive = [True] * int(self.rng.integers(4))
        message.box = [float(self.pick(NUMBERS[:4])) for _ in range(int(self.rng.integers(5)))]
        message.remove = bool(self.rng.random() < 0.1)
        if self.rng.random() < 0.3:
            message.mask = self.spoil_image(labels(1))
        return self.stamp(message)

    def click(self) -> PointStamped:
        message = PointStamped()
        message.point.x, message.point.z = self.pick(NUMBERS), self.pick(NUMBERS)
        return self.stamp(message)

    def compressed(self) -> CompressedImage:
        pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        data = bytearray(cv2.imencode(self.pick([".jpg", ".png"]), pixels)[1].tobytes())
        for _ in range(int(self.rng.integers(4))):
            data[int(self.rng.integers(len(data)))] = int(self.rng.integers(256))
        if self.rng.random() < 0.3:
            data = data[: int(self.rng.integers(len(data)))]
        message = CompressedImage(format=self.pick(["jpeg", "png", "", "rgb8; jpeg compressed bgr8", "x"]))
        message.data = array.array("B", bytes(data))
        return self.stamp(message)


def pour(h: Harness, makers: list[tuple[Any, Callable[[], Any]]], total: int, fuzz: Fuzz) -> list[float]:
    """Publishes `total` messages; resident memory (MB) on the way."""
    memory = []
    for number in range(total):
        publisher, make = fuzz.pick(makers)
        publisher.publish(make())
        if number % 100 == 0:  # let the node catch up, so that all of it is heard and not overwritten on the way
            heard = -1
            while heard != (heard := h.counts().received) or len(h.node.queue) > 500:
                time.sleep(0.05)
        if number % max(1, total // 20) == 0:
            memory.append(psutil.Process().memory_info().rss / 2**20)
            assert h.counts().balanced
    return memory


def still_works(h: Harness, send: Callable[[int], None]) -> None:
    """After everything: a good frame goes through."""
    heard = -1
    while heard != (heard := h.counts().received) or len(h.node.queue):
        time.sleep(0.5)
    before = h.counts().processed
    h.publisher("camera/camera_info", CameraInfo).publish(camera_info(2 * 10**18))
    time.sleep(0.2)
    send(2 * 10**18)
    assert h.until(lambda: h.counts().processed > before, 20.0), (h.counts(), h.node.worker.report)
    assert h.node.worker.alive and h.node.watch.restarts == 0
    assert not h.node.worker.report.exceptions, h.node.worker.report


@pytest.mark.slow
def test_malformed_raw_messages(harness: Callable[..., Harness]) -> None:
    sources = {"masks.source": "topic", "depth.source": "topic", "pose.source": "odometry", "window.length": 4}
    h = harness(parameters=sources)
    fuzz = Fuzz(1)
    kinds = [
        ("camera/image_raw", Image, lambda: fuzz.spoil_image(picture(1))),
        ("camera/camera_info", CameraInfo, fuzz.info),
        ("masks", Image, lambda: fuzz.spoil_image(labels(1))),
        ("depth", Image, fuzz.depth),
        ("odometry", Odometry, fuzz.odometry),
        ("prompt", ObjectPrompt, fuzz.prompt),
        ("clicked_point", PointStamped, fuzz.click),
    ]
    makers = [(h.publisher(name, kind, RELIABLE), make) for name, kind, make in kinds]
    memory = pour(h, makers, TOTAL, fuzz)
    assert h.until(lambda: h.counts().received > TOTAL / 7 * 0.9, 60.0), "most of it was heard"
    assert memory[-1] - memory[len(memory) // 2] < 25, memory

    def send(stamp: int) -> None:
        h.publisher("masks").publish(labels(stamp))
        h.publisher("depth").publish(labels(stamp))
        h.publisher("odometry", Odometry).publish(odometry(stamp))
        h.publisher("camera/image_raw").publish(picture(stamp))

    still_works(h, send)


@pytest.mark.slow
def test_malformed_compressed_messages(harness: Callable[..., Harness]) -> None:
    settings = {"image_transport": "compressed", "budget.queue_size": 1000}
    h = harness(parameters=settings)
    fuzz = Fuzz(2)
    images = h.publisher("camera/image_raw/compressed", CompressedImage, RELIABLE)
    infos = h.publisher("camera/camera_info", CameraInfo, RELIABLE)
    infos.publish(camera_info(1))
    memory = pour(h, [(images, fuzz.compressed), (images, fuzz.compressed), (infos, fuzz.info)], TOTAL // 2, fuzz)
    assert h.until(lambda: h.counts().received > TOTAL / 4, 60.0), "most of it was heard"
    assert memory[-1] - memory[len(memory) // 2] < 25, memory

    def send(stamp: int) -> None:
        data = cv2.imencode(".png", np.full((HEIGHT, WIDTH, 3), 90, np.uint8))[1].tobytes()
        message = CompressedImage(format="png", data=array.array("B", data))
        message.header.stamp.sec, message.header.frame_id = stamp // 10**9, "camera"
        images.publish(message)

    still_works(h, send)


def test_malformed_parameters(harness: Callable[..., Harness]) -> None:
    h = harness(start=False)
    h.node.parameters.pace = Pace(10_000, 1.0)
    rng = np.random.default_rng(3)
    values = [0, -1, 10**12, 1.5, float("nan"), float("inf"), "", "text", True, [1, 2], ["a"], [b"x"]]
    names = [tunable.path.removeprefix("ros.") for tunable in h.node.parameters.read().tunables()]
    refused = 0
    for _ in range(2000):
        parameter = Parameter(names[int(rng.integers(len(names)))], value=values[int(rng.integers(len(values)))])
        result = h.node.set_parameters([parameter])[0]
        if not result.successful:
            refused += 1
            assert result.reason, parameter.name
    assert refused > 1000
    h.node.parameters.read()  # whatever was accepted is a configuration
