"""Room on the disk: enough for all of it before the first frame, and for what is finished while frames come in."""

from __future__ import annotations

import os
import shutil

import cv2

from motion4d_ros.offline.results.frame_log import FrameLog
from motion4d_ros.offline.results.workspace import RESERVE_BYTES, Workspace
from motion4d_ros.types import Frame, Motion4DError
from motion4d_ros.viewer.drawn import PICTURE_QUALITY, small_picture

FILES_PER_FRAME = 4  # two label images, a picture, points: each takes an inode
AMPLE = 2.0  # times what is known to be needed: points, the scene and the report come on top, and are not known yet
GAUSSIAN_BYTES = 256  # of one Gaussian in scene/ and scene.ply together, with room to spare


def check_room(work: Workspace, frame: Frame, count: int | None) -> list[str]:
    """Raises `Motion4DError` when the disk surely has no room for the results; what to say where it may not have.

    Known from the first frame: the bag holds 2 bytes a pixel (label images are not compressed in it), and a small
    picture is kept for the report. `count` frames are expected; where that is not known, one is asked for.
    """
    height, width = frame.camera.size
    picture = cv2.imencode(".jpg", small_picture(frame.image), [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY])[1].nbytes
    frames = count or 1
    needed = frames * (2 * height * width + picture) + RESERVE_BYTES
    free = shutil.disk_usage(work.spool).free + RESERVE_BYTES  # which is taken already
    said = f"{frames} frames of {width}x{height} px take at least {needed / 1e6:.1f} MB, {free / 1e6:.1f} MB are free"
    if free < needed:
        raise Motion4DError(f"no space left on {work.out} for the results: {said}; free some, or choose another --out")
    inodes = os.statvfs(work.spool)
    if inodes.f_files and inodes.f_favail < frames * FILES_PER_FRAME:
        raise Motion4DError(
            f"no space left on {work.out} for the results: {frames * FILES_PER_FRAME} files are needed, the file "
            f"system has room for {inodes.f_favail}; choose another --out"
        )
    return [f"the disk may become full: {said}"] if free < AMPLE * needed else []


def runs_out(work: Workspace, log: FrameLog, gaussians: int) -> bool:
    """Whether the results of the finished frames would hardly fit on the disk any more.

    The bag takes 2 bytes a pixel, and what the spool holds once more: points go into the bag, pictures into the report.
    """
    height, width = log.facts[0].estimate.camera.size
    needed = log.finished * 2 * height * width + log.spooled_bytes + gaussians * GAUSSIAN_BYTES + RESERVE_BYTES
    return shutil.disk_usage(work.spool).free < needed
