"""What detectors say of an image, checked: from messages, files or anything else with boxes, classes and scores.

Nothing here raises for a bad box: it is left out, and counted by reason.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from motion4d_ros.imagery.camera import Rectifier
from motion4d_ros.types import Detection

MOST = 100  # boxes of one image that are used, those of the best scores: as many as COCO's evaluation counts
MOST_LETTERS = 64  # of a class's name
LEAST_SIDE_PX = 1.0  # of a box that is of something


@dataclass(frozen=True)
class RawBox:
    """One box as it was given, in pixel edges: a box over the top-left pixel is 0, 0, 1, 1."""

    x: float  # left edge
    y: float  # upper edge
    width: float
    height: float
    label: str
    score: float
    object_id: str = ""


def clean(
    boxes: Iterable[RawBox], size: tuple[int, int], left_out: Counter[str], most: int = MOST
) -> tuple[Detection, ...]:
    """Detections in an image of `size` (height, width) px, the best scores first, at most `most`.

    `left_out` counts what cannot be used, by reason; boxes that reach beyond the image are clipped, and counted, too.
    """
    height, width = size
    good: list[tuple[Detection, bool]] = []
    for box in boxes:
        reason = _flaw(box)
        if reason:
            left_out[reason] += 1
            continue
        x0, x1 = max(0.0, box.x), min(float(width), box.x + box.width)
        y0, y1 = max(0.0, box.y), min(float(height), box.y + box.height)
        if x1 - x0 < LEAST_SIDE_PX or y1 - y0 < LEAST_SIDE_PX:
            left_out["outside the image" if x1 <= x0 or y1 <= y0 else "smaller than a pixel in the image"] += 1
            continue
        clipped = max(box.width - (x1 - x0), box.height - (y1 - y0)) > LEAST_SIDE_PX
        found = Detection((x0, y0, x1 - 1.0, y1 - 1.0), box.label[:MOST_LETTERS], box.score, box.object_id)
        good.append((found, clipped))
    good.sort(key=lambda item: -item[0].score)  # stable: equal scores stay in the order given
    if len(good) > most:
        left_out[f"beyond the best {most} of an image"] += len(good) - most
    kept = good[:most]
    if reaching := sum(clipped for _, clipped in kept):
        left_out["clipped to the image"] += reaching
    return tuple(found for found, _ in kept)


def _flaw(box: RawBox) -> str:
    """Why a box cannot be used; empty if it can."""
    if not all(math.isfinite(value) for value in (box.x, box.y, box.width, box.height)):
        return "not a number"
    if box.width <= 0 or box.height <= 0:
        return "without a width or height"
    if not 0.0 <= box.score <= 1.0:  # NaN, too
        return "with a score outside 0 .. 1"
    if not box.label.strip():
        return "without a class"
    return ""


def boxes_of(message: Any) -> list[RawBox]:
    """The boxes of a `vision_msgs/Detection2DArray` of any release (center.position.x or center.x, class_id or id).

    Of several hypotheses about one box the best counts. Rotated boxes become the upright ones around them.
    """
    return [_raw(item) for item in message.detections]


def class_name(value: Any) -> str:
    """A class as it is called: a name as it is, a bare number as `class 7`."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in str(value)).split())
    return f"class {text}" if text.lstrip("-").isdigit() else text


def rectified(detections: tuple[Detection, ...], rectifier: Rectifier) -> tuple[Detection, ...]:
    """Detections in raw pixels -> in rectified ones, within the image: the upright box around what the lens bends."""
    if rectifier.is_identity or not detections:
        return detections
    limit = np.array([rectifier.camera.width - 1.0, rectifier.camera.height - 1.0])
    out = []
    for each in detections:
        x0, y0, x1, y1 = each.box_px
        x, y = np.meshgrid(np.linspace(x0, x1, 3), np.linspace(y0, y1, 3))  # corners, and the middles of its sides
        uv = rectifier.rectify_points(np.stack([x.ravel(), y.ravel()], -1))
        if not np.isfinite(uv).all():
            continue
        low, high = np.clip(uv.min(0), 0.0, limit), np.clip(uv.max(0), 0.0, limit)
        if (high > low).all():
            out.append(replace(each, box_px=(float(low[0]), float(low[1]), float(high[0]), float(high[1]))))
    return tuple(out)


def told(left_out: Counter[str]) -> list[str]:
    """What was left out, one line each, without the numbers."""
    return [
        f"boxes {reason}" if reason.startswith("clipped") else f"boxes {reason} were left out" for reason in left_out
    ]


def _raw(item: Any) -> RawBox:
    centre = item.bbox.center
    place = getattr(centre, "position", centre)
    wide, high, turn = float(item.bbox.size_x), float(item.bbox.size_y), float(getattr(centre, "theta", 0.0))
    if turn and wide > 0 and high > 0 and math.isfinite(turn):
        cos, sin = abs(math.cos(turn)), abs(math.sin(turn))
        wide, high = wide * cos + high * sin, wide * sin + high * cos
    label, score = "", math.nan
    for result in item.results:
        hypothesis = getattr(result, "hypothesis", result)
        value = float(hypothesis.score)
        if not label or value > score or math.isnan(score):
            label, score = class_name(getattr(hypothesis, "class_id", getattr(hypothesis, "id", ""))), value
    name = str(getattr(item, "id", "") or getattr(item, "tracking_id", ""))
    return RawBox(float(place.x) - wide / 2, float(place.y) - high / 2, wide, high, label, score, name[:MOST_LETTERS])
