"""The 4D scene: canonical Gaussians, some static, some carried by the motion bases of their object."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

from motion4d_ros.scene.bases import ArchivedPoses, MotionBases, blend, blend_rotations
from motion4d_ros.scene.gaussians import GAUSSIAN_PARAMETERS, WIDTHS, GaussianBatch
from motion4d_ros.scene.posed import PosedGaussians
from motion4d_ros.scene.rotations import orthonormalise, quat_conjugate, quat_multiply
from motion4d_ros.scene.store import ParameterStore, Resized

NEW_BASE_SHARE = 0.02
"""Weight that existing Gaussians of an object give to a base that joins it."""


class Scene:
    """N Gaussians and B motion bases over a horizon of T consecutive frames.

    `params` holds the trainable tensors by name: those of `gaussians.WIDTHS` (N rows) and ``base_quats`` (B, T, 4),
    ``base_trans`` (B, T, 3). Structural changes replace the `Parameter` objects, so look them up anew for every
    iteration; `SceneOptimizer` follows by itself.

    A Gaussian *moves* when it is `dynamic` and its object owns at least one base; any other stays where it is.
    Times are frame indices, fractional ones between frames and beyond the horizon.
    """

    def __init__(
        self, semantic_channels: int, *, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> None:
        self.dtype = dtype
        self.device = torch.device(device)
        self._store = ParameterStore()
        for name, width in WIDTHS.items():
            columns = () if width is None else (semantic_channels if name == "semantics" else max(width, 0),)
            self.params[name] = Parameter(torch.zeros(0, *columns, dtype=dtype, device=self.device))
        self.bases = MotionBases(self._store, dtype, self.device)
        self.ids = torch.zeros(0, dtype=torch.int64, device=self.device)  # (N,) unique, never reused
        self.object_id = torch.zeros(0, dtype=torch.int64, device=self.device)  # (N,) 0 = background
        self.dynamic = torch.zeros(0, dtype=torch.bool, device=self.device)  # (N,)
        self.born = torch.zeros(0, dtype=torch.int64, device=self.device)  # (N,) frame that a Gaussian was lifted from
        self.next_id = 1
        self._moving: tuple[Tensor, Tensor] | None = None  # cache of (rows, forbidden bases)

    # -- what there is -------------------------------------------------------------------------------------------------

    @property
    def params(self) -> dict[str, Parameter]:
        """The trainable tensors by name."""
        return self._store.params

    @property
    def count(self) -> int:
        """Number of Gaussians N."""
        return len(self.ids)

    @property
    def channels(self) -> int:
        """Number of semantic channels C."""
        return self.params["semantics"].shape[1]

    @property
    def moving_rows(self) -> Tensor:
        """(Nd,) int64 rows of the Gaussians that follow bases, ascending."""
        return self.motion_index()[0]

    def objects(self) -> list[int]:
        """Ids of all objects that have Gaussians or bases, ascending, without the background."""
        ids = set(self.object_id.unique().tolist()) | set(self.bases.owner.unique().tolist())
        return sorted(ids - {0})

    def subscribe(self, listener: Callable[[Resized], None]) -> None:
        """Calls `listener` after every structural change of a parameter."""
        self._store.subscribe(listener)

    def unsubscribe(self, listener: Callable[[Resized], None]) -> None:
        """Stops calling `listener`."""
        self._store.unsubscribe(listener)

    # -- the scene at a time -------------------------------------------------------------------------------------------

    def at(self, time: float) -> PosedGaussians:
        """All N Gaussians at a (fractional) frame index. Differentiable in every parameter.

        Between frames the bases are interpolated on SE(3), beyond the horizon they keep their last velocity.
        """
        return self.at_many([time])[0]

    def at_many(self, times: Sequence[float]) -> list[PosedGaussians]:
        """As `at`, for K times at the price of little more than one."""
        means, quats = self.params["means"], self.params["quats"]
        scales, opacities = self.params["log_scales"].exp(), self.params["opacity_logits"].sigmoid()
        rows = self.moving_rows
        if len(rows) == 0:
            return [PosedGaussians(means, quats, scales, opacities) for _ in times]
        weights, poses = self.motion_weights(), self.bases.poses_at(times)
        moved = _apply(blend(weights, poses), means.index_select(0, rows))
        turned = quat_multiply(blend_rotations(weights, poses, self.bases.owner), quats.index_select(0, rows)[:, None])
        return [
            PosedGaussians(
                means.index_copy(0, rows, moved[:, k]), quats.index_copy(0, rows, turned[:, k]), scales, opacities
            )
            for k in range(len(times))
        ]

    def positions_at(self, times: Sequence[float]) -> Tensor:
        """(Nd, K, 3) positions, m, of the moving Gaussians (rows `moving_rows`) at K times. Differentiable.

        Rendered as feature channels these are the rendered tracks: Gaussians as seen now, where they are then.
        """
        return _apply(self.motions_at(times), self.params["means"].index_select(0, self.moving_rows))

    def means_at(self, times: Sequence[float]) -> Tensor:
        """(N, K, 3) positions, m, of all Gaussians at K times. Differentiable."""
        still = self.params["means"][:, None].expand(-1, len(times), -1)
        rows = self.moving_rows
        return still.index_copy(0, rows, self.positions_at(times)) if len(rows) else still

    def motions_at(self, times: Sequence[float]) -> Tensor:
        """(Nd, K, 3, 4) affine motions canonical -> time of the moving Gaussians: the weighted sums of their bases'."""
        return blend(self.motion_weights(), self.bases.poses_at(times))

    def motion_weights(self) -> Tensor:
        """(Nd, B) shares of the bases in each moving Gaussian: softmax over those its object owns, 0 elsewhere."""
        rows, forbidden = self.motion_index()
        allowed = self.params["motion_logits"].index_select(0, rows).masked_fill(forbidden, -torch.inf)
        return allowed.t().softmax(0).t()  # PyTorch's softmax over short rows is nine times slower

    def velocities_at(self, time: float, span: float = 1.0) -> Tensor:
        """(Nd, 3) velocities, m/s, of the moving Gaussians: difference over `span` frames to either side of `time`."""
        ends = [time - span, time + span]
        before, after = self.bases.seconds_at(ends)
        if after <= before:  # a single time: nothing has been seen to move
            return torch.zeros_like(self.params["means"][self.moving_rows])
        positions = self.positions_at(ends)
        return (positions[:, 1] - positions[:, 0]) / float(after - before)

    @torch.no_grad()
    def object_pose(self, object_id: int, time: float) -> NDArray[np.float64]:
        """(4, 4) rigid motion canonical -> `time` of an object: the blend of its bases, weighted by the Gaussians they
        carry, applied about the object's own centre. Identity for an object without bases.
        """
        return self.object_poses(object_id, [time])[0]

    @torch.no_grad()
    def object_poses(self, object_id: int, times: Sequence[float]) -> NDArray[np.float64]:
        """(K, 4, 4): `object_pose` at K times."""
        poses = np.tile(np.eye(4), (len(times), 1, 1))
        owned = (self.bases.owner == object_id).nonzero().squeeze(1)
        if len(owned) == 0:
            return poses
        transforms = self.bases.poses_at(times).transforms()[owned].double()  # (n, K, 3, 4)
        shares, center = self.shares_of_bases(object_id, owned)
        mean = torch.einsum("b,bkij->kij", shares, transforms)
        rotation = orthonormalise(mean[..., :3])
        image = mean[..., :3] @ center + mean[..., 3]  # where the centre goes stays exact
        poses[:, :3, :3] = rotation.cpu().numpy()
        poses[:, :3, 3] = (image - rotation @ center).cpu().numpy()
        return poses

    @torch.no_grad()
    def shares_of_bases(self, object_id: int, owned: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) the share that each of the bases `owned` (n,) has in the Gaussians of their object, and the centre (3,)
        of these.
        """
        rows = self.moving_rows
        mine = self.object_id[rows] == object_id
        if mine.any():
            shares = self.motion_weights()[mine][:, owned].double().mean(0)
            return shares, self.params["means"][rows[mine]].double().mean(0)
        shares = torch.full((len(owned),), 1 / len(owned), dtype=torch.float64, device=self.device)
        return shares, self.bases.centers[owned].double().mean(0)

    # -- Gaussians come and go -----------------------------------------------------------------------------------------

    def append(self, new: GaussianBatch, born: int = 0, ids: Tensor | None = None) -> Tensor:
        """Adds M Gaussians, lifted from the frame with index `born`; their ids (M,) int64: new ones, or those that
        they had, all below `next_id`, in a scene that ended.
        """
        new.check(self.channels, self.bases.count)
        if ids is None:
            ids = torch.arange(self.next_id, self.next_id + new.count, device=self.device)
            self.next_id += new.count
        ids = ids.to(self.ids)
        if len(ids) != new.count or bool((ids >= self.next_id).any()):
            raise ValueError("ids must be those of Gaussians that were there before")
        for name in GAUSSIAN_PARAMETERS:
            value = getattr(new, name)
            if value is None:  # motion logits left out: equal shares
                value = torch.zeros(new.count, self.bases.count)
            self._store.append(name, value)
        self.ids = torch.cat([self.ids, ids])
        self.object_id = torch.cat([self.object_id, new.object_id.to(self.object_id)])
        self.dynamic = torch.cat([self.dynamic, new.dynamic.to(self.dynamic)])
        self.born = torch.cat([self.born, torch.full_like(ids, born)])
        self._moving = None
        return ids

    def prune(self, keep: Tensor) -> None:
        """Keeps only the Gaussians where `keep` (N,) bool holds."""
        if keep.dtype != torch.bool or len(keep) != self.count:
            raise ValueError(f"prune takes a bool mask over {self.count} Gaussians")
        if bool(keep.all()):
            return
        rows = keep.to(self.device).nonzero().squeeze(1)
        self._store.keep(GAUSSIAN_PARAMETERS, rows)
        self.ids, self.object_id = self.ids[rows], self.object_id[rows]
        self.dynamic, self.born = self.dynamic[rows], self.born[rows]
        self._moving = None

    def grow_channels(self, channels: int) -> None:
        """Widens the semantic vectors to `channels`; new entries are zero."""
        added = channels - self.channels
        if added < 0:
            raise ValueError(f"the scene has {self.channels} semantic channels already, {channels} wanted")
        self._store.append("semantics", torch.zeros(self.count, added), dim=1)

    # -- bases and times come and go -----------------------------------------------------------------------------------

    @torch.no_grad()
    def append_bases(self, object_id: int, center: Tensor, quats: Tensor, trans: Tensor) -> Tensor:
        """Adds n bases owned by `object_id`: center (3,) or (n, 3) m, quats (n, T, 4), trans (n, T, 3) m. Their ids.

        Gaussians of an object that had bases before give each new one a small share (`NEW_BASE_SHARE`), so that they
        hardly move; those of an object without bases share equally among its first ones.
        """
        count = quats.shape[0]
        logits = torch.zeros(self.count, count, dtype=self.dtype, device=self.device)
        owned = self.bases.owner == object_id
        if bool(owned.any()):
            total = self.params["motion_logits"].data[:, owned].logsumexp(1, keepdim=True)
            logits += total + float(np.log(NEW_BASE_SHARE))
        ids = self.bases.append(object_id, center, quats, trans)
        self._store.append("motion_logits", logits, dim=1)
        self._moving = None
        return ids

    @torch.no_grad()
    def revise_bases(self, rows: Tensor, quats: Tensor, trans: Tensor) -> None:
        """Replaces the poses of the bases `rows` (n,): (n, T, 4), (n, T, 3) m.

        Gaussians stay where they were seen: at the time a Gaussian was lifted from its frame it keeps its place in the
        map, so its canonical place and rotation change with the pose of that time. Those lifted before the horizon
        began stay as they are.
        """
        moving = self.moving_rows
        affected = torch.isin(self.object_id[moving], self.bases.owner[rows])
        column = self.born[moving] - self.bases.first_index
        affected &= (column >= 0) & (column < self.bases.length)
        picked, column = affected.nonzero().squeeze(1), column[affected]
        shift, turn = self._motions_when(picked, column)
        self.bases.quats[rows], self.bases.trans[rows] = quats, trans
        new_shift, new_turn = self._motions_when(picked, column)
        chosen = moving[picked]
        means, turns = self.params["means"], self.params["quats"]
        place = (shift[..., :3] * means[chosen][:, None]).sum(-1) + shift[..., 3]
        means[chosen] = torch.linalg.solve(new_shift[..., :3], (place - new_shift[..., 3])[..., None])[..., 0]
        turns[chosen] = quat_multiply(quat_conjugate(new_turn), quat_multiply(turn, turns[chosen]))

    def _motions_when(self, picked: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
        """(M, 3, 4) motions and (M, 4) rotations of the moving Gaussians `picked` (M,), each at its own time `column`
        (M,) of the horizon.
        """
        weights, poses = self.motion_weights(), self.bases.poses_at(list(self.bases.indices))
        turns = blend_rotations(weights, poses, self.bases.owner)
        return blend(weights, poses)[picked, column], turns[picked, column]

    def keep_bases(self, keep: Tensor) -> None:
        """Keeps only the bases where `keep` (B,) bool holds. Objects that lose all of theirs stand still from now on,
        at their canonical place: prune or re-pose them first.
        """
        rows = keep.to(self.device).nonzero().squeeze(1)
        self.bases.keep(rows)
        self._store.keep(("motion_logits",), rows, dim=1)
        self._moving = None

    def extend_times(
        self,
        stamps_ns: Sequence[int],
        quats: Tensor | None = None,
        trans: Tensor | None = None,
        *,
        first_index: int = 0,
    ) -> None:
        """Adds the next n frames to the horizon: poses (B, n, 4), (B, n, 3), or by default the motion continued at
        constant twist. `first_index` names the frame when the horizon is still empty.
        """
        if self.bases.length == 0:
            self.bases.first_index = first_index
        self.bases.extend(stamps_ns, quats, trans)

    def drop_times_before(self, index: int) -> ArchivedPoses:
        """Lets the frames before `index` leave the horizon (its last frame stays) and hands back their poses."""
        return self.bases.drop_before(index)

    def motion_index(self) -> tuple[Tensor, Tensor]:
        """Rows of moving Gaussians (Nd,) int64, and which bases are not theirs (Nd, B) bool."""
        if self._moving is None:
            theirs = self.object_id[:, None] == self.bases.owner[None]
            rows = (self.dynamic & theirs.any(1)).nonzero().squeeze(1)
            self._moving = rows, ~theirs[rows]
        return self._moving


def _apply(motion: Tensor, means: Tensor) -> Tensor:
    """(M, K, 3, 4) affine motions of (M, 3) points -> (M, K, 3)."""
    return (motion[..., :3] * means[:, None, None]).sum(-1) + motion[..., 3]
