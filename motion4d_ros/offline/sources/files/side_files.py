"""Depth and masks that lie in files beside a video or a folder of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from motion4d_ros.imagery.camera import Rectifier
from motion4d_ros.imagery.conversions import object_ids
from motion4d_ros.imagery.depth_units import DepthUnits, known_values, recognise
from motion4d_ros.imagery.detections import rectified
from motion4d_ros.imagery.void_labels import VoidRule
from motion4d_ros.offline.sources.files.detection_file import DetectionFile
from motion4d_ros.offline.sources.files.file_names import Keys
from motion4d_ros.offline.sources.files.pairing import pair
from motion4d_ros.offline.sources.files.pictures import Turn, read_image_file, why_unreadable
from motion4d_ros.offline.sources.files.series import DEPTH_SUFFIXES, IMAGE_SUFFIXES, Series, read_series
from motion4d_ros.offline.sources.folders.layouts import depth_convention
from motion4d_ros.offline.sources.interfaces import NOTHING, SourceOptions, SourceReport, fit_to_size
from motion4d_ros.types import Detection, IntArray, Motion4DError

SAMPLED_DEPTH = 5
"""Depth files, from all over the recording, that tell the unit of all."""
SAMPLED_MASKS = 24
"""Mask files, from all over the recording, that tell what 255 means."""
_JPEG_SLACK = 24  # how far compression may move the two values of a binary mask

Read = TypeVar("Read")


def read_labels(path: Path) -> NDArray[np.int32]:
    """A mask file -> (H, W) int32 object ids. Palette images give their indices, not their colours."""
    try:
        with Image.open(path) as opened:
            lossy = opened.format == "JPEG"
            if opened.mode in ("P", "L", "I;16", "I", "1"):
                pixels = np.array(opened)
            else:
                pixels = _grey(np.array(opened.convert("RGBA")), path)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        text = why_unreadable(path) if isinstance(error, UnidentifiedImageError) else str(error)
        raise Motion4DError(f"{path}: cannot be read as a mask ({text})") from None
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8)
    return object_ids(_two_values(pixels, path) if lossy else pixels)


def _grey(colours: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
    """(H, W) ids of a mask in colours (H, W, 4), which must be grey; what is transparent in parts of it is background.

    Cut-outs keep any colour, white for one, where they are transparent.
    """
    pixels, alpha = colours[..., :3].copy(), colours[..., 3]
    if cut_out := bool((alpha == 0).any() and (alpha > 0).any()):
        pixels[alpha == 0] = 0
    if (pixels != pixels[..., :1]).any():
        raise Motion4DError(f"{path}: a colour image; masks hold object ids (8- or 16-bit grey, or palette)")
    if cut_out and not pixels.any():
        raise Motion4DError(f"{path}: only its transparency marks something; masks hold object ids, 0 = background")
    return pixels[..., 0]


def _two_values(pixels: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """A JPEG blurs ids; only a mask of black and white survives it."""
    dark, bright = pixels <= _JPEG_SLACK, pixels >= 255 - _JPEG_SLACK
    if (dark | bright).mean() < 0.98:
        raise Motion4DError(f"{path}: a JPEG, which blurs object ids: write masks as PNG")
    return np.where(pixels > 127, 255, 0).astype(np.uint8)


def read_depth_values(path: Path) -> NDArray[Any]:
    """A depth file -> (H, W) uint16 or floating point, in whatever unit. Raises `Motion4DError`."""
    pixels: NDArray[Any] | None
    if path.suffix.lower() == ".npy":
        try:
            pixels = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise Motion4DError(f"{path}: cannot be read as depth ({error})") from None
        pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
        pixels = pixels[0] if pixels.ndim == 3 and pixels.shape[0] == 1 else pixels
    else:
        pixels = read_image_file(path, cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise Motion4DError(f"{path}: cannot be read as depth ({why_unreadable(path)})")
    if pixels.ndim != 2 or pixels.dtype.kind not in "uif" or pixels.dtype.itemsize < 2:
        raise Motion4DError(
            f"{path}: {_kind(pixels)}; depth is a 16-bit PNG in mm or a 2-D .npy in m (--depth-scale: others)"
        )
    if pixels.dtype.kind == "f":
        return np.asarray(pixels, np.float32)
    return pixels


def _kind(pixels: NDArray[Any]) -> str:
    """What pixels are, for people."""
    if pixels.ndim == 3:
        return f"a picture of {pixels.shape[2]} channels (in false colours?)"
    return "an 8-bit picture" if pixels.dtype.itemsize == 1 else f"{pixels.dtype}{pixels.shape}"


class SideFiles:
    """Depth and masks of frame 0, 1, 2, … of a video or folder."""

    def __init__(self, options: SourceOptions, frames: Keys, report: SourceReport, *, counted: bool) -> None:
        """`frames`: what the names of the images say, or the stamps of a video; `counted`: see `pairing.pair`."""
        self._report, self._frames, self._slop_s, self._counted = report, frames, options.slop_s, counted
        self._depth_series, self.depth_files = self._series(
            options.depth, DEPTH_SUFFIXES, options.depth_glob, "depth files", ("depth",)
        )
        self._masks_series, self._mask_files = self._series(
            options.masks, IMAGE_SUFFIXES, options.masks_glob, "masks", ("mask", "label", "seg")
        )
        self.units = DepthUnits(options.depth_units_per_metre)
        self.units_are_given = bool(options.depth_units_per_metre)
        self.unit_is_sure = self.units_are_given  # given, declared by the layout, measured, or told with a note
        self._usual = 0.0  # the raw value in the middle of all
        self._void = VoidRule()
        self._boxes: DetectionFile | None = None
        if options.detections is not None:
            self._boxes = DetectionFile(Path(options.detections), report)
            self._boxes.match(frames, options.slop_s, counted=counted)
        if self._depth_series is None and self.units_are_given:
            raise Motion4DError(
                "--depth-scale (depth.units_per_metre) says what depth counts in: give --depth DIR with it"
            )
        if self._depth_series is not None:
            self._decide_unit(self._depth_series, Path(str(options.depth)))
        if self._masks_series is not None:
            readable = self._sample(self._masks_series.files, SAMPLED_MASKS, read_labels)
            self._void.observe(readable)
            if self._void.note:
                report.warn(self._void.note)

    def depth(self, index: int, size: tuple[int, int], turn: Turn) -> NDArray[np.float32] | None:
        """(H, W) m of one frame whose image was turned so, or None."""
        values = self.raw_depth(index, size, turn)
        return None if values is None else self.units.metres(values)

    def raw_depth(self, index: int, size: tuple[int, int], turn: Turn) -> NDArray[Any] | None:
        """(H, W) of one frame as it counts, or None."""
        values = self._one(self.depth_files, index, read_depth_values, "depth")
        if values is None:
            return None
        return fit_to_size(self._turned(values, size, turn, "depth"), size, "depth", self._report)

    def masks(self, index: int, size: tuple[int, int], turn: Turn) -> IntArray | None:
        """(H, W) ids of one frame whose image was turned so, or None."""
        labels = self._one(self._mask_files, index, read_labels, "masks")
        if labels is None:
            return None
        fitted = fit_to_size(self._turned(labels, size, turn, "masks"), size, "masks", self._report)
        return self._void.apply(np.asarray(fitted, np.int32))

    def detections(self, index: int, rectifier: Rectifier) -> tuple[Detection, ...] | None:
        """What was detected in one frame, in rectified pixels; None if nobody looked."""
        found = None if self._boxes is None else self._boxes.of(index, rectifier.camera.size)
        return None if found is None else rectified(found, rectifier)

    def _one(self, files: dict[int, Path] | None, index: int, read: Callable[[Path], Read], what: str) -> Read | None:
        """The file of one frame; one that cannot be read is left out and said."""
        path = None if files is None else files.get(index)
        if path is None:
            return None
        try:
            return read(path)
        except Motion4DError as error:
            self._report.warn(f"{what} left out: {error}")
            return None

    def _turned(self, pixels: NDArray[Any], size: tuple[int, int], turn: Turn, what: str) -> NDArray[Any]:
        """Turned like the image, where it has the shape that the image had before."""
        if turn.nothing or pixels.shape[:2] == size:
            if not turn.nothing and turn.size(size) == size:
                self._report.warn(f"images are turned as their EXIF tag says, {what} are taken as they are")
            return pixels
        stored = size[::-1] if turn.quarters % 2 else size
        if abs(pixels.shape[1] / pixels.shape[0] - stored[1] / stored[0]) > 0.02 * stored[1] / stored[0]:
            return pixels
        self._report.warn(f"{what} were turned like their images")
        return turn.of(pixels)

    def _series(
        self, path: str | None, suffixes: frozenset[str], glob: str | None, what: str, hints: tuple[str, ...]
    ) -> tuple[Series | None, dict[int, Path] | None]:
        """The files, and frame index -> file."""
        kind = what.split()[0]
        if path is None or path == NOTHING:
            self._report.missing.append(kind)
            return None, None
        series = read_series(Path(path), suffixes, glob, what, hints)
        for name in series.left_out[:1]:
            self._report.warn(f"{len(series.left_out)} files of {path} are named otherwise, {name} for one: left out")
        found = pair(self._frames, series.keys, what, series.where, slop_s=self._slop_s, counted=self._counted)
        self._report.used[kind] = f"{path} ({len(series)} files; {found.how})"
        if found.tell:
            self._report.warn(f"{len(series)} {what} for {len(self._frames.stems)} images: {found.how}")
        return series, {index: series.files[position] for index, position in found.matched.items()}

    def _sample(self, files: Sequence[Path], count: int, read: Callable[[Path], Read]) -> list[Read]:
        """Some files from all over the series. Raises the reason of the last one where none can be read."""
        positions = np.unique(np.linspace(0, len(files) - 1, count).round().astype(int))
        found, reason = [], None
        for position in positions.tolist():
            try:
                found.append(read(files[position]))
            except Motion4DError as error:
                reason = error
        if not found and reason is not None:
            raise reason
        return found

    def _decide_unit(self, series: Series, path: Path) -> None:
        values = self._sample(series.files, SAMPLED_DEPTH, read_depth_values)
        if self.units_are_given:
            return
        stamped = series.keys.absolute and self._frames.absolute
        convention = depth_convention(path)
        self.units.unit = recognise(values, convention, rgbd_layout=stamped)
        for note in self.units.notes:
            self._report.warn(note)
        known = known_values(values)
        self._usual = float(np.median(known)) if known.size else 0.0
        self.unit_is_sure = bool(convention or self.units.notes) or all(part.dtype.kind == "f" for part in values)

    def say_unit(self) -> None:
        """Tells the report what depth is read in, once that is decided."""
        unit = self.units.unit
        if self._depth_series is None or unit is None:
            return
        self._report.used["depth"] += f", in {unit.name}"
        if not self.unit_is_sure:
            self._report.warn(
                f"depth is taken for {unit.name}, {self._usual / unit.units_per_metre:.3g} m in the middle of all; "
                "nothing confirms that, --depth-scale UNITS_PER_METRE says it (5000: TUM, 4000: L515, 256: KITTI)"
            )
