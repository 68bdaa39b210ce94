"""What an analysis will need is checked before its first frame is computed, so that nothing is lost for want of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
from PIL import Image

from motion4d_ros.offline.bag_output import own_typestore
from motion4d_ros.offline.framelog import PICTURE_QUALITY, small_picture
from motion4d_ros.offline.queries import check_queries
from motion4d_ros.offline.report.build import check_page
from motion4d_ros.offline.sources.files import read_labels
from motion4d_ros.offline.workspace import RESERVE_BYTES, Workspace
from motion4d_ros.types import FloatArray, Frame, IntArray, Motion4DError

FILES_PER_FRAME = 4  # two label images, a picture, points: each takes an inode
AMPLE = 2.0  # times what is known to be needed: points, the scene and the report come on top, and are not known yet
_MB = 1e6


def check_installation() -> None:
    """Raises `Motion4DError` when messages (for the bag) or the report's page are not where they should be."""
    own_typestore()
    check_page()


def read_prompt_mask(path: Path) -> IntArray:
    """(H, W) ids of the first frame's objects. Raises `Motion4DError` for what cannot be one."""
    if not path.exists():
        raise Motion4DError(f"--prompt-mask {path}: no such file")
    if path.is_dir():
        raise Motion4DError(f"--prompt-mask {path}: is a folder; name the label image of the first frame")
    labels = read_labels(path)
    with Image.open(path) as opened:
        if opened.format == "JPEG":
            raise Motion4DError(f"--prompt-mask {path}: JPEG blurs ids; save it as PNG (0 background, 1, 2, … objects)")
    if not (labels > 0).any():
        raise Motion4DError(f"--prompt-mask {path}: marks no object (all 0)")
    return labels


def check_first_frame(
    frame: Frame, queries: FloatArray | None, prompt_labels: IntArray | None, count: int | None
) -> None:
    """Raises `Motion4DError` for queries or a prompt that do not fit the first frame; `count`: frames, if known."""
    if queries is not None:
        check_queries(queries, frame.camera.size, count)
    if prompt_labels is not None and prompt_labels.shape != frame.camera.size:
        raise Motion4DError(
            f"--prompt-mask is {prompt_labels.shape[1]}x{prompt_labels.shape[0]} px, the images are "
            f"{frame.camera.width}x{frame.camera.height}"
        )


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
    said = f"{frames} frames of {width}x{height} px take at least {needed / _MB:.1f} MB, {free / _MB:.1f} MB are free"
    if free < needed:
        raise Motion4DError(f"no space left on {work.out} for the results: {said}; free some, or choose another --out")
    inodes = os.statvfs(work.spool)
    if inodes.f_files and inodes.f_favail < frames * FILES_PER_FRAME:
        raise Motion4DError(
            f"no space left on {work.out} for the results: {frames * FILES_PER_FRAME} files are needed, the file "
            f"system has room for {inodes.f_favail}; choose another --out"
        )
    return [f"the disk may become full: {said}"] if free < AMPLE * needed else []
