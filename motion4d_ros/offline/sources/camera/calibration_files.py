"""Camera calibrations in files: as ROS, OpenCV, Kalibr, EuRoC and ORB-SLAM write them, and plain numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml

from motion4d_ros.imagery.camera import SAME_ASPECT, Rectifier
from motion4d_ros.imagery.validation import Rejection
from motion4d_ros.types import FloatArray, Motion4DError

_MODELS = {
    "": "plumb_bob",
    "none": "plumb_bob",
    "pinhole": "plumb_bob",
    "radtan": "plumb_bob",
    "radial-tangential": "plumb_bob",
    "radial_tangential": "plumb_bob",
    "opencv": "plumb_bob",
    "brown_conrady": "plumb_bob",
    "equi": "equidistant",
    "equidistant": "equidistant",
    "kannala_brandt": "equidistant",
    "kannalabrandt8": "equidistant",
    "fisheye": "equidistant",
}


def read_calibration(path: Path) -> SimpleNamespace:
    """A calibration file as a `CameraInfo` (width and height 0 where it does not say). Raises `Motion4DError`.

    Known are YAML files of ROS' `camera_calibration`, OpenCV, Kalibr (its first camera), EuRoC and ORB-SLAM, and text
    files with 4 numbers (fx fy cx cy, distortion after them), 9 (3x3) or 16 (4x4), and KITTI's `calib.txt`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Motion4DError(f"{path}: cannot be read as a calibration (no text file)") from None
    except OSError as error:
        raise Motion4DError(f"{path}: cannot be read as a calibration ({error.strerror or error})") from None
    found = _from_numbers(text) or _from_projections(text, path)
    if found is None:
        found = _from_yaml(text, path)
    if found is None:
        raise Motion4DError(
            f"{path}: no camera matrix found: expected the YAML of camera_calibration, OpenCV, Kalibr, EuRoC or "
            "ORB-SLAM, or the numbers fx fy cx cy"
        )
    return found


def camera_info(
    intrinsics: tuple[float, ...],
    distortion: tuple[float, ...] = (),
    model: str = "plumb_bob",
    size: tuple[int, int] = (0, 0),
) -> SimpleNamespace:
    """A `CameraInfo` from fx, fy, cx, cy, px, and (width, height)."""
    fx, fy, cx, cy = intrinsics
    return _info(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), distortion, model, size)


def rectifier_for(info: SimpleNamespace, size: tuple[int, int], where: str) -> Rectifier:
    """For images of (height, width); a calibration of another size with the same aspect is scaled.

    Raises `Motion4DError` where it cannot be of these images.
    """
    height, width = size
    own_width, own_height = info.width or width, info.height or height
    if abs((own_width / own_height) / (width / height) - 1.0) > SAME_ASPECT:
        raise Motion4DError(
            f"{where} is for {own_width}x{own_height} px, the images are {width}x{height}: do they belong together?"
        )
    sx, sy = width / own_width, height / own_height
    k, p = (_scaled(info.k.reshape(3, 3), sx, sy), _scaled(info.p.reshape(3, 4), sx, sy))
    scaled = SimpleNamespace(**{**vars(info), "width": width, "height": height, "k": k.reshape(-1), "p": p.reshape(-1)})
    try:
        return Rectifier(scaled)
    except Rejection as error:
        raise Motion4DError(f"{where}: {error}") from None


def _scaled(K: FloatArray, sx: float, sy: float) -> FloatArray:
    """For images resized by (sx, sy): pixel (0, 0) is the centre of the first pixel, before and after."""
    out = K.copy()
    if K[0, 0] > 0:
        out[0], out[1] = K[0] * sx, K[1] * sy
        out[0, 2], out[1, 2] = (K[0, 2] + 0.5) * sx - 0.5, (K[1, 2] + 0.5) * sy - 0.5
    return out


def _info(K: FloatArray, distortion: Any, model: str, size: tuple[int, int], **more: Any) -> SimpleNamespace:
    whole = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    fields: dict[str, Any] = {
        "width": int(size[0]),
        "height": int(size[1]),
        "distortion_model": _MODELS.get(model.lower(), model),
        "k": np.asarray(K, float).reshape(-1),
        "d": np.asarray(distortion, float).reshape(-1),
        "r": np.eye(3).reshape(-1),
        "p": np.zeros(12),
        "binning_x": 0,
        "binning_y": 0,
        "roi": whole,
    }
    return SimpleNamespace(**{**fields, **more})


# -- plain numbers --------------------------------------------------------------------------------------------------


def _from_numbers(text: str) -> SimpleNamespace | None:
    """fx fy cx cy [distortion], or a 3x3 or 4x4 matrix; None for any other text."""
    fields = re.sub(r"#.*", "", text).replace(",", " ").split()
    try:
        values = np.array([float(field) for field in fields])
    except ValueError:
        return None
    if values.size in (9, 16):
        K = values.reshape(round(values.size**0.5), -1)[:3, :3]
        return _info(K, (), "", (0, 0)) if K[0, 0] > 0 and K[2, 2] == 1.0 else None
    if values.size in (4, 8, 9, 12) and (values[:2] > 0).all():
        return camera_info(tuple(values[:4]), tuple(values[4:]))
    return None


