"""Scores what is found with nothing but a camera: by the 2D sources alone, and by the whole engine.

    python -m motion4d_ros.evaluation.monocular [--data ../shared/data] [--only car_shadow,tabletop] [--limit N]
                                                [--sources-only] [--set key=value]
                                                [--write docs/explanation/monocular.md]

Poses, depth and masks of the clips are withheld and serve as truth. The sources are run causally, frame after frame;
the engine is `Motion4D` with its default configuration. Masks are scored twice: *online*, as they were given out with
each frame, and *final*, with hindsight. Times are CPU seconds per frame of one thread.
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
from motion4d_ros.evaluation.metrics.depth import depth_errors
from motion4d_ros.evaluation.metrics.points3d import point_errors
from motion4d_ros.evaluation.metrics.segmentation import match_labels, score_masks
from motion4d_ros.evaluation.metrics.trajectory import absolute_trajectory_error, align_umeyama
from motion4d_ros.evaluation.synthetic import PRESETS, make_scene
from motion4d_ros.failures import guarded
from motion4d_ros.files import write_text
from motion4d_ros.offline.command import add_config_options, read_config
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.priors.depth.multiview import GeometricDepth
from motion4d_ros.priors.masks.discovery.motion_masks import MotionMasks
from motion4d_ros.priors.masks.prompted import PromptedMasks
from motion4d_ros.priors.masks.propagation.carried_masks import CarriedMasks
from motion4d_ros.priors.pose.visual_odometry import VisualPose
from motion4d_ros.types import (
    BoolArray,
    Camera,
    Estimate,
    FloatArray,
    Frame,
    IntArray,
    Motion4DError,
    PoseStatus,
    Prompt,
    Scale,
    Stage,
)

CLIPS = ("car_shadow", "tennis", "tabletop", "static_camera", "seven_scenes", "leave_return", "pillar", "stop_and_go")
FALSE_OBJECT_PX = 100  # found objects that never grow beyond this are not counted as false ones
FOUND_IOU = 0.3  # overlap from which an object counts as found
LEAST_PX = 20  # true objects that show less in a frame are not judged there
GUESSED_FOCAL = 0.9  # of the width, for clips without intrinsics


@dataclass
class Clip:
    """Frames and what is known of them."""

    name: str
    frames: list[Frame]
    masks: IntArray | None = None  # (T, H, W)
    T_map_cam: FloatArray | None = None  # (T, 4, 4)
    depth_m: Sequence[FloatArray] | None = None  # (H, W) each; 0 = unknown
    queries: FloatArray | None = None  # (Q, 3) t, y, x on objects
    tracks_xyz: FloatArray | None = None  # (Q, T, 3) m, where the queries are in truth
    visible: BoolArray | None = None  # (Q, T)


def load_clip(name: str, data: Path, limit: int) -> Clip:
    """One of the shared clips, or a preset of `evaluation.synthetic`, by name, or NAME:SEED for another of its kind.
    Raises `Motion4DError` for others.
    """
    preset, _, seed = name.partition(":")
    if preset in PRESETS and (not seed or seed.isdecimal()):
        return _preset(name, preset, int(seed or 0), limit)
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
        chosen = (file["query_object"] > 0) & (file["queries"][:, 0] < limit)
        queries, tracks, visible = file["queries"][chosen], file["tracks_xyz"][chosen], file["visible"][chosen]
    height, width = truth["masks"].shape[1:]
    camera = Camera(K[0, 0], K[1, 1], K[0, 2], K[1, 2], width, height)
    stamps = (truth["stamps"] * 1e9).astype(int)
    images = truth["images"]
    frames = [Frame(int(stamp), images[i].copy(), camera, index=i) for i, stamp in enumerate(stamps)]
    return Clip(
        name,
        frames,
        truth["masks"].astype(np.int32),
        truth["T_wc"],
        truth["depth"].astype(float),
        queries.astype(float),
        tracks[:, :limit].astype(float),
        visible[:, :limit],
    )


def _preset(name: str, preset: str, seed: int, limit: int) -> Clip:
    scene = make_scene(preset, seed, frames=min(limit, 48))
    frames = [Frame(f.stamp_ns, f.image, f.camera, index=i) for i, f in enumerate(scene.frames())]
    return Clip(name, frames, scene.masks.astype(np.int32), scene.T_map_cam, list(scene.depth_m.astype(float)))


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
    poses = VisualPose(Config())
    for frame in clip.frames:
        pose = poses.pose(frame, None)
        revised = poses.revised_poses()
        start = time.process_time()
        if isinstance(source, MotionMasks):
            source.look(frame, pose, None)
            if revised and pose.scale is not Scale.UNKNOWN:
                source.revise_poses(revised)
        if prompt and frame.index == 0:
            assert clip.masks is not None
            for object_id in np.unique(clip.masks[0][clip.masks[0] > 0]):
                source.prompt(frame, Prompt(frame.stamp_ns, int(object_id), mask=clip.masks[0] == object_id))
        labels = source.masks(frame, None)
        seconds += time.process_time() - start
        online.append(labels)
        final[frame.index] = labels
        final.update(source.revised_masks())
    if isinstance(source, MotionMasks):
        source.finish()
        final.update(source.revised_masks())
    return np.stack(online), np.stack([final[f.index] for f in clip.frames]), seconds / len(clip.frames)


def mask_rows(clip: Clip, base: Config) -> list[list[str]]:
    """Rows of the table of masks for one clip: the sources alone."""
    assert clip.masks is not None
    sources: list[tuple[str, Callable[[Config], CarriedMasks], bool]] = [
        ("prompt", PromptedMasks, True),
        ("motion", MotionMasks, False),
    ]
    rows = []
    for name, make, prompted in sources:
        online, final, seconds = run_masks(make(base), clip, prompted)
        rows.append(_mask_row(clip, f"{name}, alone", online, final, seconds))
    return rows


def _mask_row(clip: Clip, what: str, online: IntArray, final: IntArray, seconds: float) -> list[str]:
    truth = clip.masks
    assert truth is not None
    now, later = score_masks(online, truth), score_masks(final, truth)
    matched = match_labels(final, truth)
    ids = [int(i) for i in np.unique(truth[truth > 0])]
    each = " ".join(f"{_mean_j(final, truth, i, matched.get(i)):.2f}" for i in ids)
    sizes = {int(p): int((final == p).sum((1, 2)).max()) for p in np.unique(final[final > 0])}
    false = sum(size > FALSE_OBJECT_PX for p, size in sizes.items() if p not in matched.values())
    found = " ".join(first_found(online, truth, i) for i in ids)
    figures = [f"{now.J:.3f}", f"{later.J:.3f}", each, found, str(later.flips), str(false), f"{seconds:.2f}"]
    return [clip.name, what, *figures]


def first_found(online: IntArray, truth: IntArray, object_id: int) -> str:
    """Frames between an object's first appearance and the first mask that overlaps it well; `never` if none does."""
    shown = np.flatnonzero((truth == object_id).sum((1, 2)) >= LEAST_PX)
    for k in shown:
        region = truth[k] == object_id
        for label in np.unique(online[k][region & (online[k] > 0)]):
            guess = online[k] == label
            if (guess & region).sum() >= FOUND_IOU * (guess | region).sum():
                return str(int(k - shown[0]))
    return "never"


