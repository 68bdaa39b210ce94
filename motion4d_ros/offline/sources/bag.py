"""rosbag2 (mcap, sqlite3) and ROS 1 bags as a recording, read as a stream: a few messages in memory, never the bag."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.imagery.backends import RosbagsBackend
from motion4d_ros.imagery.camera import Rectifier, is_rectified_topic
from motion4d_ros.imagery.conversions import read_depth, read_labels, read_rgb
from motion4d_ros.imagery.high_bit import Levels
from motion4d_ros.imagery.validation import Rejection
from motion4d_ros.offline.sources import topics as parts
from motion4d_ros.offline.sources.bag_files import one_line, open_reader
from motion4d_ros.offline.sources.base import SourceOptions, SourceReport, StampClock, camera_for, fit_to_size
from motion4d_ros.offline.sources.matching import MAX_WAITING, Matcher, WaitingImage, message_stamp_ns
from motion4d_ros.types import FloatArray, Frame, IntArray, Motion4DError

_PATIENCE_NS = 1_000_000_000  # recording time after which an image goes without them
SAME_INTRINSICS = 1e-3  # relative difference between camera infos that is taken for rounding


class BagSource:
    """Frames of one camera in a bag, each with the depth, masks and pose nearest to its stamp."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self.name = str(path)
        self.report = SourceReport()
        self._options = options
        self._backend = RosbagsBackend()
        self._levels = Levels()
        self._reader = open_reader(path, self.report)
        try:
            self._assign_topics()
        except BaseException as error:
            self.close()
            if self.report.truncated and isinstance(error, Motion4DError):
                raise Motion4DError(f"{error} (the bag is truncated: only its beginning can be read)") from None
            raise

    def __iter__(self) -> Iterator[Frame]:
        matcher = Matcher(self._options, self.report)
        clock = StampClock(self.report)
        frames = 0
        for waiting in self._in_order(matcher):
            frame = self._frame(waiting, matcher, clock)
            if frame is not None:
                frames += 1
                yield frame
        if frames == 0:
            raise Motion4DError(f"{self.name}: not a single usable image on {self._image_topic}")

    def close(self) -> None:
        """Closes the bag."""
        if self._reader.stack is not None:
            self._reader.close()

    # -- topics ---------------------------------------------------------------------------------------------------

    def _assign_topics(self) -> None:
        options, report = self._options, self.report
        if options.poses is not None:
            raise Motion4DError("--poses is for videos and folders; a bag's poses come from --odometry TOPIC")
        types = {c.topic: c.msgtype for c in self._reader.connections if c.msgcount or not c.topic}
        if not types:
            raise Motion4DError(f"{self.name}: the bag holds no messages")
        if options.image:
            self._image_topic = parts.require(types, options.image, parts.IMAGE_TYPES, "--image")
        else:
            self._image_topic = parts.guess_image(types, self._peek_colour(types))
            report.warn(f"no --image: {self._image_topic} was chosen")
        self._info_topic = None
        if options.camera_info:
            self._info_topic = parts.require(types, options.camera_info, parts.INFO_TYPES, "--camera-info")
        elif options.intrinsics is None:
            self._info_topic = parts.guess_info(types, self._image_topic)
            if self._info_topic is None:
                infos = sorted(topic for topic, kind in types.items() if kind in parts.INFO_TYPES)
                hint = f"give --camera-info, one of {', '.join(infos)}" if infos else "give --intrinsics fx,fy,cx,cy"
                raise Motion4DError(f"{self.name}: no camera info beside {self._image_topic}; {hint}")
        self._depth_topic = self._optional(types, options.depth, parts.IMAGE_TYPES, "depth")
        self._masks_topic = self._optional(types, options.masks, parts.IMAGE_TYPES, "masks")
        self._odometry_topic = None
        if not options.use_tf:
            self._odometry_topic = self._optional(types, options.odometry, parts.ODOMETRY_TYPES, "odometry")
        elif not any(kind in parts.TF_TYPES for kind in types.values()):
            raise Motion4DError(f"{self.name}: pose.source=tf, but the bag holds no /tf; give --odometry TOPIC")
        self._tf_topics = {topic for topic, kind in types.items() if kind in parts.TF_TYPES}
        named = [self._image_topic, self._info_topic, self._depth_topic, self._masks_topic, self._odometry_topic]
        self._used = {topic for topic in named if topic is not None} | self._tf_topics
        self.count: int | None = (
            sum(c.msgcount for c in self._reader.connections if c.topic == self._image_topic) or None
        )
        report.used["image"] = self._image_topic
        report.used["camera"] = self._info_topic or "--intrinsics"
        if options.use_tf:
            report.used["camera poses"] = f"/tf, {options.map_frame} <- the image's frame"
        if spare := parts.unused(types, self._used):
            report.warn(f"also in the bag, not asked for: {', '.join(spare)}")

    def _optional(self, types: dict[str, str], wanted: str | None, kinds: frozenset[str], part: str) -> str | None:
        label = "camera poses" if part == "odometry" else part
        if wanted is None:
            self.report.missing.append(label)
            return None
        topic = parts.require(types, wanted, kinds, f"--{part}")
        self.report.used[label] = topic
        return topic

    def _peek_colour(self, types: dict[str, str]) -> dict[str, bool]:
        """Image topic -> whether its first message looks like colour."""
        found: dict[str, bool] = {}
        for connection in self._reader.connections:
            if connection.msgtype not in parts.IMAGE_TYPES or connection.topic in found:
                continue
            for _, _, raw in self._reader.messages([connection]):
                message: Any = self._reader.deserialize(raw, connection.msgtype)
                encoding = getattr(message, "encoding", "")
                depth_like = encoding in ("16UC1", "32FC1", "16SC1", "32SC1") or "compressedDepth" in getattr(
                    message, "format", ""
                )
                found[connection.topic] = not depth_like
                break
        return found

    # -- the stream -----------------------------------------------------------------------------------------------

    def _in_order(self, matcher: Matcher) -> Iterator[WaitingImage]:
        """Images, each as soon as everything that belongs to it has been read."""
        queue: deque[WaitingImage] = deque()
        needs = [topic for topic in (self._depth_topic, self._masks_topic) if topic is not None]
        connections = [c for c in self._reader.connections if c.topic in self._used]
        for topic, recorded_ns, message in self._messages(connections):
            if topic == self._image_topic:
                queue.append(WaitingImage(message_stamp_ns(message, recorded_ns), recorded_ns, message))
            elif topic == self._info_topic:
                matcher.camera_info = matcher.camera_info or message
                if _zoomed(message, matcher.camera_info):
                    self.report.warn(
                        f"{topic} changes midway (zoom, another mode?): its first message was used for all"
                    )
            elif topic in self._tf_topics:
                matcher.add_transforms(message, static=topic.endswith("static"))
            elif topic == self._odometry_topic:
                matcher.add_odometry(message_stamp_ns(message, recorded_ns), message)
            if topic in needs:
                matcher.add_image(topic, message_stamp_ns(message, recorded_ns), message)
            while queue and self._complete(queue[0], recorded_ns, len(queue), needs, matcher):
                yield queue.popleft()
        yield from queue

    def _messages(self, connections: list[Any]) -> Iterator[tuple[str, int, Any]]:
        """(topic, time of recording, message); a bag that breaks off ends the stream with a warning."""
        try:
            for connection, recorded_ns, raw in self._reader.messages(connections):
                yield connection.topic, recorded_ns, self._reader.deserialize(raw, connection.msgtype)
        except (GeneratorExit, KeyboardInterrupt, Motion4DError, MemoryError):
            raise
        except Exception as error:  # readers raise sqlite3, struct, zstd, … errors for damaged files
            self.report.warn(f"the bag breaks off: {one_line(error)}; what came before was used")

    def _complete(self, image: WaitingImage, now_ns: int, waiting: int, needs: list[str], matcher: Matcher) -> bool:
        if now_ns - image.recorded_ns > _PATIENCE_NS or waiting > MAX_WAITING:
            return True
        if self._info_topic is not None and matcher.camera_info is None:
            return False
        if not all(matcher.has_reached(topic, image.stamp_ns) for topic in needs):
            return False
        if self._options.use_tf:
            newest = matcher.transforms.newest_for(self._options.map_frame, image.frame_id)
            return newest is not None and newest >= image.stamp_ns
        if self._odometry_topic is None:
            return True
        reached = matcher.odometry.newest_ns is not None and matcher.odometry.newest_ns >= image.stamp_ns
        return reached and self._find_extrinsic(matcher, image.stamp_ns, image.frame_id) is not None

    def _frame(self, waiting: WaitingImage, matcher: Matcher, clock: StampClock) -> Frame | None:
        stamp_ns = waiting.stamp_ns
        try:
            image = read_rgb(waiting.message, self._backend, self._levels)
        except Motion4DError as error:
            self.report.warn(f"an image on {self._image_topic} was left out: {error}")
            return None
        size = (image.shape[0], image.shape[1])
        rectifier = self._rectifier(size, matcher)
        depth = self._depth(matcher, stamp_ns, size, rectifier)
        masks = self._masks(matcher, stamp_ns, size, rectifier)
        pose = self._pose(matcher, stamp_ns, waiting.frame_id)
        matcher.forget_before(stamp_ns)
        return Frame(
            stamp_ns=clock.next(stamp_ns),
            image=np.ascontiguousarray(rectifier.rectify(image)),
            camera=rectifier.camera,
            T_map_cam=pose,
            depth_m=depth,
            masks=masks,
            frame_id=waiting.frame_id or "camera",
        )

    def _rectifier(self, size: tuple[int, int], matcher: Matcher) -> Rectifier:
        """Made from the first camera info, kept while the images keep their size."""
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
        info = matcher.camera_info
        if info is None:
            raise Motion4DError(f"{self.name}: {self._info_topic} has no message: give --intrinsics fx,fy,cx,cy")
        rectified = is_rectified_topic(self._image_topic)
        matcher.rectifier = _rectifier(info, size, rectified=rectified, report=self.report)
        return matcher.rectifier

    def _depth(
        self, matcher: Matcher, stamp_ns: int, size: tuple[int, int], rectifier: Rectifier
    ) -> NDArray[np.float32] | None:
        message = matcher.nearest(self._depth_topic, stamp_ns)
        if message is None:
            if self._depth_topic is not None:
                self.report.warn("a frame has no depth within --slop of its stamp")
            return None
        depth = read_depth(message)
        if not depth.any():
            self.report.warn("a depth image holds no valid depth at all (zero, NaN or infinite)")
        fitted = fit_to_size(depth, size, "depth", self.report)
        return np.asarray(rectifier.rectify(fitted, nearest=True), np.float32)

    def _masks(self, matcher: Matcher, stamp_ns: int, size: tuple[int, int], rectifier: Rectifier) -> IntArray | None:
        message = matcher.nearest(self._masks_topic, stamp_ns)
        if message is None:
            if self._masks_topic is not None:
                self.report.warn("a frame has no masks within --slop of its stamp")
            return None
        labels = fit_to_size(read_labels(message), size, "masks", self.report)
        return np.asarray(rectifier.rectify(labels, nearest=True), np.int32)

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
        elif self._odometry_topic is not None:
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
                f"{self._odometry_topic} is the pose of {matcher.body_frame!r}, the camera is {frame_id!r} and the "
                "bag's TF does not link them: give "
                "--set base_to_camera='x y z qx qy qz qw' ('0 0 0 0 0 0 1' if they coincide)"
            )
        return found


