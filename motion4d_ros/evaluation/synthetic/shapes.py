"""Shapes that a ray can hit and whose material points can be followed, rigid or bending.

Everything is in the shape's own frame, in metres. A *material* coordinate names a point of the stuff itself: it stays
the same while the shape bends, so that `place(material, t)` is the exact trajectory of that point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from motion4d_ros.types import FloatArray, IntArray

MISS = np.inf
_TINY = 1e-12


class Shape(Protocol):
    """What the ray caster needs of a shape. `time_s` only matters to shapes that bend."""

    @property
    def radius(self) -> float:
        """Radius of a sphere about the origin that holds the shape at all times, m."""

    def intersect(self, origin: FloatArray, directions: FloatArray, time_s: float) -> FloatArray:
        """(3,) origin and (N, 3) directions of any length -> (N,) smallest multiple > 0 that hits, inf for a miss."""

    def material(self, points: FloatArray, time_s: float) -> FloatArray:
        """(N, 3) surface points -> (N, M) material coordinates."""

    def place(self, material: FloatArray, time_s: float) -> FloatArray:
        """(N, M) material coordinates -> (N, 3) where they are at that time."""

    def normal(self, points: FloatArray, time_s: float) -> FloatArray:
        """(N, 3) surface points -> (N, 3) unit normals (either side)."""

    def uv(self, material: FloatArray) -> FloatArray:
        """(N, M) material coordinates -> (N, 2) texture coordinates, m."""


class _Rigid:
    """Shared by shapes that keep their form: the material coordinate is the point itself."""

    def material(self, points: FloatArray, time_s: float) -> FloatArray:
        return points

    def place(self, material: FloatArray, time_s: float) -> FloatArray:
        return material


def _unit(vectors: FloatArray) -> FloatArray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), _TINY)


def _slab(origin: FloatArray, directions: FloatArray, half: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Entry and exit multiples (N,) of rays through an axis-aligned box; entry > exit where it is missed."""
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = 1.0 / np.where(np.abs(directions) < _TINY, _TINY, directions)
    near, far = (-half - origin) * inverse, (half - origin) * inverse
    return np.minimum(near, far).max(-1), np.maximum(near, far).min(-1)


@dataclass
class Sphere(_Rigid):
    """A ball."""

    radius: float

    def intersect(self, origin: FloatArray, directions: FloatArray, time_s: float) -> FloatArray:
        a = (directions**2).sum(-1)
        b = directions @ origin
        discriminant = b**2 - a * (origin @ origin - self.radius**2)
        hit = (-b - np.sqrt(np.maximum(discriminant, 0))) / a
        return np.where((discriminant > 0) & (hit > 0), hit, MISS)

    def normal(self, points: FloatArray, time_s: float) -> FloatArray:
        return _unit(points)

    def uv(self, material: FloatArray) -> FloatArray:
        x, y, z = material.T
        polar = np.arcsin(np.clip(z / self.radius, -1, 1))
        return self.radius * np.stack([np.arctan2(y, x), polar], -1)


@dataclass
class Box(_Rigid):
    """A box; `half` (3,) are its half edges. Turned inside out it is a room."""

    half: FloatArray
    inside_out: bool = False

    @property
    def radius(self) -> float:
        return float(np.linalg.norm(self.half))

    def intersect(self, origin: FloatArray, directions: FloatArray, time_s: float) -> FloatArray:
        entry, leave = _slab(origin, directions, np.asarray(self.half, float))
        if self.inside_out:
            return np.where(leave > np.maximum(entry, 0), leave, MISS)
        return np.where((leave > entry) & (entry > 0), entry, MISS)

    def _face(self, points: FloatArray) -> IntArray:
        return np.abs(points / self.half).argmax(-1)

    def normal(self, points: FloatArray, time_s: float) -> FloatArray:
        face, rows = self._face(points), np.arange(len(points))
        normals = np.zeros_like(points)
        normals[rows, face] = np.sign(points[rows, face])
        return normals

    def uv(self, material: FloatArray) -> FloatArray:
        face, rows = self._face(material), np.arange(len(material))
        axes = np.array([[1, 2], [0, 2], [0, 1]])[face]
        side = np.sign(material[rows, face])
        shift = (face + 3 * (side > 0)) * 0.37  # so that no two faces look alike
        return np.stack([material[rows, axes[:, 0]], material[rows, axes[:, 1]]], -1) + shift[:, None]


