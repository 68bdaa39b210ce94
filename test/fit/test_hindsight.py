"""What wrong masks kept from being measured is measured in the end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine_builders import given

from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.fit.arbiter import Arbiter
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.types import Frame, IntArray, Stage

MISSED = range(6, 14)  # frames in which the source does not see the first object
MIDDLE = range(8, 12)  # of them, those beyond the reach of every vote


@pytest.fixture(scope="module")
def truth() -> IntArray:
    return make_scene("small_baseline", seed=2, frames=20, size=(96, 128)).masks


def outcome(hindsight: bool) -> tuple[list[int], list[IntArray]]:
    """Points of the first object that were found in the frames in `MIDDLE`, and the masks that are published there."""
    scene = make_scene("small_baseline", seed=2, frames=20, size=(96, 128))
    config = given(
        window={"length": 5, "horizon": 24, "global_every": 0},
        fit={"motion_iterations": 20, "semantic_iterations": 8, "final_iterations": 20, "hindsight": hindsight},
        geometry={"max_parts": 1},
    )
    engine = Motion4D(config)
    for k, frame in enumerate(scene.frames()):
        engine.push(missing(frame) if k in MISSED else frame)
    shown = {estimate.index: estimate.masks for estimate in engine.flush() if estimate.stage is Stage.GLOBAL}
    support = engine.mapper.geometry.motions[1].support
    return [support.get(k, 0) for k in MIDDLE], [shown[k] for k in MIDDLE]


def missing(frame: Frame) -> Frame:
    assert frame.masks is not None
    return replace(frame, masks=np.where(frame.masks == 1, 0, frame.masks))


def overlap(masks: list[IntArray], truth: IntArray) -> float:
    pairs = [(mask == 1, truth[k] == 1) for k, mask in zip(MIDDLE, masks, strict=True)]
    return float(np.mean([(ours & true).sum() / (ours | true).sum() for ours, true in pairs]))


def test_an_object_is_measured_where_its_masks_were_missing(truth: IntArray) -> None:
    points, masks = outcome(hindsight=True)
    without, bridged = outcome(hindsight=False)
    assert max(without) < 4 < 8 <= min(points)
    assert overlap(masks, truth) > 0.5
    assert overlap(masks, truth) > overlap(bridged, truth) - 0.02  # what bridged the gap is not outvoted


def test_a_steady_source_has_hidden_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Arbiter, "is_steady", lambda self, label: True)
    points, _ = outcome(hindsight=True)
    assert max(points) < 4
