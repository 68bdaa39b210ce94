"""Scenes by name. A seed changes textures, phases, directions and the degradation, never what the scene is about."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial.transform import Rotation

from motion4d_ros.evaluation.synthetic import motion
from motion4d_ros.evaluation.synthetic.builder import FOCUS, TABLE_Z, Builder
from motion4d_ros.evaluation.synthetic.motion import rigid
from motion4d_ros.evaluation.synthetic.scene import FRAME_PERIOD_NS, SyntheticScene, World, render_scene
from motion4d_ros.evaluation.synthetic.shapes import BendingTube, Box, Flag, Sphere, Torus
from motion4d_ros.evaluation.synthetic.unsteady import UNSTEADY
from motion4d_ros.types import Camera, Motion4DError


def _tabletop_like(b: Builder) -> World:
    """A ball on a circle, a box that spins, a ring that tumbles; camera on an arc."""
    b.room()
    phase, way = b.rng.uniform(0, 2 * np.pi), b.sign()
    path = motion.circle((0, 0.02, TABLE_Z + 0.13), 0.42, way * 1.1, phase)
    b.add(Sphere(0.13), "leaves", 0.3, rigid(path, motion.spin((0, 0, 1), way * 1.4)), 1)
    box = motion.line((-0.12, 0.1, TABLE_Z + 0.17), (0.05, -0.02, 0))
    b.add(Box(np.array([0.12, 0.12, 0.12])), "voronoi", 0.3, rigid(box, motion.spin((0.2, 0.1, 1), -way * 1.2)), 2)
    ring = motion.line((0.25 * way, -0.15, TABLE_Z + 0.36), (-0.07 * way, 0.02, 0))
    b.add(Torus(0.14, 0.055), "stripes", 0.35, rigid(ring, motion.spin((1, 0.3, 0.2), 1.5)), 3)
    return b.world(b.arc(42))


def _bounce(b: Builder) -> World:
    """A ball that bounces across the table, a box that starts late; handheld camera."""
    b.room()
    way = b.sign()
    path = motion.bounce((-0.6 * way, -0.05, TABLE_Z + 0.62), (0.24 * way, 0.02, 0.0), TABLE_Z + 0.11)
    b.add(Sphere(0.11), "voronoi", 0.3, rigid(path, motion.spin((0, 1, 0.2), 2.2 * way)), 1)
    slide = motion.waypoints([2.0, 4.0], [(0.35 * way, 0.3, TABLE_Z + 0.12), (-0.25 * way, 0.25, TABLE_Z + 0.12)])
    turn = motion.spin_by((0, 0, 1), lambda t: 0.3 + 0.8 * float(np.clip((t - 2.0) / 2.0, 0, 1)))
    b.add(Box(np.array([0.15, 0.1, 0.12])), "checker", 0.3, rigid(slide, turn), 2)
    return b.world(motion.handheld(b.arc(14), b.rng))


def _pillar(b: Builder) -> World:
    """A ball that passes behind a pillar, a box that goes behind it, turns back and returns; both fully hidden."""
    b.room(table=False)
    b.add(Box(np.array([0.24, 0.1, 1.5])), "marble", 0.7, motion.fixed((0, -0.35, 1.5)))
    way = b.sign()
    ball = motion.line((-0.95 * way, 0.45, 0.95), (0.42 * way, 0.0, 0))
    b.add(Sphere(0.15), "leaves", 0.35, rigid(ball, motion.spin((0.1, 0.2, 1), 1.3 * way)), 1)
    stops = [(0.75 * way, 0.1, 0.6), (-0.02 * way, 0.12, 0.6), (0.8 * way, 0.1, 0.6)]
    box = rigid(motion.waypoints([0.2, 2.2, 4.4], stops), motion.spin((0, 0.2, 1), 0.7))
    b.add(Box(np.array([0.11, 0.11, 0.11])), "checker", 0.28, box, 2)
    return b.world(motion.handheld(motion.static_camera((0.0, -2.3, 1.25), (0, 0, 0.8)), b.rng, sway_m=0.02))


def _bending(b: Builder) -> World:
    """A bar that bends to and fro and a flag that waves; camera on a short arc."""
    b.room()
    phase = b.rng.uniform(0, 2 * np.pi)
    tube = BendingTube(0.62, 0.06, lambda t: 3.2 * float(np.sin(1.9 * t + phase)))
    upright = motion.waypoints([0, 5], [(-0.3, 0.0, TABLE_Z + 0.3), (-0.22, -0.1, TABLE_Z + 0.34)])
    facing = motion.spin((0, 0, 1), 0.35, Rotation.from_euler("YX", [90, 0], degrees=True))
    b.add(tube, "stripes", 0.3, rigid(upright, facing), 1)
    flag = Flag(0.27, 0.2, 0.07, 0.45, 0.55)
    standing = Rotation.from_matrix(np.array([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]]))  # z of the sheet: -y
    b.add(flag, "leaves", 0.4, rigid(lambda _: np.array([0.36, 0.1, TABLE_Z + 0.32]), lambda _: standing), 2)
    return b.world(b.arc(18))


def _small_baseline(b: Builder) -> World:
    """A box and a ring that turn while the camera slides by only 15 cm: little to triangulate from."""
    b.room()
    way = b.sign()
    box = motion.line((-0.3 * way, 0.05, TABLE_Z + 0.2), (0.06 * way, 0.0, 0))
    b.add(Box(np.array([0.14, 0.11, 0.12])), "voronoi", 0.3, rigid(box, motion.spin((0.1, 0.3, 1), 1.0)), 1)
    ring = motion.line((0.32 * way, 0.0, TABLE_Z + 0.28), (-0.05 * way, 0.03, 0.01))
    b.add(Torus(0.15, 0.06), "leaves", 0.35, rigid(ring, motion.spin((1, 0.2, 0.4), -1.2)), 2)
    return b.world(motion.slide_camera((-0.075, -1.8, 1.35), FOCUS, (0.15, 0, 0), b.duration_s))


def _articulated(b: Builder) -> World:
    """Two boxes joined by a hinge that opens and closes while it drives along, and a capsule that rolls by."""
    b.room()
    way = b.sign()
    base = rigid(
        motion.waypoints([0.3, 4.5], [(-0.3 * way, 0.05, TABLE_Z + 0.1), (0.25 * way, 0.0, TABLE_Z + 0.1)]),
        motion.spin((0, 0, 1), 0.45 * way),
    )
    lid = motion.hinge((-0.18, 0, 0.07), (0, 1, 0), lambda t: -0.75 + 0.65 * float(np.cos(2.0 * t)), (0.18, 0, 0.035))
    b.add(Box(np.array([0.18, 0.12, 0.07])), "leaves", 0.35, base, 1)
    b.add(Box(np.array([0.18, 0.11, 0.03])), "checker", 0.25, motion.attached(base, lid), 1)
    capsule = BendingTube(0.26, 0.07, lambda _: 0.0)
    roll = rigid(motion.line((0.5 * way, -0.35, TABLE_Z + 0.07), (-0.19 * way, 0, 0)), _rolling(0.19 / 0.07 * -way))
    b.add(capsule, "voronoi", 0.25, roll, 2)
    return b.world(b.arc(26))


def _rolling(rate: float) -> motion.Turn:
    """A bar that lies along map y and rolls along x."""
    lying = Rotation.from_euler("z", 90, degrees=True)
    return motion.spin((0, 1, 0), rate * 0.5, lying)  # half slipping: pure rolling would smear the texture


def _stop_and_go(b: Builder) -> World:
    """Two things that stop and go again, not at the same time; the camera pans on the spot."""
    b.room()
    way = b.sign()
    z = TABLE_Z + 0.13
    one = motion.waypoints(
        [0.4, 1.4, 2.4, 3.4],
        [(-0.5 * way, -0.1, z), (-0.15 * way, 0.0, z), (-0.15 * way, 0.0, z), (0.3 * way, -0.2, z)],
    )
    b.add(Sphere(0.13), "stripes", 0.3, rigid(one, motion.spin_by((0, 0, 1), lambda t: 1.5 * one(t)[0])), 1)
    two = motion.waypoints(
        [1.2, 2.4, 3.2, 4.4], [(0.4 * way, 0.3, z), (0.0, 0.35, z), (0.0, 0.35, z), (0.0, 0.35, z + 0.3)]
    )
    b.add(
        Box(np.array([0.13, 0.1, 0.13])), "voronoi", 0.3, rigid(two, motion.spin_by((0, 0, 1), lambda t: two(t)[0])), 2
    )
    return b.world(motion.pan_camera((0.1, -1.9, 1.35), FOCUS, np.deg2rad(12) * way, b.duration_s))


def _leave_return(b: Builder) -> World:
    """A box that leaves the image sideways and comes back after a second, a ring that stays; static camera."""
    b.room()
    way = b.sign()
    z = TABLE_Z + 0.2
    stops = [(0.3 * way, -0.1, z), (1.55 * way, -0.1, z), (1.55 * way, -0.1, z), (0.2 * way, -0.2, z)]
    path = motion.waypoints([0.4, 1.9, 2.6, 4.4], stops)
    b.add(Box(np.array([0.13, 0.12, 0.13])), "leaves", 0.3, rigid(path, motion.spin((0.1, 0.1, 1), 0.8)), 1)
    ring = motion.line((-0.35 * way, 0.05, TABLE_Z + 0.25), (0.04 * way, 0.02, 0))
    b.add(Torus(0.15, 0.06), "checker", 0.35, rigid(ring, motion.spin((0.3, 1, 0.2), 1.1)), 2)
    return b.world(motion.static_camera((0.0, -1.85, 1.4), FOCUS))


PRESETS: dict[str, Callable[[Builder], World]] = {
    "tabletop_like": _tabletop_like,
    "bounce": _bounce,
    "pillar": _pillar,
    "bending": _bending,
    "small_baseline": _small_baseline,
    "articulated": _articulated,
    "stop_and_go": _stop_and_go,
    "leave_return": _leave_return,
}


def make_scene(name: str, seed: int = 0, frames: int = 48, size: tuple[int, int] = (240, 320)) -> SyntheticScene:
    """Renders the scene `name`, of `PRESETS` or `UNSTEADY`, at 10 Hz; `size` is (height, width), px. About half a
    second a frame at 320x240.

    Raises `Motion4DError` for an unknown name or fewer than one frame.
    """
    known = PRESETS | UNSTEADY
    if name not in known:
        raise Motion4DError(f"no synthetic scene {name!r}: choose one of {', '.join(known)}")
    if frames < 1:
        raise Motion4DError(f"a scene of {frames} frames: give at least 1")
    height, width = size
    focal = 0.9 * width
    camera = Camera(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)
    # presets are composed for 48 frames; other lengths show the same motion for a shorter or longer time
    world = known[name](Builder(name, seed, duration_s=48 * FRAME_PERIOD_NS * 1e-9))
    return render_scene(world, camera, frames, seed)
