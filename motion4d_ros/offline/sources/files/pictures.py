"""Picture files to RGB: of 8 bits or more, with or without transparency, turned as their EXIF tag says or not."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from motion4d_ros.imagery.high_bit import Levels
from motion4d_ros.offline.sources.quiet import quiet_opencv
from motion4d_ros.types import Motion4DError

MOST_PIXELS = 128_000_000
"""A file that claims more is not unpacked."""
JPEG_BLOCK = 8  # px
MEASURED = 12
"""Pictures, taken from all over the recording, that choose what is black and white where they have more than 8 bits."""
_EXIF_ORIENTATION = 0x0112
_TURNS = {3: 2, 6: 3, 8: 1}  # EXIF orientation -> quarter turns counter-clockwise, as `np.rot90` counts
_MIRRORED = (2, 4, 5, 7)
_FLAGS = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION


@dataclass(frozen=True)
class Turn:
    """How a camera held another way was turned back: quarter turns counter-clockwise, after a mirror if any."""

    quarters: int = 0
    mirrored: bool = False

    @property
    def nothing(self) -> bool:
        """Whether pictures stay as they are stored."""
        return self.quarters == 0 and not self.mirrored

    def of(self, pixels: NDArray[Any]) -> NDArray[Any]:
        """(h, w[, C]) as stored -> as it is to be seen."""
        if self.mirrored:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(np.rot90(pixels, self.quarters)) if self.quarters else pixels

    def size(self, stored: tuple[int, int]) -> tuple[int, int]:
        """(h, w) as stored -> (H, W) as it is to be seen."""
        return (stored[1], stored[0]) if self.quarters % 2 else stored


class PictureReader:
    """Reads the pictures of one recording alike: one choice of black and white, one way up."""

    def __init__(self, files: Sequence[Path], *, upright: bool = True) -> None:
        """`upright`: turn pictures as their EXIF tag says; else they stay as the camera's sensor gave them."""
        self.upright = upright
        self._levels = Levels()
        self._range: tuple[float, float] | None = None  # of floating-point pictures
        self._measure(files)

    @property
    def note(self) -> str:
        """What was done to pictures of more than 8 bits, "" if there is none."""
        return self._levels.text

    def read(self, file: Path) -> tuple[NDArray[np.uint8], Turn]:
        """(H, W, 3) RGB, and how it was turned. Raises `Motion4DError` with the reason for what cannot be read."""
        pixels = read_pixels(file)
        turn = turn_of(file) if self.upright else Turn()
        if pixels.dtype != np.uint8:
            pixels = self._levels.to_8_bits(self._as_16_bits(pixels), grey=pixels.ndim == 2)
        code = cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB
        return np.asarray(turn.of(cv2.cvtColor(pixels, code)), np.uint8), turn

    def _measure(self, files: Sequence[Path]) -> None:
        chosen = [files[k] for k in np.unique(np.linspace(0, len(files) - 1, MEASURED).round().astype(int))]
        deep = []
        for file in chosen:
            try:
                pixels = read_pixels(file)
            except Motion4DError:
                continue
            if pixels.dtype == np.uint8:  # one is enough: recordings are of one kind
                return
            deep.append(pixels)
        floating = [pixels[np.isfinite(pixels)] for pixels in deep if pixels.dtype.kind == "f"]
        floating = [values for values in floating if values.size]
        if floating:
            self._range = min(float(v.min()) for v in floating), max(float(v.max()) for v in floating)
        for pixels in deep:
            self._levels.prime([self._as_16_bits(pixels)], grey=pixels.ndim == 2)

    def _as_16_bits(self, pixels: NDArray[Any]) -> NDArray[np.uint16]:
        """Floating-point pictures (degrees, radiance) onto 0 .. 65535, by the range of the whole recording."""
        if pixels.dtype == np.uint16:
            return pixels
        low, high = self._range or (0.0, 1.0)
        share = (np.nan_to_num(pixels.astype(np.float64), nan=low) - low) / max(high - low, 1e-12)
        return (np.clip(share, 0.0, 1.0) * 65534.0).astype(np.uint16)


