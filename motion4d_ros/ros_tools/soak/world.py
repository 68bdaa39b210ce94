"""What the camera sees all day: a textured wall it slides along, and squares before it that come, hide and return."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from nav_msgs.msg import Odometry
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo

from motion4d_ros.ros.outputs import messages

WIDTH, HEIGHT = 64, 48
FOCAL_PX = 64.0
WALL_M, NEAR_M = 2.0, 1.0
PERIOD_NS = 100_000_000
SWAY_M, SWAY_S = 0.3, 20.0
"""The camera's way to and fro: it loops, and sees the same again and again."""
LIFE_S, GAP_S = 240.0, 60.0
"""Each of the places holds an object for so long, then none: the next one has a new id."""
PLACES = 3
HIDE_S, HIDDEN_S = 45.0, 8.0
"""An object hides this often, and for so long."""


@dataclass
class Moment:
    """What was sent for one stamp: the messages by input."""

    stamp_ns: int
    messages: dict[str, Any]


class World:
    """Draws the scene at any time. The same seed and time give the same picture."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self._wall = rng.integers(0, 255, (HEIGHT, 4 * WIDTH, 3), dtype=np.uint8)
        self._wall = np.repeat(np.repeat(self._wall[::3, ::3], 3, 0), 3, 1)[:HEIGHT]
        self._skins = rng.integers(0, 255, (8, 14, 14, 3), dtype=np.uint8)

    def at(self, seconds: float, stamp_ns: int, *, capped: bool = False) -> Moment:
        """The scene after `seconds`; `capped`: the lens cap is on, so there is nothing to see, and no object."""
        x = SWAY_M * math.sin(2 * math.pi * seconds / SWAY_S)
        image, depth, masks = self._background(x)
        if capped:
            image[:] = 3
        else:
            for place in range(PLACES):
                self._object(place, seconds, x, image, depth, masks)
        return Moment(stamp_ns, self._messages(stamp_ns, x, image, depth, masks))

    def _background(self, x: float) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint16]]:
        shift = WIDTH + round(FOCAL_PX * x / WALL_M)
        image = self._wall[:, shift : shift + WIDTH].copy()
        return image, np.full((HEIGHT, WIDTH), WALL_M, np.float32), np.zeros((HEIGHT, WIDTH), np.uint16)

    def _object(
        self,
        place: int,
        seconds: float,
        x: float,
        image: NDArray[np.uint8],
        depth: NDArray[np.float32],
        masks: NDArray[np.uint16],
    ) -> None:
        age = seconds + place * LIFE_S / PLACES
        life, since = divmod(age, LIFE_S + GAP_S)
        if since > LIFE_S or (since % HIDE_S) > HIDE_S - HIDDEN_S:
            return
        skin = self._skins[int(life * PLACES + place) % len(self._skins)]
        size = len(skin)
        u = round(8 + 18 * place + 6 * math.sin(seconds / 3.0 + place) - FOCAL_PX * x / NEAR_M * 0.3)
        v = round(16 + 10 * math.sin(seconds / 5.0 + 2 * place))
        left, right = max(0, u), min(WIDTH, u + size)
        top, bottom = max(0, v), min(HEIGHT, v + size)
        if right - left < 3 or bottom - top < 3:
            return
        image[top:bottom, left:right] = skin[top - v : bottom - v, left - u : right - u]
        depth[top:bottom, left:right] = NEAR_M
        masks[top:bottom, left:right] = 1 + int(life) * PLACES + place

    @staticmethod
    def _messages(
        stamp_ns: int,
        x: float,
        image: NDArray[np.uint8],
        depth: NDArray[np.float32],
        masks: NDArray[np.uint16],
    ) -> dict[str, Any]:
        head = messages.header(stamp_ns, "camera")
        odometry = Odometry(header=messages.header(stamp_ns, "odom"), child_frame_id="camera")
        odometry.pose.pose.position.x = x
        odometry.pose.pose.orientation.w = 1.0
        f, cx, cy = FOCAL_PX, WIDTH / 2 - 0.5, HEIGHT / 2 - 0.5
        return {
            "info": CameraInfo(
                header=head, width=WIDTH, height=HEIGHT, distortion_model="plumb_bob", d=[0.0] * 5,
                k=[f, 0.0, cx, 0.0, f, cy, 0.0, 0.0, 1.0], r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
                p=[f, 0.0, cx, 0.0, 0.0, f, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
            ),
            "odometry": odometry,
            "depth": messages.image_message(depth, "32FC1", head),
            "masks": messages.image_message(masks, "16UC1", head),
            "image": messages.image_message(image, "rgb8", head),
        }  # fmt: skip
