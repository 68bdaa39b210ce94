"""Which topic plays which part: pure decisions on names and types, so that they can be tested without a bag."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from motion4d_ros.types import Motion4DError

IMAGE_TYPES = frozenset({"sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"})
INFO_TYPES = frozenset({"sensor_msgs/msg/CameraInfo"})
ODOMETRY_TYPES = frozenset(
    {"nav_msgs/msg/Odometry", "geometry_msgs/msg/PoseStamped", "geometry_msgs/msg/PoseWithCovarianceStamped"}
)
TF_TYPES = frozenset({"tf2_msgs/msg/TFMessage", "tf/msg/tfMessage"})

_NOT_COLOUR = ("depth", "mask", "label", "seg", "conf", "infra", "disparity", "ir/")


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


def guess_image(topics: Mapping[str, str], is_colour: Mapping[str, bool]) -> str:
    """The one colour image topic, if there is no doubt. `is_colour`: topic -> what its first message says."""
    images = _of(topics, IMAGE_TYPES)
    if not images:
        raise Motion4DError(f"the bag has no image topic; it holds {_all(topics)}")
    colour = [t for t in images if is_colour.get(t, False) and not any(part in t.lower() for part in _NOT_COLOUR)]
    raw = [topic for topic in colour if topics[topic].endswith("/Image")]
    candidates = raw if len(raw) == 1 else colour
    with_info = [topic for topic in candidates if sibling_info(topic) in topics]
    for choice in (candidates, with_info):
        if len(choice) == 1:
            return choice[0]
    likely = (with_info or colour or images)[0]
    raise Motion4DError(f"which image topic? Give --image, such as --image {likely}; the bag holds {', '.join(images)}")


def sibling_info(image_topic: str) -> str:
    """Where `image_transport` puts the camera info of an image topic."""
    base = image_topic.removesuffix("/compressed").removesuffix("/compressedDepth")
    return f"{base.rpartition('/')[0]}/camera_info"


def guess_info(topics: Mapping[str, str], image_topic: str) -> str | None:
    """The camera info of an image topic: its sibling, or the only one there is, or None."""
    sibling = sibling_info(image_topic)
    if topics.get(sibling) in INFO_TYPES:
        return sibling
    infos = _of(topics, INFO_TYPES)
    return infos[0] if len(infos) == 1 else None


def unused(topics: Mapping[str, str], used: Iterable[str]) -> list[str]:
    """Topics that could have served but were not asked for."""
    useful = IMAGE_TYPES | ODOMETRY_TYPES
    return [topic for topic in _of(topics, useful) if topic not in set(used)]


def _of(topics: Mapping[str, str], types: frozenset[str]) -> list[str]:
    return sorted(topic for topic, kind in topics.items() if kind in types)


def _listed(fitting: list[str], types: frozenset[str]) -> str:
    kinds = " or ".join(sorted(kind.rpartition("/")[2] for kind in types))
    return f"{kinds} topics: {', '.join(fitting)}" if fitting else f"it holds no {kinds} topics"


def _all(topics: Mapping[str, str]) -> str:
    return ", ".join(f"{topic} ({kind.rpartition('/')[2]})" for topic, kind in sorted(topics.items())) or "nothing"