def read_pixels(file: Path) -> NDArray[Any]:
    """(H, W) grey or (H, W, 3) BGR as stored: uint8, uint16 or floating point. Raises `Motion4DError` with why."""
    if (claim := _claim(file)) is not None and claim[0] * claim[1] > MOST_PIXELS:
        raise Motion4DError(f"claims {claim[0]}x{claim[1]} px, at most {MOST_PIXELS // 1_000_000} Mpx are read")
    pixels = read_image_file(file, _FLAGS)
    if pixels is None:
        raise Motion4DError(why_unreadable(file))
    if file.suffix.lower() in (".jpg", ".jpeg") and _breaks_off(file.read_bytes(), pixels):
        raise Motion4DError("the JPEG breaks off")
    if pixels.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
        raise Motion4DError(f"{pixels.dtype} pixels, expected 8 or 16 bits or floating point")
    return pixels


def read_image_file(file: Path, flags: int) -> NDArray[Any] | None:
    """What OpenCV makes of a file; None where it cannot, without a word on stderr, and for absurd sizes."""
    if (claim := _claim(file)) is not None and claim[0] * claim[1] > MOST_PIXELS:
        return None
    try:
        with quiet_opencv():
            return cv2.imread(str(file), flags)
    except cv2.error:  # a header that claims more pixels than OpenCV takes
        return None


def _claim(file: Path) -> tuple[int, int] | None:
    """(width, height) that a file's header claims, before anything is unpacked; None for what Pillow does not know."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the caller decides what is too large
            with Image.open(file) as opened:
                return opened.size
    except Image.DecompressionBombError:
        return MOST_PIXELS, 2
    except (OSError, UnidentifiedImageError, ValueError, TypeError, SyntaxError):
        return None


def turn_of(file: Path) -> Turn:
    """What the file's EXIF tag says about how the camera was held."""
    try:
        with Image.open(file) as opened:
            orientation = int(opened.getexif().get(_EXIF_ORIENTATION, 1))
    except (OSError, UnidentifiedImageError, ValueError, TypeError, SyntaxError, Image.DecompressionBombError):
        return Turn()
    if orientation in _MIRRORED:
        return Turn({2: 0, 4: 2, 5: 1, 7: 3}[orientation], True)
    return Turn(_TURNS.get(orientation, 0))


def why_unreadable(file: Path) -> str:
    """The reason for which no picture can be read from a file, in words."""
    if file.is_symlink() and not file.exists():
        return f"a link to {file.readlink()}, which is not there (content not fetched?)"
    try:
        head = file.open("rb").read(64)
    except OSError as error:
        return f"cannot be opened ({error.strerror or error})"
    if not head:
        return "an empty file"
    if head.startswith(b"version https://git-lfs"):
        return "only a Git LFS pointer: run `git lfs pull`"
    if head[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypheif"):
        return "a HEIC picture: convert it to JPEG"
    if head.lstrip()[:1] in (b"<", b"{") or (head.isascii() and head.replace(b"\n", b"").isalnum()):
        return "text, no picture"
    return "damaged, or no picture"


def _breaks_off(jpeg: bytes, pixels: NDArray[Any]) -> bool:
    """Whether a file holds the beginning of a JPEG only: OpenCV reads it without complaint, and leaves the rest blank.

    Some cameras forget the end mark of whole images: only without it *and* with a blank lower edge is one broken.
    """
    scan = jpeg.rfind(b"\xff\xda")  # the last scan: what stands before it may hold a small picture with its own end
    edge = pixels[-JPEG_BLOCK:]
    return jpeg.find(b"\xff\xd9", max(0, scan)) < 0 and bool((edge == edge[:1, :1]).all())
