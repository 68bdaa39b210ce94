"""The recording that the demo plays: a made-up scene with exact truth, or the user's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.highlevel import AnyReader, AnyReaderError

from motion4d_ros.evaluation.synthetic import SyntheticScene, make_scene, write_bag
from motion4d_ros.imagery.backends import choose_backend
from motion4d_ros.imagery.camera import Rectifier, is_rectified_topic
from motion4d_ros.imagery.conversions import read_rgb
from motion4d_ros.imagery.high_bit import Levels
from motion4d_ros.imagery.validation import Rejection, nanoseconds
from motion4d_ros.types import Camera, Motion4DError

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
SOURCE_TYPES = {"depth": IMAGE_TYPES[0], "masks": IMAGE_TYPES[0], "odometry": "nav_msgs/msg/Odometry"}


@dataclass
class Recording:
    """A bag, and what is to be known of it before it is played."""

    bag: Path
    image: str  # topic
    info: str
    frames: int
    rate_hz: float
    sources: dict[str, str] = field(default_factory=dict)  # further inputs: depth, masks, odometry -> topic
    scene: SyntheticScene | None = None  # the truth, where there is one
    others: list[str] = field(default_factory=list)  # further topics of the bag that could serve as inputs


def made_up(folder: Path, name: str, frames: int, seed: int) -> Recording:
    """Ray-casts a scene and writes it, with network-like faults in masks and depth, to `folder`/bag."""
    scene = make_scene(name, seed=seed, frames=frames, size=(240, 320))
    write_bag(scene, folder / "bag")
    scene.save_npz(folder / "gt.npz")
    sources = {"depth": "/camera/depth", "masks": "/camera/mask", "odometry": "/odom"}
    return Recording(folder / "bag", "/camera/image_raw", "/camera/camera_info", frames, 10.0, sources, scene)


def own(bag: Path, image: str, sources: dict[str, str]) -> Recording:
    """The user's bag. Without `image`, the only image topic in it.

    All that the demo needs of it is checked here, before anything is written. Raises `Motion4DError`.
    """
    if not bag.exists():
        raise Motion4DError(f"{bag}: no such file or folder; BAG=… takes the folder of a rosbag2 (or its .mcap file)")
    try:
        with AnyReader([bag]) as reader:
            if not reader.is2:
                raise Motion4DError(f"{bag}: a ROS 1 bag; convert it first: rosbags-convert --src {bag} --dst FOLDER")
            counts = {item.topic: item.msgcount for item in reader.connections}
            types = {item.topic: item.msgtype for item in reader.connections}
            pictures = [topic for topic, kind in types.items() if kind in IMAGE_TYPES]
            duration_s = reader.duration * 1e-9
    except (AnyReaderError, OSError) as error:
        reason = " ".join(str(error).split())
        raise Motion4DError(
            f"{bag}: cannot be read as a bag ({reason}); BAG=… takes the folder of a rosbag2 (or its .mcap file)"
        ) from None
    if not image:
        if len(pictures) != 1:
            raise Motion4DError(f"say which images to use: IMAGE=… one of {', '.join(pictures) or '(none in the bag)'}")
        image = pictures[0]
    for topic in (image, *sources.values()):
        if topic not in counts:
            raise Motion4DError(f"{topic} is not in {bag}: it has {', '.join(sorted(counts))}")
    info = image.removesuffix("/compressed").rsplit("/", 1)[0] + "/camera_info"
    if info not in counts:
        raise Motion4DError(f"{info} is not in {bag}: the images need a camera_info beside them")
    for name, topic in sources.items():
        if types[topic] != SOURCE_TYPES[name]:
            raise Motion4DError(f"{topic} is a {types[topic]}, {name} must be a {SOURCE_TYPES[name]}")
    for topic in (image, info, *sources.values()):
        if not counts[topic]:
            raise Motion4DError(f"{topic} has no message in {bag}: choose another topic, or record it anew")
    used = {image, *sources.values()}
    others = sorted(topic for topic, kind in types.items() if kind in SOURCE_TYPES.values() and topic not in used)
    rate_hz = counts[image] / max(duration_s, 1e-3)
    recording = Recording(bag, image, info, counts[image], rate_hz, sources, others=others)
    read_pictures(recording, at_most=1)
    return recording


def read_pictures(recording: Recording, at_most: int | None = None) -> tuple[dict[int, NDArray[np.uint8]], Camera]:
    """Stamp (ns) -> (H, W, 3) RGB of the images (all, or the first ones), and the (rectified) camera.

    Images that cannot be read are left out. Raises `Motion4DError` if that is true of all, and without a camera.
    """
    pictures: dict[int, NDArray[np.uint8]] = {}
    reason = "no image with a camera_info"
    camera: Camera | None = None
    backend, levels = choose_backend(), Levels()
    with AnyReader([recording.bag]) as reader:
        wanted = [item for item in reader.connections if item.topic in (recording.image, recording.info)]
        for connection, _, raw in reader.messages(connections=wanted):
            if connection.topic == recording.info:
                if camera is None:
                    info = reader.deserialize(raw, connection.msgtype)
                    camera = Rectifier(info, rectified=is_rectified_topic(recording.image)).camera
                continue
            if at_most is not None and len(pictures) >= at_most:
                if camera is not None:
                    break
                continue
            message: Any = reader.deserialize(raw, connection.msgtype)
            try:
                pictures[nanoseconds(message.header.stamp)] = read_rgb(message, backend, levels)
            except Rejection as rejection:
                reason = f"no image of {recording.image} can be read: {rejection}"
    if camera is None or not pictures:
        raise Motion4DError(f"{recording.bag}: {reason}")
    return pictures, camera
