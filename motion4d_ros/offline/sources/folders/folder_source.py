"""A folder of images as a recording."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np

from motion4d_ros.imagery.camera import Rectifier
from motion4d_ros.offline.sources.camera.given_poses import GivenPoses
from motion4d_ros.offline.sources.camera.lenses import Lens
from motion4d_ros.offline.sources.camera.unit_check import View, choose_pairs, compare, judge, view
from motion4d_ros.offline.sources.files.file_names import Keys
from motion4d_ros.offline.sources.files.pictures import PictureReader
from motion4d_ros.offline.sources.files.series import IMAGE_SUFFIXES, Series, read_series
from motion4d_ros.offline.sources.files.side_files import SideFiles
from motion4d_ros.offline.sources.folders.layouts import Layout, find_layout
from motion4d_ros.offline.sources.folders.stamp_files import with_times
from motion4d_ros.offline.sources.interfaces import NOTHING, SourceOptions, SourceReport, StampClock
from motion4d_ros.types import Frame, Motion4DError

DEFAULT_FPS = 10.0
CHECKED, PAIRS = 8, 6  # places in a recording, and pairs of images there, that compare depth with poses
_SAME_RATE = 0.05  # --fps that differs less from the stamps' rate says the same


class FolderSource:
    """Images in order of the stamps or numbers in their names, with what a data set's layout brings along."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self.name = str(path)
        self.report = SourceReport()
        layout = find_layout(path) if options.image_glob is None else None
        self._first = ""  # the size of the first image, in words
        self._options = options = _with_layout(options, layout, self.report)
        self._series = self._read_series(path, layout)
        self._files = self._series.files
        self.count: int | None = len(self._files)
        self._lens = Lens(options, self.report, path, layout)
        frames = self._series.keys
        self._side = self._read_side(frames)
        self._poses = self._read_poses(frames)
        self._stamps_ns = self._times(frames)
        self._pictures = PictureReader(self._files)
        self._rectifier = self._first_look()
        if self._pictures.note:
            self.report.warn(self._pictures.note)
        if self._poses is not None and self._side.depth_files:
            self._check_units(self._side.depth_files)
        self._side.say_unit()
        if self.report.found:
            brought = [
                f"{part}: {self.report.used[part]}" for part in ("depth", "camera poses") if part in self.report.used
            ]
            self.report.warn(f"laid out as {layout.name if layout else ''}; used with it: {'; '.join(brought)}")

    def __iter__(self) -> Iterator[Frame]:
        rectifier = self._rectifier
        clock = StampClock(self.report)
        refused: Counter[str] = Counter()
        for index, file in enumerate(self._files):
            try:
                image, turn = self._pictures.read(file)
            except Motion4DError as error:
                refused[str(error)] += 1
                self.report.warn(f"{file.name} cannot be read as an image: left out ({error})")
                continue
            size = (image.shape[0], image.shape[1])
            if rectifier is None or size != rectifier.camera.size:
                raise Motion4DError(f"{file}: {size[1]}x{size[0]} px, but {self._first}: all images need one size")
            depth, masks = self._side.depth(index, size, turn), self._side.masks(index, size, turn)
            stamp_ns = self._stamps_ns[index]
            yield Frame(
                stamp_ns=clock.next(stamp_ns),
                image=np.ascontiguousarray(rectifier.rectify(image)),
                camera=rectifier.camera,
                T_map_cam=None if self._poses is None else self._poses.at(index, self._own_stamp(index, stamp_ns)),
                depth_m=None if depth is None else rectifier.rectify(depth, nearest=True),
                masks=None if masks is None else rectifier.rectify(masks, nearest=True),
                detections=self._side.detections(index, rectifier),
            )
        if rectifier is None:
            raise Motion4DError(f"{self.name}: none of the {len(self._files)} images can be read: {_reasons(refused)}")

    def close(self) -> None:
        """Nothing stays open."""

    def _read_side(self, frames: Keys) -> SideFiles:
        """Depth and masks that were given, or that the layout brings; the latter are no reason to give up."""
        before = deepcopy(self.report)
        try:
            return SideFiles(self._options, frames, self.report, counted=False)
        except Motion4DError as error:
            if "depth" not in self.report.found:
                raise
            vars(self.report).update(vars(before))  # nothing of the attempt is told
            without = SideFiles(replace(self._options, depth=NOTHING), frames, self.report, counted=False)
            self.report.found.discard("depth")
            self.report.warn(f"depth beside the images was not used: {error}")
            return without

    def _read_poses(self, frames: Keys) -> GivenPoses | None:
        """The poses that were given, or that the layout brings; the latter are no reason to give up."""
        options, report = self._options, self.report
        if options.poses is not None and options.poses != NOTHING:
            rate = frames.rate_hz or options.fps or DEFAULT_FPS
            try:
                return GivenPoses(Path(options.poses), frames, options, report, rate_hz=rate, counted=False)
            except Motion4DError as error:
                if "poses" not in report.found:
                    raise
                report.found.discard("poses")
                report.warn(f"poses beside the images were not used: {error}")
        elif options.extrinsic is not None:
            report.warn("base_to_camera has no effect without --poses")
        report.missing.append("camera poses")
        return None

    def _own_stamp(self, index: int, stamp_ns: int) -> int:
        """The frame's stamp as the poses know it: that of its name, whatever --fps says."""
        stamps = self._series.keys.stamps_ns
        return stamp_ns if stamps is None else stamps[index]

    def _read_series(self, path: Path, layout: Layout | None) -> Series:
        hints = ("color", "colour", "rgb", "image")
        glob = self._options.image_glob if layout is None else layout.image_glob
        series = read_series(path if layout is None else layout.images, IMAGE_SUFFIXES, glob, "images", hints)
        self.report.used["image"] = f"{len(series)} images, {series.files[0].name} .. {series.files[-1].name}"
        if layout is not None:
            self.report.used["image"] += f" ({layout.name})"
        series = with_times(series, path, self.report)
        if series.left_out:
            self.report.warn(
                f"{len(series.left_out)} images are named otherwise than the others, {series.left_out[0]} for one: "
                "left out (--image-glob chooses)"
            )
        return series

    def _times(self, frames: Keys) -> list[int]:
        """The stamp of every image, ns: of its name or list, of its pose, by its number, or by its place."""
        count, fps, report = len(self._files), self._options.fps, self.report
        own = frames.stamps_ns
        if own is not None and (fps is None or abs((frames.rate_hz or fps) / fps - 1.0) <= _SAME_RATE):
            report.used["image"] += (
                f", stamps {'as listed' if self._series.listed else 'in their names'} ({frames.unit})"
            )
            return list(own)
        if own is not None:
            report.warn(f"--fps {fps:g} was used; the images' stamps say {frames.rate_hz or 0:.4g} a second")
        elif fps is None and self._poses is not None and self._poses.stamps_ns is not None:
            return self._poses.stamps_ns
        if fps is None:
            report.warn(f"no --fps: {DEFAULT_FPS:g} images a second are assumed; all speeds scale with it")
        places = _places(frames.numbers)
        if places is None:
            places = list(range(count))
        elif missing := places[-1] + 1 - count:
            report.warn(f"{missing} numbers are missing among the images': left as gaps in time")
        return [round(place * 1e9 / (fps or DEFAULT_FPS)) for place in places]

    def _first_look(self) -> Rectifier | None:
        """Size, camera and way up, by the first image that can be read; None where there is none.

        Images turned by an EXIF tag stay as stored where the calibration is of those.
        """
        for file in self._files:
            try:
                image, turn = self._pictures.read(file)
            except Motion4DError:
                continue
            size = (image.shape[0], image.shape[1])
            if not turn.nothing:
                stored = size[::-1] if turn.quarters % 2 else size
                if self._lens.is_of_stored(stored, size):
                    self._pictures.upright, size = False, stored
                    self.report.warn("images carry an EXIF tag that turns them: left aside, the calibration fits so")
                else:
                    self.report.warn(f"images are turned as their EXIF tag says: {size[1]}x{size[0]} px")
            self._first = f"{file.name} is {size[1]}x{size[0]}"
            return self._lens.rectifier(size)
        return None

    def _check_units(self, depth_files: dict[int, Path]) -> None:
        """Compares the unit of depth with the poses, by the motion in a few pairs of images."""
        unit, poses = self._side.units.unit, self._poses
        if unit is None or poses is None or self._rectifier is None:
            return
        spread = np.unique(np.linspace(0, len(self._files) - 1, CHECKED).round().astype(int)).tolist()
        near = sorted({k for i in spread for k in (i, i + 1, i + 3, i + 6)} & set(depth_files))
        posed = [(i, T) for i in near if (T := poses.peek(i, self._own_stamp(i, self._stamps_ns[i]))) is not None]
        pairs = []
        for i, j in choose_pairs(posed, PAIRS):
            first, second = self._view(i, depth_files), self._view(j, depth_files)
            if first is not None and second is not None:
                pairs.append((first, second))
        finding = compare(pairs, unit.units_per_metre)
        if finding is not None and finding.agrees:
            self._side.unit_is_sure = True
        elif finding is not None:
            self._side.unit_is_sure = True
            self._side.units.unit = judge(finding, unit, given=self._side.units_are_given)
            self.report.warn(self._side.units.unit.note)

    def _view(self, index: int, depth_files: dict[int, Path]) -> View | None:
        """One frame as `unit_check` wants it; None where it cannot be read."""
        rectifier, poses = self._rectifier, self._poses
        if rectifier is None or poses is None:
            return None
        try:
            image, turn = self._pictures.read(self._files[index])
            values = self._side.raw_depth(index, (image.shape[0], image.shape[1]), turn)
        except Motion4DError:
            return None
        T = poses.peek(index, self._own_stamp(index, self._stamps_ns[index]))
        if values is None or T is None or image.shape[:2] != rectifier.camera.size:
            return None
        return view(rectifier.rectify(image), rectifier.rectify(values, nearest=True), rectifier.camera, T)


