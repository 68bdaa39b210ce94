"""What an analysis will need is checked before its first frame is computed, so that nothing is lost for want of it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from motion4d_ros.imagery.void_labels import VoidRule
from motion4d_ros.offline.carriers import AnalyzeOptions
from motion4d_ros.offline.queries import check_queries
from motion4d_ros.offline.report.build import check_page
from motion4d_ros.offline.results.bag_output import own_typestore
from motion4d_ros.offline.results.workspace import PARTIAL, PRODUCTS
from motion4d_ros.offline.sources.files.side_files import read_labels
from motion4d_ros.options import no_such_path
from motion4d_ros.types import FloatArray, Frame, IntArray, Motion4DError

FRINGE_PX = 24  # ids with fewer pixels are the blurred edge of something, not objects


def check_installation() -> None:
    """Raises `Motion4DError` when messages (for the bag) or the report's page are not where they should be."""
    own_typestore()
    check_page()


def check_input(path: Path) -> None:
    """Raises `Motion4DError` when the recording does not exist, or must not be read."""
    if not path.exists():
        raise no_such_path(path)
    if not os.access(path, os.R_OK):
        raise Motion4DError(f"{path}: you are not allowed to read it (see `ls -l`)")


def check_output(options: AnalyzeOptions) -> None:
    """Raises `Motion4DError` where the results would take the place of something that is read."""
    source, out = options.source, options.out.resolve()
    read = {
        "the input": options.input,
        "--depth": source.depth,
        "--masks": source.masks,
        "--detections": source.detections,
        "--poses": source.poses,
        "--camera-info": source.camera_info,
        "--prompt-mask": options.prompt_mask,
        "--queries": options.queries,
    }
    for name, value in read.items():
        path = None if value is None else Path(value).resolve()
        if path is None or not path.exists():
            continue
        if path == out and path.is_dir():
            raise Motion4DError(f"--out {options.out}: is {name} itself; choose another folder, such as {out / 'out'}")
        inside = path.relative_to(out).parts if path.is_relative_to(out) else ()
        if inside and inside[0] in (*PRODUCTS, PARTIAL):
            raise Motion4DError(
                f"--out {options.out}: the results would replace its {inside[0]}, where {name} ({value}) lies; "
                "choose another folder"
            )


def read_prompt_mask(path: Path) -> IntArray:
    """(H, W) ids of the first frame's objects. Raises `Motion4DError` for what cannot be one."""
    if not path.exists():
        raise no_such_path(path, "--prompt-mask")
    if path.is_dir():
        raise Motion4DError(f"--prompt-mask {path}: is a folder; name the label image of the first frame")
    labels = VoidRule().apply(read_labels(path))
    if not (labels > 0).any():
        raise Motion4DError(f"--prompt-mask {path}: marks no object (all 0)")
    ids, areas = np.unique(labels[labels > 0], return_counts=True)
    fringe = int((areas < FRINGE_PX).sum())
    if fringe > len(ids) - fringe and fringe > 1:
        raise Motion4DError(
            f"--prompt-mask {path}: {fringe} of its {len(ids)} ids have fewer than {FRINGE_PX} pixels, as soft edges "
            "have; draw with a hard brush, without anti-aliasing (0 background, 1, 2, … objects)"
        )
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