def _rectifier(info: Any, size: tuple[int, int], *, rectified: bool, report: SourceReport) -> Rectifier:
    """From a camera info message of either ROS version (`K` or `k`), scaled where the images were."""
    rectifier = Rectifier(_plain(info, size), rectified=rectified)
    if rectifier.camera.size != size:
        have = f"{rectifier.width}x{rectifier.height}"
        if abs(rectifier.height / rectifier.width - size[0] / size[1]) > 0.02 * size[0] / size[1]:
            raise Motion4DError(
                f"camera_info is for {have} px, images are {size[1]}x{size[0]}: do they belong together?"
            )
        report.warn(f"camera_info is for {have} px, images are {size[1]}x{size[0]}: scaled")
        rectifier = Rectifier(_scaled(_plain(info, size), size), rectified=rectified)
    if not rectifier.is_identity:
        report.used["camera"] += f" (rectified: {info.distortion_model or 'plumb_bob'})"
    return rectifier


def _zoomed(info: Any, first: Any) -> bool:
    """Whether a camera info has other intrinsics than the first one, beyond rounding."""
    if info is first:
        return False
    one, other = (_plain(message, (0, 0)) for message in (info, first))
    return not all(
        mine.shape == theirs.shape and np.allclose(mine, theirs, rtol=SAME_INTRINSICS, atol=SAME_INTRINSICS)
        for mine, theirs in ((one.k, other.k), (one.d, other.d))
    )