def _with_layout(options: SourceOptions, layout: Layout | None, report: SourceReport) -> SourceOptions:
    """The options with what the layout brings along and nobody said otherwise."""
    if options.depth is None and options.depth_glob is not None and (layout is None or layout.depth is None):
        raise Motion4DError("--depth-glob chooses among files: give --depth DIR with it")
    if layout is None:
        return options
    if options.depth is None and layout.depth is not None:
        glob = options.depth_glob or layout.depth_glob
        options = replace(options, depth=str(layout.depth), depth_glob=glob)
        report.found.add("depth")
    if options.poses is None and layout.poses is not None:
        options = replace(options, poses=str(layout.poses))
        report.found.add("poses")
    return options


def _places(numbers: list[int] | None) -> list[int] | None:
    """The place in time of numbered images, in steps of the usual difference; None where the numbers tell nothing.

    Numbers 0, 1, 2, 5 leave a gap, numbers 0, 5, 10, 15 none: every fifth image was kept.
    """
    if numbers is None or len(numbers) < 3:
        return None
    steps = np.diff(numbers)
    if (steps <= 0).any():
        return None
    usual, counts = np.unique(steps, return_counts=True)
    step = int(usual[counts.argmax()])
    regular = 2 * counts.max() >= len(steps) and (steps % step == 0).all()
    return [(number - numbers[0]) // step for number in numbers] if regular else None


def _reasons(refused: Counter[str]) -> str:
    text, count = refused.most_common(1)[0]
    return text if len(refused) == 1 else f"{text} ({count} times), and {len(refused) - 1} other reasons"
