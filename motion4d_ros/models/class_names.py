"""What the classes of a detector are called: COCO's, or those of a text or JSON file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motion4d_ros.types import Motion4DError

COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip
"""The 80 classes that detectors trained on COCO 2017 number from 0."""
KEYS = ("id2label", "names", "classes")  # of a JSON file that holds more


def read_names(path: Path) -> tuple[str, ...]:
    """Names by number from 0: a text file with one a line, a JSON list, or JSON with numbers as keys (`id2label`).

    Raises `Motion4DError` for a file that is none of these.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Motion4DError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'no text'})") from None
    if path.suffix.lower() != ".json":
        names = [line.strip() for line in text.splitlines()]
        return _checked(path, names[:-1] if names and not names[-1] else names)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise Motion4DError(f"{path}: not valid JSON") from None
    if isinstance(content, Mapping):
        content = next((content[key] for key in KEYS if key in content), content)
    if isinstance(content, Mapping):
        if set(content) != {str(number) for number in range(len(content))}:
            raise Motion4DError(f"{path}: its classes are not numbered 0, 1, 2, … without gaps")
        content = [content[str(number)] for number in range(len(content))]
    return _checked(path, content)


def _checked(path: Path, names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise Motion4DError(f"{path}: no list of class names (one a line, or a JSON list)")
    return tuple(name.strip() for name in names)
