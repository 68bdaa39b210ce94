"""Small data sets in the published layouts, with truth that is known, for tests of their readers and protocols."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from motion4d_ros.evaluation.synthetic import SyntheticScene

DYCHECK_RATE = 10.0


def write_image(path: Path, image: np.ndarray) -> None:
    """Grey, or RGB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image if image.ndim == 2 else image[..., ::-1])


def write_davis(root: Path, labels: dict[str, np.ndarray], year: int = 2017) -> None:
    """Clips of (T, H, W) ids under DAVIS' names, with images that show nothing."""
    for name, ids in labels.items():
        for t, mask in enumerate(ids):
            write_image(root / f"Annotations/480p/{name}/{t:05d}.png", mask.astype(np.uint8))
            write_image(root / f"JPEGImages/480p/{name}/{t:05d}.jpg", np.zeros((*mask.shape, 3), np.uint8))
    listing = root / f"ImageSets/{year}/val.txt"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("".join(f"{name}\n" for name in labels), encoding="utf-8")


def write_dycheck(root: Path, name: str, scene: SyntheticScene, frames: int, annotated: tuple[int, ...]) -> Path:
    """A scene as an iPhone recording at factor 1: camera 0 trains, camera 1 repeats two of its frames. Its query points
    are keypoints in the frames `annotated`.
    """
    folder = root / name
    train = [f"0_{t:05d}" for t in range(frames)]
    val = {f"1_{t:05d}": t for t in (1, frames - 2)}
    camera, size = scene.camera, scene.images.shape[1:3]
    for item, t in {**dict(zip(train, range(frames), strict=True)), **val}.items():
        T = scene.T_map_cam[t]
        content = {
            "orientation": T[:3, :3].T.tolist(), "position": T[:3, 3].tolist(), "focal_length": camera.fx, "skew": 0.0,
            "pixel_aspect_ratio": camera.fy / camera.fx, "principal_point": [camera.cx + 0.5, camera.cy + 0.5],
            "radial_distortion": [0, 0, 0], "tangential_distortion": [0, 0],
            "image_size": [camera.width, camera.height],
        }  # fmt: skip
        write_json(folder / "camera" / f"{item}.json", content)
        write_image(folder / "rgb" / "1x" / f"{item}.png", scene.images[t])
    (folder / "depth" / "1x").mkdir(parents=True)
    for item, t in zip(train, range(frames), strict=True):
        np.save(folder / "depth" / "1x" / f"{item}.npy", scene.depth_m[t][..., None])
    for item in val:
        seen = np.zeros(size, np.uint8)
        seen[4:-4, 4:-4] = 255
        write_image(folder / "covisible" / "1x" / "val" / f"{item}.png", seen)
    for t in annotated:
        points = np.concatenate([scene.tracks_yx[:, t, ::-1], scene.visible[:, t, None]], -1).astype(float)
        write_json(folder / "keypoint" / "1x" / "train" / f"{train[t]}.json", points.tolist())
    for split, names, times in (("train", train, range(frames)), ("val", list(val), val.values())):
        content = {"frame_names": names, "time_ids": list(times), "camera_ids": [int(split == "val")] * len(names)}
        write_json(folder / "splits" / f"{split}.json", content)
    write_json(folder / "extra.json", {"factor": 1, "fps": DYCHECK_RATE})
    return folder


def write_json(path: Path, content: object) -> None:
    """With the folders it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def tum_text(stamps: np.ndarray, poses: np.ndarray) -> str:
    """A trajectory as TUM writes it."""
    from scipy.spatial.transform import Rotation

    rows = [
        [stamp, *T[:3, 3], *Rotation.from_matrix(T[:3, :3]).as_quat()] for stamp, T in zip(stamps, poses, strict=True)
    ]
    return "# a trajectory\n" + "\n".join(" ".join(f"{value:.6f}" for value in row) for row in rows) + "\n"
