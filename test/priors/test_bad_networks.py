"""Networks that answer nonsense, or are not what they are said to be: real onnxruntime sessions with tiny weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motion4d_ros.config import Config
from motion4d_ros.models.depth_network import load_depth_network
from motion4d_ros.priors.registry import make_depth_source, make_mask_source
from motion4d_ros.types import Camera, Frame, Motion4DError, Prompt

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (docs/how-to/models.md)")
sys.path.insert(0, str(Path(__file__).parent))

from tiny_onnx import write_pair

from motion4d_ros.priors.guarded import GuardedMasks, trouble_now

CAMERA = Camera(60.0, 60.0, 40.0, 30.0, 80, 60)


def frame(index: int) -> Frame:
    image = np.random.default_rng(index).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    return Frame(index, image, CAMERA, index=index)


def config_for(folder: Path) -> Config:
    config = Config()
    config.update({"masks.source": "sam_onnx", "masks.discovery": "none", "masks.model": str(folder)})
    config.update({"run.threads": 1, "window.length": 3})
    return config


def test_a_tiny_pair_runs_as_a_real_one(tmp_path: Path) -> None:
    source = make_mask_source(config_for(write_pair(tmp_path)))
    assert not source.masks(frame(0), None).any()
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:50] = True
    source.prompt(frame(0), Prompt(0, mask=mask))
    assert set(np.unique(source.masks(frame(1), None))) <= {0, 1} and trouble_now(source) == []


def test_an_encoder_and_a_decoder_of_two_networks_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(Motion4DError, match="not an encoder and a decoder of one SAM-style network") as caught:
        make_mask_source(config_for(write_pair(tmp_path, decoder_channels=7)))
    assert "\n" not in str(caught.value)


def test_weights_of_another_task_are_refused_at_the_start(tmp_path: Path) -> None:
    write_pair(tmp_path)
    (tmp_path / "tiny_decoder.onnx").write_bytes((tmp_path / "tiny_encoder.onnx").read_bytes())
    with pytest.raises(Motion4DError, match="not a SAM-style decoder"):
        make_mask_source(config_for(tmp_path))
    config = Config()
    config.update({"depth.source": "model", "depth.model": str(tmp_path / "tiny_encoder.onnx")})
    with pytest.raises(Motion4DError, match="not a network that sees depth") as caught:
        load_depth_network(config)
    assert "\n" not in str(caught.value)
    with pytest.raises(Motion4DError):
        make_depth_source(config)


@pytest.mark.parametrize("part", ["_encoder", "_decoder"])
@pytest.mark.parametrize("kind", ["nan", "shape", "raises"])
def test_nonsense_in_mid_run_hides_the_object_for_that_frame_only(tmp_path: Path, part: str, kind: str) -> None:
    source = make_mask_source(config_for(write_pair(tmp_path)))
    assert isinstance(source, GuardedMasks)
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:50] = True
    sam = source.source._sam  # type: ignore[attr-defined]
    healthy = getattr(sam, part)
    picture = frame(0)
    source.masks(picture, None)
    source.prompt(picture, Prompt(0, mask=mask))
    looked = dict(source.source._objects)[1].look.copy()  # type: ignore[attr-defined]
    setattr(sam, part, Broken(healthy, kind))
    assert (source.masks(Frame(1, picture.image, CAMERA, index=1), None) == -1).all()
    assert len(source.trouble.told) == 1
    setattr(sam, part, healthy)
    labels = source.masks(Frame(2, picture.image, CAMERA, index=2), None)
    assert (labels >= 0).all()
    item = source.source._objects[1]  # type: ignore[attr-defined]
    assert np.isfinite(item.look).all() and np.isfinite(item.soft).all()
    assert item.look @ looked > 0.9, "what it looked like is still remembered"


class Broken:
    """A session that has gone wrong."""

    def __init__(self, session: Any, kind: str) -> None:
        self._session, self._kind = session, kind

    def run(self, names: Any, feeds: Any) -> Any:
        found = self._session.run(names, feeds)
        if self._kind == "raises":
            raise RuntimeError("CUDA failure 999: unknown error")
        if self._kind == "nan":
            return [np.full_like(values, np.nan) for values in found]
        return [values[0] for values in found]
