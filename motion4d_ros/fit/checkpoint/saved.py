"""What is kept of a scene: its Gaussians as they lay last, the ids that were given, and how to find the camera in it.

One safetensors file, written whole. It holds no motions: what moved has moved on since, or stands where it stood.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.files import write_bytes
from motion4d_ros.scene.scene import Scene
from motion4d_ros.types import Camera, Motion4DError

FORMAT, VERSION = "motion4d-checkpoint", "1"
RESERVED_POINTS = 2**17
"""Ids of points that may have been given since the file was written; a new one is due when half of them are."""
RESERVED_OBJECTS = 64
"""The same of objects."""
LARGEST_OBJECT, LARGEST_POINT = 65535, 2**62
MAP = "map."
"""Begins the names of what the pose source keeps."""
MUST_AGREE = (
    *("pose.source", "pose.refine", "pose.known_height", "pose.known_distance", "depth.source"),
    *("depth.units_per_metre", "budget.working_width", "ros.map_frame", "ros.base_to_camera"),
)
"""Settings that say where things are in the map, and how long they are."""
WIDTHS = {"means": 3, "quats": 4, "log_scales": 3, "opacity_logits": 0, "colors": 3, "confidence_logits": 0}
MOST = 1e6
"""No number of a scene is larger; more is damage."""


@dataclass
class Checkpoint:
    """A scene as it lay at its newest time. N Gaussians in the map frame."""

    gaussians: dict[str, NDArray[np.float32]]  # by the names of `WIDTHS`: (N, width)
    ids: NDArray[np.int64]  # (N,) of the points
    object_id: NDArray[np.int64]  # (N,) 0 = background
    next_point_id: int  # no point has this id, or a larger one
    object_ids: frozenset[int]  # no new object may have one of these
    camera: Camera | None = None  # of the input images
    names: dict[int, str] = field(default_factory=dict)  # that people gave to objects
    pose_map: dict[str, NDArray[Any]] = field(default_factory=dict)  # what the pose source recognises things by
    settings: dict[str, Any] = field(default_factory=dict)  # those of `MUST_AGREE`

    @property
    def count(self) -> int:
        """Number of Gaussians N."""
        return len(self.ids)

    def disagreement(self, config: Config) -> str:
        """The first setting that is another one now, in words; empty if they agree."""
        for name, before in self.settings.items():
            now = config.get(name) if name in MUST_AGREE else before
            if now != before:
                return f"it was made with {name}={before!r}, now {now!r}"
        return ""


@torch.no_grad()
def checkpoint_of(scene: Scene, config: Config, object_ids: set[int]) -> Checkpoint:
    """What is to be kept of a scene, moving things where they were last, and of the `object_ids` that were given."""
    bases = scene.bases
    posed = scene.at(bases.last_index if bases.length else 0)
    finite = torch.ones(scene.count, dtype=torch.bool, device=scene.device)
    values = {name: scene.params[name] for name in WIDTHS} | {"means": posed.means, "quats": posed.quats}
    for name, value in values.items():
        finite &= torch.isfinite(value).reshape(scene.count, max(1, WIDTHS[name])).all(1)
    gaussians = {name: value[finite].detach().float().cpu().numpy() for name, value in values.items()}
    return Checkpoint(
        gaussians,
        scene.ids[finite].cpu().numpy(),
        scene.object_id[finite].cpu().numpy(),
        scene.next_id,
        frozenset(object_ids),
        settings={name: config.get(name) for name in MUST_AGREE},
    )


def write_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Writes the file, whole. Raises `Motion4DError` when the place can't be written."""
    header = {
        "next_point_id": checkpoint.next_point_id,
        "object_ids": sorted(checkpoint.object_ids),
        "camera": None if checkpoint.camera is None else asdict(checkpoint.camera),
        "names": checkpoint.names,
        "settings": checkpoint.settings,
    }
    tensors: dict[str, NDArray[Any]] = {"ids": checkpoint.ids, "object_id": checkpoint.object_id}
    tensors |= checkpoint.gaussians | {f"{MAP}{name}": array for name, array in checkpoint.pose_map.items()}
    whole = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    metadata = {"format": FORMAT, "version": VERSION, "header": json.dumps(header)}
    try:
        write_bytes(path, safetensors.numpy.save(whole, metadata))
    except OSError as error:
        raise Motion4DError(f"{path}: cannot be written ({error.strerror or error}): free some space") from None


def read_checkpoint(path: Path, most_bytes: int) -> Checkpoint:
    """What `write_checkpoint` wrote, with the ids that may have been given since taken for given.

    Raises `Motion4DError` for a file that is missing, larger than `most_bytes`, damaged, or of another version.
    """
    try:
        size = path.stat().st_size
        if size > most_bytes:
            raise Motion4DError(f"{path}: a checkpoint of {size} bytes, at most {most_bytes} are allowed")
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if (metadata.get("format"), metadata.get("version")) != (FORMAT, VERSION):
                raise Motion4DError(f"{path}: not a checkpoint of this version of the program")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return _assemble(tensors, json.loads(metadata["header"]))
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, AttributeError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Motion4DError(f"{path}: damaged checkpoint ({reason})") from None


def _assemble(tensors: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Checkpoint:
    """Puts the parts together; `KeyError`, `ValueError` or `TypeError` when they don't fit."""
    ids, owner = tensors["ids"], tensors["object_id"]
    next_point_id, objects = int(header["next_point_id"]), {int(label) for label in header["object_ids"]}
    for name, width in WIDTHS.items():
        shape = (len(ids), width) if width else (len(ids),)
        array = tensors[name]
        if array.dtype != np.float32 or array.shape != shape or not (np.abs(array) < MOST).all():  # NaN fails, too
            raise ValueError(f"{name} is not what it should be")
    if ids.dtype != np.int64 or owner.dtype != np.int64 or owner.shape != ids.shape or ids.ndim != 1:
        raise ValueError("its tensors disagree in length")
    if not 0 < next_point_id < LARGEST_POINT or len(np.unique(ids)) != len(ids):
        raise ValueError("an id of a point is given twice")
    if len(ids) and not (ids.min() > 0 and ids.max() < next_point_id and owner.min() >= 0):
        raise ValueError("ids out of range")
    if max([0, *objects, *owner.tolist()]) > LARGEST_OBJECT or min([1, *objects]) < 1:
        raise ValueError("object ids out of range")
    newest = max([0, *objects])
    reserved = range(newest + 1, min(newest + RESERVED_OBJECTS, LARGEST_OBJECT) + 1)
    camera = None if header["camera"] is None else Camera(**header["camera"])
    return Checkpoint(
        {name: tensors[name] for name in WIDTHS},
        ids,
        owner,
        next_point_id + RESERVED_POINTS,
        frozenset(objects | set(reserved)),
        camera,
        {int(label): str(name) for label, name in header["names"].items()},
        {name.removeprefix(MAP): array for name, array in tensors.items() if name.startswith(MAP)},
        dict(header["settings"]),
    )
