"""A small picture of a recording with its objects, for the page over all."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.offline.analyze import effective_config, with_settings
from motion4d_ros.offline.command import analyze_options
from motion4d_ros.offline.sources import open_source
from motion4d_ros.types import IntArray
from motion4d_ros.viewer import palette

WIDTH = 224  # px
FARTHEST = 40  # frames that are read to get to the picture
_QUALITY = 82


def make_thumbnail(arguments: argparse.Namespace, results: Path) -> bytes:
    """JPEG of a frame about the middle (of the first `FARTHEST`), its objects in their colours."""
    count = sum(1 for _ in (results / "masks").glob("*.png"))
    wanted = min(count // 2, FARTHEST)
    options = analyze_options(arguments)
    source = open_source(options.input, with_settings(options.source, effective_config(options)))
    try:
        image = next(frame.image for number, frame in enumerate(source) if number == wanted)
    finally:
        source.close()
    labels = cv2.imread(str(results / "masks" / f"{wanted:06d}.png"), cv2.IMREAD_UNCHANGED)
    return encoded(image, np.zeros(image.shape[:2], int) if labels is None else np.asarray(labels, int))


def encoded(image: NDArray[np.uint8], labels: IntArray) -> bytes:
    """(H, W, 3) RGB and (H, W) ids → JPEG, `WIDTH` wide at most."""
    picture = image.astype(np.float32)
    for object_id in np.unique(labels[labels > 0]).tolist():
        here = labels == object_id
        picture[here] = 0.5 * picture[here] + 0.5 * np.array(palette.rgb(object_id), np.float32)
    height, width = labels.shape
    if width > WIDTH:
        size = (WIDTH, max(1, round(height * WIDTH / width)))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    bgr = np.clip(picture[..., ::-1], 0, 255).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1])
