"""OpenCV and FFmpeg without their own words on stderr: what they find in a file we say ourselves, in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

_FFMPEG_QUIET = "-8"


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Inside, OpenCV logs nothing."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _FFMPEG_QUIET)
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
