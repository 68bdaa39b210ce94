"""Charts as plain SVG text: no library, no script, sharp at any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from motion4d_ros.types import FloatArray

INK, MUTED, GRID = "#23262b", "#6b7078", "#e4e3de"


@dataclass(frozen=True)
class Line:
    """One curve. NaN interrupts it."""

    x: Sequence[float] | FloatArray
    y: Sequence[float] | FloatArray
    colour: str
    name: str = ""


def bars(items: Sequence[tuple[str, float, str]], unit: str = "s", width: int = 520) -> str:
    """Horizontal bars (name, value, colour), each with its value and share."""
    if not items:
        return "<p class='muted'>nothing was measured</p>"
    total = sum(value for _, value, _ in items) or 1.0
    largest = max(value for _, value, _ in items) or 1.0
    row, left, right = 26, 172, 112
    parts = []
    for k, (name, value, colour) in enumerate(items):
        y = 6 + k * row
        length = max(1.5, (width - left - right) * value / largest)
        parts.append(
            f"<text x='{left - 10}' y='{y + 13}' text-anchor='end' class='tick'>{escape(name)}</text>"
            f"<rect x='{left}' y='{y}' width='{length:.1f}' height='18' rx='3' fill='{colour}'/>"
            f"<text x='{left + length + 8:.1f}' y='{y + 13}' class='value'>{value:.2f} {unit}"
            f"<tspan class='tick'>  {100 * value / total:.0f} %</tspan></text>"
        )
    return _svg(width, 10 + row * len(items), "".join(parts), "bar chart")


def lines(curves: Sequence[Line], x_label: str, y_label: str, width: int = 520, height: int = 230) -> str:
    """Curves over a common axis that starts at 0 upwards."""
    x_all = np.concatenate([np.asarray(c.x, float) for c in curves]) if curves else np.zeros(0)
    y_all = np.concatenate([np.asarray(c.y, float) for c in curves]) if curves else np.zeros(0)
    good = np.isfinite(x_all) & np.isfinite(y_all)
    if good.sum() < 2:
        return "<p class='muted'>too few values to draw</p>"
    x_low, x_high = float(x_all[good].min()), float(x_all[good].max())
    y_ticks = _ticks(min(0.0, float(y_all[good].min())), float(y_all[good].max()))
    x_ticks = [t for t in _ticks(x_low, x_high) if x_low <= t <= x_high]
    y_low, y_high = y_ticks[0], y_ticks[-1]
    widest = max(len(f"{tick:g}") for tick in y_ticks)
    left, right, top, bottom = 32 + 8 * max(2, widest), 14, 12, 40  # beside the numbers there is room for the label

    def px(x: float) -> float:
        return left + (width - left - right) * (x - x_low) / max(x_high - x_low, 1e-12)

    def py(y: float) -> float:
        return height - bottom - (height - top - bottom) * (y - y_low) / max(y_high - y_low, 1e-12)

    parts = []
    for tick in y_ticks:
        parts.append(
            f"<line x1='{left}' x2='{width - right}' y1='{py(tick):.1f}' y2='{py(tick):.1f}' stroke='{GRID}'/>"
        )
        parts.append(f"<text x='{left - 8}' y='{py(tick) + 4:.1f}' text-anchor='end' class='tick'>{tick:g}</text>")
    for tick in x_ticks:
        parts.append(
            f"<text x='{px(tick):.1f}' y='{height - bottom + 16}' text-anchor='middle' class='tick'>{tick:g}</text>"
        )
    for curve in curves:
        for piece in _pieces(np.asarray(curve.x, float), np.asarray(curve.y, float)):
            path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in piece)
            parts.append(_polyline(path, curve.colour, 2, f"<title>{escape(curve.name)}</title>"))
    middle, turned = (left + width - right) / 2, f"rotate(-90 14 {top + 4})"
    parts.append(f"<text x='{middle}' y='{height - 6}' text-anchor='middle' class='tick'>{escape(x_label)}</text>")
    parts.append(
        f"<text x='14' y='{top + 4}' class='tick' transform='{turned}' text-anchor='end'>{escape(y_label)}</text>"
    )
    return _svg(width, height, "".join(parts), y_label)


def plan(
    background: FloatArray,
    background_colours: Sequence[str],
    trails: Sequence[Line],
    camera: Line | None,
    unit: str,
    width: int = 520,
    height: int = 420,
) -> str:
    """A map from above with equal scales: points (P, 2), trajectories with a dot at their end, the camera dashed."""
    curves = [*trails, *([camera] if camera is not None else [])]
    xy = [np.stack([np.asarray(c.x, float), np.asarray(c.y, float)], 1) for c in curves]
    focus = np.concatenate(xy) if xy else np.zeros((0, 2))
    focus = focus[np.isfinite(focus).all(1)]
    if len(focus) + len(background) < 2:
        return "<p class='muted'>nothing to draw</p>"
    low, high = _extent(focus, background)
    centre, span = (low + high) / 2, np.maximum(high - low, 1e-6)
    scale = min(width / span[0], height / span[1])

    def at(p: FloatArray) -> str:
        return f"{width / 2 + scale * (p[0] - centre[0]):.1f},{height / 2 - scale * (p[1] - centre[1]):.1f}"

    parts = [f"<rect width='{width}' height='{height}' rx='6' fill='#f3f2ee'/>"]
    for point, colour in zip(background, background_colours, strict=True):
        if (point < low).any() or (point > high).any():
            continue
        x, y = at(point).split(",")
        parts.append(f"<rect x='{x}' y='{y}' width='2' height='2' fill='{colour}' opacity='.55'/>")
    if camera is not None:
        for piece in _pieces(np.asarray(camera.x, float), np.asarray(camera.y, float)):
            path = " ".join(at(p) for p in piece)
            parts.append(
                f"<polyline points='{path}' fill='none' stroke='{INK}' stroke-width='1.6' stroke-dasharray='4 3'/>"
            )
            if len(piece) == 1:
                cx, cy = at(piece[0]).split(",")
                parts.append(f"<circle cx='{cx}' cy='{cy}' r='3' fill='{INK}'/>")
    for curve in trails:
        pieces = _pieces(np.asarray(curve.x, float), np.asarray(curve.y, float))
        for piece in pieces:
            path = " ".join(at(p) for p in piece)
            parts += [_polyline(path, "rgba(255,255,255,.75)", 5), _polyline(path, curve.colour, 2.6)]
        if pieces:
            cx, cy = at(pieces[-1][-1]).split(",")
            parts.append(
                f"<circle cx='{cx}' cy='{cy}' r='5' fill='{curve.colour}' stroke='#fff' stroke-width='1.5'/>"
                f"<text x='{float(cx) + 8:.1f}' y='{float(cy) + 4:.1f}' class='value halo'>{escape(curve.name)}</text>"
            )
    step = _nice(0.25 * width / scale)
    parts.append(
        f"<g transform='translate(14 {height - 16})'><line x2='{step * scale:.1f}' stroke='{INK}' stroke-width='2'/>"
        f"<text x='{step * scale / 2:.1f}' y='-6' text-anchor='middle' class='value halo'>{step:g} "
        f"{escape(unit.rstrip('s') if step == 1 else unit)}</text>"
        "</g>"
    )
    return _svg(width, height, "".join(parts), "seen from above")


def _extent(focus: FloatArray, background: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(2,) lower and upper corner of what to show: all trajectories with some surroundings, not the far outliers."""
    if not len(focus):
        low, high = np.percentile(background, [2, 98], axis=0)
        return low, high
    low, high = focus.min(0), focus.max(0)
    margin = 0.35 * float(np.max(high - low))
    if len(background):  # something that hardly moves still needs surroundings
        margin = max(
            margin, 0.15 * float(np.max(np.percentile(background, 90, axis=0) - np.percentile(background, 10, axis=0)))
        )
    margin = margin or 0.5
    return low - margin, high + margin


def _polyline(path: str, colour: str, width: float, inside: str = "") -> str:
    return (
        f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='{width}' stroke-linejoin='round'>"
        f"{inside}</polyline>"
    )


def _pieces(x: FloatArray, y: FloatArray) -> list[FloatArray]:
    """Runs of finite values, each (n, 2)."""
    xy = np.stack([x, y], 1)
    good = np.isfinite(xy).all(1)
    cuts = np.flatnonzero(~good)
    return [piece[np.isfinite(piece).all(1)] for piece in np.split(xy, cuts) if np.isfinite(piece).all(1).any()]


def _nice(value: float) -> float:
    """The nearest of 1, 2, 5 times a power of ten, from below."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return max(factor * power for factor in (1, 2, 5) if factor * power <= value * 1.0000001)


def _ticks(low: float, high: float) -> list[float]:
    """About five round values that enclose low .. high."""
    if high <= low:
        high = low + 1.0
    step = _nice((high - low) / 3.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _svg(width: int, height: int, body: str, title: str) -> str:
    return f"<svg viewBox='0 0 {width} {height}' role='img' aria-label='{escape(title)}'>{body}</svg>"
