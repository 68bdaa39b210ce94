"""TAP-Vid DAVIS (Doersch et al., NeurIPS 2022): AJ, <delta_avg and OA, for queries `first` and `strided`.

Points are normalised, (0, 0) the corner of the first pixel; ours are pixels, with (0, 0) in its middle. Videos are
analysed at the size they have in the file, and judged on the 256 x 256 grid of the protocol.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.evaluation.benchmarks.artefacts import read_tracks, write_npy, write_png
from motion4d_ros.evaluation.benchmarks.davis import RATE
from motion4d_ros.evaluation.benchmarks.interfaces import Column, Figures, Place, mean_of
from motion4d_ros.evaluation.benchmarks.plain_pickle import load_plain_pickle
from motion4d_ros.evaluation.metrics.tracking import score_tracks, strided_queries
from motion4d_ros.types import BoolArray, FloatArray, IntArray, Motion4DError

FILE = "tapvid_davis.pkl"
MODES = ("first", "strided")


class TapVidDavis:
    """The 30 videos of DAVIS 2017 val, as published in one file."""

    name = "tapvid-davis"
    title = "TAP-Vid DAVIS"
    layout = f"{FILE} (or a folder tapvid_davis with it)"
    columns = tuple(
        Column(f"{mode} {name}", f"{meaning}, queries {mode}")
        for mode in MODES
        for name, meaning in (
            ("AJ", "average Jaccard"),
            ("davg", "share within 1, 2, 4, 8, 16 px"),
            ("OA", "visibility"),
        )
    )

    def sequences(self, root: Path) -> list[str]:
        file = _file(root)
        return sorted(_videos(file)) if file else []

    def prepare(self, place: Place, folder: Path) -> list[str]:
        video, xy, visible = _clip(place)
        images = folder / "images"
        for index, image in enumerate(video):
            write_png(images / f"{index:05d}.png", image)
        queries = np.concatenate([_queries(xy, visible, mode)[0] for mode in MODES])
        write_npy(folder / "queries.npy", queries)
        return [str(images), "--fps", str(RATE), "--queries", str(folder / "queries.npy")]

    def score(self, place: Place, out: Path) -> Figures:
        video, xy, visible = _clip(place)
        size = video.shape[1], video.shape[2]
        tracks, start = read_tracks(out), 0
        asked = {mode: _queries(xy, visible, mode) for mode in MODES}
        expected = (sum(len(queries) for queries, _ in asked.values()), len(video))
        if tracks.occluded.shape != expected:
            raise Motion4DError(f"{out}: tracks of shape {tracks.occluded.shape} for queries and frames {expected}")
        figures: Figures = {}
        for mode, (queries, rows) in asked.items():
            mine = slice(start, start + len(queries))
            start += len(queries)
            scores = score_tracks(
                tracks.xy[mine], tracks.occluded[mine], xy[rows], visible[rows], queries[:, 0], size, mode
            )
            figures |= {f"{mode} AJ": scores.AJ, f"{mode} davg": scores.davg, f"{mode} OA": scores.OA}
        return figures

    def mean(self, rows: Sequence[Figures]) -> Figures:
        return mean_of(rows)


def _file(root: Path) -> Path | None:
    candidates = [root, root / FILE, root / "tapvid_davis" / FILE]
    return next((path for path in candidates if path.is_file() and path.suffix == ".pkl"), None)


@functools.lru_cache(maxsize=1)
def _videos(file: Path) -> Mapping[str, Mapping[str, Any]]:
    content = load_plain_pickle(file)
    if not isinstance(content, dict) or not all(isinstance(video, dict) for video in content.values()):
        raise Motion4DError(f"{file}: expected a dict of videos, as TAP-Vid DAVIS is published")
    return {str(name): video for name, video in content.items()}


def _clip(place: Place) -> tuple[NDArray[np.uint8], FloatArray, BoolArray]:
    """Frames (T, H, W, 3), points (N, T, 2) px and whether they are seen (N, T), of the points seen at all."""
    file = _file(place.root)
    video = _videos(file).get(place.name) if file else None
    if video is None:
        raise Motion4DError(f"{place.name}: not in {file or place.root / FILE}")
    try:
        frames, points, occluded = (np.asarray(video[key]) for key in ("video", "points", "occluded"))
    except KeyError as error:
        raise Motion4DError(f"{file}: {place.name} has no {error.args[0]!r}") from None
    if frames.ndim != 4 or frames.dtype != np.uint8 or points.shape != (*occluded.shape, 2) or points.ndim != 3:
        raise Motion4DError(f"{file}: {place.name} has frames of shape {frames.shape}, points of {points.shape}")
    if not 0 < len(frames) == points.shape[1]:
        raise Motion4DError(f"{file}: {place.name} has {len(frames)} frames, and points of {points.shape[1]}")
    frames, points, occluded = frames[: place.limit], points[:, : place.limit], occluded[:, : place.limit]
    visible = ~occluded.astype(bool)
    seen = visible.any(1)
    size = np.array([frames.shape[2], frames.shape[1]], float)
    return frames, points[seen].astype(float) * size - 0.5, visible[seen]


def _queries(xy: FloatArray, visible: BoolArray, mode: str) -> tuple[FloatArray, IntArray]:
    """(Q, 3) t, y, x px and (Q,) which true track each is of."""
    if mode == "strided":
        return strided_queries(xy, visible)
    first = visible.argmax(1)
    rows = np.arange(len(xy))
    at = xy[rows, first]
    return np.stack([first, at[:, 1], at[:, 0]], -1).astype(float), rows