def _from_projections(text: str, path: Path) -> SimpleNamespace | None:
    """KITTI's `calib.txt`: `P0:` to `P3:`, a 3x4 matrix each, of cameras that are rectified to one lens."""
    rows = re.findall(r"^P\d: *(.+)$", text, re.MULTILINE)
    try:
        matrices = [np.array(row.split(), float).reshape(3, 4)[:, :3] for row in rows]
    except ValueError:
        return None
    if not matrices:
        return None
    if not all(np.allclose(matrix, matrices[0], atol=0.5) for matrix in matrices):
        raise Motion4DError(f"{path}: holds cameras with different lenses: give --intrinsics fx,fy,cx,cy of yours")
    return _info(matrices[0], (), "", (0, 0))


# -- YAML -----------------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """YAML as OpenCV writes it, too."""


def _matrix_node(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    return loader.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else None


_Loader.add_constructor("tag:yaml.org,2002:opencv-matrix", _matrix_node)


def _from_yaml(text: str, path: Path) -> SimpleNamespace | None:
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    try:
        content = yaml.load(body, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        first = " ".join(str(error).split())[:100]
        raise Motion4DError(f"{path}: cannot be read as a calibration ({first})") from None
    if not isinstance(content, Mapping):
        return None
    try:
        return _ros(content) or _euroc(content) or _orb_slam(content)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise Motion4DError(f"{path}: its calibration is not complete ({type(error).__name__}: {error})") from None


def _numbers(entry: Any) -> FloatArray:
    """A matrix entry: a list, or a mapping with `data`."""
    values = entry["data"] if isinstance(entry, Mapping) else entry
    return np.array(values, float).reshape(-1)


def _ros(content: Mapping[str, Any]) -> SimpleNamespace | None:
    """ROS' `camera_calibration`, a `CameraInfo` as `ros2 topic echo` prints it, and OpenCV's calibration sample."""
    K = content.get("camera_matrix", content.get("Camera_Matrix", content.get("K", content.get("k"))))
    if K is None or _numbers(K).size != 9:
        return None
    names = ("distortion_coefficients", "Distortion_Coefficients", "distortion", "dist_coeffs", "D", "d")
    distortion = next((_numbers(content[name]) for name in names if content.get(name) is not None), np.zeros(0))
    width = content.get("image_width", content.get("image_Width", content.get("width", 0)))
    height = content.get("image_height", content.get("image_Height", content.get("height", 0)))
    more: dict[str, Any] = {}
    for name, keys, size in (("r", ("rectification_matrix", "R", "r"), 9), ("p", ("projection_matrix", "P", "p"), 12)):
        found = next((_numbers(content[key]) for key in keys if content.get(key) is not None), None)
        if found is not None and found.size == size:
            more[name] = found
    for name in ("binning_x", "binning_y"):
        more[name] = int(content.get(name, 0))
    if isinstance(content.get("roi"), Mapping):
        more["roi"] = SimpleNamespace(**{name: int(content["roi"].get(name, 0)) for name in _ROI})
    model = str(content.get("distortion_model", content.get("camera_model", "")) or "")
    return _info(_numbers(K).reshape(3, 3), distortion, model, (width, height), **more)


_ROI = ("x_offset", "y_offset", "width", "height")


def _euroc(content: Mapping[str, Any]) -> SimpleNamespace | None:
    """EuRoC's `sensor.yaml`, and the first camera of Kalibr's `camchain.yaml`."""
    camera = content.get("cam0", content)
    if not isinstance(camera, Mapping) or camera.get("intrinsics") is None:
        return None
    intrinsics = _numbers(camera["intrinsics"])
    if intrinsics.size != 4:
        raise ValueError(f"{intrinsics.size} intrinsics of model {camera.get('camera_model')}, expected fx fy cx cy")
    distortion = camera.get("distortion_coefficients", camera.get("distortion_coeffs", ()))
    size = tuple(int(value) for value in camera.get("resolution", (0, 0)))
    return camera_info(
        tuple(intrinsics), tuple(_numbers(distortion)), str(camera.get("distortion_model", "")), (size[0], size[1])
    )


def _orb_slam(content: Mapping[str, Any]) -> SimpleNamespace | None:
    """ORB-SLAM's settings: `Camera.fx`, `Camera1.fx`, …"""
    prefix = next((name for name in ("Camera", "Camera1") if f"{name}.fx" in content), None)
    if prefix is None:
        return None
    values = [float(content[f"{prefix}.{name}"]) for name in ("fx", "fy", "cx", "cy")]
    fisheye = "kannala" in str(content.get("Camera.type", "")).lower()
    names = ("k1", "k2", "k3", "k4") if fisheye else ("k1", "k2", "p1", "p2", "k3")
    distortion = [float(content.get(f"{prefix}.{name}", 0.0)) for name in names]
    size = (int(content.get("Camera.width", 0)), int(content.get("Camera.height", 0)))
    return camera_info(tuple(values), tuple(distortion), "equidistant" if fisheye else "plumb_bob", size)
