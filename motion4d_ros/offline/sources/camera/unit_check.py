"""Do given depth and given poses tell of the same scene? What moves between two pictures depends on both: a depth in
another unit, poses of the other direction or a quaternion in another order show at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from motion4d_ros.imagery.depth_units import CANDIDATES, DepthUnit, unit_name
from motion4d_ros.types import Camera, FloatArray, Motion4DError

WIDTH_PX = 320  # pictures are compared at this width
_STRIDE_PX = 6  # one pixel of so many, both ways, is followed
_RETURNS_PX = 0.7  # a pixel that flow does not bring back so near says nothing
_ENOUGH_PIXELS = 150
_ENOUGH_PARALLAX_PX = 1.5  # with less, any depth fits
_FACTORS = np.geomspace(1.0 / 40.0, 40.0, 81)  # of the assumed unit that are tried
_SLACK_PX = 0.35  # residual that flow leaves with the right unit
_MOST_TURN_DEG = 8.0  # between two views: flow finds little beyond
_MOST_FRAMES = 6  # between two views: things move meanwhile, and light changes
_DISAGREE = 1.7  # times; less is calibration, registration and drift: 1.3 on real Kinect recordings
_NEAR_A_UNIT = 1.35  # times, of the best factor: units that may be meant


@dataclass(frozen=True)
class View:
    """One frame, small: (H, W) grey uint8, (H, W) raw depth, its (3, 3) K, px, and (4, 4) T_map_cam."""

    grey: NDArray[np.uint8]
    values: NDArray[Any]
    K: FloatArray
    T_map_cam: FloatArray


@dataclass(frozen=True)
class Finding:
    """What fits better: the factor of the assumed unit, and the known units near it; and what that means, in words."""

    factor: float
    units: tuple[float, ...]
    text: str
    about_poses: bool = False  # the poses are in another convention; nothing is said about the unit
    agrees: bool = False  # depth and poses tell of the same scene: the unit is as good as declared


@dataclass(frozen=True)
class _Pair:
    rays: FloatArray  # (P, 3) of the first view, z = 1
    values: FloatArray  # (P,) raw depth
    uv: FloatArray  # (P, 2) where flow finds the pixels in the second view
    K: FloatArray
    T_map_first: FloatArray
    T_map_second: FloatArray


def compare(pairs: Sequence[tuple[View, View]], assumed: float) -> Finding | None:
    """What the pictures say about depth in `assumed` units per metre and the poses; None where they are mute.

    The residual is the distance between where flow finds a pixel and where its depth and the poses put it; the unit
    that makes its median smallest over all pairs is the right one, if the parallax is large enough to tell.
    """
    measured = [found for first, second in pairs if (found := _measure(first, second)) is not None]
    if not measured:
        return None
    direct = _search(measured, assumed, _as_given)
    for name, change in (("map-to-camera: give their inverse", np.linalg.inv), ("written w first", _w_first)):
        if direct.residual_px < 2.0 * _SLACK_PX:
            break
        other = _search(measured, assumed, change)
        if other.residual_px < 0.3 * direct.residual_px and other.parallax_px > _ENOUGH_PARALLAX_PX:
            text = f"the images do not move as the given poses say; they would if those were {name}"
            return Finding(other.factor, (), text, about_poses=True)
    if direct.parallax_px < _ENOUGH_PARALLAX_PX or direct.residual_px > 0.4 * direct.parallax_px:
        return None  # too little to tell by; too much moves, or the poses are of something else
    here = _residual(measured, assumed, _as_given)
    if abs(np.log(direct.factor)) < np.log(_DISAGREE):
        return Finding(direct.factor, (assumed,), "depth and poses agree", agrees=True)
    if here <= 1.6 * direct.residual_px + 0.5 * _SLACK_PX:
        return None
    fitting = assumed * direct.factor
    apart = {unit: float(abs(np.log(unit / fitting))) for unit in CANDIDATES}
    units = tuple(sorted((unit for unit in apart if apart[unit] < np.log(_NEAR_A_UNIT)), key=apart.__getitem__))
    if len(units) > 1 and 2.0 * apart[units[0]] < apart[units[1]]:
        units = units[:1]
    text = (
        f"depth in {unit_name(assumed)} would be {direct.factor:.2g} times as far as the motion in the images and the "
        "poses say"
    )
    return Finding(direct.factor, units, text)


def judge(finding: Finding, unit: DepthUnit, *, given: bool) -> DepthUnit:
    """The unit to read depth in after all, with a note. Raises `Motion4DError` where several may be meant, or none.

    `given`: the user has said the unit, and has the last word.
    """
    if given:
        return DepthUnit(unit.units_per_metre, f"{finding.text}: are --depth-scale and --poses right?")
    if finding.about_poses:
        raise Motion4DError(f"{finding.text} (--poses none leaves them out)")
    if len(finding.units) == 1:
        units = finding.units[0]
        return DepthUnit(
            units,
            f"{finding.text}: read as {unit_name(units)}; --depth-scale {unit.units_per_metre:g} says that it is "
            f"{unit.name} all the same",
        )
    if not finding.units:
        raise Motion4DError(
            f"{finding.text}: say what depth counts a metre with (--depth-scale), or leave out poses that are not in "
            "metres, as those of a single camera's SLAM (--poses none)"
        )
    choices = " or ".join(f"{units:g} ({unit_name(units)})" for units in finding.units)
    raise Motion4DError(f"{finding.text}: say what depth counts a metre with: --depth-scale {choices}?")


def view(rgb: NDArray[np.uint8], values: NDArray[Any], camera: Camera, T_map_cam: FloatArray) -> View:
    """A frame, (H, W, 3) RGB and (H, W) raw depth, made small."""
    small = camera.scaled(min(1.0, WIDTH_PX / camera.width))
    size = (small.width, small.height)
    grey = cv2.resize(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
    raw = cv2.resize(values.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    return View(np.asarray(grey, np.uint8), raw, small.K, T_map_cam)


@dataclass(frozen=True)
class _Best:
    factor: float
    residual_px: float
    parallax_px: float


def _search(measured: Sequence[_Pair], assumed: float, change: Any) -> _Best:
    residuals = [_residual(measured, assumed * factor, change) for factor in _FACTORS]
    k = int(np.argmin(residuals))
    unit = assumed * _FACTORS[k]
    moved = [np.linalg.norm(_project(pair, unit, change) - _project(pair, 0.0, change), axis=1) for pair in measured]
    return _Best(float(_FACTORS[k]), residuals[k], float(np.nanmedian(np.concatenate(moved))))


def _residual(measured: Sequence[_Pair], units: float, change: Any) -> float:
    """Median distance, px; pixels that a unit puts behind the camera count as far off."""
    apart = [np.linalg.norm(_project(pair, units, change) - pair.uv, axis=1) for pair in measured]
    return float(np.median(np.nan_to_num(np.concatenate(apart), nan=1e3)))


def _project(pair: _Pair, units: float, change: Any) -> FloatArray:
    """(P, 2) where the pixels should be in the second view; `units` 0 = infinitely far."""
    T = np.linalg.inv(change(pair.T_map_second)) @ change(pair.T_map_first)
    xyz = pair.rays @ T[:3, :3].T + T[:3, 3] * (units / pair.values)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        uv = (xyz @ pair.K.T)[:, :2] / np.where(xyz[:, 2:] > 1e-6, xyz[:, 2:], np.nan)
    return np.asarray(uv)


def _measure(first: View, second: View) -> _Pair | None:
    """Pixels with depth that flow follows there and back."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    there = flow.calc(first.grey, second.grey, np.zeros((*first.grey.shape, 2), np.float32))
    back = flow.calc(second.grey, first.grey, np.zeros((*first.grey.shape, 2), np.float32))
    height, width = first.grey.shape
    v, u = (grid.reshape(-1) for grid in np.mgrid[4 : height - 4 : _STRIDE_PX, 4 : width - 4 : _STRIDE_PX])
    uv = np.stack([u, v], -1) + there[v, u]
    ends = np.rint(uv).astype(int)
    inside = (ends >= 0).all(1) & (ends[:, 0] < width) & (ends[:, 1] < height)
    ends = np.clip(ends, 0, (width - 1, height - 1))
    returns = np.linalg.norm(there[v, u] + back[ends[:, 1], ends[:, 0]], axis=1) < _RETURNS_PX
    values = first.values[v, u].astype(float)
    good = inside & returns & np.isfinite(values) & (values > 0) & (values != 65535)
    if good.sum() < _ENOUGH_PIXELS:
        return None
    pixels = np.stack([u, v, np.ones_like(u)], -1)[good].astype(float)
    rays = pixels @ np.linalg.inv(first.K).T
    return _Pair(rays, values[good], uv[good], second.K, first.T_map_cam, second.T_map_cam)


