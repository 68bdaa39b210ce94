"""Unpacking within bounds: a few kilobytes of a bag may claim, and unpack to, any size."""

from __future__ import annotations

import bz2
import importlib
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

from rosbags.rosbag1 import reader as ros1
from rosbags.rosbag2 import reader as ros2
from rosbags.rosbag2 import storage_mcap

from motion4d_ros.types import Motion4DError

MOST_BYTES = 2**30
"""Of one chunk, or message: recorders write chunks of a few megabytes, and a message is an image at most."""


def unpack_zstd(data: bytes) -> bytes:
    """One zstd frame. Raises `ValueError` for more than `MOST_BYTES`."""
    module = _zstd()
    if module.__name__ == "zstandard":
        with module.ZstdDecompressor().stream_reader(bytes(data)) as stream:
            return _bounded(bytes(stream.read(MOST_BYTES + 1)), whole=True)
    return _whole(module.ZstdDecompressor(), data)


def unpack_lz4(data: bytes) -> bytes:
    """One lz4 frame. Raises `ValueError` for more than `MOST_BYTES`."""
    lz4 = importlib.import_module("lz4.frame")  # which `rosbags` brings along
    return _whole(lz4.LZ4FrameDecompressor(), data)


def unpack_bz2(data: bytes) -> bytes:
    """One bzip2 stream. Raises `ValueError` for more than `MOST_BYTES`."""
    return _whole(bz2.BZ2Decompressor(), data)


def bound_readers() -> None:
    """Has the library that reads bags unpack chunks by the functions above. It offers no other way to say so."""
    storage_mcap.DECOMPRESSORS |= {
        "lz4": lambda data, size: unpack_lz4(data),
        "zstd": lambda data, size: unpack_zstd(data),
    }
    ros1.decompressors |= {"lz4": unpack_lz4, "bz2": unpack_bz2}
    vars(ros2)["zstd"] = SimpleNamespace(**{**vars(_zstd()), "decompress": unpack_zstd})  # of messages


def _whole(decompressor: Any, data: bytes) -> bytes:
    unpacked = bytes(decompressor.decompress(bytes(data), max_length=MOST_BYTES + 1))
    return _bounded(unpacked, whole=decompressor.eof)


def _bounded(unpacked: bytes, *, whole: bool) -> bytes:
    if len(unpacked) > MOST_BYTES:
        raise ValueError(f"it unpacks to more than {MOST_BYTES // 2**20} MiB")
    if not whole:
        raise ValueError("its compressed data breaks off")
    return unpacked


@cache
def _zstd() -> ModuleType:
    """Whichever module the installed `rosbags` brings along."""
    for name in ("compression.zstd", "backports.zstd", "zstandard"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise Motion4DError("the bag is compressed with zstd: pip install backports.zstd, or decompress it")
