"""A view of a file that was cut off: its intact pieces, and what a reader needs beside them. Nothing is written."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

Piece = tuple[int, int] | bytes
"""Begin and end in the file, bytes; or bytes that stand for themselves."""


class SalvagedFile:
    """Path-like, as far as `rosbags` looks at paths: `pieces` of the file at `path`, one after the other.

    `suffix` tells `rosbags` the format, `lost_bytes` how much of the file's end is not in the pieces.
    """

    def __init__(self, path: Path, suffix: str, pieces: Sequence[Piece], lost_bytes: int) -> None:
        self.path = path
        self.suffix = suffix
        self.pieces = tuple(pieces)
        self.lost_bytes = lost_bytes

    def exists(self) -> bool:
        """As `pathlib.Path`."""
        return True

    def is_dir(self) -> bool:
        """As `pathlib.Path`."""
        return False

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """The pieces as one file."""
        return io.BufferedReader(_Pieces(self.path, self.pieces))

    def __str__(self) -> str:
        return str(self.path)


class _Pieces(io.RawIOBase):
    """Pieces of a file, read as if they were one."""

    def __init__(self, path: Path, pieces: Sequence[Piece]) -> None:
        super().__init__()
        self._file = path.open("rb")
        self._pieces, self._position = pieces, 0
        self._length = sum(piece_length(piece) for piece in pieces)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
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
        for piece in self._pieces:
            length = piece_length(piece)
            if offset < length:
                if isinstance(piece, bytes):
                    return piece[offset : offset + size]
                self._file.seek(piece[0] + offset)
                return self._file.read(min(size, length - offset))
            offset -= length
        return b""

    def close(self) -> None:
        self._file.close()
        super().close()


def piece_length(piece: Piece) -> int:
    """Bytes of a piece."""
    return len(piece) if isinstance(piece, bytes) else piece[1] - piece[0]
