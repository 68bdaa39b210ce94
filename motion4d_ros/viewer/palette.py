"""One colour per object id, the same in the video, the 3D view, the charts and the table."""

from __future__ import annotations

_COLOURS = (
    (226, 88, 62), (46, 134, 222), (62, 166, 92), (240, 168, 36), (146, 92, 206), (28, 172, 178),
    (222, 96, 168), (142, 150, 40), (120, 96, 78), (86, 104, 226),
)  # fmt: skip


def rgb(object_id: int) -> tuple[int, int, int]:
    """Red, green, blue in 0..255 of an object."""
    return _COLOURS[(object_id - 1) % len(_COLOURS)]


def css(object_id: int) -> str:
    """The same for CSS and SVG."""
    return "#{:02x}{:02x}{:02x}".format(*rgb(object_id))
