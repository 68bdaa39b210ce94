"""A stand-in for a SAM-style pair of networks, for any image size: what hangs together with the prompt in colour."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from motion4d_ros.models.sam_onnx import LOW, Decoded, Embedding, SamOnnx, full_size

SIDE = 64  # cells of the features along the longer side
ALIKE = 0.12  # largest difference of a colour channel, of 1, within one thing


class ColourSam(SamOnnx):
    """`embed` keeps the colours on a grid of `SIDE` cells, `decode` floods them from the prompt's point or box."""

    def __init__(self) -> None:
        self.encoded = 0
        self.asked: list[dict[str, Any]] = []

    def embed(self, image: np.ndarray) -> Embedding:
        self.encoded += 1
        height, width = image.shape[:2]
        rows, columns = (max(1, round(n * SIDE / max(height, width))) for n in (height, width))
        small = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
        features = np.zeros((1, 3, SIDE, SIDE), np.float32)
        features[0, :, :rows, :columns] = small.transpose(2, 0, 1) / 255 - 0.4
        return Embedding(features, (height, width))

    def decode(
        self, embedding: Embedding, points_px: Any = None, positive: Any = (), box_px: Any = None, mask: Any = None
    ) -> Decoded:
        self.asked.append({"points": points_px, "box": box_px, "mask": mask})
        height, width = embedding.size
        rows, columns = (max(1, round(n * SIDE / max(height, width))) for n in (height, width))
        on_object = [] if points_px is None else [p for p, sign in zip(points_px, positive) if sign]
        seed = on_object[0] if on_object else (np.asarray(box_px)[:2] + np.asarray(box_px)[2:]) / 2
        x, y = (
            np.clip(int((seed[k] + 0.5) * n / m), 0, n - 1)
            for k, (n, m) in enumerate([(columns, width), (rows, height)])
        )
        colours = embedding.features[0, :, :rows, :columns]
        near = (np.abs(colours - colours[:, y : y + 1, x : x + 1]).max(0) < ALIKE).astype(np.uint8)
        _, parts = cv2.connectedComponents(near)
        low = np.where(parts == parts[y, x], 5.0, -5.0).astype(np.float32)
        scale = LOW // SIDE
        return Decoded(full_size(low, embedding.size), cv2.resize(low, (columns * scale, rows * scale)), 0.9)
