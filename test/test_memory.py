"""Nothing that hangs from the engine grows with the length of the run, whatever its containers are called."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from engine_builders import given
from held import Held, grown, held

from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.pipeline import Motion4D

WINDOW, HORIZON = 4, 8
CYCLE = 3  # windows in which the camera goes there and back
SETTLED, LONG = 5, 15  # cycles


def test_nothing_that_hangs_from_the_engine_grows_with_the_run() -> None:
    """A camera that loops without end, and objects that are others in every loop."""
    config = given(window={"length": WINDOW, "horizon": HORIZON, "global_every": 3})
    config.update({"fit": {"motion_iterations": 2, "semantic_iterations": 2, "global_iterations": 2}})
    config.update({"geometry": {"iterations": 2, "static_points": 60, "object_points": 40, "max_parts": 1}})
    config.update({"budget": {"max_static": 300, "max_dynamic": 120}, "tracks.max_tracks": 300})
    config.update({"objects": {"forget_after": 1.0, "lost_after": 0.5, "most": 6}})
    frames = make_scene("stop_and_go", seed=3, frames=CYCLE * WINDOW // 2, size=(48, 64)).frames()
    engine = Motion4D(config)
    after: dict[int, list[Held]] = {SETTLED: [], LONG: []}
    for cycle in range(LONG):
        for k, frame in enumerate([*frames, *frames[::-1]]):
            assert frame.masks is not None
            stamp_ns = 10**9 + (cycle * CYCLE * WINDOW + k) * 10**8
            engine.push(replace(frame, stamp_ns=stamp_ns, masks=np.where(frame.masks > 0, frame.masks + 2 * cycle, 0)))
            for cycles, found in after.items():
                if cycles - 2 <= cycle < cycles and k % WINDOW == WINDOW - 1:
                    found.append(held(engine, "engine"))
    assert engine.status().windows == LONG * CYCLE and len(engine.intake.known_ids) == 2 * LONG
    more = grown(after[SETTLED], after[LONG])
    more.pop("engine.intake.known_ids")  # an id is never given twice: 65535 at most
    assert not more, more