def _plain(info: Any, size: tuple[int, int]) -> SimpleNamespace:
    """The fields of a camera info under ROS 2's names; an image size of zero, which some drivers leave, is `size`."""
    matrices = {name: np.array(getattr(info, name, getattr(info, name.upper(), ())), float) for name in "kdpr"}
    if matrices["p"].size != 12:
        matrices["p"] = np.zeros(12)
    height, width = (int(info.height), int(info.width)) if info.width and info.height else size
    others = {name: getattr(info, name) for name in ("distortion_model", "binning_x", "binning_y", "roi")}
    return SimpleNamespace(width=width, height=height, **matrices, **others)


def _scaled(info: SimpleNamespace, size: tuple[int, int]) -> SimpleNamespace:
    """For images that were resized to `size` without a word in the camera info. Raises `Rejection` if it has words."""
    if max(info.binning_x, info.binning_y) > 1 or info.roi.width or info.roi.height:
        raise Rejection("camera_info size", "camera_info: its binning or region of interest does not fit the images")
    scale = np.diag([size[1] / info.width, size[0] / info.height, 1.0])
    k, p = (scale @ info.k.reshape(3, 3)).reshape(-1), (scale @ info.p.reshape(3, 4)).reshape(-1)
    return SimpleNamespace(**{**vars(info), "k": k, "p": p, "height": size[0], "width": size[1]})