def _march(
    distance: Callable[[FloatArray], FloatArray], origin: FloatArray, directions: FloatArray, radius: float
) -> FloatArray:
    """Sphere tracing of an exact distance function inside the bounding sphere; (N,) multiples, inf for a miss."""
    length = np.linalg.norm(directions, axis=-1)
    unit = directions / length[:, None]
    b = unit @ origin
    root = np.sqrt(np.maximum(b**2 - (origin @ origin - radius**2), 0))
    along, end = np.maximum(-b - root, 0.0), -b + root
    hits = np.full(len(unit), MISS)
    active = np.flatnonzero(end > along)
    for _ in range(96):
        if not len(active):
            break
        step = distance(origin + along[active, None] * unit[active])
        along[active] += step
        done = step < 2e-5
        hits[active[done]] = along[active[done]]
        active = active[~done & (along[active] < end[active])]
    return hits / length


@dataclass
class Torus(_Rigid):
    """A ring about the z axis."""

    major: float
    minor: float

    @property
    def radius(self) -> float:
        return self.major + self.minor

    def _tube(self, points: FloatArray) -> FloatArray:
        return np.stack([np.hypot(points[:, 0], points[:, 1]) - self.major, points[:, 2]], -1)

    def intersect(self, origin: FloatArray, directions: FloatArray, time_s: float) -> FloatArray:
        def distance(points: FloatArray) -> FloatArray:
            tube = self._tube(points)
            return np.hypot(tube[:, 0], tube[:, 1]) - self.minor

        return _march(distance, origin, directions, self.radius)

    def normal(self, points: FloatArray, time_s: float) -> FloatArray:
        ring = points * [1, 1, 0]
        return _unit(points - _unit(ring) * self.major)

    def uv(self, material: FloatArray) -> FloatArray:
        tube = self._tube(material)
        around = np.arctan2(material[:, 1], material[:, 0]) * self.major
        return np.stack([around, np.arctan2(tube[:, 1], tube[:, 0]) * self.minor], -1)


