"""DyCheck's validation cameras: the fitted scene seen by them, against their images, over the pixels that training
saw.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.evaluation.benchmarks.dycheck_files import Recording, read_camera
from motion4d_ros.evaluation.benchmarks.interfaces import Figures, mean_of
from motion4d_ros.evaluation.metrics.images import masked_ssim, psnr
from motion4d_ros.offline.novel_views.paths import Step
from motion4d_ros.offline.novel_views.pictures import Photographer
from motion4d_ros.offline.novel_views.saved_scene import open_scene
from motion4d_ros.types import BoolArray, Motion4DError

Distance = Callable[[NDArray[np.uint8], NDArray[np.uint8], BoolArray], float]


def novel_view_figures(recording: Recording, out: Path) -> Figures:
    """mPSNR, mSSIM and mLPIPS, means over the validation images of the times that the saved scene holds; empty
    without any.
    """
    path = recording.folder / "splits" / "val.json"
    if not path.is_file():
        return {}
    split = json.loads(path.read_text(encoding="utf-8"))
    frame_of = {time: index for index, time in enumerate(recording.times)}
    wanted = [
        (name, frame_of[int(t)]) for name, t in zip(split["frame_names"], split["time_ids"]) if int(t) in frame_of
    ]
    if not wanted:
        return {}
    saved, distance = open_scene(out), lpips_distance()
    rows = []
    for name, frame in wanted:
        if frame not in saved.frames:
            continue
        image, covisible = _image(recording, name), _covisible(recording, name)
        camera, T_map_cam = read_camera(recording, name)
        seen = Photographer(saved, camera).rgb(Step(T_map_cam, float(frame)))
        rows.append(view_figures(seen, image, covisible, distance))
    return mean_of(rows) if rows else {}


def view_figures(
    seen: NDArray[np.uint8], image: NDArray[np.uint8], covisible: BoolArray, distance: Distance | None
) -> Figures:
    """Of one (H, W, 3) picture against the true one, over the pixels `covisible` (H, W)."""
    if seen.shape != image.shape or covisible.shape != image.shape[:2]:
        raise Motion4DError(f"images of shape {image.shape}, masks of {covisible.shape}, pictures of {seen.shape}")
    if not covisible.any():
        return {}
    figures = {"mPSNR": psnr(seen, image, where=covisible), "mSSIM": masked_ssim(seen, image, covisible)}
    return figures if distance is None else {**figures, "mLPIPS": distance(seen, image, covisible)}


def lpips_distance() -> Distance | None:
    """LPIPS (Zhang et al., CVPR 2018) of masked images, mean over the mask; None where the package `lpips` is not
    installed, or AlexNet's weights do not lie in PyTorch's cache: nothing is downloaded here.
    """
    import torch

    try:
        lpips: Any = importlib.import_module("lpips")
    except ImportError:
        return None
    if not any((Path(torch.hub.get_dir()) / "checkpoints").glob("alexnet-*.pth")):
        return None
    model = lpips.LPIPS(net="alex", spatial=True, verbose=False)

    def distance(seen: NDArray[np.uint8], image: NDArray[np.uint8], covisible: BoolArray) -> float:
        """Colours of 0 .. 1, black where nothing counts, as -1 .. 1."""
        pair = [np.where(covisible[..., None], each / 255.0, 0.0) * 2 - 1 for each in (seen, image)]
        tensors = [torch.from_numpy(each.transpose(2, 0, 1)[None].astype(np.float32)) for each in pair]
        with torch.no_grad():
            values = model(*tensors).cpu().numpy()[0, 0]
        return float(values[covisible].mean())

    return distance


def _image(recording: Recording, name: str) -> NDArray[np.uint8]:
    path = recording.folder / f"rgb/{recording.factor}x/{name}.png"
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise Motion4DError(f"{path}: not an image")
    return np.ascontiguousarray(image[..., ::-1]).astype(np.uint8)


def _covisible(recording: Recording, name: str) -> BoolArray:
    path = recording.folder / f"covisible/{recording.factor}x/val/{name}.png"
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise Motion4DError(f"{path}: no mask of what training saw; tools of DyCheck make it (process_covisible.py)")
    return np.asarray(mask) > 0
