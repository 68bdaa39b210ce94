"""``python -m motion4d_ros.evaluation.mask_fusion``: what fusing masks over time brings, without any 3D.

Fuses the masks that are given with every frame (`fit/semantics/mask_fusion.py`) and prints J before and after: on own
scenes with degraded masks, and on the real clips of ``../shared/data`` with masks of real networks, where J is that
of all labels together against the truth. `--ablation` adds a column for the posterior before it follows the picture's
edges.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import BudgetConfig, MasksConfig
from motion4d_ros.evaluation.metrics.segmentation import score_masks
from motion4d_ros.evaluation.score import load_truth
from motion4d_ros.evaluation.suite.cases import shared_data
from motion4d_ros.evaluation.synthetic import PRESETS, make_scene
from motion4d_ros.fit.semantics.mask_fusion import MaskFusion
from motion4d_ros.offline.sources.files.side_files import read_labels
from motion4d_ros.priors.flow.optical_flow import FlowCache
from motion4d_ros.types import Camera, Frame, IntArray, Motion4DError

NETWORKS = ("osvos", "rvos")  # folders of masks beside each real clip


@dataclass(frozen=True)
class MaskClip:
    """Pictures with given and true masks."""

    name: str
    pictures: NDArray[np.uint8]  # (T, H, W, 3)
    given: IntArray  # (T, H, W)
    truth: IntArray  # (T, H, W)
    one_object: bool  # the truth has one object, of which the given ids are parts

    def score(self, labels: IntArray) -> tuple[float, int]:
        """J and changes of identity of (T, H, W) labels."""
        if self.one_object:
            labels = (labels > 0).astype(np.int64)
        scores = score_masks(labels.astype(np.int64), self.truth)
        return scores.J, int(scores.flips)


def main(words: list[str] | None = None) -> int:
    """Exit status 0; 2 after one line on what the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m motion4d_ros.evaluation.mask_fusion", description=__doc__)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this row only; repeatable")
    reach = MasksConfig().fusion_reach
    parser.add_argument("--reach", type=int, default=reach, metavar="N", help=f"frames each way; default {reach}")
    parser.add_argument("--frames", type=int, metavar="N", help="the first N frames of each")
    parser.add_argument("--ablation", action="store_true", help="also the posterior before it follows edges")
    parser.add_argument("--shared", type=Path, default=shared_data(), metavar="DIR", help="default: ../shared/data")
    options = parser.parse_args(words)
    columns = ["masks", "given: J", "flips", "fused: J", "flips", *(["before edges: J"] * options.ablation), "s/frame"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    try:
        for clip in clips(options.shared, options.only, options.frames):
            print(_row(clip, options.reach, options.ablation), flush=True)
    except Motion4DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def clips(shared: Path, only: list[str], frames: int | None) -> Iterator[MaskClip]:
    """The rows asked for, one at a time in memory. Raises `Motion4DError` for a name that there is not."""
    scenes = list(PRESETS)
    given = [f"shared {folder.name}" for folder in sorted((shared / "scenes").glob("*"))]
    real = [f"{path.parent.name} {net}" for net in NETWORKS for path in sorted((shared / "davis").glob(f"*/{net}"))]
    known = [*given, *scenes, *real]
    for name in only:
        if name not in known:
            raise Motion4DError(f"--only {name}: choose among {', '.join(known)}")
    for name in only or known:
        if name in scenes:
            scene = make_scene(name, 0, frames or 48)
            yield MaskClip(name, scene.images, scene.in_masks, scene.masks.astype(np.int64), False)
        elif name in given:
            truth = load_truth(shared / "scenes" / name.split()[1])
            cut = np.s_[:frames]
            true = truth["masks"][cut].astype(np.int64)
            yield MaskClip(name, truth["images"][cut], truth["in_masks"][cut], true, False)
        else:
            folder, network = name.split()
            yield _real_clip(name, shared / "davis" / folder, network, frames)


def _real_clip(name: str, folder: Path, network: str, frames: int | None) -> MaskClip:
    images = sorted((folder / "images").glob("*.jpg"))[:frames]
    pictures = [np.asarray(cv2.imread(str(path)), np.uint8)[..., ::-1] for path in images]
    masks = [[read_labels(path) for path in sorted((folder / kind).glob("*.png"))] for kind in (network, "truth")]
    count = min(len(pictures), *(len(labels) for labels in masks))
    given, truth = (np.stack(labels[:count]).astype(np.int64) for labels in masks)
    return MaskClip(name, np.ascontiguousarray(np.stack(pictures[:count])), given, (truth > 0).astype(np.int64), True)


@dataclass(frozen=True)
class _Shown:
    """A `MaskedFrame` from arrays."""

    index: int
    rgb: NDArray[np.uint8]
    labels: IntArray
    concluded: None = None

    @property
    def output_size(self) -> tuple[int, int]:
        return self.labels.shape[0], self.labels.shape[1]

    def picture(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        return np.asarray(cv2.resize(self.rgb, size[::-1], interpolation=cv2.INTER_AREA), np.uint8)

    def named_source(self) -> IntArray:
        return self.labels


def _row(clip: MaskClip, reach: int, ablation: bool) -> str:
    """A line of the table. Flow is found at working size, as in the engine."""
    count, height, width = clip.given.shape
    camera = Camera(width, width, (width - 1) / 2, (height - 1) / 2, width, height)
    flows = FlowCache(max_side=BudgetConfig().working_width, keep=count)
    frames = [_Shown(i, rgb, labels) for i, (rgb, labels) in enumerate(zip(clip.pictures, clip.given, strict=True))]
    config = MasksConfig(fusion_reach=reach)
    started = time.perf_counter()
    for frame in frames:
        flows.push(Frame(frame.index + 1, frame.rgb, camera, index=frame.index))
    fused = MaskFusion(config).fuse(frames, flows, range(count))
    seconds = (time.perf_counter() - started) / count
    found = [clip.given, np.stack([fused[k].labels for k in range(count)])]
    cells = [clip.name]
    for labels in found:
        J, flips = clip.score(labels)
        cells += [f"{J:.3f}", str(flips)]
    if ablation:
        plain = MaskFusion(config, follow_edges=False).fuse(frames, flows, range(count))
        cells.append(f"{clip.score(np.stack([plain[k].labels for k in range(count)]))[0]:.3f}")
    return "| " + " | ".join([*cells, f"{seconds:.2f}"]) + " |"


if __name__ == "__main__":
    sys.exit(main())
