r"""The figures of docs/explanation/method.md, from a made-up scene and what the system made of it.

    python -m motion4d_ros.evaluation.synthetic tabletop_like --out out/figures/scene --frames 32
    motion4d analyze out/figures/scene/bag --depth /camera/depth --masks /camera/mask --odometry /odom \
        --out out/figures/result
    python tools/method_figures.py out/figures/scene out/figures/result     # writes docs/img/method_*.png

Run it with the package installed (`source tools/env.bash`).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from motion4d_ros.offline.novel_views.paths import Step
from motion4d_ros.offline.novel_views.pictures import Photographer
from motion4d_ros.offline.novel_views.saved_scene import open_scene
from motion4d_ros.viewer import palette

SHADE = 0.55  # how strongly ids colour an image
BLUE, ORANGE, GREEN, GREY = "#2e86de", "#f0a824", "#3ea65c", "#8a8a8a"


def coloured(image: NDArray[np.uint8], ids: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W, 3) the image in grey with (H, W) ids in the objects' colours over it."""
    grey = np.repeat(image.mean(-1, keepdims=True), 3, -1)
    for object_id in np.unique(ids[ids > 0]):
        where = ids == object_id
        grey[where] = (1 - SHADE) * grey[where] + SHADE * np.array(palette.rgb(int(object_id)))
    return grey.astype(np.uint8)


def worst_frame(truth: dict[str, NDArray[Any]]) -> int:
    """The frame (the first and last few left out) whose given mask is farthest from the truth."""
    wrong = (truth["in_masks"] != truth["masks"]).mean((1, 2))
    return int(wrong[4:-4].argmax()) + 4


def layers(scene: Path, result: Path, out: Path) -> None:
    """One frame: the given mask, the published one, and what the scene renders."""
    with np.load(scene / "gt.npz") as stored:
        truth = {name: stored[name] for name in ("images", "masks", "in_masks")}
    frame = worst_frame(truth)
    image, saved = truth["images"][frame], open_scene(result)
    photographer, step = Photographer(saved, saved.camera), Step(saved.T_map_cams[frame], frame)
    told = cv2.imread(str(result / "masks" / f"{frame:06d}.png"), cv2.IMREAD_UNCHANGED)
    assert told is not None
    depth = photographer.depth(step)
    figure, axes = plt.subplots(2, 3, figsize=(9, 4.9), layout="constrained")
    pictures: tuple[tuple[str, NDArray[Any]], ...] = (
        ("(a) the mask as given", coloured(image, truth["in_masks"][frame])),
        ("(b) the mask as published", coloured(image, told)),
        ("(c) rendered: colours", photographer.rgb(step)),
        ("(d) rendered: depth, m", depth),
        ("(e) rendered: labels", coloured(np.full_like(image, 90), photographer.labels(step))),
    )
    for axis, (title, picture) in zip(axes.flat, pictures, strict=False):
        shown = axis.imshow(picture, cmap="turbo_r" if picture.ndim == 2 else None)
        axis.set_title(title, fontsize=10)
        axis.axis("off")
        if picture.ndim == 2:
            figure.colorbar(shown, ax=axis, shrink=0.8)
    paths(axes.flat[-1], result)
    figure.savefig(out / "method_layers.png", dpi=110)


def paths(axis: Any, result: Path) -> None:
    """From above: where the followed points went."""
    with np.load(result / "tracks.npz") as stored:
        queries, xyz, hidden = stored["query_points"], stored["tracks_xyz"], stored["occluded"]
    for (t, y, x), path, gone in zip(queries.round().astype(int), xyz, hidden, strict=True):
        ids = cv2.imread(str(result / "masks" / f"{t:06d}.png"), cv2.IMREAD_UNCHANGED)
        if ids is not None and ids[y, x] and (~gone).sum() > 4:
            seen = np.where(gone[:, None], np.nan, path)
            axis.plot(seen[:, 0], seen[:, 1], lw=0.8, color=palette.css(int(ids[y, x])))
    axis.set_title("(f) paths of points, from above, m", fontsize=10)
    axis.set_aspect("equal", adjustable="datalim")
    axis.tick_params(labelsize=7)


def windows(out: Path, length: int = 8, every: int = 3, horizon: int = 24, frames: int = 40) -> None:
    """When which estimate is told; a horizon of 24 frames, so that the picture shows one leave."""
    figure, axis = plt.subplots(figsize=(9, 2.9), layout="constrained")
    axis.plot(np.arange(frames), np.full(frames, 3.5), "|", ms=11, color=GREY)
    for start in range(0, frames, length):
        end = start + length
        axis.add_patch(Rectangle((end - 0.4, 2.1), 3.2, 0.8, color=BLUE))
        axis.add_patch(Rectangle((end + 2.8, 2.1), 2.2, 0.8, color=ORANGE))
        axis.annotate("", (end - 0.4, 2.9), (end - 1, 3.3), arrowprops={"arrowstyle": "->", "color": GREY})
        if (start // length + 1) % every == 0:
            axis.add_patch(Rectangle((end + 5.2, 1.1), 2.6, 0.8, color=GREEN))
            axis.plot([max(end - horizon, 0), end - 1], [0.6, 0.6], color=GREEN, lw=2)
            axis.text(max(end - horizon, 0), 0.12, f"GLOBAL estimates: the horizon (here {horizon} frames)", fontsize=8)
    names = ("frames; a LIVE\nestimate each", "stages 1 and 2:\nWINDOW estimates", "stage 3, together", "")
    axis.set_yticks([3.5, 2.5, 1.5, 0.5], names, fontsize=8)
    axis.text(8.0, 2.42, "motion", fontsize=7, color="white")
    axis.text(10.95, 2.42, "labels", fontsize=7, color="white")
    axis.set_xlim(-1, frames + 8)
    axis.set_ylim(0, 4)
    axis.set_xlabel("time, frames", fontsize=9)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    figure.savefig(out / "method_windows.png", dpi=110)


def main(arguments: list[str] | None = None) -> int:
    """Writes both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path, help="folder of motion4d_ros.evaluation.synthetic")
    parser.add_argument("result", type=Path, help="folder of motion4d analyze")
    parser.add_argument("--out", type=Path, default=Path("docs/img"))
    options = parser.parse_args(arguments)
    mpl.use("Agg")
    layers(options.scene, options.result, options.out)
    windows(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
