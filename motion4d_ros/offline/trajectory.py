"""Stamped poses: interpolation, writing the TUM text format, and transform chains as `/tf` describes them."""

from __future__ import annotations

import bisect
import itertools
from collections import deque
from collections.abc import Mapping

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from motion4d_ros.types import FloatArray, Motion4DError


def pose_matrix(
    position: FloatArray | tuple[float, ...], quaternion_xyzw: FloatArray | tuple[float, ...]
) -> FloatArray:
    """(3,) m and a quaternion -> (4, 4). Raises `Motion4DError` for a zero or not finite quaternion."""
    quaternion, translation = np.asarray(quaternion_xyzw, float), np.asarray(position, float)
    norm = np.linalg.norm(quaternion)
    if not np.isfinite(translation).all() or not np.isfinite(norm) or norm < 1e-6:
        raise Motion4DError("a pose holds NaN or a zero quaternion: check its source")
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(quaternion / norm).as_matrix()
    T[:3, 3] = translation
    return T


def interpolate(T0: FloatArray, T1: FloatArray, share: float) -> FloatArray:
    """Between two (4, 4) poses: slerp for the rotation, a straight line for the position; `share` in [0, 1]."""
    T = np.eye(4)
    T[:3, :3] = Slerp([0.0, 1.0], Rotation.from_matrix(np.stack([T0[:3, :3], T1[:3, :3]])))(share).as_matrix()
    T[:3, 3] = (1.0 - share) * T0[:3, 3] + share * T1[:3, 3]
    return T


class PoseBuffer:
    """Stamped poses in ascending order, asked for at times in between. Late and repeated stamps are ignored."""

    def __init__(self, *, max_gap_ns: int = 500_000_000, max_extrapolation_ns: int = 50_000_000) -> None:
        self._stamps: deque[int] = deque()
        self._poses: deque[FloatArray] = deque()
        self._max_gap_ns = max_gap_ns
        self._max_extrapolation_ns = max_extrapolation_ns

    def __len__(self) -> int:
        return len(self._stamps)

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest pose."""
        return self._stamps[-1] if self._stamps else None

    def add(self, stamp_ns: int, pose: FloatArray) -> None:
        """Appends a (4, 4) pose; ignored unless newer than all others."""
        if not self._stamps or stamp_ns > self._stamps[-1]:
            self._stamps.append(stamp_ns)
            self._poses.append(pose)

    def at(self, stamp_ns: int) -> FloatArray | None:
        """The (4, 4) pose at a time; None inside gaps longer than `max_gap_ns` and beyond the ends."""
        position = bisect.bisect_left(self._stamps, stamp_ns)
        if position < len(self._stamps) and self._stamps[position] == stamp_ns:
            return self._poses[position]
        if 0 < position < len(self._stamps):
            before, after = self._stamps[position - 1], self._stamps[position]
            if after - before > self._max_gap_ns:
                return None
            return interpolate(self._poses[position - 1], self._poses[position], (stamp_ns - before) / (after - before))
        if not self._stamps:
            return None
        nearest = 0 if position == 0 else -1
        close = abs(self._stamps[nearest] - stamp_ns) <= self._max_extrapolation_ns
        return self._poses[nearest] if close else None

    def forget_before(self, stamp_ns: int) -> None:
        """Drops poses no longer needed to interpolate at or after `stamp_ns`."""
        while len(self._stamps) > 2 and self._stamps[1] <= stamp_ns:
            self._stamps.popleft()
            self._poses.popleft()


class TransformTree:
    """What `/tf` and `/tf_static` said: child -> parent transforms over time.

    `lookup(target, source, stamp)` gives T_target_source, None where the chain is broken or not known at that time.
    """

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._moving: dict[str, PoseBuffer] = {}
        self._static: dict[str, FloatArray] = {}

    def add(self, parent: str, child: str, stamp_ns: int, T_parent_child: FloatArray, *, static: bool) -> None:
        """One transform of a `TFMessage`."""
        parent, child = parent.lstrip("/"), child.lstrip("/")
        self._parent[child] = parent
        if static:
            self._static[child] = T_parent_child
        else:
            self._moving.setdefault(child, PoseBuffer()).add(stamp_ns, T_parent_child)

    @property
    def newest_ns(self) -> int | None:
        """The stamp up to which *all* moving transforms are known."""
        stamps = [buffer.newest_ns for buffer in self._moving.values() if buffer.newest_ns is not None]
        return min(stamps) if stamps else None

    @property
    def frames(self) -> list[str]:
        """Every frame name seen."""
        return sorted({*self._parent, *self._parent.values()})

    def lookup(self, target: str, source: str, stamp_ns: int) -> FloatArray | None:
        """(4, 4) T_target_source at a time, or None."""
        to_source = self._up(source.lstrip("/"), stamp_ns)
        to_target = self._up(target.lstrip("/"), stamp_ns)
        for frame, T_frame_source in to_source.items():
            if frame in to_target:
                return np.linalg.inv(to_target[frame]) @ T_frame_source
        return None

    def newest_for(self, target: str, source: str) -> int | None:
        """The stamp up to which the chain between two frames is known; None where a link is missing."""
        names = {name for end in (target, source) for name in self._chain(end.lstrip("/"))}
        stamps = [self._moving[name].newest_ns for name in names if name in self._moving]
        return min((stamp for stamp in stamps if stamp is not None), default=None)

    def forget_before(self, stamp_ns: int) -> None:
        """Bounds the memory."""
        for buffer in self._moving.values():
            buffer.forget_before(stamp_ns)

    def _chain(self, frame: str) -> list[str]:
        names = [frame]
        while names[-1] in self._parent and self._parent[names[-1]] not in names:
            names.append(self._parent[names[-1]])
        return names

    def _up(self, frame: str, stamp_ns: int) -> dict[str, FloatArray]:
        """Ancestor -> T_ancestor_frame, nearest first, as far as the links are known at that time."""
        found: dict[str, FloatArray] = {frame: np.eye(4)}
        chain = self._chain(frame)
        T: FloatArray = np.eye(4)
        for child, parent in itertools.pairwise(chain):
            link = self._static[child] if child in self._static else self._moving[child].at(stamp_ns)
            if link is None:
                break
            T = link @ T
            found[parent] = T
        return found


def format_tum(poses: Mapping[int, FloatArray]) -> str:
    """stamp_ns -> (4, 4) as TUM text, in order of time."""
    lines = ["# stamp[s] x y z[m] qx qy qz qw: T_map_cam, camera in its optical frame"]
    for stamp_ns in sorted(poses):
        T = np.asarray(poses[stamp_ns], float)
        x, y, z = T[:3, 3]
        qx, qy, qz, qw = Rotation.from_matrix(T[:3, :3]).as_quat(canonical=True)
        lines.append(
            f"{stamp_ns // 10**9}.{stamp_ns % 10**9:09d} {x:.6f} {y:.6f} {z:.6f} {qx:.7f} {qy:.7f} {qz:.7f} {qw:.7f}"
        )
    return "\n".join(lines) + "\n"
