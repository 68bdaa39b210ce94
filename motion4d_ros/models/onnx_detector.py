"""Detectors as ONNX files, told apart by what they return: RT-DETR and its kin, and YOLOX.

RT-DETR of `transformers` takes RGB in 0 .. 1, squeezed to its size, and returns `logits` (1, Q, C) and `pred_boxes`
(1, Q, 4): centre and size in 0 .. 1. As its authors export it (D-FINE too) it takes `orig_target_sizes` (1, 2), too,
and returns `labels` (1, Q), `boxes` (1, Q, 4): corners in pixels, and `scores` (1, Q). YOLOX takes BGR in 0 .. 255, its
shape kept, grey below and at the right, and returns (1, N, 5 + C): centre, size, objectness and classes of each cell.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.models.class_names import COCO, read_names
from motion4d_ros.models.onnx_session import input_shape, open_session
from motion4d_ros.models.store import ModelStore
from motion4d_ros.types import FloatArray, IntArray, Motion4DError

logger = logging.getLogger(__name__)
SIDE = 640  # px, where a network takes any size
STRIDES = (8, 16, 32)  # px, of YOLOX's cells
GREY = 114  # of what YOLOX's images are filled up with
OVERLAP = 0.45  # IoU of two boxes of one class from which the weaker one goes (YOLOX; RT-DETR needs none of this)
MOST = 1000  # boxes that are looked at, the best scores first
SIZES = "orig_target_sizes"
_NUMBERS: dict[str, Any] = {"tensor(float)": np.float32, "tensor(int32)": np.int32}
RT_DETR, LABELLED, YOLOX = "rt-detr", "labelled boxes", "yolox"


@dataclass(frozen=True)
class Boxes:
    """N boxes of one image in pixel edges: a box over the top-left pixel is 0, 0, 1, 1."""

    corners: FloatArray  # (N, 4) x0, y0, x1, y1
    classes: IntArray  # (N,) number of the class
    scores: FloatArray  # (N,) in 0 .. 1


class OnnxDetector:
    """One network. `detect` is called once per image."""

    def __init__(self, path: Path, config: Config, names: tuple[str, ...]) -> None:
        self._path, self._session, self.names = path, open_session(path, config), names
        self._least = config.detections.score
        inputs = {item.name: item for item in self._session.get_inputs()}
        images = [number for number, item in enumerate(self._session.get_inputs()) if len(item.shape) == 4]
        if len(images) != 1 or not set(inputs) - {SIZES}:
            raise Motion4DError(f"{path}: no detector, it takes {', '.join(inputs)} and not one image")
        item, shape = self._session.get_inputs()[images[0]], input_shape(self._session, images[0])
        if shape[1] not in (3, None):
            raise Motion4DError(f"{path}: no detector, it takes {shape}, not one image (1, 3, height, width)")
        self._input, self._number = item.name, np.float16 if item.type == "tensor(float16)" else np.float32
        self._size = (shape[2] or SIDE, shape[3] or SIDE)
        self._sizes = _NUMBERS.get(inputs[SIZES].type, np.int64) if SIZES in inputs else None
        self._outputs = [out.name for out in self._session.get_outputs()]
        self.kind = self._told_apart()
        self._count: int | None = None  # of classes, where the answers tell

    def detect(self, image: NDArray[np.uint8]) -> Boxes:
        """What is seen in an (H, W, 3) RGB image. Raises `Motion4DError` where the network answers nonsense."""
        height, width = image.shape[:2]
        feed: dict[str, Any] = {self._input: self._prepared(image).astype(self._number)}
        if self._sizes is not None:
            feed[SIZES] = np.array([[width, height]], self._sizes)
        answer = [np.asarray(part) for part in self._session.run(self._outputs, feed)]
        for part in answer:
            if part.dtype.kind == "f" and not np.isfinite(part).all():
                raise Motion4DError("the detector answered NaN or infinity")
        given = dict(zip(self._outputs, answer, strict=True))
        if self.kind != LABELLED:
            self._count = given["logits"].shape[-1] if self.kind == RT_DETR else answer[0].shape[-1] - 5
        if self.kind == RT_DETR:
            return decode_rt_detr(given["logits"], given["pred_boxes"], (height, width), self._least)
        if self.kind == LABELLED:
            return decode_labelled(given["labels"], given["boxes"], given["scores"], self._least)
        return decode_yolox(answer[0], self._size, min(self._size[0] / height, self._size[1] / width), self._least)

    def try_out(self) -> None:
        """One grey image. Raises `Motion4DError` for what is no detector, or one of other classes than `names`."""
        try:
            self.detect(np.full((48, 64, 3), 128, np.uint8))
        except Exception as error:  # onnxruntime raises its own types, one per kind of defect
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise Motion4DError(f"{self._path}: not a detector of the kind RT-DETR or YOLOX ({reason})") from None
        if self._count is None or self._count == len(self.names):
            return
        if self.names is not COCO:
            raise Motion4DError(
                f"{self._path}: tells {self._count} classes apart, and {len(self.names)} names are given: "
                "detections.classes must name a file with as many"
            )
        logger.warning("%s: what its %d classes are called is not known (detections.classes)", self._path, self._count)
        self.names = ()

    def name_of(self, number: int) -> str:
        """The class of that number; empty where it has no name."""
        return self.names[number] if 0 <= number < len(self.names) else ""

    def _told_apart(self) -> str:
        outputs = set(self._outputs)
        if outputs >= {"logits", "pred_boxes"}:
            return RT_DETR
        if outputs >= {"labels", "boxes", "scores"}:
            return LABELLED
        if len(outputs) == 1 and len(self._session.get_outputs()[0].shape) == 3:
            return YOLOX
        raise Motion4DError(
            f"{self._path}: no detector of the kind RT-DETR or YOLOX, it returns {', '.join(self._outputs)}"
        )

    def _prepared(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(1, 3, h, w) as the network wants it."""
        height, width = self._size
        if self.kind != YOLOX:
            method = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_LINEAR
            resized = cv2.resize(image, (width, height), interpolation=method).astype(np.float32) / 255.0
            return np.ascontiguousarray(resized.transpose(2, 0, 1)[None])
        factor = min(height / image.shape[0], width / image.shape[1])
        inner = (max(1, int(image.shape[1] * factor)), max(1, int(image.shape[0] * factor)))
        padded = np.full((height, width, 3), GREY, np.float32)
        padded[: inner[1], : inner[0]] = cv2.resize(image, inner, interpolation=cv2.INTER_LINEAR)[..., ::-1]
        return np.ascontiguousarray(padded.transpose(2, 0, 1)[None])