@dataclass
class BendingTube:
    """A bar with round ends whose centre line bends to a circular arc in the x-z plane.

    `curvature` (1/m) of time; |curvature| * length must stay below pi. Zero throughout gives a capsule.
    Material: (arc length s, offset along the arc's normal, along y, along the tangent).
    """

    length: float
    thickness: float  # radius of the cross-section
    curvature: Callable[[float], float]

    @property
    def radius(self) -> float:
        return self.length / 2 + self.thickness

    def _bend(self, time_s: float) -> float:
        bend = self.curvature(time_s)
        return bend if abs(bend) > 1e-5 else 1e-5

    def _frame(self, s: FloatArray, time_s: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Centre line, its normal and its tangent at arc lengths (N,): three (N, 3)."""
        bend = self._bend(time_s)
        sin, cos, zero = np.sin(bend * s), np.cos(bend * s), np.zeros_like(s)
        return (
            np.stack([sin / bend, zero, (1 - cos) / bend], -1),
            np.stack([-sin, zero, cos], -1),
            np.stack([cos, zero, sin], -1),
        )

    def _arc_length(self, points: FloatArray, time_s: float) -> FloatArray:
        bend = self._bend(time_s)
        s = np.arctan2(bend * points[:, 0], 1 - bend * points[:, 2]) / bend
        return np.clip(s, -self.length / 2, self.length / 2)

    def intersect(self, origin: FloatArray, directions: FloatArray, time_s: float) -> FloatArray:
        def distance(points: FloatArray) -> FloatArray:
            centre, _, _ = self._frame(self._arc_length(points, time_s), time_s)
            return np.linalg.norm(points - centre, axis=-1) - self.thickness

        return _march(distance, origin, directions, self.radius)

    def material(self, points: FloatArray, time_s: float) -> FloatArray:
        s = self._arc_length(points, time_s)
        centre, normal, tangent = self._frame(s, time_s)
        offset = points - centre
        return np.stack([s, (offset * normal).sum(-1), offset[:, 1], (offset * tangent).sum(-1)], -1)

    def place(self, material: FloatArray, time_s: float) -> FloatArray:
        s, along_normal, along_y, along_tangent = material.T
        centre, normal, tangent = self._frame(s, time_s)
        side = np.array([0.0, 1.0, 0.0])
        return centre + along_normal[:, None] * normal + along_y[:, None] * side + along_tangent[:, None] * tangent

    def normal(self, points: FloatArray, time_s: float) -> FloatArray:
        centre, _, _ = self._frame(self._arc_length(points, time_s), time_s)
        return _unit(points - centre)

    def uv(self, material: FloatArray) -> FloatArray:
        around = np.arctan2(material[:, 2], material[:, 1]) * self.thickness
        return np.stack([material[:, 0] + material[:, 3], around], -1)


@dataclass
class Flag:
    """A thin sheet, fixed along its edge x = -half_x, with a wave that runs out and grows along x.

    Height z = amplitude * g * sin(2 pi (x / wavelength - frequency * t)), g = 0 at the fixed edge, 1 at the free one.
    Material: (x, y); the material moves along z only.
    """

    half_x: float
    half_y: float
    amplitude: float
    wavelength: float
    frequency: float

    @property
    def radius(self) -> float:
        return float(np.linalg.norm([self.half_x, self.half_y, self.amplitude]))

    def _height(self, x: FloatArray, time_s: float) -> FloatArray:
        growth = np.clip(x / self.half_x, -1, 1) * 0.5 + 0.5
        return self.amplitude * growth * np.sin(2 * np.pi * (x / self.wavelength - self.frequency * time_s))

    def intersect(self, origin: FloatArray, directions: FloatArray, time_s: float) -> FloatArray:
        half = np.array([self.half_x, self.half_y, self.amplitude * 1.001])
        entry, leave = _slab(origin, directions, half)
        hits = np.full(len(directions), MISS)
        rows = np.flatnonzero((leave > entry) & (leave > 0))
        if not len(rows):
            return hits

        def above(multiple: FloatArray) -> FloatArray:
            points = origin + multiple[..., None] * directions[rows][:, None, :]
            return points[..., 2] - self._height(points[..., 0], time_s)

        steps = np.maximum(entry[rows], 0)[:, None] + np.linspace(0, 1, 48) * (leave - np.maximum(entry, 0))[rows, None]
        sign = above(steps) > 0
        change = sign[:, 1:] != sign[:, :-1]
        first = change.argmax(1)
        crossing = change.any(1)
        index = np.arange(len(rows))
        low, high, low_sign = steps[index, first], steps[index, first + 1], sign[index, first]
        for _ in range(18):
            middle = 0.5 * (low + high)
            same = (above(middle[:, None])[:, 0] > 0) == low_sign
            low, high = np.where(same, middle, low), np.where(same, high, middle)
        hits[rows[crossing]] = (0.5 * (low + high))[crossing]
        return hits

    def material(self, points: FloatArray, time_s: float) -> FloatArray:
        return points[:, :2]

    def place(self, material: FloatArray, time_s: float) -> FloatArray:
        return np.concatenate([material, self._height(material[:, 0], time_s)[:, None]], -1)

    def normal(self, points: FloatArray, time_s: float) -> FloatArray:
        step = 1e-4
        slope = (self._height(points[:, 0] + step, time_s) - self._height(points[:, 0] - step, time_s)) / (2 * step)
        return _unit(np.stack([-slope, np.zeros_like(slope), np.ones_like(slope)], -1))

    def uv(self, material: FloatArray) -> FloatArray:
        return material
