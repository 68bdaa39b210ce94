"""What a depth image counts in: declared, recognised, or questioned; one rule for the node, bags and files.

units = DepthUnits()              # or DepthUnits(5000.0) where the user has said it
depth_m = units.metres(values)    # the first image with enough depth decides for all
for note in units.notes: ...      # what was recognised or is doubtful, in words
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MILLIMETRES, METRES, TUM, KITTI, QUARTER_MILLIMETRES = 1000.0, 1.0, 5000.0, 256.0, 4000.0
NAMES = {
    MILLIMETRES: "mm",
    METRES: "m",
    TUM: "1/5000 m",
    KITTI: "1/256 m",
    QUARTER_MILLIMETRES: "0.25 mm",
    10_000.0: "0.1 mm",
    100.0: "cm",
}
CANDIDATES = (MILLIMETRES, TUM, QUARTER_MILLIMETRES, KITTI, 10_000.0, METRES, 100.0)
"""Units per metre that files and topics are known to use."""

SATURATED = 65535
"""A 16-bit depth image's "too far", not a distance."""
_ENOUGH_PIXELS = 50  # fewer values say nothing about their unit
_NEAR_M, _FAR_M = 0.25, 10.0  # between these, nearly all that depth cameras measure lies
_NOTHING_NEARER_M = 65.0  # no camera in metres sees only what is farther; 16-bit millimetres end there, too
_SHARE_INSIDE = 0.9  # of the pixels between _NEAR_M and _FAR_M: a reading that is at home there
_DISTINCT = 50  # different values from which their common divisor is no accident


@dataclass(frozen=True)
class DepthUnit:
    """A decision. `note` is empty where there is nothing to tell."""

    units_per_metre: float
    note: str = ""

    @property
    def name(self) -> str:
        """The unit in words."""
        return unit_name(self.units_per_metre)


