"""Detections through the whole engine: objects get the names that a detector with misses and false alarms gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine_builders import given

from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.types import Detection, Estimate, Frame, Prompt

QUICK = {
    "window": {"length": 4, "horizon": 16, "global_every": 0},
    "fit": {"motion_iterations": 2, "semantic_iterations": 2, "final_iterations": 2},
    "geometry": {"iterations": 2, "static_points": 80, "object_points": 60, "max_parts": 1},
}


def detected(frame: Frame, rng: np.random.Generator) -> tuple[Detection, ...]:
    """What a mediocre detector says: every third box missing, edges off by a pixel, a false alarm in every frame."""
    assert frame.masks is not None
    found = [Detection((1.0, 1.0, 20.0, 10.0), "ghost", 0.9)]
    for object_id in np.unique(frame.masks[frame.masks > 0]).tolist():
        ys, xs = np.nonzero(frame.masks == object_id)
        box = np.array([xs.min(), ys.min(), xs.max(), ys.max()]) + rng.normal(0, 1, 4)
        if rng.uniform() > 0.33:
            found.append(Detection(tuple(box.tolist()), f"kind {object_id}", 0.7))
    return tuple(found)


def test_in_realtime_mode_the_nearest_frame_kept_takes_what_is_detected_between() -> None:
    scene = make_scene("tabletop_like", seed=2, frames=7, size=(60, 80))
    frames = scene.frames()
    found = (Detection((1.0, 1.0, 20.0, 10.0), "cup", 0.9),)
    for mode, taken in (("lossless", False), ("realtime", True)):
        engine = Motion4D(given(**QUICK, **{"budget.mode": mode}))
        for frame in (frames[0], frames[3], frames[6]):  # every third one is kept
            engine.intake.take(frame)
        pending = engine.intake.pending
        assert engine.detect(frames[4].stamp_ns, found) == taken
        assert (pending[1].frame.detections is not None) == taken
        assert engine.detect(frames[3].stamp_ns, ()) and pending[1].frame.detections == ()  # its own
        assert engine.detect(frames[4].stamp_ns, found) == taken and pending[1].frame.detections == ()
        assert not engine.detect(frames[6].stamp_ns + 10**10, found)


@pytest.mark.parametrize("late", [False, True])
def test_objects_are_named_by_what_is_detected_in_them(late: bool) -> None:
    scene = make_scene("tabletop_like", seed=2, frames=8, size=(60, 80))
    engine, rng = Motion4D(given(**QUICK)), np.random.default_rng(0)
    told: list[Estimate] = []
    for frame in scene.frames():
        found = detected(frame, rng)
        told += engine.push(frame if late else replace(frame, detections=found))
        if late and frame.stamp_ns > 0:
            assert engine.detect(frame.stamp_ns + 1_000_000, found)
    assert not engine.detect(frame.stamp_ns + 10**9, found), "no frame of that stamp"
    first = min(np.unique(scene.frames()[0].masks[scene.frames()[0].masks > 0]).tolist())
    engine.prompt(Prompt(frame.stamp_ns, object_id=first, name="mine"))
    told += engine.flush()
    final = {e.index: e for e in told}[7]
    names = {state.object_id: (state.label, state.label_score) for state in final.objects}
    assert names.pop(first) == ("mine", 1.0), "a person's word stands above a detector's"
    assert names and all(label == f"kind {object_id}" for object_id, (label, _) in names.items()), names
    assert all(0.6 < score < 1.0 for _, score in names.values())
