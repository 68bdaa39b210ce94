"""What each topic of a bag is used for: as asked, else as found; and what the whole recording takes for granted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from motion4d_ros.imagery.camera import is_calibrated
from motion4d_ros.offline.sources.bags import topic_choice as names
from motion4d_ros.offline.sources.bags.bag_reader import BagReader
from motion4d_ros.offline.sources.bags.message_matching import as_picture
from motion4d_ros.offline.sources.bags.survey import (
    Clocks,
    Links,
    codec_of,
    constant_links,
    find_info,
    peek_images,
    tf_topics,
    tree_of,
)
from motion4d_ros.offline.sources.bags.topic_choice import Peek
from motion4d_ros.offline.sources.interfaces import NOTHING, SourceOptions, SourceReport
from motion4d_ros.types import FloatArray, Motion4DError


@dataclass
class BagParts:
    """The topics, and what of them is constant."""

    image: str
    codec: str | None = None  # of images that are pieces of a video
    info: str | None = None
    info_message: Any = None
    depth: str | None = None
    depth_info: Any = None  # the depth camera's own CameraInfo, None where depth lies on the image as it is
    T_image_depth: FloatArray = field(default_factory=lambda: np.eye(4))
    masks: str | None = None
    detections: str | None = None
    odometry: str | None = None
    tf: frozenset[str] = frozenset()  # of moving links
    links: Links = field(default_factory=dict)
    clocks: Clocks = field(init=False)

    @property
    def beside(self) -> list[str]:
        """Topics of which an image wants the message nearest to its stamp."""
        return [topic for topic in (self.depth, self.masks, self.detections) if topic is not None]

    @property
    def read(self) -> set[str]:
        """Every topic that is read along with the images."""
        named = (self.image, self.info, self.depth, self.masks, self.detections, self.odometry)
        return {topic for topic in named if topic is not None} | self.tf


def choose_parts(name: str, reader: BagReader, options: SourceOptions, report: SourceReport) -> BagParts:
    """Assigns topics; raises `Motion4DError` for what is asked and cannot be had. `report` says what was chosen."""
    if not reader.types:
        raise Motion4DError(f"{name}: the bag holds no messages")
    peeks = peek_images(reader)
    parts = BagParts(_image(reader, options, report, peeks))
    parts.codec = codec_of(reader.first(parts.image))
    report.used["image"] = parts.image
    _assign_camera(name, reader, options, parts)
    report.used["camera"] = parts.info or "--intrinsics"
    _assign_poses(name, reader, options, report, parts)
    _assign_depth(reader, options, report, parts, peeks)
    if options.masks in (None, NOTHING):
        report.missing.append("masks")
    else:
        parts.masks = names.require(reader.types, str(options.masks), names.IMAGE_TYPES, "--masks")
        report.used["masks"] = parts.masks
    if options.detections is not None and not Path(options.detections).is_file():
        parts.detections = names.require(reader.types, options.detections, names.DETECTION_TYPES, "--detections")
        report.used["detections"] = parts.detections
    matched = [
        topic
        for topic in (parts.depth, parts.masks, parts.detections, parts.odometry, *sorted(parts.tf))
        if topic is not None
    ]
    parts.clocks = Clocks(reader, parts.image, matched, report)
    _check_times(options, report, parts)
    if "depth" in report.found:
        report.warn(f"depth: {parts.depth} was found and used (--depth none leaves it)")
    _name_what_is_left(reader, options, report, parts)
    return parts


def _image(reader: BagReader, options: SourceOptions, report: SourceReport, peeks: dict[str, Peek]) -> str:
    if options.image:
        return names.require(reader.types, options.image, names.PICTURE_TYPES, "--image")
    chosen = names.guess_image(reader.types, peeks)
    report.warn(f"no --image: {chosen} was chosen")
    return chosen


def _assign_camera(name: str, reader: BagReader, options: SourceOptions, parts: BagParts) -> None:
    if options.camera_info and options.intrinsics is not None:
        raise Motion4DError("--camera-info and --intrinsics both say what camera it was: give one of them")
    if options.camera_info:
        parts.info = names.require(reader.types, options.camera_info, names.INFO_TYPES, "--camera-info")
    elif options.intrinsics is None:
        parts.info = names.guess_info(reader.types, parts.image)
        if parts.info is None:
            infos = sorted(topic for topic, kind in reader.types.items() if kind in names.INFO_TYPES)
            hint = f"give --camera-info, one of {', '.join(infos)}" if infos else "give --intrinsics fx,fy,cx,cy"
            raise Motion4DError(f"{name}: no camera info beside {parts.image}; {hint}")
    if parts.info is not None and options.intrinsics is None:
        parts.info_message = find_info(reader, parts.info)
        if parts.info_message is None:
            raise Motion4DError(f"{name}: {parts.info} has no message that can be read: give --intrinsics fx,fy,cx,cy")
        if not is_calibrated(parts.info_message):
            raise Motion4DError(
                f"{name}: the camera was not calibrated (all of {parts.info} has fx = 0): give --intrinsics fx,fy,cx,cy"
            )


def _assign_poses(name: str, reader: BagReader, options: SourceOptions, report: SourceReport, parts: BagParts) -> None:
    if options.use_tf:
        if options.odometry is not None:
            raise Motion4DError("--odometry and pose.source=tf both say where poses come from: give one of them")
        if not tf_topics(reader):
            raise Motion4DError(f"{name}: pose.source=tf, but the bag holds no /tf; give --odometry TOPIC")
        report.used["camera poses"] = f"/tf, {options.map_frame} <- the image's frame"
    elif options.odometry is None:
        report.missing.append("camera poses")
        return
    else:
        parts.odometry = names.require(reader.types, options.odometry, names.ODOMETRY_TYPES, "--odometry")
        report.used["camera poses"] = parts.odometry
        if options.extrinsic is not None or _is_of_camera(reader, parts):
            return
    parts.tf = frozenset(topic for topic in tf_topics(reader) if not topic.endswith("static"))  # the others are known
    parts.links = constant_links(reader, report)


def _is_of_camera(reader: BagReader, parts: BagParts) -> bool:
    """Whether the poses are the camera's own, so that no transform is needed."""
    poses, image = reader.first(str(parts.odometry)), reader.first(parts.image)
    body = str(getattr(poses, "child_frame_id", "")).lstrip("/")
    return body in ("", "" if image is None else str(as_picture(image).header.frame_id).lstrip("/"))


