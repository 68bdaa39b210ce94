"""Probabilities against what came true: reliability diagrams and their expected calibration error (ECE)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from motion4d_ros.evaluation.calibration.consistency import match
from motion4d_ros.evaluation.calibration.recording import Recording
from motion4d_ros.evaluation.score import Truth
from motion4d_ros.fit.output.track_confidence import WITHIN_M, WITHIN_PX
from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.types import BoolArray, Camera, FloatArray, Stage

BINS = 10
PIXELS = 20_000  # of a scene's masks that are judged, at random
POINTS = 200  # of an object in a frame that are judged, at random
DEPTH_PIXELS = 200  # of a frame, on objects and elsewhere, whose depth is judged, at random
LEAST_SEEN_PX = 50  # of an object, for its points to be judged


@dataclass(frozen=True)
class Forecasts:
    """Probabilities (N,) and what came true (N,)."""

    probability: FloatArray
    true: BoolArray

    def joined(self, other: Forecasts) -> Forecasts:
        """These and the others."""
        return Forecasts(np.concatenate([self.probability, other.probability]), np.concatenate([self.true, other.true]))

    def bins(self) -> list[tuple[float, float, float]]:
        """Share of all, mean probability and share that came true, of each bin that is not empty."""
        number = np.minimum((self.probability * BINS).astype(int), BINS - 1)
        return [
            (float(chosen.mean()), float(self.probability[chosen].mean()), float(self.true[chosen].mean()))
            for chosen in (number == each for each in range(BINS))
            if chosen.any()
        ]

    @property
    def error(self) -> float:
        """ECE: how far probability and share are apart, mean over all (Guo et al., ICML 2017, eq. 3)."""
        return sum(share * abs(probability - true) for share, probability, true in self.bins())


def forecasts(truth: Truth, recording: Recording, seed: int = 0) -> dict[str, Forecasts]:
    """Of one scene: "tracks", "points", "masks", "existence"."""
    matched = {found: true_id for true_id, found in match(truth, recording).items()}
    return {
        "tracks": _of_tracks(truth, recording),
        "points": _of_points(truth, recording, matched, seed),
        "masks": _of_masks(truth, recording, matched, seed),
        "existence": _of_existence(recording, matched),
    }


def _of_tracks(truth: Truth, recording: Recording) -> Forecasts:
    tracks = recording.tracks
    assert tracks is not None
    judged = truth["visible"].astype(bool) & (np.arange(tracks.tracks.shape[1])[None] != truth["queries"][:, :1])
    miss_px = np.linalg.norm(tracks.tracks - truth["tracks_yx"][..., ::-1], axis=-1)
    miss_m = np.linalg.norm(tracks.tracks_xyz - truth["tracks_xyz"], axis=-1)
    right = (miss_px < WITHIN_PX) & (miss_m < WITHIN_M)
    return Forecasts(tracks.confidence[judged].astype(float), right[judged])


def _of_points(truth: Truth, recording: Recording, matched: dict[int, int], seed: int) -> Forecasts:
    """Points are right within `WITHIN_M` of what is seen of their object; those behind it can't be judged."""
    rng, K = np.random.default_rng(seed), truth["K"]
    probability: list[FloatArray] = [np.zeros(0)]
    right: list[BoolArray] = [np.zeros(0, bool)]
    for k in sorted(recording.points):
        points, labels, depth = recording.points[k], truth["masks"][k], truth["depth"][k].astype(float)
        height, width = labels.shape
        camera = Camera(float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]), width, height)
        for found, true_id in matched.items():
            row, column = np.nonzero((labels == true_id) & (depth > 0))
            mine = np.flatnonzero(points.object_id == found)
            if len(row) < LEAST_SEEN_PX or len(mine) == 0:
                continue
            mine = rng.choice(mine, min(POINTS, len(mine)), replace=False)
            surface = camera.unproject(np.stack([column, row], 1).astype(float), depth[row, column])
            xyz = transform_points(np.linalg.inv(truth["T_wc"][k]), points.xyz_map[mine].astype(float))
            pixel = np.rint(np.nan_to_num(camera.project(xyz), nan=-1.0)).astype(int)
            inside = np.flatnonzero((pixel >= 0).all(1) & (pixel < [width, height]).all(1))
            seen = inside[xyz[inside, 2] <= depth[pixel[inside, 1], pixel[inside, 0]] + WITHIN_M]
            probability.append(points.confidence[mine][seen].astype(float))
            right.append(np.asarray(cKDTree(surface).query(xyz[seen])[0] < WITHIN_M))
    return Forecasts(np.concatenate(probability), np.concatenate(right))


def _of_masks(truth: Truth, recording: Recording, matched: dict[int, int], seed: int) -> Forecasts:
    frames = sorted(recording.mask_confidence)
    ours = np.stack([recording.masks[k] for k in frames]).ravel()
    confidence = np.stack([recording.mask_confidence[k] for k in frames]).ravel()
    theirs: NDArray[np.int64] = truth["masks"][frames].astype(np.int64).ravel()
    rng = np.random.default_rng(seed)
    contested = np.flatnonzero((ours > 0) | (theirs > 0))  # elsewhere nobody doubts, and nothing is learnt
    chosen = rng.choice(contested, min(PIXELS, len(contested)), replace=False)
    names = np.zeros(int(ours.max()) + 1, np.int64)
    names[1:] = [matched.get(found, -1) for found in range(1, len(names))]
    return Forecasts(confidence[chosen] / 255.0, names[ours[chosen]] == theirs[chosen])


def _of_existence(recording: Recording, matched: dict[int, int]) -> Forecasts:
    told = [state for frame in recording.objects.get(Stage.WINDOW, {}).values() for state in frame]
    return Forecasts(
        np.array([state.existence for state in told], float), np.array([state.object_id in matched for state in told])
    )


def depth_misses(truth: Truth, recording: Recording, seed: int = 0) -> dict[str, FloatArray]:
    """Errors of rendered depth in units of what is stated, at pixels chosen at random: "objects", "background"."""
    rng = np.random.default_rng(seed)
    misses: dict[str, list[FloatArray]] = {"objects": [np.zeros(0)], "background": [np.zeros(0)]}
    for k, (depth, sigma) in recording.depth.items():
        true: FloatArray = truth["depth"][k].astype(float)
        known = np.isfinite(depth) & (true > 0)
        for name, where in (("objects", truth["masks"][k] > 0), ("background", truth["masks"][k] == 0)):
            pixels = np.flatnonzero(known & where)
            chosen = rng.choice(pixels, min(DEPTH_PIXELS, len(pixels)), replace=False)
            misses[name].append(np.abs(depth.ravel()[chosen] - true.ravel()[chosen]) / sigma.ravel()[chosen])
    return {name: np.concatenate(each) for name, each in misses.items()}
