"""`motion4d evaluate`: scores what truth and results have in common, and says what was left out and why."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from motion4d_ros.evaluation.metrics import match_labels
from motion4d_ros.evaluation.score import NEEDED, Scores, Truth, score_labels, score_points, score_priors
from motion4d_ros.imagery.void_labels import VOID, looks_void
from motion4d_ros.types import BoolArray, IntArray, Motion4DError

POINT_ARRAYS = tuple(name for name in NEEDED if name != "masks")
TRUTH_FOLDERS = ("truth", "gt", "mask", "annotation")  # words in the names of folders that hold true masks
SAME_QUERY_PX = 0.5  # query points that are closer are the same


@dataclass
class Comparison:
    """Scores by name ("priors", "online", "final"), and what a reader has to know about them."""

    scores: dict[str, Scores] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def remark(self, text: str) -> None:
        """Notes something, once."""
        if text not in self.remarks:
            self.remarks.append(text)


@dataclass(frozen=True)
class _Labels:
    """Label images in order: ids (T, H, W), 0 background, and the frame numbers in their names (None: no numbers)."""

    ids: IntArray
    numbers: list[int] | None
    void: BoolArray | None = None  # (T, H, W) pixels that nobody judges


def compare(truth: Path, out: Path | None) -> Comparison:
    """Scores the analysis (or folder of label images) `out` against `truth`; None: the truth's own 2D inputs only.

    `truth` is a `gt.npz`, a folder that holds one, or a folder of true masks. Raises `Motion4DError` when nothing can
    be compared.
    """
    if not truth.exists():
        raise Motion4DError(f"{truth}: no such file or folder")
    if out is not None and not out.is_dir():
        raise Motion4DError(f"{out}: no such folder; name the --out folder of an analysis")
    if truth.is_dir() and not (truth / "gt.npz").exists():
        return _compare_with_masks(_true_masks(truth), truth, out)
    return _compare_with_arrays(_load(truth / "gt.npz" if truth.is_dir() else truth), out)


# -- true masks only ---------------------------------------------------------------------------------------------------


def _compare_with_masks(truth: _Labels, folder: Path, out: Path | None) -> Comparison:
    if out is None:
        raise Motion4DError(f"{folder}: true masks score an analysis; name its folder, too")
    result = Comparison()
    _tell_state(result, out)
    for name, masks in _mask_folders(out):
        _score_masks(result, name, _read_labels(masks), truth, masks)
    if (out / "tracks.npz").exists():
        result.remark("tracks are not scored: the truth holds masks only")
    return result


def _score_masks(result: Comparison, name: str, found: _Labels, truth: _Labels, folder: Path) -> None:
    """Adds the scores of label images; frames are paired by `_pair`."""
    if found.ids.shape[1:] != truth.ids.shape[1:]:
        ours, theirs = ("{2}x{1}".format(*labels.ids.shape) for labels in (found, truth))
        raise Motion4DError(f"{folder}: masks of {ours} px, the true ones have {theirs}: of another recording or size?")
    ours_at, truth_at, how = _pair(found, truth)
    if how:
        result.remark(how)
    ids, true_ids = found.ids[ours_at].copy(), truth.ids[truth_at].copy()
    if truth.void is not None:
        void = truth.void[truth_at]
        ids[void], true_ids[void] = 0, 0
        result.remark(f"{100 * void.mean():.1f} % of the pixels are void in the truth ({VOID}) and not judged")
    result.scores[name] = score_labels(ids, true_ids)
    matched = match_labels(ids, true_ids)
    real = {int(i) for i in np.unique(true_ids) if i > 0}
    given = {int(i) for i in np.unique(ids) if i > 0}
    if missed := real - set(matched):
        result.remark(f"{name}: {len(missed)} of {len(real)} true objects have no id of their own in the result")
    if surplus := given - set(matched.values()):
        result.remark(f"{name}: {len(surplus)} of {len(given)} ids in the result are of no true object")


def _pair(found: _Labels, truth: _Labels) -> tuple[list[int], list[int], str]:
    """Which result belongs to which truth, as two lists of positions, and how that was told ("": one to one)."""
    ours, theirs = len(found.ids), len(truth.ids)
    if ours == theirs:
        return list(range(ours)), list(range(theirs)), ""
    numbers = truth.numbers
    contiguous = numbers is None or numbers == list(range(numbers[0], numbers[0] + theirs))
    if ours < theirs and contiguous:
        return (
            list(range(ours)),
            list(range(ours)),
            f"the result has {ours} frames, the truth {theirs}: the first {ours} count",
        )
    if numbers is not None:
        first = 1 if numbers[0] >= 1 and numbers[-1] == ours else 0  # some count from 1
        known = [(number - first, k) for k, number in enumerate(numbers) if 0 <= number - first < ours]
        if known:
            said = f"{len(known)} of {ours} frames have a true mask (matched by the numbers in the files' names)"
            return [at for at, _ in known], [k for _, k in known], said
    raise Motion4DError(
        f"the result has {ours} frames, the truth {theirs}, and no numbers in names tell which belong together"
    )


# -- exact truth -------------------------------------------------------------------------------------------------------


def _compare_with_arrays(truth: Truth, out: Path | None) -> Comparison:
    result = Comparison()
    whole = all(name in truth for name in NEEDED)
    if out is None:
        baseline = score_priors(truth) if whole else None
        if baseline is None:
            raise Motion4DError("the truth holds no 2D inputs of its own to score: name the folder of an analysis")
        result.scores["priors"] = baseline
        return result
    _tell_state(result, out)
    count = _frames(out)
    if count < len(truth["masks"]):
        result.remark(
            f"the result has {count} frames, the truth {len(truth['masks'])}: the first {count} count, and the 2D "
            "inputs are not scored beside them"
        )
    elif whole and (baseline := score_priors(truth)) is not None:
        result.scores["priors"] = baseline
    masks = _Labels(truth["masks"].astype(np.int64), None)
    for name, folder in _mask_folders(out):
        _score_masks(result, name, _read_labels(folder), masks, folder)
        points = _points(result, truth, folder.parent / "tracks.npz")
        if points is not None:
            result.scores[name] |= points
    return result


def _points(result: Comparison, truth: Truth, file: Path) -> Scores | None:
    """Scores of the tracks in `file`, None (with a remark) where they cannot be compared."""
    missing = [name for name in POINT_ARRAYS if name not in truth]
    if missing:
        result.remark(f"tracks are not scored: the truth lacks {', '.join(missing)}")
        return None
    if not file.exists():
        result.remark(f"tracks are not scored: there is no {file}")
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            xy, xyz, occluded = arrays["tracks"], arrays["tracks_xyz"], arrays["occluded"].astype(bool)
            asked = arrays["query_points"] if "query_points" in arrays.files else None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        result.remark(f"tracks are not scored: {file} cannot be read ({error})")
        return None
    queries = truth["queries"]
    same = len(occluded) == len(queries) and (asked is None or np.allclose(asked, queries, atol=SAME_QUERY_PX))
    if not same:
        result.remark(
            f"tracks are not scored: the result follows {len(occluded)} points of its own, not the truth's "
            f"{len(queries)}; analyse with --queries and a .npy of the truth's `queries`"
        )
        return None
    count = min(occluded.shape[1], truth["visible"].shape[1])
    rows = queries[:, 0] < count
    cut: dict[str, NDArray] = {name: truth[name][rows, :count] for name in ("tracks_xyz", "tracks_yx", "visible")}
    cut |= {name: truth[name][rows] for name in ("queries", "query_object")} | {"masks": truth["masks"][:count]}
    return score_points(cut, xy[rows, :count], xyz[rows, :count], occluded[rows, :count])


def _load(file: Path) -> dict[str, NDArray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            truth = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise Motion4DError(f"{file}: no readable ground truth ({error})") from None
    if "masks" not in truth or truth["masks"].ndim != 3:
        raise Motion4DError(f"{file}: ground truth needs `masks` (T, H, W), object ids of every frame")
    return truth


# -- files -------------------------------------------------------------------------------------------------------------


def _tell_state(result: Comparison, out: Path) -> None:
    try:
        metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(metrics, dict) and metrics.get("state") == "partial":
        why = metrics.get("failure") or ("interrupted" if metrics.get("interrupted") else "files are missing")
        result.remark(f"the analysis is partial: {why}")


def _mask_folders(out: Path) -> list[tuple[str, Path]]:
    """The label images of an analysis, "online" and "final"; a folder of nothing but label images is "final"."""
    found = [("online", out / "online" / "masks"), ("final", out / "masks")]
    found = [(name, folder) for name, folder in found if folder.is_dir()]
    if not found and any(out.glob("*.png")):
        found = [("final", out)]
    if not found:
        raise Motion4DError(f"{out}: no label images in it; name the --out folder of an analysis")
    return found


def _frames(out: Path) -> int:
    return len(list(_mask_folders(out)[-1][1].glob("*.png")))


def _true_masks(folder: Path) -> _Labels:
    """Ids of true masks: palette and grey images hold ids, or 0 and 255 for one object."""
    if not any(folder.glob("*.png")):
        below = [path for path in sorted(folder.iterdir()) if path.is_dir() and any(path.glob("*.png"))]
        below.sort(key=lambda path: not any(word in path.name.lower() for word in TRUTH_FOLDERS))
        hint = f"; did you mean {below[0]}?" if below else ""
        raise Motion4DError(f"{folder}: neither gt.npz nor true masks (*.png) in it{hint}")
    labels = _read_labels(folder)
    if looks_void(list(labels.ids)):
        void = labels.ids == VOID
        return _Labels(np.where(void, 0, labels.ids), labels.numbers, void)
    if set(np.unique(labels.ids).tolist()) <= {0, VOID}:
        return _Labels((labels.ids > 0).astype(np.int64), labels.numbers)
    return labels


def _read_labels(folder: Path) -> _Labels:
    """(T, H, W) ids of `*.png`, in the order of their names. Raises `Motion4DError`."""
    files = sorted(folder.glob("*.png"))
    if not files:
        raise Motion4DError(f"{folder}: no label images (*.png) in it")
    images = [_read_ids(file) for file in files]
    odd = next((file for file, image in zip(files, images, strict=True) if image.shape != images[0].shape), None)
    if odd is not None:
        raise Motion4DError(f"{odd}: of another size than {files[0].name}; one size is needed")
    digits = ["".join(filter(str.isdigit, file.stem)) for file in files]
    numbers = [int(text) for text in digits] if all(digits) else None
    ascending = numbers is not None and all(a < b for a, b in pairwise(numbers))
    return _Labels(np.stack(images), numbers if ascending else None)


def _read_ids(file: Path) -> IntArray:
    try:
        with Image.open(file) as opened:
            if opened.mode not in ("P", "L", "1", "I;16", "I"):
                raise Motion4DError(f"{file}: a colour image; label images hold ids (8- or 16-bit grey, or palette)")
            return np.array(opened).astype(np.int64)
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise Motion4DError(f"{file}: cannot be read as a label image ({error})") from None
