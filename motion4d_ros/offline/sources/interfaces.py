"""What every recording looks like to the analysis: an iterable of frames that says what it used and what it lacked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.imagery.conversions import fit_size
from motion4d_ros.imagery.validation import check_intrinsics
from motion4d_ros.types import Camera, FloatArray, Frame, Motion4DError

NOTHING = "none"
"""`--depth none`: leave what lies beside the images alone, though it would be used otherwise."""


@dataclass
class SourceOptions:
    """How a recording is to be read. For bags the five inputs are topics, otherwise folders or files.

    `sources/rules.py` says which of them a kind of recording takes.
    """

    image: str | None = None
    camera_info: str | None = None  # topic, or a calibration file
    depth: str | None = None  # None: what is found beside the images is used; `NOTHING`: none
    masks: str | None = None
    detections: str | None = None  # COCO's JSON; of bags a topic, too
    odometry: str | None = None
    poses: str | None = None  # trajectory file, or a folder of files with a 4x4 matrix each (not for bags)
    image_glob: str | None = None
    depth_glob: str | None = None
    masks_glob: str | None = None
    fps: float | None = None
    intrinsics: tuple[float, float, float, float] | None = None  # fx, fy, cx, cy, px of the full image
    extrinsic: FloatArray | None = None  # (4, 4) T_body_cam: where the camera sits on the body whose odometry is given
    use_tf: bool = False  # poses from /tf and /tf_static
    map_frame: str = "map"
    depth_frame: str = ""  # the frame that depth lies in, whatever its header says (bags); "": as it says
    depth_units_per_metre: float = 0.0  # units of depth in one metre (1000: mm); 0 = recognise it
    slop_s: float = 0.02  # largest difference of stamps that still belong together
    max_pose_gap_s: float = 0.5  # longer gaps between poses are not interpolated

    def __post_init__(self) -> None:
        if self.fps is not None and not 0.0 < self.fps <= 10_000.0:
            raise Motion4DError(f"--fps {self.fps}: frames per second must lie in 0 .. 10000")
        if not 0.0 <= self.depth_units_per_metre < float("inf"):
            raise Motion4DError(f"--depth-scale {self.depth_units_per_metre}: units per metre, such as 1000 for mm")
        if self.intrinsics is not None and (not np.isfinite(self.intrinsics).all() or min(self.intrinsics[:2]) <= 0):
            raise Motion4DError(f"--intrinsics {self.intrinsics}: expected fx,fy,cx,cy in pixels with fx, fy > 0")


@dataclass
class SourceReport:
    """What was used, what was lacking and what was odd, in words for people."""

    used: dict[str, str] = field(default_factory=dict)  # "image" -> "/camera/image_raw (rgb8)"
    found: set[str] = field(default_factory=set)  # of "depth", "poses": used, though no option asked for them
    missing: list[str] = field(default_factory=list)
    warnings: Counter[str] = field(default_factory=Counter)
    truncated: bool = False  # the recording breaks off: what is missing may have been in the part that is lost

    def warn(self, text: str) -> None:
        """Counts a warning; the same text is told once."""
        self.warnings[text] += 1

    def sentences(self) -> list[str]:
        """The warnings, each with how often it came up."""
        return [text if count == 1 else f"{text} ({count} times)" for text, count in self.warnings.items()]


class FrameSource(Protocol):
    """A recording. Iterating reads it from the start, one frame at a time in memory."""

    name: str
    """What the report calls it."""
    count: int | None
    """Expected number of frames, None if the recording doesn't say."""
    report: SourceReport

    def __iter__(self) -> Iterator[Frame]:
        """Frames in order of time. Raises `Motion4DError` for what cannot be used at all."""

    def close(self) -> None:
        """Closes files."""


class StampClock:
    """Makes stamps strictly ascending, because a repeated or backward stamp would mean infinite or negative speed."""

    def __init__(self, report: SourceReport) -> None:
        self._report = report
        self._last: int | None = None
        self._step = 33_333_333

    def next(self, stamp_ns: int) -> int:
        """`stamp_ns`, or the last stamp plus the usual step where it does not go forward."""
        if self._last is not None:
            if stamp_ns <= self._last:
                self._report.warn("a frame's stamp stood still or went back: the usual time step was used instead")
                stamp_ns = self._last + self._step
            else:
                self._step = stamp_ns - self._last
        self._last = stamp_ns
        return stamp_ns


def fit_to_size(
    array: NDArray[np.generic], size: tuple[int, int], what: str, report: SourceReport
) -> NDArray[np.generic]:
    """(h, w) depth or labels -> (H, W) by nearest neighbour, when the aspect agrees within 2 %.

    Raises `Motion4DError` where it does not: such an image cannot belong to the colour image.
    """
    if array.shape[:2] == size:
        return array
    fitted = fit_size(array, *size, what)
    have, want = f"{array.shape[1]}x{array.shape[0]}", f"{size[1]}x{size[0]}"
    report.warn(f"{what} of {have} px scaled to the image's {want} by nearest neighbour")
    return fitted


def camera_for(
    size: tuple[int, int],
    intrinsics: tuple[float, float, float, float] | None,
    report: SourceReport,
    pixel_aspect: float = 1.0,
) -> Camera:
    """The camera of (height, width) images; without intrinsics a guess of a 45 degree lens, said plainly.

    `pixel_aspect`: a pixel's width by its height, for the guess.
    """
    height, width = size
    if intrinsics is not None:
        check_intrinsics(*intrinsics, size, "--intrinsics")
        _, _, cx, cy = intrinsics
        if abs(cx - width / 2) > width / 4 or abs(cy - height / 2) > height / 4:
            report.warn(
                f"--intrinsics: cx {cx:g}, cy {cy:g} lie far from the middle of {width}x{height} px images: "
                "are they of another size?"
            )
        report.used["camera"] = "fx {:g}, fy {:g}, cx {:g}, cy {:g} px (given)".format(*intrinsics)
        return Camera(*intrinsics, width, height)
    focal = 1.2 * max(width, height / pixel_aspect)
    report.used["camera"] = f"a guess: fx = fy = {focal:g} px, principal point in the centre"
    report.missing.append("camera intrinsics")
    report.warn(
        f"no --intrinsics: fx = fy = {focal:g} px (a 45 degree lens) is assumed; "
        "shapes and motion towards the camera are distorted where this is wrong"
    )
    return Camera(focal, focal * pixel_aspect, (width - 1) / 2.0, (height - 1) / 2.0, width, height)
