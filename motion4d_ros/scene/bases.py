"""Motion bases: a few SE(3) trajectories over the active horizon, which all moving Gaussians share.

Base b with the fixed centre c moves a canonical point x to ``R (x - c) + c + t``; that is, t is how far the centre has
gone. Turning about a centre inside the object keeps rotation and translation decoupled, for the optimiser as well as
for interpolation in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

from motion4d_ros.scene.rotations import quat_to_matrix, slerp
from motion4d_ros.scene.store import ParameterStore

EXTRAPOLATION_SPAN = 2
"""Frames at an end of the horizon over which the velocity for extrapolation is taken (one alone is noisy)."""


@dataclass(frozen=True)
class BasePoses:
    """Poses of B bases at K times."""

    centers: Tensor  # (B, 3) m
    quats: Tensor  # (B, K, 4) unit wxyz
    trans: Tensor  # (B, K, 3) m

    def transforms(self) -> Tensor:
        """(B, K, 3, 4): [R | c + t - R c], so that x -> R x + (c + t - R c)."""
        rotation = quat_to_matrix(self.quats)
        centers = self.centers[:, None]
        offset = centers + self.trans - (rotation @ centers[..., None]).squeeze(-1)
        return torch.cat([rotation, offset[..., None]], -1)


@dataclass(frozen=True)
class ArchivedPoses:
    """Poses that have left the horizon: `n` consecutive frames of the bases that existed then. No gradients."""

    first_index: int
    stamps_ns: list[int]  # (n,)
    base_ids: Tensor  # (B,) int64
    owner: Tensor  # (B,) int64 object ids
    centers: Tensor  # (B, 3)
    quats: Tensor  # (B, n, 4)
    trans: Tensor  # (B, n, 3)

    def poses(self) -> BasePoses:
        """All of them, as `MotionBases.poses_at` gives those of the horizon."""
        return BasePoses(self.centers, self.quats, self.trans)


class MotionBases:
    """B trajectories over T consecutive frames. Its parameters live in the scene's `ParameterStore`."""

    def __init__(self, store: ParameterStore, dtype: torch.dtype, device: torch.device) -> None:
        self._store = store
        store.params["base_quats"] = Parameter(torch.zeros(0, 0, 4, dtype=dtype, device=device))
        store.params["base_trans"] = Parameter(torch.zeros(0, 0, 3, dtype=dtype, device=device))
        self.ids = torch.zeros(0, dtype=torch.int64, device=device)  # (B,) never reused
        self.owner = torch.zeros(0, dtype=torch.int64, device=device)  # (B,) object ids
        self.centers = torch.zeros(0, 3, dtype=dtype, device=device)  # (B, 3) m, fixed
        self.first_index = 0  # frame index of the first time
        self.stamps_ns: list[int] = []  # (T,) ascending
        self.next_id = 1

    @property
    def quats(self) -> Parameter:
        """(B, T, 4) wxyz, not necessarily normalised."""
        return self._store.params["base_quats"]

    @property
    def trans(self) -> Parameter:
        """(B, T, 3) displacement of the centre, m."""
        return self._store.params["base_trans"]

    @property
    def count(self) -> int:
        """Number of bases B."""
        return len(self.ids)

    @property
    def length(self) -> int:
        """Number of times T."""
        return len(self.stamps_ns)

    @property
    def last_index(self) -> int:
        """Frame index of the last time; `first_index - 1` while there is none."""
        return self.first_index + self.length - 1

    @property
    def indices(self) -> range:
        """Frame indices of the horizon, consecutive."""
        return range(self.first_index, self.first_index + self.length)

    def index_of_stamp(self, stamp_ns: int) -> float:
        """The (fractional) frame index of a stamp; beyond the ends by the duration of the outermost interval."""
        stamps = self._seconds()
        wanted = (stamp_ns - self.stamps_ns[0]) * 1e-9
        if len(stamps) == 1 or stamps[0] <= wanted <= stamps[-1]:
            return self.first_index + float(np.interp(wanted, stamps, np.arange(len(stamps))))
        if wanted < stamps[0]:
            return self.first_index + wanted / (stamps[1] - stamps[0])
        return self.last_index + (wanted - stamps[-1]) / (stamps[-1] - stamps[-2])

    def seconds_at(self, times: Sequence[float]) -> NDArray[np.float64]:
        """Seconds since the horizon's first stamp at fractional frame indices; inverse of `index_of_stamp`."""
        stamps, positions = self._seconds(), np.asarray(times, float) - self.first_index
        last = len(stamps) - 1
        if last == 0:
            return np.zeros_like(positions)
        step = np.clip(np.floor(positions).astype(int), 0, last - 1)
        return stamps[step] + (positions - step) * (stamps[step + 1] - stamps[step])

    def poses_at(self, times: Sequence[float]) -> BasePoses:
        """Poses at K (fractional) frame indices: SE(3) interpolation between neighbours (slerp, and the centre along a
        straight line), constant twist beyond the ends. Differentiable in the poses.
        """
        start, end, fraction = self._brackets(times)
        quats, trans = self.quats, self.trans
        if not fraction.any():  # whole frames, by far the most frequent case
            # column by column: an index array would be sent to the device, and waited for
            chosen = [torch.stack([values[:, k] for k in start.tolist()], 1) for values in (quats, trans)]
            return BasePoses(self.centers, torch.nn.functional.normalize(chosen[0], dim=-1), chosen[1])
        share = torch.as_tensor(fraction, dtype=trans.dtype, device=trans.device).expand(self.count, -1)
        return BasePoses(
            self.centers,
            slerp(quats[:, start], quats[:, end], share),
            trans[:, start] + share[..., None] * (trans[:, end] - trans[:, start]),
        )

    def frozen(self) -> MotionBases:
        """The bases as they are now, apart from these and without gradients."""
        store = ParameterStore()
        other = MotionBases(store, self.trans.dtype, self.trans.device)
        for name, value in (("base_quats", self.quats), ("base_trans", self.trans)):
            store.params[name] = Parameter(value.detach().clone(), requires_grad=False)
        other.ids, other.owner, other.centers = self.ids.clone(), self.owner.clone(), self.centers.clone()
        other.first_index, other.stamps_ns, other.next_id = self.first_index, list(self.stamps_ns), self.next_id
        return other

    def append(self, object_id: int, center: Tensor, quats: Tensor, trans: Tensor) -> Tensor:
        """Adds n bases of `object_id`: center (3,) or (n, 3), quats (n, T, 4), trans (n, T, 3). Their ids (n,)."""
        count = quats.shape[0]
        if quats.shape != (count, self.length, 4) or trans.shape != (count, self.length, 3):
            raise ValueError(
                f"new bases: quats {tuple(quats.shape)} and trans {tuple(trans.shape)} "
                f"must cover the {self.length} times of the horizon"
            )
        ids = torch.arange(self.next_id, self.next_id + count, device=self.ids.device)
        self.next_id += count
        self.ids = torch.cat([self.ids, ids])
        self.owner = torch.cat([self.owner, torch.full_like(ids, object_id)])
        self.centers = torch.cat([self.centers, center.detach().to(self.centers).expand(count, 3)])
        self._store.append("base_quats", quats)
        self._store.append("base_trans", trans)
        return ids

    def keep(self, rows: Tensor) -> None:
        """Keeps only the bases at the (K,) int64 `rows`."""
        self.ids, self.owner, self.centers = self.ids[rows], self.owner[rows], self.centers[rows]
        self._store.keep(("base_quats", "base_trans"), rows)

    def extend(self, stamps_ns: Sequence[int], quats: Tensor | None = None, trans: Tensor | None = None) -> None:
        """Appends n times; poses (B, n, 4) and (B, n, 3), or by default the motion continued at constant twist."""
        new = [int(stamp) for stamp in stamps_ns]
        known = self.stamps_ns + new
        if any(later <= earlier for earlier, later in pairwise(known)):
            raise ValueError("new stamps must be ascending and later than the horizon's last")
        if (quats is None) != (trans is None):
            raise ValueError("give both quats and trans of the new times, or neither")
        if quats is None or trans is None:
            with torch.no_grad():
                if self.length:
                    continued = self.poses_at([self.index_of_stamp(stamp) for stamp in new])
                    quats, trans = continued.quats, continued.trans
                else:
                    quats = torch.zeros(self.count, len(new), 4)
                    quats[..., 0] = 1.0
                    trans = torch.zeros(self.count, len(new), 3)
        if quats.shape != (self.count, len(new), 4) or trans.shape != (self.count, len(new), 3):
            raise ValueError(
                f"poses of {len(new)} new times and {self.count} bases expected, "
                f"got quats {tuple(quats.shape)} and trans {tuple(trans.shape)}"
            )
        self.stamps_ns = known
        self._store.append("base_quats", quats, dim=1)
        self._store.append("base_trans", trans, dim=1)

    def drop_before(self, index: int) -> ArchivedPoses:
        """Removes the times before frame `index` (at least one time stays) and hands them back."""
        count = int(np.clip(index - self.first_index, 0, max(self.length - 1, 0)))
        archived = ArchivedPoses(
            first_index=self.first_index,
            stamps_ns=self.stamps_ns[:count],
            base_ids=self.ids.clone(),
            owner=self.owner.clone(),
            centers=self.centers.clone(),
            quats=torch.nn.functional.normalize(self.quats.detach()[:, :count], dim=-1).clone(),
            trans=self.trans.detach()[:, :count].clone(),
        )
        if count:
            rows = torch.arange(count, self.length, device=self.ids.device)
            self.first_index += count
            self.stamps_ns = self.stamps_ns[count:]
            self._store.keep(("base_quats", "base_trans"), rows, dim=1)
        return archived

    def _seconds(self) -> NDArray[np.float64]:
        """(T,) seconds since the first stamp of the horizon."""
        if not self.stamps_ns:
            raise ValueError("the horizon holds no times yet: call extend_times first")
        return np.array([(stamp - self.stamps_ns[0]) * 1e-9 for stamp in self.stamps_ns])

    def _brackets(self, times: Sequence[float]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """For every time: the columns of two poses and the fraction between them (outside [0, 1]: extrapolated)."""
        seconds = self._seconds()
        positions = np.asarray(times, float) - self.first_index
        last = len(seconds) - 1
        start = np.clip(np.floor(positions).astype(int), 0, max(last - 1, 0))
        end = np.minimum(start + 1, last)
        fraction = positions - start
        if last == 0:
            return start, end, np.zeros_like(fraction)
        span = min(EXTRAPOLATION_SPAN, last)
        wanted = self.seconds_at(times)
        after, before = positions > last, positions < 0
        start[after], end[after] = last - span, last
        start[before], end[before] = 0, span
        outside = after | before
        duration = seconds[end[outside]] - seconds[start[outside]]
        fraction[outside] = (wanted[outside] - seconds[start[outside]]) / duration
        arrived = fraction == 1.0  # a whole frame at the end of its bracket
        return np.where(arrived, end, start), end, np.where(arrived, 0.0, fraction)


def blend(weights: Tensor, poses: BasePoses) -> Tensor:
    """Per-Gaussian affine motions: weights (N, B), B bases at K times -> (N, K, 3, 4).

    The linear blend of the bases' images of x is ``A x + d`` with A, d the weighted sums of the bases' matrices: one
    matrix product for all Gaussians and times.
    """
    transforms = poses.transforms()
    bases, times = transforms.shape[:2]
    return (weights @ transforms.reshape(bases, times * 12)).view(-1, times, 3, 4)


def first_of_owner(owner: Tensor) -> Tensor:
    """(B,) int64 the first base of the same owner."""
    if len(owner) == 0:  # there is no largest of nothing
        return owner
    return (owner[:, None] == owner[None]).to(torch.int8).argmax(1)


def blend_rotations(weights: Tensor, poses: BasePoses, owner: Tensor) -> Tensor:
    """Per-Gaussian rotations: weights (N, B), B bases at K times with owners (B,) -> (N, K, 4) quaternions.

    The weighted sum of quaternions whose signs agree with the first base of the same owner: to first order
    in their spread the mean rotation (Markley et al. 2007), at a tenth of the cost of blending and orthonormalising
    matrices as Shape of Motion does, and equal to that to the same order. Not normalised.
    """
    first = first_of_owner(owner)
    with torch.no_grad():
        agree = (poses.quats * poses.quats[first]).sum(-1, keepdim=True) >= 0
    aligned = torch.where(agree, poses.quats, -poses.quats)
    bases, times = aligned.shape[:2]
    return (weights @ aligned.reshape(bases, times * 4)).view(-1, times, 4)
