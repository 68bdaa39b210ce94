"""The picture people look at first: the image, the objects' masks in their colours, their ids."""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.types import IntArray


def object_colour(object_id: int) -> tuple[int, int, int]:
    """An RGB colour in 0..255 that stays with an id and is far from its neighbours' (golden-ratio steps in hue)."""
    red, green, blue = colorsys.hsv_to_rgb((object_id * 0.618033988749895) % 1.0, 0.75, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_overlay(rgb: NDArray[np.uint8], masks: IntArray, labels: dict[int, str] | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) RGB with (H, W) object ids drawn over it: tinted areas, bright outlines, an id at each centre."""
    out = rgb.copy()
    scale = max(0.35, rgb.shape[1] / 1000)
    for object_id in np.unique(masks[masks > 0]):
        area = masks == object_id
        colour = object_colour(int(object_id))
        out[area] = (0.55 * out[area] + 0.45 * np.array(colour)).astype(np.uint8)
        contours, _ = cv2.findContours(area.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, contours, -1, colour, 1)
        rows, columns = np.nonzero(area)
        text = f"{object_id} {(labels or {}).get(int(object_id), '')}".strip()
        (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        x = int(np.clip(columns.mean() - width / 2, 0, max(0, rgb.shape[1] - width)))
        y = int(np.clip(rows.mean() + height / 2, height, rgb.shape[0] - 1))
        cv2.putText(out, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(out, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return out
