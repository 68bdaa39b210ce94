"""Reading the intact beginning of a ROS 1 bag whose recorder never closed it, also under its name `*.bag.active`.

The index of a ROS 1 bag (format 2.0) stands at its end, and readers refuse a bag without it. Chunks state their own
length and hold the connections of their messages, so that the index can be written anew; of a last, incomplete chunk
the messages before the cut are still good if it is not compressed. It is what
`rosbag reindex` does, but the bag stays as it is.
"""

from __future__ import annotations

import io
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from rosbags.rosbag1.reader import decompressors

from motion4d_ros.offline.sources.bags.salvage import Piece, SalvagedFile, piece_length

MAGIC = b"#ROSBAG V2.0\n"
_MESSAGE, _BAG_HEADER, _INDEX, _CHUNK, _CHUNK_INFO, _CONNECTION = 2, 3, 4, 5, 6, 7

Header = dict[bytes, bytes]


@dataclass
class _Chunk:
    """One chunk as it will be read: its record, and where in its unpacked data which message lies."""

    pieces: list[Piece]
    index: dict[bytes, list[tuple[bytes, int]]] = field(default_factory=lambda: defaultdict(list))
    """Connection (its number, as stored) -> (time as stored, offset in the unpacked chunk) of each message."""


def salvage_ros1(path: Path) -> SalvagedFile:
    """The intact chunks of a ROS 1 bag behind a new index. Raises `ValueError` if there is none, or none whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError("it does not begin as a ROS 1 bag of format 2.0" if size else "it is empty")
        connections: dict[bytes, bytes] = {}
        chunks: list[_Chunk] = []
        end = len(MAGIC)
        while (step := _next(file, end, size, connections)) is not None:
            end, chunk = step
            if chunk is not None:
                chunks.append(chunk)
    if not chunks:
        raise ValueError("it is truncated before its first message")
    return SalvagedFile(path, ".bag", _assemble(chunks, connections), size - end)


def _next(file: BinaryIO, begin: int, size: int, connections: dict[bytes, bytes]) -> tuple[int, _Chunk | None] | None:
    """The record at `begin`: where it ends, and the chunk if it is one with messages. None at the end and at the cut.

    Fills `connections` (number -> record).
    """
    file.seek(begin)
    header = _read_header(file)
    length = _u32(file)
    if header is None or length is None:
        return None
    data = file.tell()
    whole = data + length <= size
    if header.get(b"op") != bytes([_CHUNK]):
        return (data + length, None) if whole else None
    compression = header.get(b"compression", b"").decode(errors="replace")
    if compression not in decompressors or not (whole or compression == "none"):
        return None
    stored = file.read(length)
    try:
        unpacked = decompressors[compression](stored)
    except Exception as error:  # the kinds depend on the library
        raise ValueError(f"a chunk cannot be unpacked ({error})") from None
    chunk = _Chunk([])
    used = _index(unpacked, chunk, connections)
    if whole:
        chunk.pieces = [(begin, data + length)]
        return data + length, chunk if chunk.index else None
    if not chunk.index:
        return None
    fields = {b"op": bytes([_CHUNK]), b"compression": b"none", b"size": struct.pack("<I", used)}
    chunk.pieces = [_header(fields) + struct.pack("<I", used), (data, data + used)]
    return data + used, chunk


def _index(unpacked: bytes, chunk: _Chunk, connections: dict[bytes, bytes]) -> int:
    """Notes the connections and complete messages of a chunk's data; where the last complete record ends."""
    file = io.BytesIO(unpacked)
    end = 0
    for offset, header, length in _records(file):
        stop = file.tell() + length
        if stop > len(unpacked):
            break
        number = header.get(b"conn", b"")
        if header.get(b"op") == bytes([_CONNECTION]):
            connections.setdefault(number, unpacked[offset:stop])
        elif header.get(b"op") == bytes([_MESSAGE]) and number in connections:
            chunk.index[number].append((header[b"time"], offset))
        file.seek(stop)
        end = stop
    return end


def _records(file: BinaryIO) -> Iterator[tuple[int, Header, int]]:
    """(offset, header, length of the data) of each record; the file then stands at the data."""
    while True:
        offset = file.tell()
        header = _read_header(file)
        length = _u32(file)
        if header is None or length is None:
            return
        yield offset, header, length


def _assemble(chunks: list[_Chunk], connections: dict[bytes, bytes]) -> list[Piece]:
    """A bag: header, chunks each with its index, connections, facts of the chunks."""
    body: list[Piece] = []
    facts: list[Piece] = []
    position = len(MAGIC) + len(_bag_header(0, 0, 0))
    for chunk in chunks:
        facts.append(_chunk_info(chunk, position))
        pieces = [*chunk.pieces, *(_index_record(number, items) for number, items in chunk.index.items())]
        position += sum(piece_length(piece) for piece in pieces)
        body += pieces
    head = MAGIC + _bag_header(position, len(connections), len(chunks))
    return [head, *body, *connections.values(), *facts]


def _bag_header(index_pos: int, connections: int, chunks: int) -> bytes:
    fields = {
        b"op": bytes([_BAG_HEADER]), b"index_pos": struct.pack("<Q", index_pos),
        b"conn_count": struct.pack("<I", connections), b"chunk_count": struct.pack("<I", chunks),
    }  # fmt: skip
    return _header(fields) + struct.pack("<I", 0)


def _index_record(number: bytes, items: list[tuple[bytes, int]]) -> bytes:
    fields = {
        b"op": bytes([_INDEX]), b"ver": struct.pack("<I", 1), b"conn": number, b"count": struct.pack("<I", len(items)),
    }  # fmt: skip
    return _header(fields) + _sized(b"".join(time + struct.pack("<I", offset) for time, offset in items))


def _chunk_info(chunk: _Chunk, position: int) -> bytes:
    times = [time for items in chunk.index.values() for time, _ in items]
    fields = {
        b"op": bytes([_CHUNK_INFO]), b"ver": struct.pack("<I", 1), b"chunk_pos": struct.pack("<Q", position),
        b"start_time": min(times, key=_seconds), b"end_time": max(times, key=_seconds),
        b"count": struct.pack("<I", len(chunk.index)),
    }  # fmt: skip
    counts = b"".join(number + struct.pack("<I", len(items)) for number, items in chunk.index.items())
    return _header(fields) + _sized(counts)


def _seconds(stored: bytes) -> tuple[int, int]:
    sec, nanosec = struct.unpack("<II", stored)
    return sec, nanosec


def _read_header(file: BinaryIO) -> Header | None:
    """The fields of a record's header; None where the file ends or makes no sense."""
    length = _u32(file)
    raw = file.read(length) if length is not None and length < 1 << 20 else b""
    if not raw or len(raw) != length:
        return None
    fields: Header = {}
    at = 0
    while at + 4 <= len(raw):
        stop = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        name, equals, value = raw[at + 4 : stop].partition(b"=")
        if not equals or stop > len(raw):
            return None
        fields[name] = value
        at = stop
    return fields


def _header(fields: Header) -> bytes:
    return _sized(b"".join(_sized(name + b"=" + value) for name, value in fields.items()))


def _sized(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def _u32(file: BinaryIO) -> int | None:
    raw = file.read(4)
    return int.from_bytes(raw, "little") if len(raw) == 4 else None
