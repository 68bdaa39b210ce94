"""rosbag2 (mcap, sqlite3) and ROS 1 bags as a recording, read as a stream: a few messages in memory, never the bag."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.imagery.backends import RosbagsBackend
from motion4d_ros.imagery.camera import Rectifier, is_calibrated, is_rectified_topic, rectifier_for, same_intrinsics
from motion4d_ros.imagery.conversions import read_depth, read_labels, read_rgb
from motion4d_ros.imagery.depth_units import DepthUnits
from motion4d_ros.imagery.detections import boxes_of, clean, rectified, told
from motion4d_ros.imagery.high_bit import Levels
from motion4d_ros.imagery.registration import Registration
from motion4d_ros.imagery.stamps import StampOrder
from motion4d_ros.imagery.validation import Rejection
from motion4d_ros.imagery.void_labels import VoidRule
from motion4d_ros.offline.sources.bags.bag_parts import BagParts, choose_parts
from motion4d_ros.offline.sources.bags.bag_reader import BagReader
from motion4d_ros.offline.sources.bags.message_matching import MAX_WAITING, Matcher, WaitingImage, as_picture, stamp_of
from motion4d_ros.offline.sources.bags.packet_video import PacketVideo
from motion4d_ros.offline.sources.bags.survey import primed_levels, tree_of
from motion4d_ros.offline.sources.files.detection_file import DetectionFile
from motion4d_ros.offline.sources.interfaces import SourceOptions, SourceReport, camera_for, fit_to_size
from motion4d_ros.types import Detection, FloatArray, Frame, IntArray, Motion4DError

_PATIENCE_NS = 1_000_000_000  # recording time after which an image goes without what belongs to it


@dataclass
class _Reading:
    """What lasts for one pass over the bag."""

    matcher: Matcher
    order: StampOrder[WaitingImage]
    levels: Levels
    units: DepthUnits
    void: VoidRule
    pictures: Iterator[NDArray[np.uint8]] | None
    refused: Counter[str]


class BagSource:
    """Frames of one camera in a bag, each with the depth, masks and pose nearest to its stamp."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self.name = str(path)
        self.report = SourceReport()
        self._options = options
        self._backend = RosbagsBackend()
        self._video: PacketVideo | None = None
        self._reader = BagReader(path, self.report)
        try:
            self._parts: BagParts = choose_parts(self.name, self._reader, options, self.report)
            if self._parts.codec is not None:
                packets = (bytes(as_picture(m).data) for _, _, m in self._reader.messages([self._parts.image]))
                self._video = PacketVideo(packets, self._parts.codec, self._parts.image)
        except BaseException as error:
            self.close()
            if self.report.truncated and isinstance(error, Motion4DError):
                raise Motion4DError(f"{error} (the bag is truncated: only its beginning can be read)") from None
            raise
        self.count: int | None = self._reader.count(self._parts.image) or None
        self._boxes: DetectionFile | None = None
        if options.detections is not None and self._parts.detections is None:
            self._boxes = DetectionFile(Path(options.detections), self.report)
            self._boxes.match_stream(self.count, options.slop_s)

    def __iter__(self) -> Iterator[Frame]:
        reading = self._begin()
        frames = 0
        for waiting in self._in_order(reading):
            frame = self._frame(waiting, reading)
            if frame is not None:
                frames += 1
                yield frame
        if frames == 0:
            raise Motion4DError(f"{self.name}: no usable image on {self._parts.image}{_reasons(reading.refused)}")

    def close(self) -> None:
        """Closes the bag."""
        self._reader.close()
        if self._video is not None:
            self._video.close()

    def _begin(self) -> _Reading:
        parts = self._parts
        matcher = Matcher(self._options, self.report, frozenset(parts.links), tree_of(parts.links))
        levels = primed_levels(self._reader, parts.image)
        if levels.text:
            self._say_once(levels.text)
        return _Reading(
            matcher,
            StampOrder(self.report.warn),
            levels,
            DepthUnits(self._options.depth_units_per_metre),
            VoidRule(),
            None if self._video is None else self._video.pictures(),
            Counter(),
        )

    def _say_once(self, text: str) -> None:
        if text not in self.report.warnings:
            self.report.warn(text)

    # -- the stream -----------------------------------------------------------------------------------------------

    def _in_order(self, reading: _Reading) -> Iterator[WaitingImage]:
        """Images in the order of their stamps, each as soon as everything that belongs to it has been read."""
        parts, matcher, order = self._parts, reading.matcher, reading.order
        queue: deque[WaitingImage] = deque()
        number = 0
        for topic, recorded_ns, message in self._reader.messages(parts.read):
            if topic in parts.tf:
                for item in message.transforms:
                    matcher.add_transform(parts.clocks.stamp_ns(topic, item.header.stamp, recorded_ns), item)
                continue
            stamp_ns = parts.clocks.stamp_ns(topic, stamp_of(message), recorded_ns)
            if topic == parts.image:
                waiting = self._arrived(message, stamp_ns, recorded_ns, number, reading)
                number += 1
                if waiting is not None:
                    order.add(stamp_ns, recorded_ns, waiting)
            elif topic == parts.info:
                if is_calibrated(message) and not same_intrinsics(message, parts.info_message):
                    self.report.warn(
                        f"{topic} changes midway (zoom, another mode?): its first message was used for all"
                    )
            elif topic == parts.odometry:
                matcher.add_odometry(stamp_ns, message)
            if topic in parts.beside:
                matcher.add_image(topic, stamp_ns, message)
            queue.extend(_dated(order.ready(recorded_ns)))
            while queue and self._complete(queue[0], recorded_ns, len(queue), matcher):
                yield queue.popleft()
        yield from queue
        yield from _dated(order.rest())

    def _arrived(
        self, message: Any, stamp_ns: int, recorded_ns: int, number: int, reading: _Reading
    ) -> WaitingImage | None:
        """An image message as it waits; a piece of a video is decoded at once, because the next one needs it."""
        picture = as_picture(message)
        frame_id = str(picture.header.frame_id).lstrip("/")
        if self._video is not None and reading.pictures is not None:
            if number < self._video.skipped:
                self.report.warn(f"a message on {self._parts.image} comes before the first key picture: left out")
                return None
            picture = next(reading.pictures, None)
            if picture is None:
                return None
        return WaitingImage(stamp_ns, stamp_ns, recorded_ns, picture, frame_id, number)

    def _complete(self, image: WaitingImage, now_ns: int, waiting: int, matcher: Matcher) -> bool:
        parts = self._parts
        if now_ns - image.recorded_ns > _PATIENCE_NS or waiting > MAX_WAITING:
            return True
        if not all(matcher.has_reached(topic, image.stamp_ns) for topic in parts.beside):
            return False
        if self._options.use_tf:
            newest = matcher.transforms.newest_for(self._options.map_frame, image.frame_id)
            if newest is None:  # constant all the way, or a link is missing
                return matcher.transforms.lookup(self._options.map_frame, image.frame_id, image.stamp_ns) is not None
            return newest >= image.stamp_ns
        if parts.odometry is None:
            return True
        reached = matcher.odometry.newest_ns is not None and matcher.odometry.newest_ns >= image.stamp_ns
        return reached and self._find_extrinsic(matcher, image.stamp_ns, image.frame_id) is not None

    def _frame(self, waiting: WaitingImage, reading: _Reading) -> Frame | None:
        matcher, stamp_ns = reading.matcher, waiting.stamp_ns
        try:
            image = (
                waiting.message
                if isinstance(waiting.message, np.ndarray)
                else read_rgb(waiting.message, self._backend, reading.levels)
            )
        except Rejection as error:
            reading.refused[str(error)] += 1
            self.report.warn(f"an image on {self._parts.image} was left out: {error}")
            return None
        size = (image.shape[0], image.shape[1])
        rectifier = self._rectifier(size, matcher)
        depth = self._depth(reading, stamp_ns, size, rectifier)
        masks = self._masks(reading, stamp_ns, size, rectifier)
        detections = self._detections(matcher, waiting, size, rectifier)
        pose = self._pose(matcher, stamp_ns, waiting.frame_id)
        matcher.forget_before(stamp_ns)
        return Frame(
            stamp_ns=waiting.frame_ns,
            image=np.ascontiguousarray(rectifier.rectify(image)),
            camera=rectifier.camera,
            T_map_cam=pose,
            depth_m=depth,
            masks=masks,
            detections=detections,
            frame_id=waiting.frame_id or "camera",
        )

    def _rectifier(self, size: tuple[int, int], matcher: Matcher) -> Rectifier:
        """Made once, kept while the images keep their size."""
        if matcher.rectifier is not None and matcher.rectifier.camera.size == size:
            return matcher.rectifier
        if matcher.rectifier is not None:
            raise Motion4DError(
                f"{self.name}: images change from {matcher.rectifier.camera.width}x{matcher.rectifier.camera.height} "
                f"to {size[1]}x{size[0]} px midway: cut the bag there and analyse the parts"
            )
        if self._options.intrinsics is not None:
            camera = camera_for(size, self._options.intrinsics, self.report)
            matcher.rectifier = Rectifier.of_pinhole(camera)
            return matcher.rectifier
        info = self._parts.info_message
        matcher.rectifier, remark = rectifier_for(info, size, rectified=is_rectified_topic(self._parts.image))
        if remark:
            self.report.warn(remark)
        if not matcher.rectifier.is_identity:
            model = f" (rectified: {info.distortion_model or 'plumb_bob'})"
            self.report.used["camera"] = self.report.used["camera"].removesuffix(model) + model
        return matcher.rectifier

    def _depth(
        self, reading: _Reading, stamp_ns: int, size: tuple[int, int], rectifier: Rectifier
    ) -> NDArray[np.float32] | None:
        matcher, parts = reading.matcher, self._parts
        message = matcher.nearest(parts.depth, stamp_ns)
        if message is None:
            if parts.depth is not None:
                self.report.warn("a frame has no depth near its stamp (--set slop=SECONDS allows more)")
            return None
        try:
            depth = read_depth(message, units=reading.units)
        except Rejection as error:
            if error.reason == "encoding":  # so are all others
                raise
            self.report.warn(f"a depth image on {parts.depth} was left out: {error}")
            return None
        for note in reading.units.notes:
            self._say_once(note)
        if not depth.any():
            self.report.warn("a depth image holds no valid depth at all (zero, NaN or infinite)")
        if parts.depth_info is not None and matcher.registration is None:
            depth_rectifier, _ = rectifier_for(
                parts.depth_info, (depth.shape[0], depth.shape[1]), rectified=is_rectified_topic(parts.depth or "")
            )
            matcher.registration = Registration(depth_rectifier, rectifier, parts.T_image_depth)
            if not matcher.registration.is_needless and "aligned" not in self.report.used["depth"]:
                self.report.used["depth"] += ", aligned to the image by both calibrations"
        registration = matcher.registration
        if registration is not None and not registration.is_needless and registration.depth.camera.size == depth.shape:
            return registration.apply(depth)
        fitted = fit_to_size(depth, size, "depth", self.report)
        return np.asarray(rectifier.rectify(fitted, nearest=True), np.float32)

    def _masks(self, reading: _Reading, stamp_ns: int, size: tuple[int, int], rectifier: Rectifier) -> IntArray | None:
        message = reading.matcher.nearest(self._parts.masks, stamp_ns)
        if message is None:
            if self._parts.masks is not None:
                self.report.warn("a frame has no masks near their stamp (--set slop=SECONDS allows more)")
            return None
        try:
            labels = reading.void.apply(read_labels(message))
        except Rejection as error:
            if error.reason == "encoding":  # so are all others
                raise
            self.report.warn(f"masks on {self._parts.masks} were left out: {error}")
            return None
        if reading.void.note:
            self._say_once(reading.void.note)
        fitted = fit_to_size(labels, size, "masks", self.report)
        return np.asarray(rectifier.rectify(fitted, nearest=True), np.int32)

    def _detections(
        self, matcher: Matcher, waiting: WaitingImage, size: tuple[int, int], rectifier: Rectifier
    ) -> tuple[Detection, ...] | None:
        if self._boxes is not None:
            found = self._boxes.of(waiting.number, size, waiting.stamp_ns)
            return None if found is None else rectified(found, rectifier)
        message = matcher.nearest(self._parts.detections, waiting.stamp_ns)
        if message is None:
            return None
        left_out: Counter[str] = Counter()
        found = clean(boxes_of(message), size, left_out)
        for line, times in zip(told(left_out), left_out.values(), strict=True):
            self.report.warnings[f"detections: {line}"] += times
        return rectified(found, rectifier)

    def _pose(self, matcher: Matcher, stamp_ns: int, frame_id: str) -> FloatArray | None:
        if self._options.use_tf:
            pose = matcher.transforms.lookup(self._options.map_frame, frame_id, stamp_ns)
            if pose is None:
                known = matcher.transforms.frames
                if known and self._options.map_frame not in known:
                    raise Motion4DError(
                        f"/tf knows no frame {self._options.map_frame!r}; give --set map_frame=NAME, "
                        f"one of {', '.join(known)}"
                    )
        elif self._parts.odometry is not None:
            body = matcher.odometry.at(stamp_ns)
            pose = None if body is None else body @ self._extrinsic(matcher, stamp_ns, frame_id)
        else:
            return None
        if pose is None:
            self.report.warn("a frame has no camera pose near its time: its pose is predicted")
        return pose

    def _find_extrinsic(self, matcher: Matcher, stamp_ns: int, frame_id: str) -> FloatArray | None:
        """(4, 4) T_body_cam as given, as TF says, or identity where the odometry is the camera's own."""
        if self._options.extrinsic is not None:
            return self._options.extrinsic
        if matcher.body_frame in ("", frame_id):
            return np.eye(4)
        return matcher.transforms.lookup(matcher.body_frame, frame_id, stamp_ns)

    def _extrinsic(self, matcher: Matcher, stamp_ns: int, frame_id: str) -> FloatArray:
        """(4, 4) T_body_cam. Raises `Motion4DError` where it is not known: identity would be a guess."""
        found = self._find_extrinsic(matcher, stamp_ns, frame_id)
        if found is None:
            raise Motion4DError(
                f"{self._parts.odometry} is the pose of {matcher.body_frame!r}, the camera is {frame_id!r} and the "
                "bag's TF does not link them: give "
                "--set base_to_camera='x y z qx qy qz qw' ('0 0 0 0 0 0 1' if they coincide)"
            )
        return found


def _dated(images: Iterator[tuple[int, WaitingImage]]) -> Iterator[WaitingImage]:
    for frame_ns, waiting in images:
        waiting.frame_ns = frame_ns
        yield waiting


def _reasons(refused: Counter[str]) -> str:
    """Why every image was refused, the most frequent reason first."""
    if not refused:
        return ""
    (reason, _), *others = refused.most_common()
    more = f" (and {len(others)} other reasons)" if others else ""
    return f": {reason}{more}"
