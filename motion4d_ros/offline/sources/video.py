"""A video file as a recording."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from motion4d_ros.offline.sources.base import SourceOptions, SourceReport, StampClock, camera_for
from motion4d_ros.offline.sources.files import SideFiles
from motion4d_ros.types import Camera, Frame, Motion4DError

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".gif", ".wmv", ".mts"})


class VideoSource:
    """Frames of a video at constant rate (`fps` overrides the file's)."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self.name = str(path)
        self.report = SourceReport()
        self._path, self._options = path, options
        if options.image or options.camera_info or options.odometry:
            raise Motion4DError(f"{path}: a video has no topics; use --depth DIR, --masks DIR, --poses FILE.tum")
        self._capture = self._open()
        announced = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self.count: int | None = announced if announced > 0 else None
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        if options.fps is not None:
            rate = options.fps
        elif not 0.1 < rate < 10_000:
            rate = 30.0
            self.report.warn(
                "the video does not say its rate: 30 frames a second are assumed; all speeds scale with it"
            )
        self._rate = rate
        self.report.used["image"] = f"{path.name}, {announced if announced > 0 else '?'} frames, {rate:g} a second"
        self._side = SideFiles(options, None, self.count, self.report)

    def __iter__(self) -> Iterator[Frame]:
        if not self._capture.isOpened() or self._capture.get(cv2.CAP_PROP_POS_FRAMES) > 0:
            self._capture.release()
            self._capture = self._open()
        camera: Camera | None = None
        clock = StampClock(self.report)
        index = 0
        while True:
            good, bgr = self._capture.read()
            if not good or bgr is None:
                break
            if camera is None:
                camera = camera_for(bgr.shape[:2], self._options.intrinsics, self.report)
            stamp_ns = clock.next(round(index * 1e9 / self._rate))
            yield Frame(
                stamp_ns=stamp_ns,
                image=np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8),
                camera=camera,
                T_map_cam=self._side.pose(index, stamp_ns),
                depth_m=self._side.depth(index, camera.size),
                masks=self._side.masks(index, camera.size),
            )
            index += 1
        if index == 0:
            raise Motion4DError(f"{self.name}: not a single frame can be decoded: truncated, or an unknown codec")
        if self.count is not None and index < self.count:
            self.report.warn(f"the video announces {self.count} frames, {index} could be decoded: it may be truncated")

    def close(self) -> None:
        """Releases the decoder."""
        self._capture.release()

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise Motion4DError(f"{self._path}: cannot be opened as a video: truncated, or an unknown codec")
        return capture
