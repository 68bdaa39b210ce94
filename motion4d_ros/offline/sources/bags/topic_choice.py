"""Which topic plays which part: pure decisions on names, types and first messages, so that they can be tested without a
bag.

Hints in names count as whole words only: `/mir/camera` has no infrared in it, `/segway/front` no segmentation.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from motion4d_ros.imagery.camera import base_topic
from motion4d_ros.types import Motion4DError

IMAGE_TYPES = frozenset({"sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"})
VIDEO_TYPES = frozenset({"ffmpeg_image_transport_msgs/msg/FFMPEGPacket", "foxglove_msgs/msg/CompressedVideo"})
PICTURE_TYPES = IMAGE_TYPES | VIDEO_TYPES
INFO_TYPES = frozenset({"sensor_msgs/msg/CameraInfo"})
ODOMETRY_TYPES = frozenset(
    {"nav_msgs/msg/Odometry", "geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/PoseWithCovarianceStamped"}
)
DETECTION_TYPES = frozenset({"vision_msgs/msg/Detection2DArray"})
TF_TYPES = frozenset({"tf2_msgs/msg/TFMessage", "tf/msg/tfMessage"})

_NOT_COLOUR = frozenset(
    [
        "depth",
        "mask",
        "masks",
        "label",
        "labels",
        "seg",
        "segmentation",
        "semantic",
        "instance",
        "conf",
        "confidence",
        "infra",
        "infrared",
        "ir",
        "disparity",
        "disp",
        "flow",
        "overlay",
        "debug",
        "heatmap",
    ]
)
_NOT_DEPTH = frozenset(
    ["mask", "masks", "label", "labels", "conf", "confidence", "infra", "infrared", "ir", "colorized", "colormap"]
)
_PREFERRED = ("", "compressed", "compressedDepth", "zstd", "ffmpeg", "foxglove", "h264", "theora")
_PREFERRED_NAMES = ("image_raw", "image_color", "image", "image_rect_color", "image_rect")
"""Of several topics of one camera: as the calibration has them first."""


@dataclass(frozen=True)
class Peek:
    """What the first message of an image topic says."""

    kind: str = "colour"  # "colour", "grey", "depth" (by its encoding), "none": no picture at all
    frame_id: str = ""
    size: tuple[int, int] = (0, 0)  # height, width, px; zeros where unknown
    may_be_depth: bool = False  # one channel of 16 bits or floats, whatever it is called


def require(topics: Mapping[str, str], wanted: str, types: frozenset[str], option: str) -> str:
    """The topic named `wanted` (topic -> type), with or without its leading slash.

    Raises `Motion4DError` that lists the topics of the right type and suggests the likely one.
    """
    name = wanted if wanted in topics else f"/{wanted.lstrip('/')}"
    if name in topics:
        if topics[name] not in types:
            raise Motion4DError(f"{option} {name} is a {topics[name]}; {_listed(_of(topics, types), types)}")
        return name
    fitting = _of(topics, types)
    near = difflib.get_close_matches(wanted, fitting, n=1, cutoff=0.3) or fitting[:1]
    hint = f"did you mean {near[0]}? " if near else ""
    raise Motion4DError(f"{option} {wanted}: no such topic in the bag; {hint}{_listed(fitting, types)}")


def guess_image(topics: Mapping[str, str], peeks: Mapping[str, Peek]) -> str:
    """The one colour image topic, if there is no doubt; the only image topic, whatever it is called.

    Names that say what else a picture is (depth, masks, infrared) count less than colours do, and one transport of a
    camera is as good as another: the raw one is taken.
    """
    images = _of(topics, PICTURE_TYPES)
    if not images:
        raise Motion4DError(f"the bag has no image topic; it holds {_all(topics)}")
    readable = [topic for topic in images if peeks.get(topic, Peek()).kind in ("colour", "grey")] or images
    if all("depth" in _depth_words(topic) and peeks.get(topic, Peek()).may_be_depth for topic in readable):
        raise Motion4DError(f"the bag has no colour or grey images, only depth: {', '.join(readable)}")
    for choice in _narrowed(topics, readable, peeks):
        cameras = _by_transport(choice)
        if len(cameras) == 1:
            return next(iter(cameras.values()))
        one_camera = {sibling_info(topic) for topic in cameras.values()}
        if len(one_camera) == 1 and (name := _best_name(list(cameras.values()))):
            return name
    likely = next(choice for choice in _narrowed(topics, readable, peeks) if choice)
    suggested = next(iter(_by_transport(likely).values()))
    raise Motion4DError(
        f"which image topic? Give --image, such as --image {suggested}; the bag holds {', '.join(images)}"
    )


def _narrowed(topics: Mapping[str, str], images: list[str], peeks: Mapping[str, Peek]) -> list[list[str]]:
    """Ever fewer candidates, none of them empty: all, those not named otherwise, with calibration, with colours."""
    steps = [images]
    for keep in (
        lambda topic: not words(topic) & _NOT_COLOUR,
        lambda topic: sibling_info(topic) in topics,
        lambda topic: peeks.get(topic, Peek()).kind == "colour",
    ):
        fewer = [topic for topic in steps[-1] if keep(topic)]
        if fewer:
            steps.append(fewer)
    return steps


def _by_transport(images: Iterable[str]) -> dict[str, str]:
    """Camera topic without its transport -> the best topic of it."""
    cameras: dict[str, list[str]] = {}
    for topic in images:
        cameras.setdefault(base_topic(topic), []).append(topic)
    return {base: min(names, key=lambda name: _PREFERRED.index(_transport(name))) for base, names in cameras.items()}


def _best_name(images: list[str]) -> str | None:
    """Of several topics of one camera."""
    for name in _PREFERRED_NAMES:
        for topic in images:
            if base_topic(topic).rpartition("/")[2] == name:
                return topic
    return None


def words(topic: str) -> frozenset[str]:
    """The words of a topic's name: lower case, without digits at their ends (`infra1`)."""
    parts = re.split(r"[^a-z0-9]+", topic.lower())
    return frozenset(part.rstrip("0123456789") for part in parts) - {""}


