"""Scenes without a dominant still background: large things fill most of the picture, each with a motion of its own.

What most of such a picture does is not what stands still. They show whether that is noticed; truth is as exact as ever.
"""

from __future__ import annotations

import numpy as np

from motion4d_ros.evaluation.synthetic import motion
from motion4d_ros.evaluation.synthetic.builder import Builder
from motion4d_ros.evaluation.synthetic.motion import rigid
from motion4d_ros.evaluation.synthetic.scene import World
from motion4d_ros.evaluation.synthetic.shapes import Box, Sphere

_EYE, _AIM = (0.0, -2.4, 1.3), (0.0, 0.0, 1.3)  # m
_TEXTURES = ("leaves", "voronoi", "checker", "marble", "stripes")


def crowd(b: Builder) -> World:
    """Twelve things shoulder to shoulder that push past each other every way; the camera drifts along."""
    b.room(table=False)
    for k, (column, row) in enumerate(np.ndindex(4, 3)):
        x, z = 0.5 * (column - 1.5), 1.3 + 0.46 * (row - 1.0)
        y = -0.75 + 0.14 * ((column + 2 * row) % 3) + b.rng.uniform(-0.04, 0.04)
        way = b.rng.uniform(-0.2, 0.2, 2) + 0.12 * b.rng.choice([-1.0, 1.0], 2)
        stops = [(x - w, y, z - v) for w, v in (way, 0 * way, -way, 0 * way, way)]
        path = motion.waypoints((np.array([-1.0, 0.6, 2.2, 3.8, 5.4]) + b.rng.uniform(-0.6, 0.4)).tolist(), stops)
        turn = motion.spin(b.rng.normal(size=3).tolist(), b.rng.uniform(0.2, 0.6))
        shape = Sphere(0.28) if k % 4 == 3 else Box(np.array([0.24, 0.2, 0.25]))
        b.add(shape, _TEXTURES[k % 5], 0.35, rigid(path, turn), k + 1)
    camera = motion.slide_camera(_EYE, _AIM, (0.12 * b.sign(), 0.0, 0.0), b.duration_s)
    return b.world(motion.handheld(camera, b.rng, sway_m=0.01))


def gates(b: Builder) -> World:
    """Three panels that fill the picture: one slides, one rises, one swings; the camera stands still."""
    b.room(table=False)
    way = b.sign()
    half = np.array([0.36, 0.05, 0.8])
    slide = motion.line((-0.66, -0.7, 1.3), (0.05 * way, 0.0, 0.1))
    b.add(Box(half), "leaves", 0.5, rigid(slide, motion.spin((0, 0, 1), 0.0)), 1)
    rise = motion.line((0.0, -0.75, 1.3 + 0.2 * way), (0.0, 0.02, -0.11 * way))
    b.add(Box(half), "voronoi", 0.4, rigid(rise, motion.spin((0, 1, 0), 0.06 * way)), 2)
    swing = motion.hinge(
        (0.36, -0.7, 1.3), (0, 0, 1), lambda t: -0.3 + 0.25 * float(np.sin(1.2 * t + way)), (0.34, 0, 0)
    )
    b.add(Box(half), "marble", 0.5, swing, 3)
    return b.world(motion.static_camera(_EYE, _AIM))


def turning_wall(b: Builder) -> World:
    """A wall that swings and tilts before a camera that stands still, and fills three quarters of the picture."""
    b.room(table=False)
    way = b.sign()
    turn = motion.spin_by((0.2, 0.3, 1), lambda t: 0.22 * way * float(np.sin(1.1 * t)))
    path = motion.line((0.0, -0.6, 1.3), (0.02 * way, 0.0, 0.01))
    b.add(Box(np.array([0.86, 0.12, 0.66])), "leaves", 0.6, rigid(path, turn), 1)
    return b.world(motion.static_camera(_EYE, _AIM))


def sliding_wall(b: Builder) -> World:
    """The same, but it only slides: no picture tells this from a camera that slides past a wall before far things."""
    b.room(table=False)
    path = motion.line((0.0, -0.6, 1.3), (0.07 * b.sign(), 0.0, 0.0))
    b.add(Box(np.array([0.9, 0.06, 0.66])), "leaves", 0.6, rigid(path, motion.spin((0, 0, 1), 0.0)), 1)
    return b.world(motion.static_camera(_EYE, _AIM))


UNSTEADY = {"crowd": crowd, "gates": gates, "turning_wall": turning_wall, "sliding_wall": sliding_wall}
