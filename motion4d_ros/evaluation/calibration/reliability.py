"""Probabilities against what came true: reliability diagrams and their expected calibration error (ECE)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.evaluation.calibration.consistency import match
from motion4d_ros.evaluation.calibration.recording import Recording
from motion4d_ros.evaluation.score import Truth
from motion4d_ros.fit.output.track_confidence import WITHIN_M, WITHIN_PX
from motion4d_ros.types import BoolArray, FloatArray, Stage

BINS = 10
PIXELS = 20_000  # of a scene's masks that are judged, at random


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
    """Of one scene: "tracks", "masks", "existence"."""
    matched = {found: true_id for true_id, found in match(truth, recording).items()}
    return {
        "tracks": _of_tracks(truth, recording),
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
