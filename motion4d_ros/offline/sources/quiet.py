"""OpenCV and FFmpeg without their own words on stderr: what they find in a file we say ourselves, in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

_FFMPEG_QUIET = "-8"
_SILENT = 0  # LOG_LEVEL_SILENT, which has no name in older OpenCV


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Inside, OpenCV logs nothing."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _FFMPEG_QUIET)
    log = getattr(cv2.utils, "logging", cv2)  # older OpenCV, such as Debian 12's, has the functions at the top
    level = log.getLogLevel()
    log.setLogLevel(_SILENT)
    try:
        yield
    finally:
        log.setLogLevel(level)
