"""Opening bags, in steps down from what a bag should be to what can be saved of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from motion4d_ros.offline.sources.base import SourceReport
from motion4d_ros.offline.sources.mcap_repair import RepairedMcap
from motion4d_ros.types import Motion4DError


def open_reader(path: Path, report: SourceReport) -> AnyReader:
    """Opens a bag, in steps down from what it should be to what can be saved. Raises `Motion4DError`."""
    store = get_typestore(Stores.ROS1_NOETIC if path.suffix == ".bag" else Stores.ROS2_JAZZY)
    storage: list[Path] = [path]
    if path.is_dir():
        storage = sorted([*path.glob("*.mcap"), *path.glob("*.db3")])
        if (path / "metadata.yaml").exists():
            try:
                return _opened([path], store)
            except Exception as error:  # any damage: try the storage files themselves
                if not storage:
                    raise Motion4DError(f"{path}: not a readable rosbag2 folder ({one_line(error)})") from None
                report.warn(
                    f"metadata.yaml or the bag is damaged ({one_line(error)}): its storage files were read directly"
                )
        elif storage:
            report.warn("metadata.yaml is missing (recording not closed?): the storage files were read directly")
        if not storage:
            raise Motion4DError(f"{path}: no storage files; is the bag compressed as a whole? Decompress it first")
    try:
        return _opened(storage, store)
    except Exception as error:  # the kinds depend on the storage
        reason = one_line(error)
    if path.suffix == ".bag":
        raise Motion4DError(
            f"{path}: not a readable ROS 1 bag ({reason}); if it was cut off, run `rosbag reindex` on it"
        )
    try:
        repaired = [RepairedMcap(file) if file.suffix == ".mcap" else file for file in storage]
        reader = _opened(repaired, store)
    except Exception as error:  # nothing can be saved
        raise Motion4DError(f"{path}: not a readable bag ({reason}; {one_line(error)})") from None
    lost = sum(file.lost_bytes for file in repaired if isinstance(file, RepairedMcap))
    report.warn(f"the bag is truncated: its intact beginning was used, {lost} bytes at the end are lost")
    return reader


def _opened(paths: list[Any], store: Any) -> AnyReader:
    reader = AnyReader(paths, default_typestore=store)
    reader.open()
    return reader


def one_line(error: Exception) -> str:
    """The first line of an error's text, or its kind where it has none."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
