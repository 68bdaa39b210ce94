"""Reading the intact beginning of an mcap file whose writer never closed it.

An mcap file ends with a footer; a recorder that loses power leaves none, and readers refuse the file. Every record
states its own length, so the intact ones can be found by hopping; of a last, incomplete chunk the messages before the
cut are still good if it is not compressed. An empty footer behind them means "no index: scan me".
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from motion4d_ros.offline.sources.bags.salvage import SalvagedFile

MAGIC = b"\x89MCAP0\r\n"
_FOOTER = b"\x02" + struct.pack("<QQQI", 20, 0, 0, 0) + MAGIC  # summary_start 0: there is no index
_CHUNK = 0x06
_END_OF_DATA = (0x0F, 0x02)  # data end, footer
_CHUNK_HEAD = 32  # bytes before the name of the compression: start, end, uncompressed size, checksum, its length

Segment = tuple[int, int]  # begin and end in the file, bytes


def salvage_mcap(path: Path) -> SalvagedFile:
    """The complete records of an mcap file. Raises `ValueError` if not even the beginning is one."""
    segments = _intact_segments(path)
    return SalvagedFile(path, ".mcap", [*segments, _FOOTER], path.stat().st_size - segments[-1][1])


def _intact_segments(path: Path) -> list[Segment]:
    """The magic and all complete records before the end of data, also those within a last incomplete chunk."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError("it does not begin as an mcap file" if size else "it is empty")
        end, cut = _hop(file, len(MAGIC), size)
        if end == len(MAGIC):
            raise ValueError("it is truncated within its first record")
        segments = [(0, end)]
        if cut == _CHUNK:
            file.seek(end + 9)
            head = file.read(_CHUNK_HEAD)
            if len(head) == _CHUNK_HEAD and struct.unpack("<I", head[-4:]) == (0,):  # no compression
                inner = end + 9 + _CHUNK_HEAD + 8
                if inner < size:
                    segments.append((inner, _hop(file, inner, size)[0]))
    return segments


def _hop(file: BinaryIO, begin: int, size: int) -> tuple[int, int | None]:
    """Hops over records: where the intact ones end, and the kind of the one that was cut (None at a clean end)."""
    end = begin
    while True:
        file.seek(end)
        head = file.read(9)
        if len(head) < 9 or head[0] in _END_OF_DATA:
            return end, None
        (length,) = struct.unpack("<Q", head[1:])
        if end + 9 + length > size:
            return end, head[0]
        end += 9 + length
