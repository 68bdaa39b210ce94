"""Tracking any point in 2D: AJ, <delta_avg and OA (Doersch et al., TAP-Vid, NeurIPS 2022, sec. 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from motion4d_ros.types import BoolArray, FloatArray, IntArray

THRESHOLDS_PX = (1, 2, 4, 8, 16)  # on a 256 x 256 grid
GRID_PX = 256


@dataclass(frozen=True)
class TrackScores:
    """Shares in [0, 1]; NaN where nothing was to be judged."""

    AJ: float  # average Jaccard over the thresholds
    davg: float  # share of visible points within a threshold, averaged over the thresholds
    OA: float  # accuracy of the visibility


def evaluated_frames(query_frames: FloatArray, count: int, mode: str = "first") -> BoolArray:
    """(Q, T) which frames are judged: "first" those after the query, "strided" all but the query's own."""
    frame = np.arange(count)[None]
    asked = np.asarray(query_frames).astype(int)[:, None]
    if mode == "first":
        return frame > asked
    if mode == "strided":
        return frame != asked
    raise ValueError(f"mode {mode!r}: choose first or strided")


def score_tracks(
    tracks_xy: FloatArray,
    occluded: BoolArray,
    true_xy: FloatArray,
    visible: BoolArray,
    query_frames: FloatArray,
    size: tuple[int, int],
    mode: str = "first",
) -> TrackScores:
    """Scores (Q, T, 2) pixel tracks with (Q, T) occlusion flags against the truth.

    `query_frames` (Q,); `size` (H, W) of the images: distances are measured on a 256 x 256 grid. NaN: a miss.
    """
    judged = evaluated_frames(query_frames, tracks_xy.shape[1], mode)
    height, width = size
    scale = np.array([GRID_PX / width, GRID_PX / height])
    distance = np.linalg.norm((np.asarray(tracks_xy, float) - true_xy) * scale, axis=-1)
    claimed, truly = ~np.asarray(occluded, bool), np.asarray(visible, bool)
    present = int((truly & judged).sum())
    jaccard, within_share = [], []
    for threshold in THRESHOLDS_PX:
        within = distance < threshold  # False for NaN
        hits = int((within & truly & claimed & judged).sum())
        false_alarms = int((claimed & ~(truly & within) & judged).sum())
        jaccard.append(hits / (present + false_alarms) if present + false_alarms else np.nan)
        within_share.append((within & truly & judged).sum() / present if present else np.nan)
    accuracy = float((claimed == truly)[judged].mean()) if judged.any() else float("nan")
    return TrackScores(float(np.mean(jaccard)), float(np.mean(within_share)), accuracy)


def strided_queries(true_xy: FloatArray, visible: BoolArray, every: int = 5) -> tuple[FloatArray, IntArray]:
    """TAP-Vid's strided protocol: each of N true tracks (N, T, 2) is asked for at each `every`-th frame that shows it.

    Returns queries (Q, 3) as t, y, x and (Q,) the index of the track each of them belongs to.
    """
    rows, frames = np.nonzero(visible[:, ::every])
    frames = frames * every
    xy = true_xy[rows, frames]
    return np.stack([frames, xy[:, 1], xy[:, 0]], -1).astype(float), rows
