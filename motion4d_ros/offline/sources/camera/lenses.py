"""Which camera took the images of a video or folder: given, found beside them, known of the data set, or guessed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from motion4d_ros.imagery.camera import Rectifier
from motion4d_ros.offline.sources.camera.calibration_files import read_calibration, rectifier_for
from motion4d_ros.offline.sources.folders.layouts import Layout, calibration_of, default_calibration
from motion4d_ros.offline.sources.interfaces import SourceOptions, SourceReport, camera_for
from motion4d_ros.types import Motion4DError


class Lens:
    """The camera of one recording."""

    def __init__(
        self, options: SourceOptions, report: SourceReport, folder: Path | None, layout: Layout | None
    ) -> None:
        """`folder`: where a calibration may lie beside the images. Raises `Motion4DError` for a bad --camera-info."""
        self._options, self._report, self._folder, self._layout = options, report, folder, layout
        self._given: SimpleNamespace | None = None
        if options.camera_info is not None:
            path = Path(options.camera_info)
            if not path.is_file():
                raise Motion4DError(
                    f"--camera-info {path}: no such file; for a video or folder it is a calibration file (YAML)"
                )
            self._given = read_calibration(path)

    def is_of_stored(self, stored: tuple[int, int], turned: tuple[int, int]) -> bool:
        """Whether what was given belongs to images of the (height, width) as stored, not to those turned upright."""
        if stored == turned:
            return False
        if self._given is not None and self._given.width:
            return (self._given.height, self._given.width) == stored
        intrinsics = self._options.intrinsics
        if self._given is not None:
            intrinsics = (self._given.k[0], self._given.k[4], self._given.k[2], self._given.k[5])
        if intrinsics is None:
            return False

        def off(size: tuple[int, int]) -> float:
            return abs(intrinsics[2] - size[1] / 2) + abs(intrinsics[3] - size[0] / 2)

        return off(stored) < off(turned)

    def rectifier(self, size: tuple[int, int], pixel_aspect: float = 1.0) -> Rectifier:
        """For images of (height, width); `pixel_aspect` is a pixel's width by its height. Raises `Motion4DError`."""
        report, options = self._report, self._options
        if self._given is not None:
            return self._from_info(self._given, size, f"--camera-info {options.camera_info}")
        if options.intrinsics is None:
            if (found := self._beside(size)) is not None:
                return found
            if self._layout is not None and (default := default_calibration(self._layout, size)) is not None:
                report.warn(f"no --intrinsics: {default[1]} ({_words(default[0])}) is assumed")
                return self._from_info(default[0], size, default[1])
        return Rectifier.of_pinhole(camera_for(size, options.intrinsics, report, pixel_aspect))

    def _beside(self, size: tuple[int, int]) -> Rectifier | None:
        if self._folder is None:
            return None
        try:
            found = calibration_of(self._folder, size)
            if found is None:
                return None
            rectifier = self._from_info(found[0], size, found[1])
        except Motion4DError as error:
            self._report.warn(f"a calibration beside the images was not used: {error}")
            return None
        self._report.warn(f"no --intrinsics: {found[1]} ({_words(found[0])}) was used")
        return rectifier

    def _from_info(self, info: SimpleNamespace, size: tuple[int, int], where: str) -> Rectifier:
        rectifier = rectifier_for(info, size, where)
        camera = rectifier.camera
        self._report.used["camera"] = (
            f"fx {camera.fx:g}, fy {camera.fy:g}, cx {camera.cx:g}, cy {camera.cy:g} px ({where}"
            + ("" if rectifier.is_identity else f", rectified: {info.distortion_model}")
            + ")"
        )
        return rectifier


def _words(info: SimpleNamespace) -> str:
    return f"fx {info.k[0]:g}, fy {info.k[4]:g}, cx {info.k[2]:g}, cy {info.k[5]:g}"
