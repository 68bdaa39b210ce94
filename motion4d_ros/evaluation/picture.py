"""``python -m motion4d_ros.evaluation.picture``: the picture at the top of the README, from a made-up scene.

On the left what a 2D mask source says (it flickers, leaks and swaps identities, as networks do), on the right what the
4D scene says about the same frames: masks with their ids, and the objects' boxes in 3D.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from motion4d_ros.config import Config
from motion4d_ros.evaluation.synthetic import PRESETS, make_scene
from motion4d_ros.failures import guarded
from motion4d_ros.files import write_atomically
from motion4d_ros.geometry.rigid import transform_points
from motion4d_ros.offline.report.overlay import draw_masks
from motion4d_ros.offline.resources import preset
from motion4d_ros.types import Estimate, Frame, ObjectPhase, ObjectState, Stage
from motion4d_ros.viewer import palette

CAPTIONS = ("2D masks, as given", "the 4D scene: masks, ids, boxes in 3D")
COLOURS = 32  # of a GIF's 256: fewer make it smaller
GREYS = 16  # levels of the background
SMOOTHING_PX = 7  # side of the median filter over it: noise does not compress
MS_PER_FRAME = 180  # slower than the camera's 100 ms, so that one sees what flickers
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_EDGES = [(a, b) for a in range(8) for b in range(a) if (a ^ b) in (1, 2, 4)]  # corners that differ in one coordinate


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit status as for every command."""
    parser = argparse.ArgumentParser(prog="python -m motion4d_ros.evaluation.picture", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/img/motion4d.gif"), help="where to (.gif)")
    parser.add_argument("--scene", default="tabletop_like", choices=sorted(PRESETS), help="which made-up scene")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--frames", type=int, default=20)
    options = parser.parse_args(arguments)
    return guarded("picture", lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    frames = make_scene(options.scene, options.seed, frames=options.frames).frames()
    estimates = fit(frames)
    pages = [draw(frame, estimates[k]) for k, frame in enumerate(frames)]
    write_atomically(options.out, lambda stream: write_gif(stream, pages))
    sys.stdout.write(f"{options.out}: {len(pages)} frames, {options.out.stat().st_size / 1000:.0f} kB\n")
    return 0


def fit(frames: Sequence[Frame]) -> dict[int, Estimate]:
    """The newest estimate of every frame, with masks, depth and poses of the scene as inputs."""
    from motion4d_ros.pipeline import Motion4D

    config = Config()
    config.update_from_yaml(preset("lossless"))
    for path, value in (("masks.source", "topic"), ("depth.source", "topic"), ("pose.source", "odometry")):
        config.set(path, value)
    engine = Motion4D(config)
    newest: dict[int, Estimate] = {}
    for k, frame in enumerate(frames):
        newest |= {estimate.index: estimate for estimate in engine.push(frame) if estimate.stage is not Stage.LIVE}
        sys.stderr.write(f"\rframe {k + 1}/{len(frames)}" if sys.stderr.isatty() else "")
    return newest | {estimate.index: estimate for estimate in engine.flush()}


def draw(frame: Frame, estimate: Estimate) -> NDArray[np.uint8]:
    """(h, w, 3) RGB: one frame twice, with the given masks and with what the scene says."""
    assert frame.masks is not None
    given, fitted = (_background(frame.image) for _ in range(2))
    draw_masks(given, np.maximum(frame.masks, 0).astype(np.uint16))
    draw_masks(fitted, estimate.masks)
    for state in estimate.objects:
        if state.phase is not ObjectPhase.LOST:
            _draw_box(fitted, state, estimate)
    for picture, caption in zip((given, fitted), CAPTIONS, strict=True):
        for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(picture, caption, (6, 16), _FONT, 0.42, colour, width, cv2.LINE_AA)
    gap = np.full((given.shape[0], 4, 3), 255, np.uint8)
    return np.asarray(cv2.cvtColor(np.hstack([given, gap, fitted]), cv2.COLOR_BGR2RGB), np.uint8)


def _background(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image in a few light greys (BGR), so that the objects' colours stand out."""
    grey = cv2.medianBlur(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), SMOOTHING_PX)
    light = 110 + 0.5 * grey.astype(float)
    level = np.round(light / 255 * GREYS) / GREYS * 255
    return np.repeat(np.clip(level, 0, 255).astype(np.uint8)[..., None], 3, 2)


def _draw_box(bgr: cv2.typing.MatLike, state: ObjectState, estimate: Estimate) -> None:
    """The edges of the object's box, and its id above it."""
    corners = np.array(list(product((-0.5, 0.5), repeat=3))) * state.size_m
    xyz_map = corners @ state.T_map_object[:3, :3].T + state.T_map_object[:3, 3]
    T_cam_map = np.linalg.inv(estimate.T_map_cam)
    xyz_cam = transform_points(T_cam_map, xyz_map)
    if (xyz_cam[:, 2] <= 0).any():
        return
    uv = np.asarray(estimate.camera.project(xyz_cam))
    colour = palette.rgb(state.object_id)[::-1]
    for a, b in _EDGES:
        ends = [tuple((16 * uv[k]).round().astype(int).tolist()) for k in (a, b)]
        cv2.line(bgr, ends[0], ends[1], colour, 1, cv2.LINE_AA, 4)
    text = str(state.object_id)
    (width, height), _ = cv2.getTextSize(text, _FONT, 0.45, 1)
    x = int(np.clip(uv[:, 0].mean() - width / 2, 2, bgr.shape[1] - width - 4))
    y = int(np.clip(uv[:, 1].min() - 5, height + 20, bgr.shape[0] - 4))
    cv2.rectangle(bgr, (x - 3, y - height - 3), (x + width + 3, y + 3), colour, -1)
    cv2.putText(bgr, text, (x, y), _FONT, 0.45, (255, 255, 255), 1, cv2.LINE_AA)


def write_gif(stream: Any, pages: Sequence[NDArray[np.uint8]]) -> None:
    """Writes (h, w, 3) RGB pages as an endless GIF with one palette; not dithered, because noise does not compress."""
    sample = Image.fromarray(np.vstack(pages[:: max(1, len(pages) // 6)]))
    shared = sample.quantize(COLOURS, dither=Image.Dither.NONE)
    first, *rest = [Image.fromarray(page).quantize(palette=shared, dither=Image.Dither.NONE) for page in pages]
    first.save(stream, "GIF", save_all=True, append_images=rest, duration=MS_PER_FRAME, loop=0, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
