"""Video streams in the messages of a bag (H.264, H.265): one message holds one picture, but needs those before it.

OpenCV decodes them, from a copy of the stream in a temporary file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.offline.sources.quiet import quiet_opencv
from motion4d_ros.types import Motion4DError

_SUFFIXES = {"H.264": ".h264", "H.265": ".h265"}
_KEY_UNITS = {"H.264": lambda head: head & 0x1F in (5, 7), "H.265": lambda head: 16 <= (head >> 1) & 0x3F <= 34}
"""Whether a network unit, by its first byte, belongs to a picture that needs none before it."""


class PacketVideo:
    """The pictures of a stream, in the order of its messages. Any number of times: `pictures`."""

    def __init__(self, packets: Iterator[bytes], codec: str, topic: str) -> None:
        """Raises `Motion4DError` for a codec that is not read, and where messages and pictures do not correspond."""
        if codec not in _SUFFIXES:
            raise Motion4DError(
                f"{topic} is a video stream ({codec}), of which only H.264 and H.265 are read: republish it as "
                "pictures, ros2 run image_transport republish ffmpeg raw"
            )
        self.skipped = 0
        """Messages before the first picture that can be decoded."""
        self._folder = tempfile.TemporaryDirectory(prefix="motion4d_")
        self._file = Path(self._folder.name) / f"stream{_SUFFIXES[codec]}"
        count = self._spool(packets, codec)
        decoded = sum(1 for _ in self._grabbed())
        if not count or decoded != count:
            self.close()
            raise Motion4DError(
                f"{topic} is a video stream ({codec}) of {count} messages, of which {decoded} pictures can be decoded: "
                "republish it as pictures, ros2 run image_transport republish ffmpeg raw"
            )

    def pictures(self) -> Iterator[NDArray[np.uint8]]:
        """(H, W, 3) RGB of every message after those `skipped`."""
        for capture in self._grabbed():
            good, bgr = capture.retrieve()
            if not good:
                return
            yield np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)

    def close(self) -> None:
        """Removes the copy."""
        self._folder.cleanup()

    def _spool(self, packets: Iterator[bytes], codec: str) -> int:
        """Writes the stream from its first key picture on; how many messages that is."""
        count = 0
        with self._file.open("wb") as out:
            for packet in packets:
                if not count and not _begins(packet, codec):
                    self.skipped += 1
                    continue
                out.write(packet)
                count += 1
        return count

    def _grabbed(self) -> Iterator[cv2.VideoCapture]:
        with quiet_opencv():  # FFmpeg keeps the level of its log from when it is first used
            capture = cv2.VideoCapture(str(self._file))
        try:
            while capture.isOpened() and capture.grab():
                yield capture
        finally:
            capture.release()


def _begins(packet: bytes, codec: str) -> bool:
    """Whether a picture can be decoded from here on: parameters or a key picture are among the units."""
    at = packet.find(b"\0\0\1")
    while 0 <= at < len(packet) - 3:
        if _KEY_UNITS[codec](packet[at + 3]):
            return True
        at = packet.find(b"\0\0\1", at + 3)
    return False
