"""Pictures of a path onto the disk: a video to look at, or images that hold the numbers; and `.ply` files."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.files import write_bytes
from motion4d_ros.offline.novel_views.paths import Step
from motion4d_ros.offline.novel_views.pictures import DEPTH, LABELS, Photographer, shown_depth, shown_labels
from motion4d_ros.offline.report.overlay import encode_video
from motion4d_ros.scene.scene import Scene
from motion4d_ros.scene.storage import export_moving_ply, export_ply
from motion4d_ros.types import Motion4DError

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov")


def is_video(path: Path) -> bool:
    """Whether a path names a video rather than a folder of images. Raises `Motion4DError` for other kinds of files."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return True
    if suffix and not path.is_dir():
        raise Motion4DError(f"--out {path}: name a video ({', '.join(VIDEO_SUFFIXES)}), or a folder for PNG images")
    return False


def check_writable(path: Path, option: str, *, file: bool) -> None:
    """Raises `Motion4DError` where no file, or no folder of files, can be written at `path`, which need not exist."""
    try:
        if file and path.is_dir():
            raise Motion4DError(f"{option} {path}: is a folder, and its name is that of a file")
        if file and path.exists():  # it will be replaced
            with path.open("ab"):
                return
        folder = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        if not folder.is_dir():
            raise Motion4DError(f"{option} {path}: {folder} is a file, a folder is needed")
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise Motion4DError(f"{option} {path}: cannot be written ({error.strerror or error})") from None


def write_video(path: Path, photographer: Photographer, steps: Sequence[Step], kind: str, rate: float) -> int:
    """Writes H.264; the number of pictures. Raises `Motion4DError` where no encoder is at hand."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".motion4d-", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        if not encode_video(unfinished, _shown(photographer, steps, kind), rate):
            raise Motion4DError(
                f"--out {path}: the video could not be written whole (no H.264 encoder, or no room): "
                "name a folder, for PNG images"
            )
        unfinished.replace(path)
    return len(steps)


def write_images(folder: Path, photographer: Photographer, steps: Sequence[Step], kind: str) -> int:
    """Writes `NNNNNN.png`: 8-bit colours, 16-bit depth in thousandths of the map's unit (mm; 0: nothing is there), or
    16-bit ids. Returns how many.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, step in enumerate(steps):
        good, data = cv2.imencode(".png", _numbers(photographer, step, kind))
        assert good, "OpenCV always encodes PNG"
        write_bytes(folder / f"{number:06d}.png", data.tobytes())
    return len(steps)


def write_ply_sequence(scene: Scene, folder: Path, times: Iterable[float]) -> int:
    """Writes what stands still (`static.ply`), what moves at each of the `times` (`NNNNNN.ply`, the frame's number),
    and all of the latter in one file (`moving.npz`). Returns how many times.
    """
    folder.mkdir(parents=True, exist_ok=True)
    export_ply(scene, folder / "static.ply", colours=True)
    known = list(times)
    for time in known:
        name = f"{round(time):06d}" if time == round(time) else f"{time:010.3f}"
        export_moving_ply(scene, folder / f"{name}.ply", time)
    write_bytes(folder / "moving.npz", _packed(scene, known))
    return len(known)


def _packed(scene: Scene, times: Sequence[float]) -> bytes:
    """What moves at all times: M Gaussians, T times."""
    rows = scene.moving_rows
    posed = scene.at_many(times)
    stack = [
        np.stack([getattr(at, name)[rows].detach().cpu().numpy() for at in posed], 1) for name in ("means", "quats")
    ]
    colours = (scene.params["colors"].detach()[rows].clamp(0, 1).cpu().numpy() * 255).round().astype(np.uint8)
    content = io.BytesIO()
    np.savez_compressed(
        content,
        frames=np.asarray(times, float),  # (T,) frame index
        xyz=stack[0].astype(np.float32),  # (M, T, 3) m, map frame
        quats=stack[1].astype(np.float32),  # (M, T, 4) wxyz
        scales=posed[0].scales[rows].detach().cpu().numpy().astype(np.float32),  # (M, 3) m
        opacity=posed[0].opacities[rows].detach().cpu().numpy().astype(np.float32),  # (M,)
        rgb=colours,  # (M, 3)
        ids=scene.ids[rows].cpu().numpy(),  # (M,)
        object_id=scene.object_id[rows].cpu().numpy(),  # (M,)
    )
    return content.getvalue()


def _shown(photographer: Photographer, steps: Sequence[Step], kind: str) -> Iterator[NDArray[np.uint8]]:
    """(H, W, 3) RGB of every step."""
    near, far = photographer.depth_range(steps) if kind == DEPTH else (0.0, 0.0)
    for step in steps:
        if kind == LABELS:
            yield shown_labels(photographer.labels(step))
        elif kind == DEPTH:
            yield shown_depth(photographer.depth(step), near, far)
        else:
            yield photographer.rgb(step)


def _numbers(photographer: Photographer, step: Step, kind: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """A picture as OpenCV encodes it."""
    if kind == LABELS:
        return photographer.labels(step)
    if kind == DEPTH:
        thousandths = np.nan_to_num(photographer.depth(step) * 1000.0)
        return np.clip(thousandths.round(), 0, np.iinfo(np.uint16).max).astype(np.uint16)
    return np.ascontiguousarray(photographer.rgb(step)[..., ::-1])
