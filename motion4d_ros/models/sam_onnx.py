"""A SAM-style pair of ONNX files: an image encoder and a prompted mask decoder (Kirillov et al., "Segment Anything").

The decoder has the inputs of SAM's own export: ``image_embeddings, point_coords, point_labels, mask_input,
has_mask_input, orig_im_size``; it returns ``iou_predictions`` and ``low_res_masks``. The encoder takes either one
normalised square image (1, 3, S, S), padded at the right and the bottom, or a bare image (H, W, 3) in 0..255.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.models.onnx_session import input_shape, normalisation, open_session
from motion4d_ros.types import BoolArray, FloatArray, Motion4DError

SIDE = 1024  # px, SAM's frame of coordinates
LOW = 256  # px, side of the masks that go in and come out of the decoder
DECODER_INPUTS = frozenset(
    {"image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input", "orig_im_size"}
)
LABEL_PADDING, LABEL_BOX = -1.0, (2.0, 3.0)
MASK_LOGIT = 10.0  # logits of a certain mask, as the decoder was trained to be fed


@dataclass(frozen=True)
class Embedding:
    """An encoded image."""

    features: NDArray[np.float32]  # (1, C, h, w)
    size: tuple[int, int]  # (height, width) of the image, px

    @property
    def scale(self) -> float:
        """SAM's pixels per image pixel."""
        return SIDE / max(self.size)

    def describe(self, mask: BoolArray) -> NDArray[np.float32]:
        """(C,) unit vector: what the image looks like inside the (H, W) `mask`; zeros where it is too small."""
        channels, height, width = self.features.shape[1:]
        rows, cols = (max(1, round(n * self.scale / SIDE * m)) for n, m in zip(self.size, (height, width)))
        weight = cv2.resize(mask.astype(np.float32), (cols, rows), interpolation=cv2.INTER_AREA)
        weight = np.where(weight > 0.5, weight, 0.1 * weight)
        total = float(weight.sum())
        if total < 1e-3:
            return np.zeros(channels, np.float32)
        mean = np.einsum("chw,hw->c", self.features[0, :, :rows, :cols], weight) / total
        return np.asarray(mean / (np.linalg.norm(mean) + 1e-9), np.float32)


@dataclass(frozen=True)
class Decoded:
    """A mask."""

    logits: NDArray[np.float32]  # (H, W) at the image's size; > 0 on the object
    low: NDArray[np.float32]  # (h, w) the same as the decoder gave it, at most 256 px wide: enough to keep
    score: float  # the decoder's own guess of its IoU, about 0..1