def _mean_j(labels: IntArray, truth: IntArray, object_id: int, found: int | None) -> float:
    values = []
    for mine, theirs in zip(labels, truth, strict=True):
        region, guess = theirs == object_id, mine == (-9 if found is None else found)
        if region.sum() >= LEAST_PX:
            values.append((region & guess).sum() / (region | guess).sum())
    return float(np.mean(values)) if values else float("nan")


def engine_rows(clip: Clip, prompt: bool, base: Config) -> tuple[list[str], list[str]]:
    """What `Motion4D` makes of a clip: its row of the table of masks, and of the table of poses and tracks.

    `prompt`: the first frame's true masks are given (`masks.discovery: none`), else nothing is.
    """
    config = base.copy()
    config.update({"run.threads": 1, "run.archive": True, "masks.discovery": "none" if prompt else "motion"})
    engine = Motion4D(config)
    online: dict[int, Estimate] = {}
    final: dict[int, Estimate] = {}
    started = time.process_time()
    for frame in clip.frames:
        estimates = [engine.add_frame(frame)]
        if prompt and frame.index == 0 and clip.masks is not None:
            for object_id in np.unique(clip.masks[0][clip.masks[0] > 0]):
                engine.prompt(Prompt(frame.stamp_ns, int(object_id), mask=clip.masks[0] == object_id))
        for estimate in [*estimates, *engine.process_window()]:
            (online if estimate.stage is Stage.LIVE else final)[estimate.index] = estimate
    final.update({estimate.index: estimate for estimate in engine.flush()})
    seconds = (time.process_time() - started) / len(clip.frames)
    order = range(len(clip.frames))
    name = "prompt, engine" if prompt else "motion, engine"
    masks = []
    if clip.masks is not None:
        labels = [np.stack([table[k].masks for k in order]).astype(np.int32) for table in (online, final)]
        masks = _mask_row(clip, name, labels[0], labels[1], seconds)
    lost = sum(final[k].pose_status is PoseStatus.LOST for k in order)
    ate, epe, near = "-", "-", "-"
    if clip.T_map_cam is not None and final[order[-1]].scale is not Scale.UNKNOWN:
        poses = engine.T_map_cams
        found = np.stack([poses[k] for k in order])
        ate = f"{100 * absolute_trajectory_error(found, clip.T_map_cam, with_scale=True):.1f}"
    if clip.queries is not None and clip.tracks_xyz is not None and clip.visible is not None:
        xyz = engine.query(clip.queries).tracks_xyz.astype(float)
        judged = clip.visible & np.isfinite(xyz).all(-1)
        scale, R, t = align_umeyama(xyz[judged], clip.tracks_xyz[judged], with_scale=True)
        errors = point_errors(scale * xyz @ R.T + t, clip.tracks_xyz, clip.visible)
        epe, near = f"{100 * errors.epe_m:.1f}", f"{errors.d10:.2f}"
    return masks, [clip.name, name, final[order[-1]].scale.value, str(lost), ate, epe, near]


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
        known = (truth > 0) & np.isfinite(truth)
        aligned = prior.depth * np.median(truth[known] / prior.depth[known])
        found = depth_errors(aligned, truth)
        errors.append((found.abs_rel, found.delta1))
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


