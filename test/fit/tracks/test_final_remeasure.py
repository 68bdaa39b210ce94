"""What wrong masks kept from being measured is measured in the end."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from engine_builders import given

from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.types import Frame

MISSED = range(6, 14)  # frames in which the source does not see the first object
REACH = 2  # frames each way whose masks are fused
MIDDLE = range(8, 12)  # of them, those beyond the reach of every mask
SEED = 3


@dataclass
class Outcome:
    """What is known of the first object in the frames in `MIDDLE`."""

    points: list[int]  # of it that were found
    rendered: float  # overlap with the true masks of what the scene shows


def outcome(hindsight: bool, seed: int = SEED) -> Outcome:
    scene = make_scene("small_baseline", seed=seed, frames=20, size=(96, 128))
    config = given(
        window={"length": 5, "horizon": 24, "global_every": 0},
        fit={"motion_iterations": 20, "semantic_iterations": 8, "final_iterations": 20, "final_remeasure": hindsight},
        geometry={"max_parts": 1},
        masks={"fusion_reach": REACH},
    )
    engine = Motion4D(config)
    for k, frame in enumerate(scene.frames()):
        engine.push(missing(frame) if k in MISSED else frame)
    engine.flush()
    mapper, states = engine.mapper, [engine.horizon.get(k) for k in MIDDLE]
    support = mapper.geometry.motions[1].support
    shown = [mapper.view(state).labels.argmax(-1).cpu().numpy() == mapper.channel_of[1] for state in states]
    overlap = [(a & b).sum() / (a | b).sum() for a, b in zip(shown, scene.masks[MIDDLE] == 1, strict=True)]
    return Outcome([support.get(k, 0) for k in MIDDLE], float(np.mean(overlap)))


def missing(frame: Frame) -> Frame:
    assert frame.masks is not None
    return replace(frame, masks=np.where(frame.masks == 1, 0, frame.masks))


def test_an_object_is_measured_where_its_masks_were_missing() -> None:
    before, after = outcome(hindsight=False), outcome(hindsight=True)
    assert 2 * sum(before.points) < sum(after.points) and min(before.points) < 10 < min(after.points)
    assert after.rendered > max(0.85, before.rendered)
