"""Recordings: what INPUT may be, decided in one place, by its content."""

from __future__ import annotations

from pathlib import Path

from motion4d_ros.offline.sources.bags.bag_kind import holds_bag
from motion4d_ros.offline.sources.interfaces import FrameSource, SourceOptions, SourceReport
from motion4d_ros.offline.sources.option_rules import BAG, FOLDER, VIDEO, check_options
from motion4d_ros.types import Motion4DError

__all__ = ["FrameSource", "SourceOptions", "SourceReport", "open_source"]

_LARGEST_JPEG = 32 * 2**20
"""Bytes in which a second picture is looked for."""


def open_source(path: Path, options: SourceOptions) -> FrameSource:
    """Opens a rosbag2 folder or file, a ROS 1 bag, a video or a folder of images; readers are imported when needed.

    Raises `Motion4DError` for anything else, and for options that the kind of recording does not take.
    """
    if not path.exists():
        raise Motion4DError(f"{path}: no such file or folder")
    kind = kind_of(path)
    check_options(kind, str(path), options)
    if kind == BAG:
        from motion4d_ros.offline.sources.bags.bag_source import BagSource

        return BagSource(path, options)
    if kind == FOLDER:
        from motion4d_ros.offline.sources.folders.folder_source import FolderSource

        return FolderSource(path, options)
    from motion4d_ros.offline.sources.videos.video_source import VideoSource

    return VideoSource(path, options)


def kind_of(path: Path) -> str:
    """A bag, a video or a folder of images, by what the file or folder holds. Raises `Motion4DError` for others."""
    if holds_bag(path):
        return BAG
    if path.is_dir():
        return FOLDER
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise Motion4DError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not head:
        raise Motion4DError(f"{path}: the file is empty")
    if _is_picture(path, head):
        raise Motion4DError(f"{path}: one image; give the folder that holds all of them")
    if _is_text(head):
        raise Motion4DError(
            f"{path}: a text file is neither a rosbag2 folder, a ROS 1 .bag, a folder of images nor a video"
        )
    return VIDEO


def _is_picture(path: Path, head: bytes) -> bool:
    """A single picture. Animated GIF, PNG and WebP are videos."""
    import cv2

    from motion4d_ros.offline.sources.quiet import quiet_opencv

    if head.startswith(b"GIF8") or b"acTL" in head[:200] or (head[8:12] == b"WEBP" and b"ANIM" in head[:64]):
        return False
    if head.startswith(b"\xff\xd8"):  # JPEG after JPEG is a video
        with path.open("rb") as file:
            return b"\xff\xd9\xff\xd8\xff" not in file.read(_LARGEST_JPEG)
    with quiet_opencv():
        return bool(cv2.haveImageReader(str(path)))


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode("utf-8") if error.start > len(head) - 4 else "\0"
    return "\0" not in text and all(character.isprintable() or character in "\n\r\t\f" for character in text)
