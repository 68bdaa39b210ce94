"""A video file as a recording, with the stamps of its container."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.imagery.camera import Rectifier
from motion4d_ros.offline.sources.camera.given_poses import GivenPoses
from motion4d_ros.offline.sources.camera.lenses import Lens
from motion4d_ros.offline.sources.files.file_names import Keys
from motion4d_ros.offline.sources.files.pictures import Turn
from motion4d_ros.offline.sources.files.side_files import SideFiles
from motion4d_ros.offline.sources.interfaces import NOTHING, SourceOptions, SourceReport, StampClock
from motion4d_ros.offline.sources.quiet import quiet_opencv
from motion4d_ros.offline.sources.videos.container import read_packets
from motion4d_ros.types import Frame, Motion4DError

USUAL_RATE = 30.0
_VARIES = 0.2  # steps that differ more from the usual one are no rounding


class VideoSource:
    """Frames of a video, at the times that its container says (`fps` overrides them)."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self.name = str(path)
        self.report = SourceReport()
        self._path, self._options = path, options
        packets = read_packets(path)
        self._stamps_ns = None if packets is None else packets.stamps_ns
        self._lens = Lens(options, self.report, None, None)
        self._capture, self._turn = self._open()
        announced = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)) if packets is None else packets.count
        self.count: int | None = announced if announced > 0 else None
        self._rate = self._choose_rate(float(self._capture.get(cv2.CAP_PROP_FPS)))
        self.report.used["image"] = f"{path.name}, {self.count or '?'} frames, {self._rate:.5g} a second"
        self._say_time()
        frames = self._keys()
        self._side = SideFiles(options, frames, self.report, counted=True)
        self._side.say_unit()
        self._poses: GivenPoses | None = None
        if options.poses is None or options.poses == NOTHING:
            self.report.missing.append("camera poses")
            if options.extrinsic is not None:
                self.report.warn("base_to_camera has no effect without --poses")
        else:
            self._poses = GivenPoses(
                Path(options.poses), frames, options, self.report, rate_hz=self._rate, counted=True
            )

    def __iter__(self) -> Iterator[Frame]:
        if not self._capture.isOpened() or self._capture.get(cv2.CAP_PROP_POS_FRAMES) > 0:
            self._capture.release()
            self._capture, self._turn = self._open()
        rectifier: Rectifier | None = None
        clock = StampClock(self.report)
        decoded = 0
        index = -1
        for bgr, at_ns in self._decoded():
            index = self._index(index + 1, at_ns)
            decoded += 1
            image = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)
            size = (image.shape[0], image.shape[1])
            if rectifier is None:
                rectifier = self._lens.rectifier(size, self._pixel_aspect())
            own_ns = self._time(index, at_ns)
            depth, masks = self._side.depth(index, size, self._turn), self._side.masks(index, size, self._turn)
            yield Frame(
                stamp_ns=clock.next(own_ns if self._options.fps is None else round(index * 1e9 / self._rate)),
                image=np.ascontiguousarray(rectifier.rectify(image)),
                camera=rectifier.camera,
                T_map_cam=None if self._poses is None else self._poses.at(index, own_ns),
                depth_m=None if depth is None else rectifier.rectify(depth, nearest=True),
                masks=None if masks is None else rectifier.rectify(masks, nearest=True),
                detections=self._side.detections(index, rectifier),
            )
        if decoded == 0:
            raise Motion4DError(f"{self.name}: not a single frame can be decoded: truncated, or an unknown codec")
        if self.count is not None and decoded < self.count:
            self.report.warn(
                f"the video announces {self.count} frames, {decoded} could be decoded: it may be truncated or damaged"
            )

    def close(self) -> None:
        """Releases the decoder."""
        self._capture.release()

    def _open(self) -> tuple[cv2.VideoCapture, Turn]:
        """The decoder, and how it turns frames, as the file's rotation flag and the given calibration want it."""
        with quiet_opencv():
            capture = cv2.VideoCapture(str(self._path), cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise Motion4DError(f"{self._path}: cannot be opened as a video: truncated, or an unknown codec")
        turn = Turn(-int(capture.get(cv2.CAP_PROP_ORIENTATION_META)) // 90 % 4)
        if turn.nothing:
            return capture, turn
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        stored = (int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)))
        turned = turn.size(stored)
        if self._lens.is_of_stored(stored, turned):
            self.report.warn(
                "the video's flag to turn it is left aside: the given calibration fits the frames as stored"
            )
            return capture, Turn()
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        self.report.warn(f"the video is turned as its flag says: frames of {turned[1]}x{turned[0]} px")
        return capture, turn

    def _decoded(self) -> Iterator[tuple[NDArray[Any], int]]:
        """(BGR, time as the container says, ns from the first frame on)."""
        zero_ms: float | None = None
        while True:
            good, bgr = self._capture.read()
            if not good or bgr is None:
                return
            at_ms = float(self._capture.get(cv2.CAP_PROP_POS_MSEC))
            zero_ms = at_ms if zero_ms is None else zero_ms
            yield bgr, round((at_ms - zero_ms) * 1e6)

    def _index(self, expected: int, at_ns: int) -> int:
        """The number of a decoded frame: where damaged ones are left out, the next keeps its own."""
        stamps = self._stamps_ns
        if not stamps or expected >= len(stamps):
            return expected
        nearest = int(np.abs(np.asarray(stamps) - at_ns).argmin())
        return (
            nearest if nearest > expected and abs(stamps[nearest] - at_ns) < abs(stamps[expected] - at_ns) else expected
        )

    def _time(self, index: int, at_ns: int) -> int:
        """The time of a frame as the container says; where it does not, by the rate."""
        if self._stamps_ns and index < len(self._stamps_ns):
            return self._stamps_ns[index]
        return at_ns if at_ns > 0 else round(index * 1e9 / self._rate)

    def _choose_rate(self, said: float) -> float:
        if self._options.fps is not None:
            return self._options.fps
        stamps = self._stamps_ns
        if stamps and len(stamps) > 1:
            return 1e9 * (len(stamps) - 1) / (stamps[-1] - stamps[0])
        bare = stamps is None and self.count is not None and not self._has_times()
        if 0.1 < said < 10_000 and not bare:
            return said
        rate = said if 0.1 < said < 10_000 else USUAL_RATE
        self.report.warn(
            f"the video does not say when its frames were taken: {rate:g} a second are assumed (--fps says it); all "
            "speeds scale with it"
        )
        return rate

    def _has_times(self) -> bool:
        """Whether the decoder knows when the second frame is to be shown: a bare stream holds no times."""
        probe, _ = self._open()
        for _ in range(2):
            probe.read()
        known = float(probe.get(cv2.CAP_PROP_POS_MSEC)) > 0.0
        probe.release()
        return known

    def _say_time(self) -> None:
        stamps = self._stamps_ns
        if not stamps or len(stamps) < 3:
            return
        steps = np.diff(stamps) / 1e9
        usual = float(np.median(steps))
        if float((np.abs(steps / usual - 1.0) > _VARIES).mean()) == 0.0:
            return
        text = f"the video's rate varies: {steps.min():.3g} to {steps.max():.3g} s between its frames"
        if self._options.fps is None:
            self.report.used["image"] += ", stamps of its container"
            self.report.warn(f"{text}; stamps are those of its container")
        else:
            self.report.warn(f"{text}; --fps {self._options.fps:g} spaces them evenly")

    def _keys(self) -> Keys:
        """What is known of the frames before they are decoded."""
        count = self.count or 0
        return Keys([str(k) for k in range(count)], self._stamps_ns, None, False, "s")

    def _pixel_aspect(self) -> float:
        """A pixel's width by its height."""
        wide, high = (self._capture.get(p) for p in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN))
        aspect = wide / high if wide > 0 and high > 0 else 1.0
        aspect = 1.0 / aspect if self._turn.quarters % 2 else aspect
        if abs(aspect - 1.0) > 0.01:
            self.report.warn(f"the video's pixels are not square ({aspect:.3g} times as wide as high)")
        return aspect
