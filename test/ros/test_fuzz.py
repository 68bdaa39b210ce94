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
from geometry_msgs.msg import PointStamped
from harness import HEIGHT, WIDTH, Harness, camera_info, labels, odometry, picture
from motion4d_ros.msg import ObjectPrompt
from nav_msgs.msg import Odometry
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from motion4d_ros.ros.pace import Pace
from motion4d_ros.ros_tools.fuzz.messages import Fuzz

RELIABLE = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
TOTAL = int(os.environ.get("MOTION4D_FUZZ", "10000"))


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