class SamOnnx:
    """Encoder and decoder. `embed` once per image, `decode` once per object."""

    def __init__(self, encoder: Path, decoder: Path, config: Config) -> None:
        self._files = f"{encoder}, {decoder.name}"
        self._encoder = open_session(encoder, config)
        self._decoder = open_session(decoder, config)
        names = {item.name for item in self._decoder.get_inputs()}
        if not names >= DECODER_INPUTS:
            missing = ", ".join(sorted(DECODER_INPUTS - names))
            raise Motion4DError(f"{decoder}: not a SAM-style decoder, it has no input {missing}")
        self._outputs = [item.name for item in self._decoder.get_outputs()]
        if not {"iou_predictions", "low_res_masks"} <= set(self._outputs):
            raise Motion4DError(f"{decoder}: not a SAM-style decoder, it returns {', '.join(self._outputs)}")
        self._input = self._encoder.get_inputs()[0].name
        self._shape = input_shape(self._encoder)

    def embed(self, image: NDArray[np.uint8]) -> Embedding:
        """Encodes an (H, W, 3) RGB image. Raises `Motion4DError` where the network answers nonsense."""
        height, width = image.shape[:2]
        side = (self._shape[-1] or SIDE) if len(self._shape) == 4 else SIDE
        factor = side / max(height, width)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(image, size, interpolation=method).astype(np.float32)
        if len(self._shape) == 4:
            mean, deviation = normalisation("imagenet")
            padded = np.zeros((1, 3, side, side), np.float32)
            padded[0, :, : size[1], : size[0]] = ((resized - mean) / deviation).transpose(2, 0, 1)
            resized = padded
        features = np.asarray(self._encoder.run(None, {self._input: resized})[0], np.float32)
        if features.ndim != 4 or features.shape[0] != 1:
            raise Motion4DError(f"the encoder answered {features.shape}, not the features of one image")
        return Embedding(_finite(features, "encoder"), (height, width))

    def try_out(self) -> None:
        """One small image, one point. Raises `Motion4DError` when the two files do not work together."""
        try:
            embedding = self.embed(np.full((48, 64, 3), 128, np.uint8))
            self.decode(embedding, np.array([[32.0, 24.0]]), [True])
        except Exception as error:  # onnxruntime raises its own types, one per kind of defect
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise Motion4DError(
                f"{self._files}: not an encoder and a decoder of one SAM-style network ({reason})"
            ) from None

    def decode(
        self,
        embedding: Embedding,
        points_px: FloatArray | None = None,
        positive: BoolArray | Sequence[bool] = (),
        box_px: FloatArray | None = None,
        mask: FloatArray | None = None,
    ) -> Decoded:
        """The mask that (P, 2) points x, y with their signs, a box x0, y0, x1, y1 and a prior mask ask for.

        All in image pixels; `mask` (H, W) holds probabilities. Give at least one of the three. Raises `Motion4DError`
        where the network answers nonsense.
        """
        coords, labels = self._sparse(embedding, points_px, positive, box_px)
        dense = np.zeros((1, 1, LOW, LOW), np.float32) if mask is None else _low_resolution(mask, embedding)
        feeds: dict[str, Any] = {
            "image_embeddings": embedding.features,
            "point_coords": coords,
            "point_labels": labels,
            "mask_input": dense,
            "has_mask_input": np.array([mask is not None], np.float32),
            # the full-size mask is made here from the low-resolution one: the decoder's own costs more and is the same
            "orig_im_size": np.array([LOW, LOW], np.float32),
        }
        scores, low = self._decoder.run(["iou_predictions", "low_res_masks"], feeds)
        if low.ndim != 4 or low.shape[2:] != (LOW, LOW) or scores.shape != low.shape[:2]:
            raise Motion4DError(f"the decoder answered {low.shape} and {scores.shape}, not masks of {LOW} px")
        best = int(np.argmax(_finite(scores, "decoder")[0]))
        rows, columns = _extent(embedding)
        kept = _finite(np.asarray(low[0, best, :rows, :columns], np.float32), "decoder")
        return Decoded(full_size(kept, embedding.size), kept, float(scores[0, best]))

    def _sparse(
        self,
        embedding: Embedding,
        points_px: FloatArray | None,
        positive: BoolArray | Sequence[bool],
        box_px: FloatArray | None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        points = np.zeros((0, 2)) if points_px is None else np.asarray(points_px, float).reshape(-1, 2)
        labels: NDArray[np.float32] = np.asarray(positive, np.float32).reshape(-1)
        if len(points) != len(labels):
            raise ValueError(f"{len(points)} points with {len(labels)} signs")
        if box_px is not None:  # SAM means pixel edges, we mean pixel centres
            corners = np.asarray(box_px, float).reshape(2, 2) + np.array([[-0.5, -0.5], [0.5, 0.5]])
            coords = np.concatenate([points, corners])
            labels = np.concatenate([labels, np.array(LABEL_BOX, np.float32)])
            return (coords[None] + 0.5).astype(np.float32) * embedding.scale, labels[None]
        coords = np.concatenate([(points + 0.5) * embedding.scale, np.zeros((1, 2))])
        labels = np.concatenate([labels, np.array([LABEL_PADDING], np.float32)])
        return coords[None].astype(np.float32), labels[None]


def _finite(values: NDArray[np.float32], part: str) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise Motion4DError(f"the {part} answered NaN or infinity")
    return values


def _extent(embedding: Embedding) -> tuple[int, int]:
    """(rows, columns) of a low-resolution mask that the image covers; the rest is padding."""
    rows, cols = (max(1, round(n * embedding.scale * LOW / SIDE)) for n in embedding.size)
    return rows, cols


def _low_resolution(mask: FloatArray, embedding: Embedding) -> NDArray[np.float32]:
    """(1, 1, 256, 256) logits of an (H, W) probability mask, negative in the padding."""
    rows, cols = _extent(embedding)
    out = np.full((1, 1, LOW, LOW), -MASK_LOGIT, np.float32)
    small = cv2.resize(np.asarray(mask, np.float32), (cols, rows), interpolation=cv2.INTER_AREA)
    out[0, 0, :rows, :cols] = (2 * small - 1) * MASK_LOGIT
    return out


def full_size(low: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """(H, W) logits at `size` (height, width) of (h, w) ones that cover the same image."""
    return np.asarray(cv2.resize(low.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
