"""Networks that follow prompted objects through a video: what `masks.source: sam2 | edgetam` asks of them, and which.

The weights choose the code: a `.pt` file is read by the package `sam2`, a folder with `config.json` and
`model.safetensors` by `transformers`. `auto` takes what lies in the cache and can be read here, `sam2` first.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.models.registry import DEFAULTS, MODELS, find
from motion4d_ros.models.store import Located, ModelStore
from motion4d_ros.types import BoolArray, FloatArray, Motion4DError

PROBE = -1  # "object" that is asked about and forgotten; objects have positive ids
LOADERS = {"sam2": ("sam2", "transformers_sam2"), "edgetam": ("transformers_edgetam",)}
"""Of each source, the code that may read its weights, the preferred first."""
PACKAGES = {"sam2": "sam2", "transformers_sam2": "transformers", "transformers_edgetam": "transformers"}
"""What a loader imports."""


class VideoSegmenter(Protocol):
    """A network that is fed frame by frame. `state` is whatever it remembers of one video."""

    def open_state(self, size: tuple[int, int], keep_features: int) -> Any:
        """What is remembered of images of `size` (height, width): nothing yet. Features of the last `keep_features`
        frames stay.
        """

    def object_ids(self, state: Any) -> list[int]:
        """Ids of the objects being followed."""

    def append(self, state: Any, index: int, image: NDArray[np.uint8]) -> None:
        """Adds an (H, W, 3) RGB image as frame `index`."""

    def track(self, state: Any, index: int, object_id: int) -> Any:
        """(1, 1, h, w) logits of an object in frame `index`, from its memory. Prompted frames answer as prompted."""

    def prompt(
        self,
        state: Any,
        index: int,
        object_id: int,
        points_px: FloatArray,
        positive: BoolArray,
        box_px: FloatArray | None,
        mask: BoolArray | None,
    ) -> Any:
        """A person's word on frame `index`: starts or corrects the object, and is remembered. (1, 1, h, w) logits."""

    def refresh(
        self,
        state: Any,
        index: int,
        object_id: int,
        points_px: FloatArray,
        positive: BoolArray,
        box_px: FloatArray | None,
    ) -> Any:
        """The scene's word on a tracked frame: answers from memory, points and box. (1, 1, h, w) logits."""

    def outline(
        self, state: Any, index: int, points_px: FloatArray, positive: BoolArray, box_px: FloatArray | None
    ) -> Any:
        """(1, 1, h, w) logits of what points and box mean in frame `index`; nothing is remembered of it."""

    def forget(self, state: Any, object_id: int) -> None:
        """An object is followed no more."""

    def trim(self, state: Any, keep_images: int) -> None:
        """Drops images older than the last `keep_images`, and what no later frame can look at any more."""


def load_segmenter(config: Config) -> VideoSegmenter:
    """The network that `masks.source` and `masks.model` name, with its weights, on `run.device`."""
    source, store = config.masks.source, ModelStore(config.models.folder)
    loaders = LOADERS[source]
    value = config.masks.model
    if value in ("", "auto"):
        value = default_model(source, store)
    located = store.resolve(value, source, loaders, "masks.model")
    loader = _loader_of(located, loaders)
    if loader == "sam2":
        from motion4d_ros.models.sam2_predictor import load_predictor

        return load_predictor(located, config)
    from motion4d_ros.models.transformers_video import load_transformers_segmenter

    folder = located.paths[0] if located.model is None else located.paths[0].parent
    return load_transformers_segmenter(folder, source, config)


def default_model(source: str, store: ModelStore, has_package: Any = None) -> str:
    """What `masks.model=auto` means: the first default that lies in the cache and whose package is installed, else the
    first whose package is; the first of all where none is.
    """
    installed = has_package or (lambda name: importlib.util.find_spec(name) is not None)
    names = [DEFAULTS[loader] for loader in LOADERS[source]]
    readable = [name for name in names if installed(PACKAGES[find(name).loader])]
    here = [name for name in readable if store.is_here(find(name))]
    return (here or readable or names)[0]


def _loader_of(located: Located, loaders: Sequence[str]) -> str:
    """What reads these weights."""
    if located.model is not None:
        return located.model.loader
    path = located.paths[0]
    if not path.is_dir() and "sam2" in loaders:
        return "sam2"
    if not path.is_dir():
        names = ", ".join(model.name for model in MODELS if model.loader in loaders)
        raise Motion4DError(f"masks.model={path}: must be a folder with config.json and model.safetensors, or {names}")
    return next(loader for loader in loaders if loader != "sam2")
