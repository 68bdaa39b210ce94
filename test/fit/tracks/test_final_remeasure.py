"""What wrong masks kept from being measured is measured in the end."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from engine_builders import given

from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.fit.semantics.mask_selection import MaskSelection
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.types import Frame, IntArray

MISSED = range(6, 14)  # frames in which the source does not see the first object
MIDDLE = range(8, 12)  # of them, those beyond the reach of every vote
SEED = 3


@dataclass
class Outcome:
    """What is known of the first object in the frames in `MIDDLE`."""

    points: list[int]  # of it that were found
    rendered: float  # overlap with the true masks of what the scene shows
    votes: list[IntArray]  # (H, W) each


def outcome(hindsight: bool, seed: int = SEED) -> Outcome:
    scene = make_scene("small_baseline", seed=seed, frames=20, size=(96, 128))
    config = given(
        window={"length": 5, "horizon": 24, "global_every": 0},
        fit={"motion_iterations": 20, "semantic_iterations": 8, "final_iterations": 20, "final_remeasure": hindsight},
        geometry={"max_parts": 1},
    )
    engine = Motion4D(config)
    for k, frame in enumerate(scene.frames()):
        engine.push(missing(frame) if k in MISSED else frame)
    engine.flush()
    mapper, states = engine.mapper, [engine.horizon.get(k) for k in MIDDLE]
    support = mapper.geometry.motions[1].support
    shown = [mapper.view(state).labels.argmax(-1).cpu().numpy() == mapper.channel_of[1] for state in states]
    overlap = [(a & b).sum() / (a | b).sum() for a, b in zip(shown, scene.masks[MIDDLE] == 1, strict=True)]
    votes = [state.voted for state in states if state.voted is not None]
    return Outcome([support.get(k, 0) for k in MIDDLE], float(np.mean(overlap)), votes)


def missing(frame: Frame) -> Frame:
    assert frame.masks is not None
    return replace(frame, masks=np.where(frame.masks == 1, 0, frame.masks))


def test_an_object_is_measured_where_its_masks_were_missing() -> None:
    """What is published there is another matter: the arbiter chooses between the rendering and bridged outlines."""
    before, after = outcome(hindsight=False), outcome(hindsight=True)
    assert max(before.points) < 4 < 8 <= min(after.points)
    assert after.rendered > max(0.6, before.rendered + 0.1)
    assert len(after.votes) == len(MIDDLE)
    np.testing.assert_array_equal(after.votes, before.votes)  # what is rendered does not vote


def test_a_steady_source_has_hidden_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MaskSelection, "is_steady", lambda self, label: True)
    assert max(outcome(hindsight=True).points) < 4
