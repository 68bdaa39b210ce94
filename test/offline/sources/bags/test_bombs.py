"""Bags of a few kilobytes that unpack to gigabytes: refused before the memory is taken, what came before is used."""

from __future__ import annotations

import bz2
import zlib
from pathlib import Path

import lz4.frame
import numpy as np
import psutil
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from motion4d_ros.offline.sources.bags import unpacking
from motion4d_ros.offline.sources.bags.bag_reader import BagReader
from motion4d_ros.offline.sources.files.pictures import read_pixels
from motion4d_ros.offline.sources.interfaces import SourceReport
from motion4d_ros.types import Motion4DError

PACK = {"lz4": lz4.frame.compress, "bz2": bz2.compress, "zstd": lambda data: unpacking._zstd().compress(data)}
UNPACK = {"lz4": unpacking.unpack_lz4, "bz2": unpacking.unpack_bz2, "zstd": unpacking.unpack_zstd}


@pytest.mark.parametrize("kind", PACK)
def test_unpacking_ends_at_the_bound(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    packed = PACK[kind](bytes(150 * 2**20))
    assert len(packed) < 2 * 2**20
    assert UNPACK[kind](PACK[kind](b"as it was")) == b"as it was"
    monkeypatch.setattr(unpacking, "MOST_BYTES", 2**20)
    before = psutil.Process().memory_info().rss
    with pytest.raises(ValueError, match="more than 1 MiB"):
        UNPACK[kind](packed)
    assert psutil.Process().memory_info().rss - before < 50 * 2**20
    with pytest.raises((ValueError, RuntimeError, OSError)):
        UNPACK[kind](packed[: len(packed) // 2] if kind == "bz2" else PACK[kind](b"x" * 1000)[:-6])


@pytest.mark.parametrize("mode", [CompressionMode.MESSAGE, CompressionMode.STORAGE])
def test_a_bag_that_holds_a_bomb_ends_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: CompressionMode
) -> None:
    """A message that unpacks to too much, or a chunk of an mcap file that does."""
    store = get_typestore(Stores.ROS2_JAZZY)
    text = store.types["std_msgs/msg/String"]
    writer = Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/words", "std_msgs/msg/String", typestore=store)
        for number in range(40):
            raw = store.serialize_cdr(text("x" * (10 if number < 5 else 400_000)), "std_msgs/msg/String")
            writer.write(connection, 10**9 + number, raw)
    assert sum(path.stat().st_size for path in (tmp_path / "bag").iterdir()) < 100_000

    def read() -> tuple[list[str], SourceReport]:
        report = SourceReport()
        reader = BagReader(tmp_path / "bag", report)
        heard = [message.data for _, _, message in reader.messages(["/words"])]
        reader.close()
        return heard, report

    assert len(read()[0]) == 40
    monkeypatch.setattr(unpacking, "MOST_BYTES", 50_000)
    heard, report = read()
    assert all(len(word) == 10 for word in heard) and len(heard) == (5 if mode is CompressionMode.MESSAGE else 0)
    assert any("unpacks to more than" in warning for warning in report.warnings)


def test_a_picture_file_that_claims_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    import cv2

    file = tmp_path / "a.png"
    cv2.imwrite(str(file), np.zeros((20, 20, 3), np.uint8))
    data = bytearray(file.read_bytes())
    data[16:24] = (12_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    file.write_bytes(bytes(data))
    with pytest.raises(Motion4DError, match="at most 128 Mpx"):
        read_pixels(file)
