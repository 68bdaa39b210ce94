"""Collects the parts of a made-up world; the seed decides textures and chance."""

from __future__ import annotations

import zlib

import numpy as np

from motion4d_ros.evaluation.synthetic import motion
from motion4d_ros.evaluation.synthetic.motion import Trajectory
from motion4d_ros.evaluation.synthetic.raycast import Part
from motion4d_ros.evaluation.synthetic.scene import World
from motion4d_ros.evaluation.synthetic.shapes import Box, Shape
from motion4d_ros.evaluation.synthetic.textures import make_texture

TABLE_Z = 0.7  # height of the table top, m
FOCUS = (0.0, 0.0, TABLE_Z + 0.15)  # where cameras look, m


class Builder:
    """Collects parts and hands out textures and random numbers of one seed."""

    def __init__(self, name: str, seed: int, duration_s: float) -> None:
        self.name, self.seed, self.duration_s = name, seed, duration_s
        self.rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        self.parts: list[Part] = []

    def add(self, shape: Shape, texture: str, extent_m: float, path: Trajectory, object_id: int = 0) -> None:
        """A part with a texture of its own."""
        baked = make_texture(texture, int(self.rng.integers(2**31)), extent_m)
        self.parts.append(Part(shape, baked, path, object_id))

    def room(self, table: bool = True) -> None:
        """Walls, floor and ceiling of 6 x 6 x 3 m, and a table 1.7 x 1.5 m."""
        self.add(Box(np.array([3.0, 3.0, 1.5]), inside_out=True), "leaves", 2.6, motion.fixed((0, 0, 1.5)))
        if table:
            half = np.array([0.85, 0.75, 0.03])
            self.add(Box(half), "wood", 0.8, motion.fixed((0, 0, TABLE_Z - half[2]), 0.1))

    def sign(self) -> float:
        """Either -1 or 1."""
        return float(self.rng.choice([-1.0, 1.0]))

    def arc(self, sweep_deg: float, radius: float = 1.75, height: float = 1.4) -> Trajectory:
        """A camera arc around the table, in front of it."""
        sweep = np.deg2rad(sweep_deg) * self.sign()
        start = -np.pi / 2 - sweep / 2 + self.rng.uniform(-0.15, 0.15)
        return motion.arc_camera(FOCUS, radius, height, start, sweep, self.duration_s)

    def world(self, camera_path: Trajectory) -> World:
        """The finished world."""
        return World(self.name, self.parts, camera_path)
