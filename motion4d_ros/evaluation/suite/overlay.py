"""A contact sheet of what an analysis says, to be looked at: frames with the masks drawn over them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.evaluation.score import read_masks
from motion4d_ros.files import write_atomically
from motion4d_ros.offline.sources import SourceOptions, open_source
from motion4d_ros.types import IntArray

COLUMNS, ROWS = 4, 2


def write_overlay(out: Path, recording: str, path: Path) -> None:
    """Writes a PNG with `COLUMNS` x `ROWS` frames of `recording`, masks outlined as in ``out/masks``."""
    masks = read_masks(out)
    wanted = set(np.linspace(0, len(masks) - 1, COLUMNS * ROWS).round().astype(int).tolist())
    source = open_source(Path(recording), SourceOptions())
    tiles = []
    try:
        for k, frame in enumerate(source):
            if k in wanted:
                tiles.append(draw_outlines(frame.image, masks[k]))
            if k >= len(masks) - 1:
                break
    finally:
        source.close()
    tiles = (tiles + [np.zeros_like(tiles[0])] * (COLUMNS * ROWS))[: COLUMNS * ROWS]
    sheet = np.vstack([np.hstack(tiles[row * COLUMNS : (row + 1) * COLUMNS]) for row in range(ROWS)])
    _, encoded = cv2.imencode(".png", sheet[..., ::-1])
    write_atomically(path, lambda stream: stream.write(encoded.tobytes()))


def draw_outlines(image: NDArray[np.uint8], labels: IntArray) -> NDArray[np.uint8]:
    """The (H, W, 3) image with every object of the (H, W) label image tinted and outlined in a colour of its own."""
    drawn = image.copy()
    palette = np.random.default_rng(5).integers(60, 255, (64, 3))
    for i in np.unique(labels[labels > 0]):
        region = (labels == i).astype(np.uint8)
        colour = tuple(int(c) for c in palette[int(i) % 64])
        drawn[region > 0] = (0.7 * drawn[region > 0] + 0.3 * np.array(colour)).astype(np.uint8)
        outlines, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, outlines, -1, colour, 2)
    return drawn
