"""Every name a user may choose leads to a class, and what is missing is said in one line."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from motion4d_ros.config import Config
from motion4d_ros.priors import registry
from motion4d_ros.types import Motion4DError

TABLES = {
    "tracks.source": registry.TRACK_SOURCES,
    "masks.source": registry.MASK_SOURCES,
    "masks.discovery": {**registry.DISCOVERIES, "none": registry.MASK_SOURCES["propagation"]},
    "depth.source": registry.DEPTH_SOURCES,
    "pose.source": registry.POSE_SOURCES,
}
OPTIONAL = {"sam2", "hydra", "omegaconf", "tapnet", "onnxruntime", "transformers"}


@pytest.mark.parametrize("path", TABLES)
def test_choices_and_registry_agree(path: str) -> None:
    choices = next(item.choices for item in Config().tunables() if item.path == path)
    assert set(choices) == set(TABLES[path])


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, table in TABLES.items() for name in table])
def test_every_line_names_a_class(path: str, name: str) -> None:
    module, _, cls = TABLES[path][name].partition(":")
    try:
        found = importlib.import_module(f"motion4d_ros.priors.{module}")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in OPTIONAL:
            pytest.skip(f"{error.name} is not installed (docs/how-to/models.md)")
        raise
    assert isinstance(getattr(found, cls), type)


@pytest.mark.parametrize(("former", "now"), [("motion", "masks.discovery=motion"), ("prompt", "masks.discovery=none")])
def test_values_of_former_versions_name_what_says_the_same_now(former: str, now: str) -> None:
    with pytest.raises(Motion4DError, match=f"masks.source={former}: is now .*{now}") as caught:
        Config().set("masks.source", former)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("finder", ["motion", "detections", "none"])
@pytest.mark.parametrize("source", ["propagation", "topic", "none"])
def test_every_finder_goes_with_every_outliner(finder: str, source: str) -> None:
    config = Config()
    config.update({"masks.source": source, "masks.discovery": finder})
    made = registry.make_mask_source(config)
    assert made.full_size and config.finder == ("none" if source in ("topic", "none") else finder)


def test_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "sam2", None)
    monkeypatch.delitem(sys.modules, "motion4d_ros.models.video.sam2_predictor", raising=False)
    config = Config()
    config.masks.source, config.masks.model = "sam2", str(tmp_path / "sam2.1_hiera_tiny.pt")
    (tmp_path / "sam2.1_hiera_tiny.pt").write_bytes(b"")
    with pytest.raises(Motion4DError, match="needs the Python package") as caught:
        registry.make_mask_source(config)
    assert "\n" not in str(caught.value)


def test_defects_of_our_own_modules_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MASK_SOURCES", {"none": "no_such_module:Nothing"})
    with pytest.raises(ModuleNotFoundError):
        registry.make_mask_source(config_with("none"))


def config_with(source: str) -> Config:
    config = Config()
    config.masks.source = source
    return config


def test_unknown_name_lists_the_known(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Motion4DError, match="choose one of topic, none"):
        registry.make_mask_source(config_with("oracle"))