def _transport(topic: str) -> str:
    return topic[len(base_topic(topic)) :].lstrip("/")


def sibling_info(image_topic: str) -> str:
    """Where `image_transport` puts the camera info of an image topic."""
    return f"{base_topic(image_topic).rpartition('/')[0]}/camera_info"


def guess_info(topics: Mapping[str, str], image_topic: str) -> str | None:
    """The camera info of an image topic: its sibling, or the only one there is, or None."""
    own = own_info(topics, image_topic)
    infos = _of(topics, INFO_TYPES)
    return own or (infos[0] if len(infos) == 1 else None)


def own_info(topics: Mapping[str, str], image_topic: str) -> str | None:
    """The camera info beside an image topic, or None. `image` may have `camera_info` or `image/camera_info`."""
    for candidate in (sibling_info(image_topic), f"{base_topic(image_topic)}/camera_info"):
        if topics.get(candidate) in INFO_TYPES:
            return candidate
    return None


def depth_candidates(topics: Mapping[str, str], peeks: Mapping[str, Peek]) -> list[str]:
    """Topics that hold depth by name *and* content, one transport of each."""
    named = [
        topic
        for topic in _of(topics, IMAGE_TYPES)
        if "depth" in _depth_words(topic) and not words(topic) & _NOT_DEPTH and peeks.get(topic, Peek()).may_be_depth
    ]
    return sorted(_by_transport(named).values())


def _depth_words(topic: str) -> frozenset[str]:
    return frozenset("depth" if word in ("depth", "compresseddepth") else word for word in words(topic))


def same_view(depth: Peek, image: Peek) -> bool:
    """Whether a depth image's header says that it lies on the colour image: same frame, same shape."""
    if depth.frame_id != image.frame_id or 0 in (*depth.size, *image.size):
        return False
    return abs(depth.size[0] * image.size[1] - depth.size[1] * image.size[0]) <= 0.02 * depth.size[1] * image.size[0]


def unused(topics: Mapping[str, str], used: Iterable[str], types: frozenset[str]) -> list[str]:
    """Topics of some types that could have served but were not asked for."""
    return [topic for topic in _of(topics, types) if topic not in set(used)]


def _of(topics: Mapping[str, str], types: frozenset[str]) -> list[str]:
    return sorted(topic for topic, kind in topics.items() if kind in types)


def _listed(fitting: list[str], types: frozenset[str]) -> str:
    kinds = " or ".join(sorted(kind.rpartition("/")[2] for kind in types))
    return f"{kinds} topics: {', '.join(fitting)}" if fitting else f"it holds no {kinds} topics"


def _all(topics: Mapping[str, str]) -> str:
    return ", ".join(f"{topic} ({kind.rpartition('/')[2]})" for topic, kind in sorted(topics.items())) or "nothing"
