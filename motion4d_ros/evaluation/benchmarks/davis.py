"""DAVIS 2016 and 2017 (semi-supervised): J, F and their mean (Perazzi et al., CVPR 2016; Pont-Tuset et al., 2017).

The first frame is given and the last one is left out, so neither is judged, as in the benchmark's own tools. 2016 has
one object a sequence, 2017 several, over all of which the mean is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from motion4d_ros.evaluation.benchmarks.artefacts import write_png
from motion4d_ros.evaluation.benchmarks.interfaces import FIRST_MASK, Column, Figures, Place, mean_of
from motion4d_ros.evaluation.metrics.segmentation import boundary_f, region_j
from motion4d_ros.evaluation.score import read_masks
from motion4d_ros.imagery.void_labels import VOID
from motion4d_ros.offline.sources.files.side_files import read_labels
from motion4d_ros.types import IntArray, Motion4DError

RATE = 24  # frames a second of DAVIS
IMAGES = ("JPEGImages/480p/{}", "JPEGImages/Full-Resolution/{}", "{}/images")
TRUTHS = ("Annotations/480p/{}", "Annotations/Full-Resolution/{}", "{}/truth", "{}/masks")


class Davis:
    """One of the two years."""

    layout = "JPEGImages/480p, Annotations/480p and ImageSets of DAVIS, or folders NAME/images with NAME/truth"
    columns = (
        Column("J&F", "mean of J and F"),
        Column("J", "region similarity: intersection over union"),
        Column("F", "accuracy of the boundaries"),
        Column("objects", "objects judged", 0),
    )

    def __init__(self, year: int) -> None:
        self._year = year
        self.name = f"davis{year}"
        self.title = f"DAVIS {year} val, " + ("one object" if year == 2016 else "several objects, semi-supervised")

    def sequences(self, root: Path) -> list[str]:
        listed = [root / f"ImageSets/{self._year}/val.txt", root / "ImageSets/480p/val.txt"]
        for path in listed:
            if path.is_file():
                return _names(path.read_text(encoding="utf-8"))
        names = {path.name for path in root.glob("JPEGImages/480p/*") if path.is_dir()}
        names |= {path.parent.name for path in root.glob("*/images") if _first(root, TRUTHS, path.parent.name)}
        return sorted(names)

    def prepare(self, place: Place, folder: Path) -> list[str]:
        words = [str(_images(place)), "--fps", str(RATE)]
        if place.given == FIRST_MASK:
            first = self._truth(place)[0]
            write_png(folder / "first.png", first.astype(np.uint8))
            words += ["--prompt-mask", str(folder / "first.png")]
        return words

    def score(self, place: Place, out: Path) -> Figures:
        found, truth = read_masks(out), self._truth(place)
        if place.given != FIRST_MASK:
            if self._year != 2016:
                raise Motion4DError("davis2017 is scored with the first frame given: --given first-mask")
            found = (found > 0).astype(np.int64)
        return davis_figures(found, truth)

    def mean(self, rows: Sequence[Figures]) -> Figures:
        counts = [row["objects"] for row in rows]
        return {**mean_of(rows, counts), "objects": float(sum(counts))}

    def _truth(self, place: Place) -> IntArray:
        """(T, H, W) ids."""
        folder = _first(place.root, TRUTHS, place.name)
        files = sorted(folder.glob("*.png"))[: place.limit] if folder else []
        if len(files) < 3:
            raise Motion4DError(f"{place.name}: fewer than three true masks in {folder or place.root}")
        labels = np.stack([read_labels(file) for file in files]).astype(np.int64)
        return (labels > 0).astype(np.int64) if self._year == 2016 else np.where(labels == VOID, 0, labels)


def davis_figures(found: IntArray, truth: IntArray) -> Figures:
    """Means over the objects of the first frame; (T, H, W) ids, the same in both. Raises `Motion4DError`."""
    if found.shape != truth.shape:
        raise Motion4DError(f"masks of shape {found.shape} for a truth of {truth.shape}: every frame counts")
    ids = [int(i) for i in np.unique(truth[0]) if i > 0]
    if not ids:
        raise Motion4DError("the first true mask shows no object")
    judged = range(1, len(truth) - 1)
    j = [np.mean([region_j(found[t] == i, truth[t] == i) for t in judged]) for i in ids]
    f = [np.mean([boundary_f(found[t] == i, truth[t] == i) for t in judged]) for i in ids]
    return {
        "J&F": float(np.mean(j) + np.mean(f)) / 2,
        "J": float(np.mean(j)),
        "F": float(np.mean(f)),
        "objects": len(ids),
    }


def _names(text: str) -> list[str]:
    """Of a list of names (2017), or of pairs of files (2016)."""
    lines = [line.split()[0] for line in text.splitlines() if line.strip()]
    return list(dict.fromkeys(Path(line).parent.name if "/" in line else line for line in lines))


def _first(root: Path, patterns: Sequence[str], name: str) -> Path | None:
    return next((root / p.format(name) for p in patterns if (root / p.format(name)).is_dir()), None)


def _images(place: Place) -> Path:
    folder = _first(place.root, IMAGES, place.name)
    if folder is None:
        raise Motion4DError(f"{place.name}: there is no {place.root / IMAGES[0].format(place.name)}")
    return folder
