"""Reading the intact beginning of an mcap file whose writer never closed it.

An mcap file ends with a footer; a recorder that loses power leaves none, and readers refuse the file. Every record
states its own length, so the intact ones can be found by hopping. `RepairedMcap` looks to `rosbags` like a path whose
file ends after the last intact record and carries an empty footer, which means "no index: scan me". Nothing is written.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

MAGIC = b"\x89MCAP0\r\n"
_FOOTER = b"\x02" + struct.pack("<QQQI", 20, 0, 0, 0) + MAGIC  # summary_start 0: there is no index
_END_OF_DATA = (0x0F, 0x02)  # data end, footer


class RepairedMcap:
    """Path-like view of a truncated mcap file, as far as `rosbags` looks at paths."""

    suffix = ".mcap"

    def __init__(self, path: Path) -> None:
        """Raises `ValueError` if not even the beginning is an mcap file."""
        self.path = path
        self.intact_bytes = _intact_bytes(path)
        self.lost_bytes = path.stat().st_size - self.intact_bytes

    def exists(self) -> bool:
        """As `pathlib.Path`."""
        return True

    def is_dir(self) -> bool:
        """As `pathlib.Path`."""
        return False

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """The intact records followed by an empty footer."""
        return io.BufferedReader(_PrefixWithTail(self.path, self.intact_bytes, _FOOTER))

    def __str__(self) -> str:
        return str(self.path)


class _PrefixWithTail(io.RawIOBase):
    """The first `length` bytes of a file, then `tail`."""

    def __init__(self, path: Path, length: int, tail: bytes) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._length, self._tail, self._position = length, tail, 0

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
        if self._position < self._length:
            self._file.seek(self._position)
            data = self._file.read(min(len(view), self._length - self._position))
        else:
            start = self._position - self._length
            data = self._tail[start : start + len(view)]
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _intact_bytes(path: Path) -> int:
    """Length of the magic and all complete records before the end of data."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{path} does not begin as an mcap file")
        end = file.tell()
        while True:
            head = file.read(9)
            if len(head) < 9 or head[0] in _END_OF_DATA:
                return end
            (length,) = struct.unpack("<Q", head[1:])
            if end + 9 + length > size:
                return end
            end += 9 + length
            file.seek(end)
