"""Detections by a network of our own: `detections.source: onnx`. What comes with a frame by itself stands above it."""

from __future__ import annotations

from collections import Counter

from motion4d_ros.config import Config
from motion4d_ros.imagery.detections import RawBox, class_name, clean
from motion4d_ros.models.onnx_detector import OnnxDetector, load_detector
from motion4d_ros.types import Detection, Frame


class NetworkDetections:
    """One network, no memory. It looks at every `detections.every`th frame."""

    def __init__(self, config: Config, detector: OnnxDetector | None = None) -> None:
        self._detector = detector or load_detector(config)
        self._every = config.detections.every
        self.left_out: Counter[str] = Counter()  # what could not be used, by reason, since the start

    def detections(self, frame: Frame) -> tuple[Detection, ...] | None:
        """What is seen in `frame`, in its pixels; None where nobody looks."""
        if frame.index % self._every:
            return None
        found = self._detector.detect(frame.image)
        raw = [
            RawBox(x0, y0, x1 - x0, y1 - y0, self._detector.name_of(kind) or class_name(kind), score)
            for (x0, y0, x1, y1), kind, score in zip(
                found.corners.tolist(), found.classes.tolist(), found.scores.tolist(), strict=True
            )
        ]
        return clean(raw, frame.camera.size, self.left_out)
