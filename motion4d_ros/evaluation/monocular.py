"""Scores the sources that need nothing but a camera, before any 4D fit.

    python -m motion4d_ros.evaluation.monocular [--data ../shared/data] [--only car_shadow,tabletop] [--limit N]
                                                [--write docs/monocular.md]

Every source is run causally, frame after frame. Masks are scored twice: *online*, as they were given out with each
frame, and *final*, with what the source has revised in hindsight. Times are CPU seconds per frame of one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.evaluation.files import write_text
from motion4d_ros.evaluation.metrics.depth import depth_errors
from motion4d_ros.evaluation.metrics.segmentation import match_labels, score_masks
from motion4d_ros.evaluation.metrics.trajectory import absolute_trajectory_error
from motion4d_ros.priors.carried_masks import CarriedMasks
from motion4d_ros.priors.geometric_depth import GeometricDepth
from motion4d_ros.priors.motion_masks import MotionMasks
from motion4d_ros.priors.prompted_masks import PromptedMasks
from motion4d_ros.priors.visual_pose import VisualPose
from motion4d_ros.types import Camera, FloatArray, Frame, IntArray, Motion4DError, PoseStatus, Prompt, Scale

CLIPS = ("car_shadow", "tennis", "tabletop", "static_camera", "seven_scenes")
FALSE_OBJECT_PX = 100  # found objects that never grow beyond this are not counted as false ones
GUESSED_FOCAL = 0.9  # of the width, for clips without intrinsics


@dataclass
class Clip:
    """Frames and what is known of them."""

    name: str
    frames: list[Frame]
    masks: IntArray | None = None  # (T, H, W)
    T_map_cam: FloatArray | None = None  # (T, 4, 4)
    depth_m: Sequence[FloatArray] | None = None  # (H, W) each; 0 = unknown


def load_clip(name: str, data: Path, limit: int) -> Clip:
    """One of the shared clips by name. Raises `Motion4DError` when it is not there."""
    folder = data / "scenes" / name if (data / "scenes" / name).exists() else data / name
    if not folder.exists():
        raise Motion4DError(f"{folder}: no such clip; give its parent by --data")
    if (folder / "gt.npz").exists():
        return _synthetic(name, folder, limit)
    return _rgbd(name, folder, limit) if (folder / "camera-intrinsics.txt").exists() else _davis(name, folder, limit)


def _rgb(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path))
    if image is None:
        raise Motion4DError(f"{path}: not an image")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _davis(name: str, folder: Path, limit: int) -> Clip:
    images = [_rgb(path) for path in sorted((folder / "images").iterdir())[:limit]]
    height, width = images[0].shape[:2]
    focal = GUESSED_FOCAL * width
    camera = Camera(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)
    frames = [Frame(int(i * 1e9 / 24), image, camera, index=i) for i, image in enumerate(images)]
    masks = [_rgb(path).any(-1) for path in sorted((folder / "masks").iterdir())[:limit]]
    return Clip(name, frames, np.stack(masks).astype(np.int32))


def _synthetic(name: str, folder: Path, limit: int) -> Clip:
    with np.load(folder / "gt.npz") as file:
        truth = {key: file[key][:limit] for key in ("images", "masks", "depth", "T_wc", "stamps")}
        K = file["K"]
    height, width = truth["masks"].shape[1:]
    camera = Camera(K[0, 0], K[1, 1], K[0, 2], K[1, 2], width, height)
    stamps = (truth["stamps"] * 1e9).astype(int)
    images = truth["images"]
    frames = [Frame(int(stamp), images[i].copy(), camera, index=i) for i, stamp in enumerate(stamps)]
    return Clip(name, frames, truth["masks"].astype(np.int32), truth["T_wc"], truth["depth"].astype(float))


def _rgbd(name: str, folder: Path, limit: int) -> Clip:
    K = np.loadtxt(folder / "camera-intrinsics.txt")
    frames, poses, depths = [], [], []
    for i, path in enumerate(sorted(folder.glob("*.color.jpg"))[:limit]):
        image = _rgb(path)
        camera = Camera(K[0, 0], K[1, 1], K[0, 2], K[1, 2], image.shape[1], image.shape[0])
        frames.append(Frame(int(i * 5e9 / 30), image, camera, index=i))
        stem = str(path)[: -len(".color.jpg")]
        poses.append(np.loadtxt(f"{stem}.pose.txt"))
        raw = np.asarray(cv2.imread(f"{stem}.depth.png", cv2.IMREAD_UNCHANGED), float)
        depths.append(np.where(raw == 65535, 0, raw) / 1000)
    return Clip(name, frames, None, np.stack(poses), depths)


def run_masks(source: CarriedMasks, clip: Clip, prompt: bool) -> tuple[IntArray, IntArray, float]:
    """Online and final (T, H, W) labels, and seconds per frame. `prompt`: the first frame's true masks are given."""
    online, final = [], {}
    seconds = 0.0
    for frame in clip.frames:
        start = time.process_time()
        if prompt and frame.index == 0:
            assert clip.masks is not None
            for object_id in np.unique(clip.masks[0][clip.masks[0] > 0]):
                source.prompt(frame, Prompt(frame.stamp_ns, int(object_id), mask=clip.masks[0] == object_id))
        labels = source.masks(frame, None)
        seconds += time.process_time() - start
        online.append(labels)
        final[frame.index] = labels
        final.update(source.revised_masks())
    return np.stack(online), np.stack([final[f.index] for f in clip.frames]), seconds / len(clip.frames)


