"""Detections in a file: COCO's JSON, as detectors write it, and the frames that its images are.

Either a list of results, ``[{"image_id": 0, "category_id": 3, "bbox": [x, y, w, h], "score": 0.9}, …]``, or an object
that holds them under ``annotations`` (or ``results``, ``detections``, ``predictions``) with ``images`` and
``categories``. A result may name its class itself (``category``, ``category_name``, ``label``).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motion4d_ros.imagery.camera import SAME_ASPECT
from motion4d_ros.imagery.detections import RawBox, class_name, clean, told
from motion4d_ros.offline.sources.files.file_names import Keys, read_keys
from motion4d_ros.offline.sources.files.pairing import TOLERANCE_S, pair
from motion4d_ros.offline.sources.interfaces import SourceReport
from motion4d_ros.options import no_such_path
from motion4d_ros.types import Detection, Motion4DError

LISTS = ("annotations", "results", "detections", "predictions")
OPTION = "--detections"


@dataclass
class Listed:
    """One image of the file."""

    stem: str
    size: tuple[int, int] | None = None  # (height, width) that its boxes are given for; None: the frame's
    boxes: list[RawBox] = field(default_factory=list)


class DetectionFile:
    """The detections of frames 0, 1, 2, … Raises `Motion4DError` for a file that cannot be one."""

    def __init__(self, path: Path, report: SourceReport) -> None:
        self._report = report
        self._where = f"{OPTION} {path}"
        self._malformed = 0
        self._named = False  # whether the file lists its images, those without any detection, too
        self._images = self._read(_load(path, self._where))
        self._matched: dict[int, int] = {}
        self._tolerance_ns: int | None = None  # where stamps decide as frames come
        self._keys = read_keys([image.stem for image in self._images])
        boxes = sum(len(image.boxes) for image in self._images)
        report.used["detections"] = f"{path} ({boxes} boxes in {len(self._images)} images)"
        if self._malformed:
            self._warn("entries without a usable bbox, image_id or class were left out", self._malformed)
        if not boxes:
            report.warn(f"{self._where}: holds no detection")

    def match(self, frames: Keys, slop_s: float, *, counted: bool) -> None:
        """Finds which image is which frame (see `pairing.pair`). Raises `Motion4DError` if it cannot."""
        count = len(frames.stems)
        if not self._images:
            return
        numbers = self._keys.numbers
        if not self._named and numbers is not None and all(0 <= number < count for number in numbers):
            self._say({number: k for k, number in enumerate(numbers)}, "image_id counts frames from 0", tell=False)
            return
        if not counted and frames.numbers is None and frames.stamps_ns is None and numbers is not None:
            frames = Keys(frames.stems, None, list(range(count)))
        found = pair(frames, self._keys, "images with detections", self._where, slop_s=slop_s, counted=counted)
        self._say(found.matched, found.how, tell=found.tell)

    def match_stream(self, count: int | None, slop_s: float) -> None:
        """The same for the images of a bag, of which only the number is known: their stamps come with them."""
        if self._keys.stamps_ns is not None and self._keys.absolute:
            self._tolerance_ns = round(max(slop_s, TOLERANCE_S) * 1e9)
            self._report.used["detections"] += "; by stamp"
        else:
            last = max(self._keys.numbers or [0])
            self.match(Keys([str(k) for k in range(count or last + 1)], None, None), slop_s, counted=True)

    def of(self, index: int, size: tuple[int, int], stamp_ns: int = 0) -> tuple[Detection, ...] | None:
        """What was detected in frame `index` of that stamp, whose image is `size` (height, width); None if nobody
        looked.
        """
        position = self._matched.get(index) if self._tolerance_ns is None else self._nearest(stamp_ns)
        if position is None:
            return None if self._named else ()
        image = self._images[position]
        left_out: Counter[str] = Counter()
        found = clean(self._fitted(image, size), size, left_out)
        for line, times in zip(told(left_out), left_out.values(), strict=True):
            self._warn(line, times)
        return found

    def _nearest(self, stamp_ns: int) -> int | None:
        stamps = self._keys.stamps_ns or []
        position = min(range(len(stamps)), key=lambda k: abs(stamps[k] - stamp_ns), default=None)
        near = position is not None and abs(stamps[position] - stamp_ns) <= (self._tolerance_ns or 0)
        return position if near else None

    def _fitted(self, image: Listed, size: tuple[int, int]) -> list[RawBox]:
        """The boxes in pixels of the frame."""
        if image.size is None or image.size == size:
            return image.boxes
        y, x = size[0] / image.size[0], size[1] / image.size[1]
        if abs(x / y - 1.0) > SAME_ASPECT:
            self._warn("images of another shape than the frames': their boxes are taken as they are")
            return image.boxes
        self._warn("images of another size than the frames': their boxes were scaled")
        return [RawBox(b.x * x, b.y * y, b.width * x, b.height * y, b.label, b.score, b.object_id) for b in image.boxes]

    def _say(self, matched: dict[int, int], how: str, *, tell: bool) -> None:
        self._matched = matched
        self._report.used["detections"] += f"; {how}"
        if tell:
            self._report.warn(f"detections: {len(self._images)} images; {how}")

    def _warn(self, text: str, times: int = 1) -> None:
        self._report.warnings[f"detections: {text}"] += times

    # -- reading ------------------------------------------------------------------------------------------------------

    def _read(self, content: Any) -> list[Listed]:
        if isinstance(content, list):
            entries, images, names = content, {}, {}
        elif isinstance(content, Mapping) and (key := next((k for k in LISTS if k in content), None)):
            entries, images = content[key], _images(content.get("images"))
            names = _names(content.get("categories"))
            self._named = bool(images)
        else:
            raise Motion4DError(
                f"{self._where}: neither COCO's list of results nor an object with one of {', '.join(LISTS)}"
            )
        if not isinstance(entries, list):
            raise Motion4DError(f"{self._where}: its results are no list")
        for entry in entries:
            read = _entry(entry, names)
            image = None if read is None else self._image_of(read[0], images)
            if read is None or image is None:
                self._malformed += 1
            else:
                image.boxes.append(read[1])
        listed = list(images.values())
        stems = Counter(image.stem for image in listed)
        if listed and (double := stems.most_common(1)[0])[1] > 1:
            raise Motion4DError(f"{self._where}: {double[1]} of its images are called {double[0]!r}: give one clip's")
        return listed

    def _image_of(self, image_id: str, images: dict[str, Listed]) -> Listed | None:
        if self._named:
            return images.get(image_id)
        return images.setdefault(image_id, Listed(Path(image_id).stem))


def _load(path: Path, where: str) -> Any:
    if not path.exists():
        raise no_such_path(path, OPTION)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise Motion4DError(f"{where}: cannot be read ({getattr(error, 'strerror', None) or 'no text'})") from None
    except json.JSONDecodeError as error:
        raise Motion4DError(f"{where}: not valid JSON ({error.msg}, line {error.lineno})") from None
    except RecursionError:
        raise Motion4DError(f"{where}: nested too deeply to be COCO's JSON") from None


def _images(content: Any) -> dict[str, Listed]:
    """id -> image, of those that have an id; by their file's name where they have one, else by the id."""
    found: dict[str, Listed] = {}
    for item in content if isinstance(content, list) else []:
        if isinstance(item, Mapping) and _is_id(item.get("id")):
            name, size = item.get("file_name"), (item.get("height"), item.get("width"))
            known = all(isinstance(n, int) and n > 0 for n in size)
            stem = Path(name).stem if isinstance(name, str) and name else str(item["id"])
            found[str(item["id"])] = Listed(stem, size if known else None)  # type: ignore[arg-type]
    return found


