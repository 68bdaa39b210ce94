"""One frame as the optimiser sees it: tensors, made once and kept while the frame is in the horizon."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from motion4d_ros.fit.optimisation.losses import LocalMeans, local_means
from motion4d_ros.fit.tracks.point_table import PointTable
from motion4d_ros.fit.window.horizon import FrameState
from motion4d_ros.render.render import check_pose
from motion4d_ros.types import UNKNOWN_LABEL, IntArray

LEAST_TRACKS = 8  # that two frames must share for a step to compare them


@dataclass
class Target:
    """What the render of one frame should look like."""

    index: int
    image: Tensor  # (H, W, 3) in [0, 1]
    channels: Tensor  # (H, W) int64 semantic channel of the voted (later: refreshed) label
    known: Tensor  # (H, W) float, 0 where the mask source has no opinion
    depth_m: Tensor  # (H, W) m, 1 where unknown
    depth_weight: Tensor  # (H, W) 0 where unknown, smaller where the source is unsure
    T_cam_map: Tensor  # (4, 4)
    _means: LocalMeans | None = field(default=None, init=False, repr=False)

    def local_means(self) -> LocalMeans:
        """Those of the image, computed when they are first asked for."""
        if self._means is None:
            self._means = LocalMeans(*(means.contiguous() for means in local_means(self.image)))
        return self._means


@dataclass
class TrackTargets:
    """Tracks of the 2D prior between two frames: P points."""

    uv_source: Tensor  # (P, 2) px
    uv_target: Tensor  # (P, 2) px
    weight: Tensor  # (P,) 1 / (1 + variance)
    counts: Tensor | None = None  # (P,) 1 where a point was measured in both frames, else 0; None: all were


class DeviceTracks:
    """All tracks of the horizon on the scene's device, sent there once; a step picks two frames without waiting.

    Which points two frames share is known on the host alone. So every pair has all points, and the weight of those
    that it lacks is 0.
    """

    def __init__(self, table: PointTable, first_index: int, like: Tensor) -> None:
        """`table` holds the frames from `first_index` on; tensors are of the type and on the device of `like`."""
        self._first, self._seen = first_index, table.seen.copy()
        uv_px = np.where(table.seen[..., None], table.uv_px, 0.0)
        variance = np.where(table.seen, table.sigma_px, 1.0) ** 2
        arrays = (uv_px, variance, table.seen)
        self._uv_px, self._variance, self._shown = (torch.as_tensor(array).to(like) for array in arrays)

    def __call__(self, source: int, other: int) -> TrackTargets | None:
        """Targets of the frames with these indices; None with fewer than `LEAST_TRACKS` in both."""
        a, b = source - self._first, other - self._first
        frames = range(self._seen.shape[1])
        if a not in frames or b not in frames or np.count_nonzero(self._seen[:, a] & self._seen[:, b]) < LEAST_TRACKS:
            return None
        counts = self._shown[:, a] * self._shown[:, b]
        weight = counts / (0.25 + self._variance[:, a] + self._variance[:, b])
        return TrackTargets(self._uv_px[:, a], self._uv_px[:, b], weight, counts)


def make_target(state: FrameState, channel_of: dict[int, int], device: torch.device) -> Target:
    """The tensors of one frame. Raises `Motion4DError` for a pose that is not finite: no step checks it again."""
    check_pose(torch.as_tensor(state.T_cam_map))
    channels, known = label_channels(state.labels, channel_of)
    finite = np.isfinite(state.depth_m) & (state.depth_m > 0)
    weight = np.where(finite, 1.0 / (1.0 + (state.depth_sigma / 0.05) ** 2), 0.0)
    weight *= ~_depth_edges(np.where(finite, state.depth_m, 0.0))

    def tensor(array: np.ndarray, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), dtype=dtype, device=device)

    return Target(
        state.index,
        tensor(state.image.astype(np.float32) / 255),
        tensor(channels, torch.int64),
        tensor(known),
        tensor(np.where(finite, state.depth_m, 1.0)),
        tensor(weight),
        tensor(state.T_cam_map),
    )


def label_channels(labels: IntArray, channel_of: dict[int, int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(H, W) semantic channels of labels (0 for ids without one), and (H, W) where the labels say anything."""
    channels = np.zeros(labels.shape, np.int64)
    for label, channel in channel_of.items():
        channels[labels == label] = channel
    return channels, labels != UNKNOWN_LABEL


def _depth_edges(depth_m: np.ndarray, jump: float = 0.04) -> np.ndarray:
    """(H, W) where depth jumps by more than the share `jump` between neighbours: flying pixels live there."""
    edge = np.zeros(depth_m.shape, bool)
    for axis in (0, 1):
        low, high = [slice(None)] * 2, [slice(None)] * 2
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        a, b = depth_m[tuple(low)], depth_m[tuple(high)]
        jumps = np.abs(a - b) > jump * np.minimum(a, b)
        edge[tuple(low)] |= jumps
        edge[tuple(high)] |= jumps
    return edge