def _as_given(T: FloatArray) -> FloatArray:
    return T


def _w_first(T: FloatArray) -> FloatArray:
    """The pose whose quaternion was written w x y z and read as x y z w."""
    w, x, y, z = Rotation.from_matrix(T[:3, :3]).as_quat()
    out = T.copy()
    out[:3, :3] = Rotation.from_quat([x, y, z, w]).as_matrix()
    return np.asarray(out)


def choose_pairs(poses: Sequence[tuple[int, FloatArray]], count: int) -> list[tuple[int, int]]:
    """Pairs of frames to compare: far apart, seen from nearly the same direction. `poses`: (index, T_map_cam)."""
    rated = []
    for (i, T_i), (j, T_j) in combinations(sorted(poses, key=lambda pose: pose[0]), 2):
        T = np.linalg.inv(T_j) @ T_i
        angle = np.degrees(np.linalg.norm(Rotation.from_matrix(T[:3, :3]).as_rotvec()))
        if angle < _MOST_TURN_DEG and j - i <= _MOST_FRAMES:
            rated.append((float(np.linalg.norm(T[:3, 3])) / (1.0 + angle / _MOST_TURN_DEG), i, j))
    chosen: list[tuple[int, int]] = []
    for _, i, j in sorted(rated, reverse=True):
        if all(abs(i - other) > 1 for other, _ in chosen):
            chosen.append((i, j))
        if len(chosen) == count:
            break
    return chosen