def _names(content: Any) -> dict[str, str]:
    """id -> name of the classes."""
    items = content if isinstance(content, list) else []
    return {
        str(item["id"]): class_name(item["name"])
        for item in items
        if isinstance(item, Mapping) and _is_id(item.get("id")) and isinstance(item.get("name"), str)
    }


def _entry(entry: Any, names: Mapping[str, str]) -> tuple[str, RawBox] | None:
    """(image_id, box) of one result; None where it has no image, no four numbers, or no class."""
    if not isinstance(entry, Mapping) or not _is_id(entry.get("image_id")):
        return None
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        return None
    label = next((entry[key] for key in ("category", "category_name", "label") if _is_id(entry.get(key))), None)
    if label is None and _is_id(entry.get("category_id")):
        label = names.get(str(entry["category_id"]), entry["category_id"])
    if label is None:
        return None
    score = entry.get("score", 1.0)  # annotations made by people have none
    name = next((entry[key] for key in ("track_id", "object_id") if _is_id(entry.get(key))), "")
    x, y, width, height = (float(value) for value in box)
    raw = RawBox(x, y, width, height, class_name(label), float(score) if _is_number(score) else math.nan, str(name))
    return str(entry["image_id"]), raw


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool) and value != ""


def _is_number(value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return whole or isinstance(value, float)