def decode_rt_detr(logits: NDArray[Any], boxes: NDArray[Any], size: tuple[int, int], least: float) -> Boxes:
    """`logits` (1, Q, C) and `boxes` (1, Q, 4) in 0 .. 1 -> boxes in an image of `size` (height, width)."""
    if logits.ndim != 3 or boxes.shape != (*logits.shape[:2], 4) or logits.shape[0] != 1:
        raise Motion4DError(f"the detector answered {logits.shape} and {boxes.shape}, not logits and boxes")
    scores = 1.0 / (1.0 + np.exp(-np.clip(logits[0].astype(float), -60.0, 60.0)))
    centre, half = boxes[0, :, :2].astype(float), boxes[0, :, 2:].astype(float) / 2.0
    corners = np.concatenate([centre - half, centre + half], -1) * np.tile([size[1], size[0]], 2)
    return _best(corners, scores.argmax(-1), scores.max(-1, initial=0.0), least)


def decode_labelled(labels: NDArray[Any], boxes: NDArray[Any], scores: NDArray[Any], least: float) -> Boxes:
    """`labels` and `scores` (1, Q), `boxes` (1, Q, 4) corners in pixels of the image -> boxes."""
    if boxes.ndim != 3 or boxes.shape[0] != 1 or not labels.shape == scores.shape == boxes.shape[:2]:
        raise Motion4DError(
            f"the detector answered {labels.shape}, {boxes.shape} and {scores.shape}, not labelled boxes"
        )
    return _best(boxes[0].astype(float), labels[0].astype(int), scores[0].astype(float), least)


def decode_yolox(answer: NDArray[Any], size: tuple[int, int], factor: float, least: float) -> Boxes:
    """`answer` (1, N, 5 + C) of an image that was scaled by `factor` to fit `size` (height, width) -> boxes.

    One box of several that overlap and are of one class stays. Networks exported with their boxes decoded already are
    known by sizes that no logarithm of one can have.
    """
    cells, strides = _cells(size)
    if answer.ndim != 3 or answer.shape[0] != 1 or answer.shape[1] != len(cells) or answer.shape[2] < 6:
        raise Motion4DError(f"the detector answered {answer.shape}, not (1, {len(cells)}, 5 + classes) as YOLOX does")
    values = answer[0].astype(float)
    centre, extent = values[:, :2], values[:, 2:4]
    if not extent.max(initial=0.0) > np.log(4.0 * max(size)):
        centre, extent = (centre + cells) * strides, np.exp(extent) * strides
    each = values[:, 4:5] * values[:, 5:]
    corners = np.concatenate([centre - extent / 2.0, centre + extent / 2.0], -1) / factor
    found = _best(corners, each.argmax(-1), each.max(-1), least)
    if len(found.scores) == 0:
        return found
    rectangles = np.concatenate([found.corners[:, :2], found.corners[:, 2:] - found.corners[:, :2]], -1)
    kept = cv2.dnn.NMSBoxesBatched(rectangles.tolist(), found.scores.tolist(), found.classes.tolist(), least, OVERLAP)
    rows = np.asarray(kept, int).reshape(-1)
    return Boxes(found.corners[rows], found.classes[rows], found.scores[rows])


def _cells(size: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """(N, 2) x, y of YOLOX's cells, in cells, and their (N, 1) strides."""
    cells, strides = [], []
    for stride in STRIDES:
        x, y = np.meshgrid(np.arange(size[1] // stride), np.arange(size[0] // stride))
        cells.append(np.stack([x.ravel(), y.ravel()], -1).astype(float))
        strides.append(np.full((x.size, 1), float(stride)))
    return np.concatenate(cells), np.concatenate(strides)


def _best(corners: FloatArray, classes: IntArray, scores: FloatArray, least: float) -> Boxes:
    """Those of at least that score, the best first, `MOST` at most."""
    order = np.argsort(-scores, kind="stable")[:MOST]
    order = order[scores[order] >= least]
    return Boxes(corners[order], classes[order], scores[order])


def load_detector(config: Config) -> OnnxDetector:
    """The network that `detections.model` names, tried out, with the names of its classes. Raises `Motion4DError`."""
    settings = config.detections
    store = ModelStore(config.models.folder)
    located = store.resolve(settings.model, "detector", {"onnx_detector"}, "detections.model")
    path = located.paths[0]
    if path.is_dir():
        raise Motion4DError(f"detections.model={path}: must be an ONNX file")
    if settings.classes:
        names = read_names(Path(settings.classes).expanduser())
    else:
        beside = (path.with_suffix(".txt"), path.parent / "config.json", path.parent.parent / "config.json")
        described = next((file for file in beside if file.is_file()), None)
        names = COCO if described is None else read_names(described)
    detector = OnnxDetector(path, config, names)
    detector.try_out()
    return detector