def mask_rows(clip: Clip) -> list[list[str]]:
    """Rows of the table of masks for one clip."""
    assert clip.masks is not None
    rows = []
    sources: list[tuple[str, Callable[[Config], CarriedMasks], bool]] = [
        ("prompt", PromptedMasks, True),
        ("motion", MotionMasks, False),
    ]
    for name, make, prompted in sources:
        online, final, seconds = run_masks(make(Config()), clip, prompted)
        now, later = score_masks(online, clip.masks), score_masks(final, clip.masks)
        matched = match_labels(final, clip.masks)
        per_object = [_mean_j(final, clip.masks, i, matched.get(int(i))) for i in np.unique(clip.masks[clip.masks > 0])]
        sizes = {int(p): int((final == p).sum((1, 2)).max()) for p in np.unique(final[final > 0])}
        false = sum(size > FALSE_OBJECT_PX for p, size in sizes.items() if p not in matched.values())
        each = " ".join(f"{j:.2f}" for j in per_object)
        rows.append(
            [clip.name, name, f"{now.J:.3f}", f"{later.J:.3f}", each, str(later.flips), str(false), f"{seconds:.2f}"]
        )
    return rows


def _mean_j(labels: IntArray, truth: IntArray, object_id: int, found: int | None) -> float:
    values = []
    for mine, theirs in zip(labels, truth, strict=True):
        region, guess = theirs == object_id, mine == (-9 if found is None else found)
        if region.sum() >= 20:
            values.append((region & guess).sum() / (region | guess).sum())
    return float(np.mean(values)) if values else float("nan")


def pose_and_depth_row(clip: Clip) -> list[str]:
    """One row of the table of poses and depth: `visual` poses, and `geometry` depth on top of them."""
    pose_source, depth_source = VisualPose(Config()), GeometricDepth(Config())
    poses: dict[int, FloatArray] = {}
    lost, seconds, errors, inside = 0, 0.0, [], []
    scale = Scale.UNKNOWN
    for frame in clip.frames:
        start = time.process_time()
        pose = pose_source.pose(frame, None)
        revised = pose_source.revised_poses()
        if revised:
            depth_source.revise(revised)
        prior = depth_source.depth(frame, pose, None)
        seconds += time.process_time() - start
        poses[frame.index] = pose.T_map_cam
        poses.update(revised)
        lost += pose.status is PoseStatus.LOST
        scale = pose.scale
        if clip.depth_m is None or prior is None or prior.scale is Scale.UNKNOWN:
            continue
        truth = clip.depth_m[frame.index]
        if clip.masks is not None:  # what moves is not judged: its depth is a guess by contact
            truth = np.where(clip.masks[frame.index] > 0, 0, truth)
        found = depth_errors(prior.depth, truth, "median")
        errors.append((found.abs_rel, found.delta1))
        known = (truth > 0) & np.isfinite(truth)
        aligned = prior.depth * np.median(truth[known]) / np.median(prior.depth[known])
        inside.append(float((np.abs(aligned - truth)[known] < prior.sigma[known] * truth[known]).mean()))
    ate = "-"
    if clip.T_map_cam is not None and scale is not Scale.UNKNOWN:
        found_poses = np.stack([poses[f.index] for f in clip.frames])
        ate = f"{100 * absolute_trajectory_error(found_poses, clip.T_map_cam, with_scale=True):.1f}"
    depth = [f"{np.mean([e[k] for e in errors]):.3f}" for k in (0, 1)] if errors else ["-", "-"]
    honest = f"{np.mean(inside):.2f}" if inside else "-"
    return [clip.name, scale.value, str(lost), ate, *depth, honest, f"{seconds / len(clip.frames):.2f}"]


def table(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |"]
    lines.append("|" + "---|" * lines[0].count(" | ") + "---|")
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


MASK_HEAD = ("clip", "source", "J online", "J final", "J per object", "id changes", "false objects", "s/frame")
POSE_HEAD = (
    "clip", "scale", "frames lost", "ATE cm", "depth abs-rel", "depth d<1.25", "within 1 sigma", "s/frame"
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 0 if every clip could be read."""
    parser = argparse.ArgumentParser(prog="python -m motion4d_ros.evaluation.monocular", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the clips")
    parser.add_argument("--only", default=",".join(CLIPS), help="clips, by comma")
    parser.add_argument("--limit", type=int, default=1000, help="frames of each clip at most")
    parser.add_argument("--write", type=Path, help="Markdown file whose tables (below `<!-- tables -->`) are replaced")
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    masks: list[list[str]] = []
    poses: list[list[str]] = []
    for name in options.only.split(","):
        try:
            clip = load_clip(name, options.data, options.limit)
        except Motion4DError as error:
            print(f"monocular: {error}")
            return 2
        if clip.masks is not None:
            masks += mask_rows(clip)
        poses.append(pose_and_depth_row(clip))
        print(table(MASK_HEAD, masks), table(POSE_HEAD, poses), sep="\n\n", end="\n\n", flush=True)
    if options.write:
        parts = ["### Masks", table(MASK_HEAD, masks), "### Poses and depth", table(POSE_HEAD, poses)]
        _write(options.write, "\n\n".join(parts))
    return 0


def _write(path: Path, tables: str) -> None:
    mark = "<!-- tables -->"
    text = path.read_text(encoding="utf-8") if path.exists() else f"# One camera and nothing else\n\n{mark}\n"
    write_text(path, text.split(mark)[0] + f"{mark}\n\n{tables}\n")


if __name__ == "__main__":
    raise SystemExit(main())
