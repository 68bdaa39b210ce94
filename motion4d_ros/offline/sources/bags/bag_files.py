"""Opening bags, in steps down from what a bag should be to what can be saved of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from motion4d_ros.offline.sources.bags.bag_kind import how_to_unpack, storage_files, storage_kind
from motion4d_ros.offline.sources.bags.mcap_repair import salvage_mcap
from motion4d_ros.offline.sources.bags.ros1_repair import salvage_ros1
from motion4d_ros.offline.sources.bags.salvage import SalvagedFile
from motion4d_ros.offline.sources.interfaces import SourceReport
from motion4d_ros.types import Motion4DError


class OpenBag:
    """A reader, and what must be tidied up after it."""

    def __init__(self, reader: AnyReader, aliases: tempfile.TemporaryDirectory[str] | None) -> None:
        self.reader = reader
        self._aliases = aliases
        self._open = True

    def close(self) -> None:
        """Closes the bag; may be called twice."""
        if self._open:
            self._open = False
            self.reader.close()
        if self._aliases is not None:
            self._aliases.cleanup()


def open_bag(path: Path, report: SourceReport) -> OpenBag:
    """Opens a bag, in steps down from what it should be to what can be saved. Raises `Motion4DError`."""
    if path.is_dir() and (path / "metadata.yaml").exists():
        try:
            return OpenBag(_opened([path], get_typestore(Stores.ROS2_JAZZY)), None)
        except Exception as error:  # any damage: try the storage files themselves
            if not storage_files(path):
                raise Motion4DError(f"{path}: not a readable rosbag2 folder ({one_line(error)})") from None
            report.warn(
                f"metadata.yaml or the bag is damaged ({one_line(error)}): its storage files were read directly"
            )
    elif path.is_dir():
        report.warn("metadata.yaml is missing (recording not closed?): the storage files were read directly")
    storage = storage_files(path) if path.is_dir() else [path]
    if not storage or how_to_unpack(storage[0]):
        if hint := how_to_unpack(path):
            raise Motion4DError(f"{path}: the bag is compressed as a whole: {hint}")
        raise Motion4DError(f"{path}: no storage files (*.mcap, *.db3): was only metadata.yaml copied?")
    aliases = tempfile.TemporaryDirectory(prefix="motion4d_")
    try:
        named = [_under_its_suffix(file, Path(aliases.name)) for file in storage]
        return OpenBag(_open_storage(path, named, report), aliases)
    except BaseException:
        aliases.cleanup()
        raise


def _open_storage(path: Path, storage: list[Path], report: SourceReport) -> AnyReader:
    ros1 = storage[0].suffix in (".bag", ".active")
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_JAZZY)
    try:
        return _opened(list(storage), store)
    except Exception as error:  # the kinds depend on the storage
        reason = one_line(error)
    return _salvaged(path, storage, reason, store, report)


def _under_its_suffix(file: Path, folder: Path) -> Path:
    """`file`, or a link to it with the suffix of its content: `rosbags` goes by suffixes."""
    kind = storage_kind(file)
    if kind is None or file.suffix == kind or (kind == ".bag" and file.suffix == ".active"):
        return file
    alias = folder / f"{file.name}{kind}"
    alias.symlink_to(file.resolve())
    return alias


def _salvaged(path: Path, storage: list[Path], reason: str, store: Any, report: SourceReport) -> AnyReader:
    """What can be read of files that `rosbags` refuses for `reason`. Raises `Motion4DError` if it is nothing."""
    try:
        repaired = [_repair(file) for file in storage]
        reader = _opened(repaired, store)
    except Exception as error:
        raise Motion4DError(f"{path}: not a readable bag ({reason}; {one_line(error)})") from None
    cut = [file for file in repaired if isinstance(file, SalvagedFile)]
    if not any(connection.msgcount for connection in reader.connections):
        reader.close()
        raise Motion4DError(f"{path}: the bag is truncated before its first message: was its recorder killed?")
    lost = sum(file.lost_bytes for file in cut)
    report.truncated = True
    report.warn(f"the bag is truncated: its intact beginning was used, {lost} bytes at the end are lost")
    return reader


def _repair(file: Path) -> Path | SalvagedFile:
    """`file` as far as it is intact. Raises `ValueError` with the reason why nothing of it can be read."""
    if file.suffix == ".mcap":
        return salvage_mcap(file)
    if file.suffix == ".db3":
        check_sqlite(file)
        return file
    return salvage_ros1(file)


def check_sqlite(file: Path) -> None:
    """Raises `ValueError` if a database is shorter than its own header says: only SQLite's own tool can save that."""
    with file.open("rb") as opened:
        head = opened.read(100)
    size = file.stat().st_size
    if head[:15] != b"SQLite format 3" or len(head) < 100:
        raise ValueError("its database is empty or no SQLite file: was the recorder killed?")
    page = int.from_bytes(head[16:18], "big")
    meant = (65536 if page == 1 else page) * int.from_bytes(head[28:32], "big")
    if size < meant:
        name = file.name
        raise ValueError(
            f"{name} is truncated: {size} of {meant} bytes; try: sqlite3 {name} .recover | sqlite3 saved.db3"
        )


def _opened(paths: list[Any], store: Any) -> AnyReader:
    reader = AnyReader(paths, default_typestore=store)
    reader.open()
    return reader


def one_line(error: Exception) -> str:
    """The first line of an error's text, or its kind where it has none."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
