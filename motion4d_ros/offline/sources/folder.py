"""A folder of images as a recording."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.offline.sources.base import SourceOptions, SourceReport, StampClock, camera_for
from motion4d_ros.offline.sources.files import IMAGE_SUFFIXES, SideFiles, list_files
from motion4d_ros.types import Camera, Frame, Motion4DError

DEFAULT_FPS = 10.0
JPEG_BLOCK = 8  # px


class FolderSource:
    """Images in natural order of their names, `fps` apart."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self.name = str(path)
        self.report = SourceReport()
        self._options = options
        self._files = list_files(
            path, IMAGE_SUFFIXES, options.image_glob, "images", ("color", "colour", "rgb", "image")
        )
        self.count: int | None = len(self._files)
        self.report.used["image"] = f"{len(self._files)} images, {self._files[0].name} .. {self._files[-1].name}"
        self._side = SideFiles(options, [file.stem for file in self._files], self.count, self.report)
        self._own_stamps = options.fps is None and self._side.stamp_ns(self.count - 1) is not None
        if options.fps is None and not self._own_stamps:
            self.report.warn(f"no --fps: {DEFAULT_FPS:g} images a second are assumed; all speeds scale with it")

    def __iter__(self) -> Iterator[Frame]:
        camera: Camera | None = None
        first = self._files[0].name
        clock = StampClock(self.report)
        readable = 0
        for index, file in enumerate(self._files):
            bgr = _read(file)
            if bgr is None:
                self.report.warn(f"{file.name} cannot be read as an image: left out")
                continue
            readable += 1
            size = (bgr.shape[0], bgr.shape[1])
            if camera is None:
                camera, first = camera_for(size, self._options.intrinsics, self.report), file.name
            if size != camera.size:
                raise Motion4DError(
                    f"{file}: {size[1]}x{size[0]} px, but {first} is {camera.width}x{camera.height}: "
                    "all images need one size"
                )
            stamp_ns = round(index * 1e9 / (self._options.fps or DEFAULT_FPS))
            own = self._side.stamp_ns(index) if self._own_stamps else None
            yield Frame(
                stamp_ns=clock.next(stamp_ns if own is None else own),
                image=np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8),
                camera=camera,
                T_map_cam=self._side.pose(index, stamp_ns),
                depth_m=self._side.depth(index, camera.size),
                masks=self._side.masks(index, camera.size),
            )
        if not readable:
            raise Motion4DError(f"{self.name}: none of the {len(self._files)} images can be read")

    def close(self) -> None:
        """Nothing stays open."""


def _read(file: Path) -> NDArray[np.uint8] | None:
    """(H, W, 3) BGR; None for what is no image, or only the beginning of one."""
    bgr = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if bgr is None or (file.suffix.lower() in (".jpg", ".jpeg") and _breaks_off(file.read_bytes(), bgr)):
        return None
    return np.asarray(bgr, np.uint8)


def _breaks_off(jpeg: bytes, bgr: NDArray[Any]) -> bool:
    """Whether a file holds the beginning of a JPEG only: OpenCV reads it without complaint, and leaves the rest blank.

    Some cameras forget the end mark of whole images: only without it *and* with a blank lower edge is one broken.
    """
    scan = jpeg.rfind(b"\xff\xda")  # the last scan: what stands before it may hold a small picture with its own end
    edge = bgr[-JPEG_BLOCK:]
    return jpeg.find(b"\xff\xd9", max(0, scan)) < 0 and bool((edge == edge[:1, :1]).all())
