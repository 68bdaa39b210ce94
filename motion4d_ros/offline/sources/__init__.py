"""Recordings: what INPUT may be, decided in one place."""

from __future__ import annotations

from pathlib import Path

from motion4d_ros.offline.sources.base import FrameSource, SourceOptions, SourceReport
from motion4d_ros.types import Motion4DError

__all__ = ["FrameSource", "SourceOptions", "SourceReport", "open_source"]


def open_source(path: Path, options: SourceOptions) -> FrameSource:
    """Opens a rosbag2 folder or file, a ROS 1 bag, a video or a folder of images; readers are imported when needed."""
    if not path.exists():
        raise Motion4DError(f"{path}: no such file or folder")
    suffix = path.suffix.lower()
    bag_files = path.is_dir() and any(any(path.glob(pattern)) for pattern in ("*.mcap*", "*.db3*"))
    bag_name = suffix in (".bag", ".mcap", ".db3") or path.name.endswith(".bag.active")
    if bag_name or bag_files or (path / "metadata.yaml").exists():
        from motion4d_ros.offline.sources.bag import BagSource

        return BagSource(path, options)
    if path.is_dir():
        from motion4d_ros.offline.sources.folder import FolderSource

        return FolderSource(path, options)
    from motion4d_ros.offline.sources.video import VIDEO_SUFFIXES, VideoSource

    if suffix in VIDEO_SUFFIXES:
        return VideoSource(path, options)
    raise Motion4DError(
        f"{path}: neither a rosbag2 folder, a ROS 1 .bag, a folder of images "
        f"nor a video ({', '.join(sorted(VIDEO_SUFFIXES))})"
    )
