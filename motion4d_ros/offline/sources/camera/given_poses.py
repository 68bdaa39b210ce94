"""Camera poses from a file, brought to the frames: by time where both have one, by number, or one row for each."""

from __future__ import annotations

import itertools
from pathlib import Path

from motion4d_ros.offline.sources.camera.pose_files import Trajectory, read_trajectory, stamp_unit, stamps_ns
from motion4d_ros.offline.sources.files.file_names import EPOCH_S, Keys
from motion4d_ros.offline.sources.files.pairing import pair
from motion4d_ros.offline.sources.interfaces import SourceOptions, SourceReport
from motion4d_ros.offline.trajectory import PoseBuffer
from motion4d_ros.types import FloatArray, Motion4DError

_COVERS = 0.98  # a trajectory as long as the recording
_SAME_LENGTH = 1.25  # ratio of two lengths of time up to which they may be the same
_NEAR_NS = 50_000_000  # beyond the ends of a trajectory its last pose still holds for so long
_EPOCH_NS = EPOCH_S[0] * 10**9


class GivenPoses:
    """The pose of every frame, or None where the file has none for it."""

    def __init__(
        self, path: Path, frames: Keys, options: SourceOptions, report: SourceReport, *, rate_hz: float, counted: bool
    ) -> None:
        """`frames`: what the names of the images say, or the stamps of a video; `rate_hz`: images a second, assumed
        where nothing says it; `counted`: see `pair`.

        Raises `Motion4DError` where nothing says which pose belongs to which frame.
        """
        self.stamps_ns: list[int] | None = None  # of the frames, where only the trajectory knows them
        self._extrinsic = options.extrinsic
        self._report, self._frames = report, frames
        self._by_index: dict[int, FloatArray | None] | None = None
        self._buffer: PoseBuffer | None = None
        stamps = frames.stamps_ns
        spaced = round((len(frames.stems) - 1) * 1e9 / rate_hz)
        self._length_ns = spaced if stamps is None else max(stamps) - min(stamps)
        trajectory = read_trajectory(path)
        for note in trajectory.notes:
            report.warn(note)
        if trajectory.of_body and options.extrinsic is None:
            report.warn(
                f"{trajectory.name}: its header calls these the poses of a body (RS); they are taken for the camera's "
                "unless --set base_to_camera='x y z qx qy qz qw' says where the camera sits on it"
            )
        how = self._match(trajectory, options, counted)
        report.used["camera poses"] = f"{trajectory.name} ({trajectory.usable} poses, {how})"

    def at(self, index: int, stamp_ns: int) -> FloatArray | None:
        """(4, 4) T_map_cam of frame `index`; `stamp_ns` as in the `frames` given. Without one, that is said."""
        pose = self.peek(index, stamp_ns)
        if pose is None:
            self._report.warn("a frame has no camera pose near its time: its pose is predicted")
        return pose

    def peek(self, index: int, stamp_ns: int) -> FloatArray | None:
        """The same without a word."""
        if self._by_index is not None:
            pose = self._by_index.get(index)
        else:
            pose = None if self._buffer is None else self._buffer.at(stamp_ns)
        return pose if pose is None or self._extrinsic is None else pose @ self._extrinsic

    def _match(self, trajectory: Trajectory, options: SourceOptions, counted: bool) -> str:
        """How the poses are matched, in words."""
        count, rows = len(self._frames.stems), len(trajectory.poses)
        if trajectory.stamps is None:
            return self._without_stamps(trajectory, counted)
        unit = stamp_unit(trajectory, self._frames.rate_hz or options.fps)
        stamps = self._sorted(trajectory, stamps_ns(trajectory, unit))
        said = "" if unit == "s" else f", stamps in {unit}"
        if not self._frames.absolute and (numbers := self._frame_numbers(trajectory)) is not None:
            self._by_index = numbers
            if rows != count:
                self._report.warn(
                    f"{trajectory.name}: its stamps are whole numbers: taken for numbers of frames, of which "
                    f"{rows} of {count} have a pose"
                )
            return "by frame number"
        if self._frames.stamps_ns is not None and (how := self._by_time(trajectory, stamps, options)):
            return how + said
        if self._frames.absolute and stamps[-1] > _EPOCH_NS:
            raise Motion4DError(_apart(trajectory.name, stamps, self._frames.stamps_ns or []))
        if rows == count:
            self._by_index = dict(enumerate(trajectory.poses))
            if self._frames.stamps_ns is None:
                self.stamps_ns = _usable_times(stamps)
            elif self._frames.absolute:
                self._report.warn(
                    f"{trajectory.name}: no stamp is near an image's: its {rows} poses are taken in order"
                )
            return f"one for each frame, in order{said}"
        if self._frames.absolute:
            raise Motion4DError(_apart(trajectory.name, stamps, self._frames.stamps_ns or []))
        return self._from_the_first(trajectory, stamps, options) + said

    def _without_stamps(self, trajectory: Trajectory, counted: bool) -> str:
        count, rows = len(self._frames.stems), len(trajectory.poses)
        if trajectory.numbers is not None:
            keys = Keys([str(number) for number in trajectory.numbers], None, trajectory.numbers)
            found = pair(self._frames, keys, "poses", trajectory.name, counted=counted)
            self._by_index = {i: trajectory.poses[k] for i, k in found.matched.items()}
            if found.tell:
                self._report.warn(f"{rows} poses for {count} frames: {found.how}")
            return found.how
        if rows == count:
            self._by_index = dict(enumerate(trajectory.poses))
            return "one for each frame, in order"
        numbers = self._frames.numbers
        if numbers is not None and max(numbers) < rows:
            self._by_index = {i: trajectory.poses[number] for i, number in enumerate(numbers)}
            self._report.warn(f"{rows} poses for {count} frames: line n belongs to image number n, counted from 0")
            return "by line number"
        raise Motion4DError(
            f"{trajectory.name}: {rows} poses without stamps for {count} frames: which belongs to which? Give one for "
            "each frame, or lines that begin with a stamp"
        )

    def _by_time(self, trajectory: Trajectory, stamps: list[int], options: SourceOptions) -> str:
        """Matches by the clock that both share; "" where the times do not meet at all."""
        buffer = self._fill(trajectory, stamps, 0, options)
        frames = self._frames.stamps_ns or []
        found = [stamp for stamp in frames if buffer.at(stamp) is not None]
        if not found:
            return ""
        self._buffer = buffer
        if len(found) < len(frames):
            self._report.warn(f"{trajectory.name}: {len(found)} of {len(frames)} frames have a pose near their time")
        return f"interpolated to the stamps of {len(found)} of {len(frames)} frames"

    def _frame_numbers(self, trajectory: Trajectory) -> dict[int, FloatArray | None] | None:
        """Frame index -> pose, where the stamps are but numbers of frames, as some tools write them."""
        stamps = trajectory.stamps or []
        numbers = self._frames.numbers or list(range(len(self._frames.stems)))
        position = {number: i for i, number in enumerate(numbers)}
        whole = all(stamp == int(stamp) for stamp in stamps) and len(set(stamps)) == len(stamps)
        if len(stamps) < 2 or trajectory.unit or not whole or not all(int(stamp) in position for stamp in stamps):
            return None
        as_seconds = float(max(stamps) - min(stamps)) / max(self._length_ns / 1e9, 1e-3)
        if 1.0 / _SAME_LENGTH < as_seconds < _SAME_LENGTH:
            return None
        return {position[int(stamp)]: pose for stamp, pose in zip(stamps, trajectory.poses, strict=True)}

    def _from_the_first(self, trajectory: Trajectory, stamps: list[int], options: SourceOptions) -> str:
        """The frames have no clock of their own: only a trajectory that begins with them, or says when, can be used."""
        count, length_ns = len(self._frames.stems), self._length_ns
        step_ns = length_ns / max(count - 1, 1)
        first, last = min(stamps), max(stamps)
        if abs(first) < _EPOCH_NS and first <= length_ns:
            self._buffer = self._fill(trajectory, stamps, 0, options)
            self._report.warn(
                f"{trajectory.name}: {len(stamps)} poses for {count} frames: matched by time, 0 s is the first frame"
            )
            return "by time, from 0 s on"
        if last - first < _COVERS * length_ns - step_ns / 2:
            raise Motion4DError(
                f"{trajectory.name}: {len(stamps)} poses over {(last - first) / 1e9:.3g} s for {count} frames over "
                f"{length_ns / 1e9:.3g} s: which frame has the first pose? Name the images by their stamps, or let the "
                "stamps of the poses count from the first frame on"
            )
        self._buffer = self._fill(trajectory, stamps, first, options)
        self._report.warn(
            f"{len(stamps)} poses for {count} frames, which have no stamps: matched by time, counted from the first of "
            "each"
        )
        return "by time, counted from the first of each"

    def _sorted(self, trajectory: Trajectory, stamps: list[int]) -> list[int]:
        """The stamps in ascending order, the trajectory's rows brought into the same."""
        order = sorted(range(len(stamps)), key=stamps.__getitem__)
        if order != list(range(len(stamps))):
            self._report.warn(f"{trajectory.name}: its stamps are not in order: sorted")
        trajectory.poses = [trajectory.poses[k] for k in order]
        trajectory.stamps = [(trajectory.stamps or [])[k] for k in order]
        return [stamps[k] for k in order]

    def _fill(self, trajectory: Trajectory, stamps: list[int], zero_ns: int, options: SourceOptions) -> PoseBuffer:
        buffer = PoseBuffer(max_gap_ns=round(options.max_pose_gap_s * 1e9), max_extrapolation_ns=_NEAR_NS)
        for k, (stamp, pose) in enumerate(zip(stamps, trajectory.poses, strict=True)):
            if k and stamp == stamps[k - 1]:
                self._report.warn(f"{trajectory.name}: a stamp stands there twice: its first pose is used")
            elif pose is not None:
                buffer.add(stamp - zero_ns, pose)
        return buffer


def _usable_times(stamps: list[int]) -> list[int] | None:
    """The stamps as times of frames, if they ascend."""
    return stamps if all(b > a for a, b in itertools.pairwise(stamps)) else None


def _apart(name: str, stamps: list[int], frames: list[int]) -> str:
    spans = " .. ".join(f"{value / 1e9:.3f}" for value in (min(stamps), max(stamps)))
    images = " .. ".join(f"{value / 1e9:.3f}" for value in (min(frames), max(frames)))
    return (
        f"{name}: its stamps, {spans} s, do not meet the images', {images} s: are they of the same recording and the "
        "same clock?"
    )