class DepthUnits:
    """The unit of one stream of depth images: given, or decided by its first image with enough depth, then kept."""

    def __init__(self, units_per_metre: float = 0.0) -> None:
        """`units_per_metre`: what the user or the format says; 0 = recognise."""
        self.unit: DepthUnit | None = DepthUnit(units_per_metre) if units_per_metre else None

    def metres(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """(H, W) integer or floating-point depth -> m, 0 where unknown."""
        if self.unit is None:
            self.unit = recognise([values])
        if self.unit is None:  # hardly a value in it: the usual unit will do
            return to_metres(values, usual_unit(values.dtype))
        return to_metres(values, self.unit.units_per_metre)

    @property
    def notes(self) -> list[str]:
        """What to tell people about the decision."""
        return [self.unit.note] if self.unit is not None and self.unit.note else []


def usual_unit(dtype: np.dtype[Any]) -> float:
    """Units per metre by REP-118: integers count millimetres, floating-point numbers metres."""
    return METRES if dtype.kind == "f" else MILLIMETRES


def unit_name(units_per_metre: float) -> str:
    """The unit in words."""
    return NAMES.get(units_per_metre, f"1/{units_per_metre:g} m")


def to_metres(values: NDArray[Any], units_per_metre: float) -> NDArray[np.float32]:
    """(H, W) depth in any unit -> m, 0 where unknown: NaN, infinite, not positive or (16 bits) saturated."""
    depth = values.astype(np.float32)
    with np.errstate(invalid="ignore"):
        known = np.isfinite(depth) & (depth > 0)
    if values.dtype == np.uint16:
        known &= values != SATURATED
    return np.where(known, depth * np.float32(1.0 / units_per_metre), np.float32(0))


def known_values(images: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """The values of several images that are depths: finite, positive, not saturated."""
    parts = []
    for image in images:
        flat = np.asarray(image).reshape(-1)
        with np.errstate(invalid="ignore"):
            known = np.isfinite(flat) & (flat > 0)
        if image.dtype == np.uint16:
            known &= flat != SATURATED
        parts.append(flat[known].astype(np.float64))
    return np.concatenate(parts) if parts else np.zeros(0)


def recognise(
    images: Sequence[NDArray[Any]], convention: float = 0.0, *, rgbd_layout: bool = False
) -> DepthUnit | None:
    """The unit of some images of one series; None where they hold too little depth to say.

    `convention`: units per metre that the files' layout declares (0 = none); it is doubted only where it cannot be.
    `rgbd_layout`: the files lie as those of RGB-D data sets do, of which some count mm and some 1/5000 m.
    """
    values = known_values(images)
    if len(values) < _ENOUGH_PIXELS:
        return None
    floating = all(image.dtype.kind == "f" for image in images)
    if convention:
        return _by_convention(values, convention)
    return _floating(values) if floating else _integer(values, rgbd_layout)


def _by_convention(values: NDArray[np.float64], convention: float) -> DepthUnit:
    low, middle = np.percentile(values, (5, 50)) / convention
    if low > _NOTHING_NEARER_M or middle < 0.02:
        note = f"depth in {unit_name(convention)} would lie {middle:.3g} m away: {_ask()}"
        return DepthUnit(convention, note)
    return DepthUnit(convention)


def _floating(values: NDArray[np.float64]) -> DepthUnit:
    """Metres, unless nothing would be nearer than any camera sees; then millimetres."""
    low, middle = np.percentile(values, (5, 50))
    if low <= _NOTHING_NEARER_M:
        return DepthUnit(METRES)
    note = (
        f"floating-point depth of {middle:.4g} in the middle cannot be metres: read as mm "
        f"({middle / MILLIMETRES:.3g} m); --depth-scale 1 says that it is metres"
    )
    return DepthUnit(MILLIMETRES, note)


def _integer(values: NDArray[np.float64], rgbd_layout: bool) -> DepthUnit:
    """Millimetres, unless a common factor or the range of RGB-D cameras say otherwise."""
    middle = float(np.median(values))
    factor = _common_factor(values)
    if factor in (4, 5) and _at_home(values, MILLIMETRES * factor) and middle > 2.5 * MILLIMETRES:
        unit = MILLIMETRES * factor
        return DepthUnit(
            unit,
            f"all depth values are multiples of {factor}: read as {unit_name(unit)} ({middle / unit:.3g} m in the "
            "middle); --depth-scale 1000 says that it is mm",
        )
    if _at_home(values, MILLIMETRES):
        return DepthUnit(MILLIMETRES)
    if rgbd_layout and _at_home(values, TUM):
        return DepthUnit(
            TUM,
            f"depth in mm would lie {middle / MILLIMETRES:.3g} m away, farther than RGB-D cameras measure: read as "
            f"1/5000 m as in TUM's data sets ({middle / TUM:.3g} m; 65535 = 13.1 m); --depth-scale says otherwise "
            "(1000: mm, 4000: L515)",
        )
    if middle > _FAR_M * MILLIMETRES:
        note = f"depth is taken for mm: {middle / MILLIMETRES:.3g} m in the middle of all; {_ask()}"
        return DepthUnit(MILLIMETRES, note)
    if middle < _NEAR_M * MILLIMETRES:
        note = f"depth is taken for mm: only {middle:.3g} mm in the middle of all; {_ask()}"
        return DepthUnit(MILLIMETRES, note)
    return DepthUnit(MILLIMETRES)


def _at_home(values: NDArray[np.float64], units_per_metre: float) -> bool:
    inside = (values > _NEAR_M * units_per_metre) & (values < _FAR_M * units_per_metre)
    return float(inside.mean()) >= _SHARE_INSIDE


def _common_factor(values: NDArray[np.float64]) -> int:
    distinct = np.unique(values).astype(np.int64)
    return int(np.gcd.reduce(distinct)) if len(distinct) >= _DISTINCT else 1


def _ask() -> str:
    return "--depth-scale UNITS_PER_METRE says it where that is wrong (5000: TUM, 4000: L515, 256: KITTI, 1: m)"
