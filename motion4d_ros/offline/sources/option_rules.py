"""Which options a kind of recording takes. What it does not take is refused: nothing is accepted and then ignored."""

from __future__ import annotations

from collections.abc import Callable

from motion4d_ros.offline.sources.interfaces import NOTHING, SourceOptions
from motion4d_ros.types import Motion4DError

BAG, VIDEO, FOLDER = "a bag", "a video", "a folder of images"

_REFUSED: dict[str, dict[str, str]] = {
    BAG: {
        "poses": "its poses come from --odometry TOPIC or --set pose.source=tf",
        "image_glob": "its images are chosen with --image TOPIC",
        "depth_glob": "its depth is chosen with --depth TOPIC",
        "masks_glob": "its masks are chosen with --masks TOPIC",
        "fps": "its images carry their own stamps",
    },
    VIDEO: {
        "image": "it has no topics",
        "image_glob": "its frames are its images",
        "odometry": "it has no topics; use --poses FILE",
        "use_tf": "it has no transforms; use --poses FILE",
        "depth_frame": "its depth has no frame",
    },
    FOLDER: {
        "image": "it has no topics; --image-glob chooses its images",
        "odometry": "it has no topics; use --poses FILE",
        "use_tf": "it has no transforms; use --poses FILE",
        "depth_frame": "its depth has no frame",
    },
}
_NAMES = {"use_tf": "--set pose.source=tf", "depth_frame": "--set depth.frame"}


def check_options(kind: str, name: str, options: SourceOptions) -> None:
    """Refuses what `kind` does not take, and what makes no sense together. Raises `Motion4DError`."""
    for option, reason in _REFUSED[kind].items():
        if getattr(options, option) not in (None, False, ""):
            raise Motion4DError(f"{name} is {kind}, which takes no {_name(option)}: {reason}")
    if kind != BAG and options.camera_info is not None and options.intrinsics is not None:
        raise Motion4DError("--camera-info and --intrinsics both say what camera it was: give one of them")
    needs: dict[str, Callable[[], bool]] = {
        "depth_glob": lambda: options.depth is None and kind == VIDEO,
        "masks_glob": lambda: options.masks is None,
    }
    for option, lacks in needs.items():
        if getattr(options, option) is not None and (lacks() or _nothing(options, option)):
            raise Motion4DError(f"{_name(option)} chooses among files: give --{option.split('_')[0]} DIR with it")


def _nothing(options: SourceOptions, option: str) -> bool:
    return getattr(options, option.removesuffix("_glob")) == NOTHING


def _name(option: str) -> str:
    return _NAMES.get(option, "--" + option.replace("_", "-"))
