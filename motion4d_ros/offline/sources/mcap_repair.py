"""Reading the intact beginning of an mcap file whose writer never closed it.

An mcap file ends with a footer; a recorder that loses power leaves none, and readers refuse the file. Every record
states its own length, so the intact ones can be found by hopping; of a last, incomplete chunk the messages before the
cut are still good if it is not compressed. `RepairedMcap` looks to `rosbags` like a path whose file holds just these
records and an empty footer, which means "no index: scan me". Nothing is written.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

MAGIC = b"\x89MCAP0\r\n"
_FOOTER = b"\x02" + struct.pack("<QQQI", 20, 0, 0, 0) + MAGIC  # summary_start 0: there is no index
_CHUNK = 0x06
_END_OF_DATA = (0x0F, 0x02)  # data end, footer
_CHUNK_HEAD = 32  # bytes before the name of the compression: start, end, uncompressed size, checksum, its length

Segment = tuple[int, int]  # begin and end in the file, bytes


class RepairedMcap:
    """Path-like view of a truncated mcap file, as far as `rosbags` looks at paths."""

    suffix = ".mcap"

    def __init__(self, path: Path) -> None:
        """Raises `ValueError` if not even the beginning is an mcap file."""
        self.path = path
        self.segments = _intact_segments(path)
        self.lost_bytes = path.stat().st_size - self.segments[-1][1]

    def exists(self) -> bool:
        """As `pathlib.Path`."""
        return True

    def is_dir(self) -> bool:
        """As `pathlib.Path`."""
        return False

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """The intact records followed by an empty footer."""
        return io.BufferedReader(_Pieces(self.path, self.segments, _FOOTER))

    def __str__(self) -> str:
        return str(self.path)


class _Pieces(io.RawIOBase):
    """Segments of a file, one after the other, then `tail`."""

    def __init__(self, path: Path, segments: list[Segment], tail: bytes) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._segments, self._tail, self._position = segments, tail, 0
        self._length = sum(end - begin for begin, end in segments)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length + len(self._tail)}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer)
        data = self._read(len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _read(self, size: int) -> bytes:
        """Up to `size` bytes of the piece at the current position."""
        offset = self._position
        for begin, end in self._segments:
            if offset < end - begin:
                self._file.seek(begin + offset)
                return self._file.read(min(size, end - begin - offset))
            offset -= end - begin
        return self._tail[offset : offset + size]

    def close(self) -> None:
        self._file.close()
        super().close()


def _intact_segments(path: Path) -> list[Segment]:
    """The magic and all complete records before the end of data, also those within a last incomplete chunk."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{path} does not begin as an mcap file")
        end, cut = _hop(file, len(MAGIC), size)
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
