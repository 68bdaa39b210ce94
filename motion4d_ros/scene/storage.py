"""The scene on disk: a versioned safetensors file to reload, and the static part as ``.ply`` for splat viewers."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch.nn import Parameter

from motion4d_ros.scene.gaussians import GAUSSIAN_PARAMETERS
from motion4d_ros.scene.scene import Scene
from motion4d_ros.types import Motion4DError

FORMAT = "motion4d-scene"
VERSION = 1
SCENE_FILE = "scene.safetensors"
PLY_FILE = "scene.ply"

SH_DC = 0.28209479177387814
"""Y_0^0: splat files hold colours as the constant spherical-harmonics coefficient, (c - 0.5) / Y_0^0."""

PLY_FIELDS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)

PLY_COLOURS = ("red", "green", "blue")
"""uint8 columns that point viewers show; splat viewers take `f_dc_*`."""

_NAME_IN_FILE = {"confidence_logits": "uncertainty"}
"""Parameters that the format calls otherwise; the others go by their own names."""

_BASE_TENSORS = ("base_quats", "base_trans")


def save_scene(scene: Scene, path: Path, extra: Mapping[str, Any] | None = None) -> None:
    """Writes everything `load_scene` needs to `path` (conventionally `SCENE_FILE`), atomically.

    `extra` is anything JSON can hold (labels, camera), handed back by `load_scene`. Raises `Motion4DError` when the
    place can't be written.
    """
    bases = scene.bases
    tensors = {
        _NAME_IN_FILE.get(name, name): parameter.detach().cpu().contiguous() for name, parameter in scene.params.items()
    }
    tensors |= {
        "ids": scene.ids.cpu(),
        "object_id": scene.object_id.cpu(),
        "dynamic": scene.dynamic.cpu(),
        "born": scene.born.cpu(),
        "base_ids": bases.ids.cpu(),
        "base_owner": bases.owner.cpu(),
        "base_centers": bases.centers.cpu(),
        "stamps_ns": torch.tensor(bases.stamps_ns, dtype=torch.int64),
    }
    header = {
        "next_id": scene.next_id,
        "next_base_id": bases.next_id,
        "first_index": bases.first_index,
        "extra": dict(extra or {}),
    }
    metadata = {"format": FORMAT, "version": str(VERSION), "scene": json.dumps(header)}
    _write(path, lambda temporary: save_file(tensors, temporary, metadata))


def load_scene(path: Path, device: torch.device | str = "cpu") -> tuple[Scene, dict[str, Any]]:
    """The scene that `save_scene` wrote, bit for bit, and its `extra`.

    Raises `Motion4DError` for a file that is missing, damaged, not a scene, or of a newer version.
    """
    if not path.is_file():
        raise Motion4DError(f"{path}: no such scene file; give the {SCENE_FILE} of a saved scene")
    try:
        with safetensors.safe_open(path, framework="pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            _check_version(path, metadata)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict: it cannot be iterated)
        header = json.loads(metadata["scene"])
        scene = _assemble(tensors, header, device)
        extra = header["extra"]
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Motion4DError(f"{path}: damaged scene file ({reason}); save it again or restore a copy") from None
    return scene, extra


def export_ply(scene: Scene, path: Path, *, colours: bool = False) -> int:
    """Writes the Gaussians that do not move as a 3D Gaussian splatting ``.ply`` (binary little endian, no higher
    spherical harmonics), atomically. Returns how many; those that are not finite are left out.

    With `colours` each has red, green, blue as well, which point viewers such as Open3D show. Some splat viewers count
    on the columns they know, so it is not what they get by default.
    """
    still = torch.ones(scene.count, dtype=torch.bool, device=scene.device)
    still[scene.moving_rows] = False
    values = {name: scene.params[name].detach()[still] for name in ("means", "quats")}
    return _write_splats(scene, path, still, values["means"], values["quats"], colours=colours)


@torch.no_grad()
def export_moving_ply(scene: Scene, path: Path, time: float) -> int:
    """Writes the Gaussians that move, as they lie at a (fractional) frame index; as `export_ply` with colours."""
    posed, rows = scene.at(time), scene.moving_rows
    return _write_splats(scene, path, rows, posed.means[rows], posed.quats[rows], colours=True)


def _write_splats(
    scene: Scene, path: Path, rows: torch.Tensor, means: torch.Tensor, quats: torch.Tensor, *, colours: bool
) -> int:
    """Writes the Gaussians `rows` (mask or indices) of the scene, lying at `means` (M, 3) and turned by `quats`."""
    names = ("colors", "opacity_logits", "log_scales")
    values = {name: scene.params[name].detach()[rows].cpu().double().numpy() for name in names}
    turns, places = quats.cpu().double().numpy(), means.cpu().double().numpy()
    columns = np.concatenate(
        [
            places,
            np.zeros_like(places),  # normals, unused by splat viewers
            (values["colors"] - 0.5) / SH_DC,
            values["opacity_logits"][:, None],
            values["log_scales"],
            turns / np.maximum(np.linalg.norm(turns, axis=1, keepdims=True), 1e-12),
        ],
        axis=1,
    )
    finite = np.isfinite(columns).all(1)
    kinds = [(name, "<f4") for name in PLY_FIELDS] + ([(name, "u1") for name in PLY_COLOURS] if colours else [])
    vertices = np.zeros(int(finite.sum()), kinds)
    for name, column in zip(PLY_FIELDS, columns[finite].T, strict=True):
        vertices[name] = column
    if colours:
        for name, column in zip(PLY_COLOURS, (values["colors"][finite].clip(0, 1) * 255).round().T, strict=True):
            vertices[name] = column
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property {'float' if kind == '<f4' else 'uchar'} {name}" for name, kind in kinds] + ["end_header", ""]
    content = "\n".join(header).encode("ascii") + vertices.tobytes()
    _write(path, lambda temporary: temporary.write_bytes(content))
    return len(vertices)


def _check_version(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise Motion4DError(f"{path}: not a scene of this program; give the {SCENE_FILE} of a saved scene")
    if metadata.get("version") != str(VERSION):
        raise Motion4DError(
            f"{path}: scene format version {metadata.get('version')}, this program reads {VERSION}; "
            "use the program version that saved it"
        )


def _assemble(tensors: dict[str, torch.Tensor], header: dict[str, Any], device: torch.device | str) -> Scene:
    """Puts the parts together; `KeyError` or `ValueError` when they don't fit."""
    scene = Scene(tensors["semantics"].shape[1], dtype=tensors["means"].dtype, device=device)
    for name in (*GAUSSIAN_PARAMETERS, *_BASE_TENSORS):
        scene.params[name] = Parameter(tensors[_NAME_IN_FILE.get(name, name)])
    scene.ids, scene.object_id, scene.dynamic = tensors["ids"], tensors["object_id"], tensors["dynamic"]
    scene.born = tensors["born"]
    scene.next_id = int(header["next_id"])
    bases = scene.bases
    bases.ids, bases.owner, bases.centers = tensors["base_ids"], tensors["base_owner"], tensors["base_centers"]
    bases.stamps_ns = tensors["stamps_ns"].tolist()
    bases.first_index, bases.next_id = int(header["first_index"]), int(header["next_base_id"])
    rows = {len(scene.params[name]) for name in GAUSSIAN_PARAMETERS}
    rows |= {len(tensors[name]) for name in ("ids", "object_id", "dynamic", "born")}
    owned = {len(tensors[name]) for name in (*_BASE_TENSORS, "base_ids", "base_owner", "base_centers")}
    times = {tensors[name].shape[1] for name in _BASE_TENSORS} | {bases.length}
    if len(rows) != 1 or owned != {tensors["motion_logits"].shape[1]} or len(times) != 1:
        raise ValueError("its tensors disagree in length")
    return scene


def _write(path: Path, writer: Callable[[Path], object]) -> None:
    """Lets `writer` fill a temporary file beside `path`, which then takes its place in one step."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            writer(temporary)
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, safetensors.SafetensorError) as error:
        raise Motion4DError(f"{path}: cannot be written ({error}); choose another folder or free some space") from None


def _umask() -> int:
    """The process's file mode mask (it can only be read by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
