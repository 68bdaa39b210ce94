"""Scores an analysis against exact truth, beside what the 2D priors alone give."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.evaluation.baseline import priors_alone
from motion4d_ros.evaluation.metrics import point_errors, score_masks, score_tracks
from motion4d_ros.evaluation.metrics.tracking import evaluated_frames
from motion4d_ros.types import BoolArray, IntArray, Motion4DError

Truth: TypeAlias = Mapping[str, NDArray]  # the arrays of a gt.npz
Scores: TypeAlias = dict[str, float]

NEEDED = ("masks", "queries", "tracks_xyz", "tracks_yx", "visible", "query_object")
COLUMNS = {
    "J": "overlap of found and true masks: IoU, mean over objects and frames; 1 is perfect",
    "worst": "least of these IoUs",
    "F": "how well outlines agree (DAVIS boundary measure); 1 is perfect",
    "JF": "mean of J and F",
    "flips": "how often an object changes its id, summed over objects; 0 is perfect",
    "labels": "different ids given",
    "EPE": "3D error of visible points on objects, mean, m (at most 1 each)",
    "d05": "share of them within 5 cm",
    "d10": "share of them within 10 cm",
    "AJ": "points followed in 2D, place and visibility in one (TAP-Vid average Jaccard); 1 is perfect",
    "davg": "share of visible points within 1, 2, 4, 8, 16 px (of 256), mean (TAP-Vid)",
    "OA": "share of points rightly called visible or hidden (TAP-Vid)",
    "EPE_static": "3D error of visible static points, mean, m",
}


@dataclass(frozen=True)
class Result:
    """What an analysis says: masks and tracks of the query points."""

    masks: IntArray  # (T, H, W)
    tracks_xy: NDArray  # (Q, T, 2) px
    tracks_xyz: NDArray  # (Q, T, 3) m
    occluded: BoolArray  # (Q, T)


def load_truth(path: Path) -> dict[str, NDArray]:
    """Reads ``gt.npz`` (the file, or a folder that holds it). Raises `Motion4DError`."""
    file = path / "gt.npz" if path.is_dir() else path
    try:
        with np.load(file, allow_pickle=False) as arrays:
            truth = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise Motion4DError(f"{file}: no readable ground truth ({error})") from None
    missing = [name for name in NEEDED if name not in truth]
    if missing:
        raise Motion4DError(f"{file}: ground truth lacks {', '.join(missing)}")
    return truth


def read_masks(folder: Path) -> IntArray:
    """(T, H, W) label images ``masks/*.png`` of an analysis, in order. Raises `Motion4DError`."""
    files = sorted((folder / "masks").glob("*.png"))
    if not files:
        raise Motion4DError(f"{folder / 'masks'}: no label images; is this the --out folder of an analysis?")
    images = [_read_labels(file) for file in files]
    if len({image.shape for image in images}) > 1:
        raise Motion4DError(f"{folder / 'masks'}: label images of different sizes")
    return np.stack(images)


def load_result(folder: Path) -> Result:
    """Reads ``masks/*.png`` and ``tracks.npz`` of an analysis. Raises `Motion4DError`."""
    masks = read_masks(folder)
    try:
        with np.load(folder / "tracks.npz", allow_pickle=False) as arrays:
            return Result(
                masks=masks,
                tracks_xy=arrays["tracks"],
                tracks_xyz=arrays["tracks_xyz"],
                occluded=arrays["occluded"].astype(bool),
            )
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise Motion4DError(f"{folder / 'tracks.npz'}: cannot be read ({error})") from None


def read_true_masks(folder: Path) -> IntArray:
    """(T, H, W) ids of a video's true masks, ``*.png`` in order: grey values are ids. Raises `Motion4DError`."""
    images = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in sorted(folder.glob("*.png"))]
    known = [image for image in images if image is not None]
    if not known or len(known) < len(images) or len({image.shape for image in known}) > 1:
        raise Motion4DError(f"{folder}: one readable mask per frame, *.png of one size, is needed")
    return np.stack(known).astype(np.int64)


def score_labels(found: IntArray, truth: IntArray) -> Scores:
    """Figures of ids (T, H, W) alone."""
    masks = score_masks(found, truth)
    return {
        "J": masks.J,
        "worst": masks.worst,
        "F": masks.F,
        "JF": masks.JF,
        "flips": masks.flips,
        "labels": masks.labels,
    }


def _read_labels(file: Path) -> IntArray:
    image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 2:
        raise Motion4DError(f"{file}: not a label image (one channel, 8 or 16 bit)")
    return image.astype(np.int64)


def score_result(truth: Truth, result: Result) -> Scores:
    """The figures of `COLUMNS` for one result. Raises `Motion4DError` when its shapes don't fit the truth."""
    frames = len(truth["masks"])
    if result.masks.shape != truth["masks"].shape:
        raise Motion4DError(
            f"masks of shape {result.masks.shape} for a truth of {truth['masks'].shape}: every frame counts"
        )
    expected = (len(truth["queries"]), frames)
    if result.occluded.shape != expected:
        raise Motion4DError(
            f"tracks of shape {result.occluded.shape} for {expected[0]} queries over {expected[1]} frames: "
            "analyse with --queries and the truth's queries.npy"
        )
    labels = score_labels(result.masks, truth["masks"].astype(np.int64))
    return {**labels, **score_points(truth, result.tracks_xy, result.tracks_xyz, result.occluded)}


def score_points(truth: Truth, tracks_xy: NDArray, tracks_xyz: NDArray, occluded: BoolArray) -> Scores:
    """Figures of tracks alone, (Q, T, 2), (Q, T, 3), (Q, T) for the truth's queries and frames."""
    frames, height, width = truth["masks"].shape
    starts, visible = truth["queries"][:, 0], truth["visible"].astype(bool)
    moving = truth["query_object"] > 0
    tracks = score_tracks(
        tracks_xy[moving],
        occluded[moving],
        truth["tracks_yx"][moving][..., ::-1],
        visible[moving],
        starts[moving],
        (height, width),
    )
    judged = evaluated_frames(starts, frames) & visible
    points = point_errors(tracks_xyz, truth["tracks_xyz"], judged & moving[:, None])
    static = point_errors(tracks_xyz, truth["tracks_xyz"], judged & ~moving[:, None])
    return {
        "EPE": points.epe_m,
        "d05": points.d05,
        "d10": points.d10,
        "AJ": tracks.AJ,
        "davg": tracks.davg,
        "OA": tracks.OA,
        "EPE_static": static.epe_m,
    }


def score_priors(truth: Truth) -> Scores | None:
    """The baseline: given masks, chained flow, given depth. None where the truth holds no inputs."""
    if not all(name in truth for name in ("images", "in_masks", "in_depth", "K", "T_wc")):
        return None
    masks, tracks, xyz, occluded = priors_alone(truth)
    return score_result(truth, Result(masks.astype(np.int64), tracks, xyz, occluded))