def _assign_depth(
    reader: BagReader, options: SourceOptions, report: SourceReport, parts: BagParts, peeks: dict[str, Peek]
) -> None:
    """Depth as asked for; else what lies on the image already, or can be laid on it."""
    asked = options.depth not in (None, NOTHING)
    if asked:
        candidates = [names.require(reader.types, str(options.depth), names.IMAGE_TYPES, "--depth")]
    else:
        candidates = [] if options.depth == NOTHING else names.depth_candidates(reader.types, peeks)
    image = peeks[parts.image]
    lying = [topic for topic in candidates if names.same_view(_framed(peeks[topic], options), image)]
    for topic in [*lying, *(topic for topic in candidates if topic not in lying)]:
        problem = _register(topic, reader, options, report, parts, peeks)
        if not problem:
            parts.depth = topic
            break
        if asked:
            raise Motion4DError(f"--depth {topic}: {problem}")
        report.warn(f"depth on {topic} was not used: {problem}")
    if parts.depth is None:
        report.missing.append("depth")
    elif asked:
        report.used["depth"] = parts.depth
    else:
        report.found.add("depth")
        report.used["depth"] = f"{parts.depth} (found)"


def _check_times(options: SourceOptions, report: SourceReport, parts: BagParts) -> None:
    """Refuses depth and masks of which none lies near an image; depth that was only found is left."""
    for option, topic in (
        ("--depth", parts.depth),
        ("--masks", parts.masks),
        ("--detections", parts.detections),
    ):
        apart_s = 0.0 if topic is None else parts.clocks.apart_ns(topic, parts.image) * 1e-9
        if apart_s <= options.slop_s:
            continue
        problem = (
            f"its stamps lie {apart_s * 1e3:.0f} ms or more from those of {parts.image} "
            f"(limit {options.slop_s * 1e3:.0f} ms): --set slop=SECONDS allows more"
        )
        if option == "--depth" and "depth" in report.found:
            report.warn(f"depth on {topic} was not used: {problem}")
            report.found.discard("depth")
            report.missing.append("depth")
            del report.used["depth"]
            parts.depth, parts.depth_info = None, None
        else:
            raise Motion4DError(f"{option} {topic}: {problem}")


def _framed(peek: Peek, options: SourceOptions) -> Peek:
    """With the frame that the user says."""
    return replace(peek, frame_id=options.depth_frame.lstrip("/") or peek.frame_id)


def _register(
    topic: str,
    reader: BagReader,
    options: SourceOptions,
    report: SourceReport,
    parts: BagParts,
    peeks: dict[str, Peek],
) -> str:
    """Finds how depth of a topic comes to lie on the image; why it cannot, "" where it can."""
    depth, image = _framed(peeks[topic], options), peeks[parts.image]
    same_frame = depth.frame_id == image.frame_id or not (depth.frame_id and image.frame_id)
    info_topic = names.own_info(reader.types, topic)
    if options.depth_frame:
        info_topic = None  # the user says that it lies on the image
    if same_frame and (info_topic is None or info_topic == parts.info):
        return ""
    info = None if info_topic is None else find_info(reader, info_topic)
    if same_frame:
        parts.depth_info = info
        return ""
    remedy = (
        f"its frame is {depth.frame_id!r}, the image's is {image.frame_id!r}, and {{}}: give the topic of registered "
        f"depth, or say that it lies on the image with --set depth.frame={image.frame_id}"
    )
    if info is None or parts.info_message is None:
        return remedy.format("it cannot be aligned without a camera_info for each")
    parts.links = parts.links or constant_links(reader, report)
    T = tree_of(parts.links).lookup(image.frame_id, depth.frame_id, 0)
    if T is None:
        return remedy.format("no constant transform on /tf_static or /tf links them")
    parts.depth_info, parts.T_image_depth = info, T
    return ""


def _name_what_is_left(reader: BagReader, options: SourceOptions, report: SourceReport, parts: BagParts) -> None:
    """What could have served, and how it is asked for."""
    depth_is_settled = parts.depth is not None or options.depth == NOTHING
    spare = names.unused(reader.types, parts.read, names.IMAGE_TYPES)
    if depth_is_settled:
        spare = [topic for topic in spare if "depth" not in names.words(topic)]
    if spare:
        report.warn(f"also in the bag, not asked for: {', '.join(spare)}")
    if parts.odometry is None and not options.use_tf:
        poses = names.unused(reader.types, parts.read, names.ODOMETRY_TYPES)
        ways = [f"--odometry {topic}" for topic in poses]
        if any(not topic.endswith("static") for topic in tf_topics(reader)):
            ways.append("--set pose.source=tf (with --set map_frame=NAME)")
        if ways:
            report.warn(f"camera poses may be in the bag, not asked for: {', or '.join(ways)}")