HEADS = {
    "Masks": (
        "clip", "given and where", "J online", "J final", "J per object", "found after", "id changes", "false objects",
        "s/frame",
    ),
    "Poses and depth, sources alone": (
        "clip", "scale", "frames lost", "ATE cm", "depth abs-rel", "depth d<1.25", "within 1 sigma", "s/frame",
    ),
    "Poses and tracks, engine": ("clip", "given and where", "scale", "frames lost", "ATE cm", "EPE cm", "d<10 cm"),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 0 if every clip could be read."""
    parser = argparse.ArgumentParser(prog="python -m motion4d_ros.evaluation.monocular", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the clips")
    parser.add_argument("--only", default=",".join(CLIPS), help="clips, by comma; PRESET:SEED for others")
    parser.add_argument("--limit", type=int, default=1000, help="frames of each clip at most")
    parser.add_argument("--sources-only", action="store_true", help="without the engine, which takes seconds a frame")
    parser.add_argument("--write", type=Path, help="Markdown file whose tables get the new rows (`<!-- tables -->`)")
    add_config_options(parser.add_argument_group("settings, as of `motion4d analyze`"))
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    try:
        config, _ = read_config(options)
    except Motion4DError as error:
        print(f"monocular: {error}")
        return 2
    for name in options.only.split(","):
        try:
            clip = load_clip(name, options.data, options.limit)
        except Motion4DError as error:
            print(f"monocular: {error}")
            return 2
        rows = measure(clip, config, with_engine=not options.sources_only)
        for title, new in rows.items():
            print(f"{title}\n{table(HEADS[title], new)}\n", flush=True)
        if options.write:
            _write(options.write, name, rows)
    return 0


def measure(clip: Clip, config: Config, with_engine: bool) -> dict[str, list[list[str]]]:
    """All rows of one clip, by table."""
    rows: dict[str, list[list[str]]] = {title: [] for title in HEADS}
    masks, poses_and_depth, tracks = rows.values()
    if clip.masks is not None:
        masks += mask_rows(clip, config)
    poses_and_depth.append(pose_and_depth_row(clip))
    for prompt in (True, False) if with_engine else ():
        if clip.masks is None and prompt:
            continue
        mask_row, track_row = engine_rows(clip, prompt, config)
        masks += [mask_row] if mask_row else []
        tracks.append(track_row)
    return rows


def _write(path: Path, clip: str, rows: dict[str, list[list[str]]]) -> None:
    """Puts the rows of one clip into the tables of a Markdown file; those of other clips stay."""
    mark = "<!-- tables -->"
    text = path.read_text(encoding="utf-8") if path.exists() else f"# One camera and nothing else\n\n{mark}\n"
    before, _, after = text.partition(mark)
    sections = {part.partition("\n")[0].strip(): part for part in after.split("### ")[1:]}
    parts = []
    for title, new in rows.items():
        lines = [line for line in sections.get(title, "").splitlines() if line.startswith("| ")][1:]
        old = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        everything = [row for row in old if row[0] != clip] + new
        everything.sort(key=lambda row: CLIPS.index(row[0]) if row[0] in CLIPS else len(CLIPS))
        parts.append(f"### {title}\n\n{table(HEADS[title], everything)}")
    write_text(path, f"{before}{mark}\n\n" + "\n\n".join(parts) + "\n")


if __name__ == "__main__":
    raise SystemExit(guarded("monocular", main))
