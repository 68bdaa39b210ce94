"""TUM RGB-D, Bonn RGB-D Dynamic and 7-Scenes: how well the camera's path is found from images and depth.

ATE and RPE (Sturm et al., IROS 2012): root mean squares of the distance of positions after alignment, and of the
motion from one judged frame to the next. Alignment is rigid where lengths are metres, else of scale, too, which the
column `scaled` says. True poses are not given to the analysis.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from motion4d_ros.evaluation.benchmarks.artefacts import StampedPoses, read_tum
from motion4d_ros.evaluation.benchmarks.interfaces import Column, Figures, Place, mean_of
from motion4d_ros.evaluation.metrics.trajectory import (
    absolute_trajectory_error,
    align_umeyama,
    associate,
    relative_pose_error,
)
from motion4d_ros.types import FloatArray, Motion4DError, Scale

COLUMNS = (
    Column("ATE", "absolute trajectory error, RMSE after alignment, m", 4),
    Column("RPE", "error of the motion between judged frames, RMSE, m", 4),
    Column("RPE deg", "the same, of the rotation, degrees", 3),
    Column("judged", "share of the frames that have a true pose", 2),
    Column("scaled", "1: aligned with a scale, since lengths are no metres", 0),
)
FEWEST = 3  # poses that an alignment needs


class RgbdDynamic:
    """Recordings as TUM publishes them (`rgb.txt`, `depth.txt`, `groundtruth.txt`); Bonn's are the same."""

    layout = "recordings with rgb.txt, depth.txt and groundtruth.txt"
    columns = COLUMNS

    def __init__(self, name: str, title: str) -> None:
        self.name, self.title = name, title

    def sequences(self, root: Path) -> list[str]:
        return sorted(
            path.parent.name for path in root.glob("*/groundtruth.txt") if (path.parent / "rgb.txt").is_file()
        )

    def prepare(self, place: Place, folder: Path) -> list[str]:
        return [str(place.root / place.name), "--poses", "none"]

    def score(self, place: Place, out: Path) -> Figures:
        found, truth = read_tum(out / "trajectory.tum"), read_tum(place.root / place.name / "groundtruth.txt")
        rows, others = associate(found.stamps_s, truth.stamps_s)
        return trajectory_figures(found.T_map_cam[rows], truth.T_map_cam[others], len(found.stamps_s), is_metric(out))

    def mean(self, rows: Sequence[Figures]) -> Figures:
        return mean_of(rows)


class SevenScenes:
    """7-Scenes (Shotton et al., CVPR 2013): the sequences of the test splits, or a folder of frames."""

    name = "7scenes"
    title = "7-Scenes"
    layout = (
        "SCENE/seq-NN with frame-NNNNNN.color, .depth and .pose files (and SCENE/TestSplit.txt), or one such folder"
    )
    columns = COLUMNS

    def sequences(self, root: Path) -> list[str]:
        if any(root.glob("*.pose.txt")):
            return [root.resolve().name]
        found = []
        for scene in sorted(path for path in root.glob("*") if path.is_dir()):
            split = scene / "TestSplit.txt"
            if split.is_file():
                numbers = re.findall(r"\d+", split.read_text(encoding="utf-8"))
                found += [f"{scene.name}/seq-{int(number):02d}" for number in numbers]
            else:
                found += [f"{scene.name}/{path.name}" for path in sorted(scene.glob("seq-*")) if path.is_dir()]
        return found

    def prepare(self, place: Place, folder: Path) -> list[str]:
        return [str(_frames_of(place).resolve()), "--poses", "none"]

    def score(self, place: Place, out: Path) -> Figures:
        files = sorted(_frames_of(place).glob("*.pose.txt"))[: place.limit]
        found = read_tum(out / "trajectory.tum")
        if len(files) != len(found.stamps_s):
            raise Motion4DError(f"{place.name}: {len(found.stamps_s)} poses found for {len(files)} true ones")
        truth = StampedPoses(found.stamps_s, np.stack([_pose(file) for file in files]))
        good = np.isfinite(truth.T_map_cam.reshape(-1, 16)).all(1)  # where tracking was lost, the data set says NaN
        return trajectory_figures(found.T_map_cam[good], truth.T_map_cam[good], len(files), is_metric(out))

    def mean(self, rows: Sequence[Figures]) -> Figures:
        return mean_of(rows)


def trajectory_figures(T_map_cam: FloatArray, truth: FloatArray, frames: int, metric: bool) -> Figures:
    """Of (T, 4, 4) poses that belong together, out of so many frames. Raises `Motion4DError` for too few."""
    if len(truth) < FEWEST:
        raise Motion4DError(f"{len(truth)} of {frames} frames have a true pose: at least {FEWEST} are needed")
    scale = 1.0
    if not metric:
        scale, *_ = align_umeyama(T_map_cam[:, :3, 3], truth[:, :3, 3], with_scale=True)
    metres, degrees = relative_pose_error(T_map_cam, truth, scale)
    return {
        "ATE": absolute_trajectory_error(T_map_cam, truth, with_scale=not metric),
        "RPE": metres,
        "RPE deg": degrees,
        "judged": len(truth) / max(1, frames),
        "scaled": float(not metric),
    }


def is_metric(out: Path) -> bool:
    """Whether lengths of an analysis are metres."""
    content = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return all(scene.get("scale") == Scale.METRIC.value for scene in content.get("scenes", [{}]))


def _frames_of(place: Place) -> Path:
    """The folder of a sequence of 7-Scenes; the root itself where that holds the frames."""
    return place.root if any(place.root.glob("*.pose.txt")) else place.root / place.name


def _pose(file: Path) -> FloatArray:
    """(4, 4); NaN where it is none."""
    try:
        T = np.loadtxt(file)
    except (OSError, ValueError):
        T = np.full((4, 4), np.nan)
    return np.asarray(T, float) if T.shape == (4, 4) else np.full((4, 4), np.nan)
