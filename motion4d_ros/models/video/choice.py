"""Which network stands behind `masks.source: sam2 | edgetam`, and the code that reads it.

The weights choose the code: a `.pt` file is read by the package `sam2`, a folder with `config.json` and
`model.safetensors` by `transformers`. `auto` takes what lies in the cache and can be read here, `sam2` first.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from motion4d_ros.config import Config
from motion4d_ros.models.registry import DEFAULTS, MODELS, find
from motion4d_ros.models.store import Located, ModelStore
from motion4d_ros.models.video.segmenter import VideoSegmenter
from motion4d_ros.types import Motion4DError

LOADERS = {"sam2": ("sam2", "transformers_sam2"), "edgetam": ("transformers_edgetam",)}
"""Of each source, the code that may read its weights, the preferred first."""
PACKAGES = {"sam2": "sam2", "transformers_sam2": "transformers", "transformers_edgetam": "transformers"}
"""What a loader imports."""


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
        from motion4d_ros.models.video.sam2_predictor import load_predictor

        return load_predictor(located, config)
    from motion4d_ros.models.video.transformers_video import load_transformers_segmenter

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
