"""A tiny exact world for the tests: textured boards that face the camera's first view, drawn by homographies."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from motion4d_ros.types import Camera, Frame

CAMERA = Camera(220.0, 220.0, 119.5, 89.5, 240, 180)


@dataclass
class Board:
    """A rectangle (x0, y0, x1, y1) m at depth z m in the map, with its own texture."""

    corners: tuple[float, float, float, float]
    z: float
    seed: int
    velocity: tuple[float, float] = (0.0, 0.0)  # m per frame in x and y


@functools.lru_cache
def texture(seed: int, size: int = 400) -> np.ndarray:
    """(size, size, 3) uint8, busy at several scales, in a colour of its own."""
    rng = np.random.default_rng(seed)
    out = np.zeros((size, size), np.float32)
    for sigma in (1.5, 4.0, 12.0):
        noise = cv2.GaussianBlur(rng.normal(size=(size, size)).astype(np.float32), (0, 0), sigma)
        out += noise / noise.std()
    tint = rng.uniform(0.4, 1.0, 3)
    return np.clip((out[..., None] * 30 + 120) * tint, 0, 255).astype(np.uint8)


WALL = Board((-9.0, -7.0, 9.0, 7.0), 5.0, 1)
SCENE = (WALL, Board((-1.9, -0.9, -0.5, 1.1), 3.0, 2), Board((0.5, -0.2, 1.6, 1.2), 2.2, 3))


def shot(boards: tuple[Board, ...], T_map_cam: np.ndarray, index: int) -> tuple[Frame, np.ndarray, np.ndarray]:
    """The frame, its depth (H, W) and the number of the board (1-based) at every pixel."""
    height, width = CAMERA.size
    image = np.zeros((height, width, 3), np.uint8)
    depth = np.zeros((height, width), np.float32)
    labels = np.zeros((height, width), np.int32)
    T_cam_map = np.linalg.inv(T_map_cam)
    rays = CAMERA.unproject(CAMERA.pixel_grid(), np.ones((height, width)))
    for number, board in sorted(enumerate(boards, 1), key=lambda item: -item[1].z):
        x0, y0, x1, y1 = board.corners
        x0, x1 = x0 + index * board.velocity[0], x1 + index * board.velocity[0]
        y0, y1 = y0 + index * board.velocity[1], y1 + index * board.velocity[1]
        picture = texture(board.seed, 900 if board.seed == WALL.seed else 400)
        n = picture.shape[0] - 1
        plane = np.array([[(x1 - x0) / n, 0, x0], [0, (y1 - y0) / n, y0], [0, 0, board.z], [0, 0, 1.0]])
        H = CAMERA.K @ (T_cam_map @ plane)[:3]
        drawn = cv2.warpPerspective(picture, H, (width, height), flags=cv2.INTER_AREA)
        inside = cv2.warpPerspective(np.full((n + 1, n + 1), 255, np.uint8), H, (width, height)) > 127
        normal, offset = T_cam_map[:3, :3] @ [0, 0, 1.0], board.z - T_map_cam[2, 3]
        z = offset / (rays @ normal)
        image[inside], depth[inside], labels[inside] = drawn[inside], z[inside], number
    return Frame(index * 10**8, image, CAMERA, index=index), depth, labels


def path(index: int, step: float = 0.06) -> np.ndarray:
    """(4, 4) T_map_cam of a camera that drifts sideways and turns a little."""
    T = np.eye(4)
    angle = 0.01 * np.sin(0.4 * index)
    T[:3, :3] = cv2.Rodrigues(np.array([0.3 * angle, angle, 0.0]))[0]
    T[:3, 3] = [step * index, 0.02 * np.sin(0.5 * index), 0.2 * step * index]
    return T
