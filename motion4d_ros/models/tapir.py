"""Online TAPIR, a causal point tracker (Doersch et al., "TAPIR", 2023, and "BootsTAP", 2024), by the `tapnet` package.

The network squeezes images to a square of 256 px. Its state holds about 1 MB for every point, so points are few.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tapnet.torch import tapir_model

from motion4d_ros.config import Config
from motion4d_ros.models.store import ModelStore
from motion4d_ros.types import BoolArray, FloatArray, Motion4DError

SIDE = 256  # px, as trained
CHUNK = 256  # points whose cost volumes are held at once


@dataclass
class Points:
    """What is searched for, and what the network remembers of the search: N points along axis 1 of every tensor."""

    features: tapir_model.QueryFeatures
    state: list[dict[str, torch.Tensor]]

    @property
    def count(self) -> int:
        """Number of points N."""
        return int(self.features.lowres[0].shape[1])

    def select(self, rows: NDArray[np.int64] | BoolArray) -> Points:
        """Those points only."""
        index = torch.as_tensor(np.arange(self.count)[rows], device=self.features.lowres[0].device)
        features = tapir_model.QueryFeatures(
            tuple(level[:, index] for level in self.features.lowres),
            tuple(level[:, index] for level in self.features.hires),
            self.features.resolutions,
        )
        return Points(features, [{key: value[:, index] for key, value in part.items()} for part in self.state])

    def joined(self, other: Points) -> Points:
        """These points, then the other's."""
        features = tapir_model.QueryFeatures(
            tuple(torch.cat(pair, 1) for pair in zip(self.features.lowres, other.features.lowres)),
            tuple(torch.cat(pair, 1) for pair in zip(self.features.hires, other.features.hires)),
            self.features.resolutions,
        )
        state = [{key: torch.cat([a[key], b[key]], 1) for key in a} for a, b in zip(self.state, other.state)]
        return Points(features, state)


@dataclass(frozen=True)
class Found:
    """Where N points were seen in T frames."""

    uv_px: NDArray[np.float32]  # (N, T, 2) x, y
    visible: NDArray[np.float32]  # (N, T) probability of being visible and well localised
    doubt: NDArray[np.float32]  # (N, T) probability of being more than a few pixels (of 256) off


class Tapir:
    """The network. `grid` once per image, `points` once per query, `track` once per frame for all points together."""

    def __init__(self, model: tapir_model.TAPIR, device: str = "cpu", half: bool = False) -> None:
        self._model = model.to(device).eval()
        self._device = torch.device(device)
        self._half = half and device == "cuda"

    def grid(self, image: NDArray[np.uint8]) -> tapir_model.FeatureGrids:
        """Features of an (H, W, 3) RGB image."""
        method = cv2.INTER_AREA if min(image.shape[:2]) > SIDE else cv2.INTER_LINEAR
        small = cv2.resize(image, (SIDE, SIDE), interpolation=method).astype(np.float32) / 127.5 - 1.0
        with self._precision():
            return self._model.get_feature_grids(torch.as_tensor(small[None, None], device=self._device), False)

    def points(self, grid: tapir_model.FeatureGrids, uv_px: FloatArray, size: tuple[int, int]) -> Points:
        """The (N, 2) points x, y of the image behind `grid`, whose `size` is (height, width), with a fresh memory."""
        scale = np.array([SIDE / size[1], SIDE / size[0]])
        xy = (np.asarray(uv_px, float) + 0.5) * scale  # TAPIR means pixel edges, we mean pixel centres
        tyx = np.concatenate([np.zeros((len(xy), 1)), xy[:, ::-1]], 1).astype(np.float32)
        blank = torch.empty((1, 1, SIDE, SIDE, 3), device="meta")  # only its shape is looked at
        with self._precision():
            queries = torch.as_tensor(np.ascontiguousarray(tyx)[None], device=self._device)
            features = self._model.get_query_features(blank, False, queries, grid)
        state = self._model.construct_initial_causal_state(len(xy), len(features.resolutions) - 1)
        return Points(features, [{key: value.to(self._device) for key, value in part.items()} for part in state])

    def track(
        self, grids: Sequence[tapir_model.FeatureGrids], points: Points, size: tuple[int, int]
    ) -> tuple[Found, Points]:
        """Finds the points in T frames, in the order given, and remembers; `size` (height, width) of the images."""
        frames = tapir_model.FeatureGrids(
            tuple(torch.cat(levels, 1) for levels in zip(*(grid.lowres for grid in grids))),
            tuple(torch.cat(levels, 1) for levels in zip(*(grid.hires for grid in grids))),
            grids[0].resolutions,
        )
        with self._precision():
            out = self._model.estimate_trajectories(
                (SIDE, SIDE),
                False,
                frames,
                points.features,
                query_points_in_video=None,
                query_chunk_size=CHUNK,
                causal_context=points.state,
                get_causal_context=True,
            )
        xy = out["tracks"][-1][0].float().cpu().numpy() * np.array([size[1] / SIDE, size[0] / SIDE]) - 0.5
        hidden = torch.sigmoid(out["occlusion"][-1][0].float()).cpu().numpy()
        doubt = torch.sigmoid(out["expected_dist"][-1][0].float()).cpu().numpy()
        found = Found(xy.astype(np.float32), (1 - hidden) * (1 - doubt), doubt)
        return found, Points(points.features, out["causal_context"])

    @contextmanager
    def _precision(self) -> Iterator[None]:
        """No gradients; bfloat16 on a GPU where asked for."""
        with torch.inference_mode(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._half):
            yield


def load_tapir(config: Config) -> Tapir:
    """The point tracker `tracks.model` names, on `run.device`."""
    located = ModelStore(config.models.folder).resolve(config.tracks.model, "tapir", {"tapir"}, "tracks.model")
    device = config.run.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Tapir(read_checkpoint(located.paths[0]), device, config.models.half)


def read_checkpoint(path: Path) -> tapir_model.TAPIR:
    """The causal model with its published weights, loaded as plain tensors (never unpickled)."""
    model = tapir_model.TAPIR(pyramid_level=1, use_casual_conv=True)
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # unpickling, missing and surplus keys each raise their own type
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise Motion4DError(f"{path}: not the weights of online (causal) BootsTAPIR ({reason})") from None
    return model
