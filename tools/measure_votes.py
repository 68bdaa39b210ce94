#!/usr/bin/env python3
"""J of the votes on labels alone (`fit/semantics/pixel_votes.py`), without any fit, on scenes with degraded masks.

    tools/measure_votes.py ../shared/data/scenes/tabletop pillar pillar:12

A scene is a folder with gt.npz, or a preset of `evaluation.synthetic`, with or without a seed. *window*: as each window
closes; *end*: when the last one has. Ids are matched once for the whole run, so a swap counts as an error.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.evaluation.metrics.segmentation import score_masks
from motion4d_ros.evaluation.score import load_truth
from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.fit.frontend.intake import Intake
from motion4d_ros.fit.semantics import pixel_votes
from motion4d_ros.fit.window.horizon import Horizon
from motion4d_ros.types import Camera, Frame, IntArray


def load(name: str) -> tuple[list[Frame], IntArray]:
    """The frames of a scene, masks and depth degraded, and its true masks (T, H, W)."""
    preset, _, seed = name.partition(":")
    truth = load_truth(Path(name)) if Path(name).exists() else make_scene(preset, int(seed or 0)).truth()
    K, (height, width) = truth["K"], truth["masks"].shape[1:]
    camera = Camera(K[0, 0], K[1, 1], K[0, 2], K[1, 2], width, height)
    inputs = zip(truth["stamps"], truth["images"], truth["T_wc"], truth["in_depth"], truth["in_masks"], strict=True)
    frames = [
        Frame(round(stamp * 1e9), image, camera, pose, depth, mask.astype(np.int32))
        for stamp, image, pose, depth, mask in inputs
    ]
    return frames, truth["masks"].astype(np.int32)


def voted(frames: list[Frame]) -> list[NDArray[np.int32]]:
    """(T, H, W) labels of the source, voted as windows close, and voted at the end, of all whole windows."""
    config = Config()
    config.update({"masks.source": "topic", "depth.source": "topic", "pose.source": "odometry"})
    intake, horizon, window = Intake(config), Horizon(len(frames)), []
    reach, length = config.geometry.vote_reach, config.window.length
    for frame in frames:
        intake.take(frame)
        if len(intake.pending) < length:
            continue
        new = [horizon.get(horizon.append(state)) for state in intake.close_window()]
        pixel_votes.vote(horizon, intake.tracks, reach, max(0, len(horizon) - len(new) - reach))
        window += [state.labels for state in new]
    said = [state.raw_labels for state in horizon.frames]
    return [np.stack(images).astype(np.int32) for images in (said, window, [s.labels for s in horizon.frames])]


def main() -> None:
    """Prints a row per scene."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="+", metavar="SCENE")
    rows = []
    print("| scene | source | window | end |\n|---|---|---|---|")
    for name in parser.parse_args().scenes:
        frames, truth = load(name)
        rows.append([score_masks(image, truth[: len(image)]).J for image in voted(frames)])
        print(f"| {Path(name).name} |", " | ".join(f"{value:.3f}" for value in rows[-1]), "|", flush=True)
    print("| mean |", " | ".join(f"{value:.3f}" for value in np.mean(rows, 0)), "|")


if __name__ == "__main__":
    main()
