"""A person's word on objects, at any time, through the whole engine with the sources that need nothing given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from motion4d_ros.config import Config
from motion4d_ros.evaluation.synthetic import SyntheticScene, make_scene
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.types import Estimate, Frame, Motion4DError, Prompt

LENGTH = 8
OBJECT = 2


def engine_for(source: str) -> Motion4D:
    """One camera and given poses and depth; hardly any steps."""
    config = Config()
    config.update(
        {
            "run": {"threads": 1, "device": "cpu"},
            "masks": {"discovery": {"prompt": "none"}.get(source, source)},
            "pose": {"source": "odometry"},
            "depth": {"source": "topic"},
            "window": {"length": 4, "horizon": 16, "global_every": 0},
            "fit": {"motion_iterations": 2, "semantic_iterations": 2, "final_iterations": 2},
            "geometry": {"iterations": 2, "static_points": 80, "object_points": 60, "max_parts": 1},
        }
    )
    return Motion4D(config)


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return make_scene("tabletop_like", seed=2, frames=LENGTH, size=(120, 160))


def frames_of(scene: SyntheticScene) -> list[Frame]:
    """The scene's frames without its masks."""
    frames = scene.frames()
    for frame in frames:
        frame.masks = None
    return frames


def by_mask(frame: Frame, truth: np.ndarray) -> Prompt:
    return Prompt(frame.stamp_ns, mask=truth)


def by_box(frame: Frame, truth: np.ndarray) -> Prompt:
    ys, xs = np.nonzero(truth)
    return Prompt(frame.stamp_ns, box_px=np.array([xs.min() - 2, ys.min() - 2, xs.max() + 2, ys.max() + 2], float))


def by_points(frame: Frame, truth: np.ndarray) -> Prompt:
    ys, xs = np.nonzero(truth)
    middle = np.array([[np.median(xs), np.median(ys)]])
    return Prompt(frame.stamp_ns, points_px=middle, positive=np.array([True]))


def by_click_in_3d(frame: Frame, truth: np.ndarray) -> Prompt:
    assert frame.T_map_cam is not None and frame.depth_m is not None
    uv = by_points(frame, truth).points_px[0]
    xyz_cam = frame.camera.unproject(uv, np.array(np.median(frame.depth_m[truth])))
    return Prompt(frame.stamp_ns, xyz_map=frame.T_map_cam[:3, :3] @ xyz_cam + frame.T_map_cam[:3, 3])


def final(engine: Motion4D, estimates: list[Estimate]) -> dict[int, Estimate]:
    return {e.index: e for e in [*estimates, *engine.flush()]}


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


@pytest.mark.parametrize(
    ("source", "say"),
    [("prompt", by_mask), ("prompt", by_box), ("prompt", by_points), ("prompt", by_click_in_3d), ("motion", by_mask)],
)
def test_an_object_is_started_in_a_frame_of_the_past(
    scene: SyntheticScene, source: str, say: Callable[[Frame, np.ndarray], Prompt]
) -> None:
    engine, frames = engine_for(source), frames_of(scene)
    estimates = [estimate for frame in frames[:6] for estimate in engine.push(frame)]
    at = 3  # its window has closed
    object_id = engine.prompt(say(frames[at], scene.masks[at] == OBJECT))
    estimates += [estimate for frame in frames[6:] for estimate in engine.push(frame)]
    last = final(engine, estimates)
    good = 0.75 if say is by_mask else 0.5  # a click says little about an outline
    for k in range(at, LENGTH):
        assert iou(last[k].masks == object_id, scene.masks[k] == OBJECT) > good, k


def test_an_object_is_corrected_renamed_and_deleted(scene: SyntheticScene) -> None:
    engine, frames = engine_for("prompt"), frames_of(scene)
    estimates = [estimate for frame in frames[:6] for estimate in engine.push(frame)]
    truth = scene.masks == OBJECT
    half = truth[2].copy()
    half[:, int(np.median(np.nonzero(half)[1])) :] = False
    object_id = engine.prompt(Prompt(frames[2].stamp_ns, mask=half))
    assert engine.prompt(Prompt(frames[2].stamp_ns, object_id, mask=truth[2])) == object_id
    assert engine.prompt(Prompt(frames[2].stamp_ns, object_id, name="mug")) == object_id
    estimates += [estimate for frame in frames[6:] for estimate in engine.push(frame)]
    last = final(engine, estimates)
    assert iou(last[5].masks == object_id, truth[5]) > 0.75
    assert {item.label for item in last[7].objects if item.object_id == object_id} == {"mug"}
    engine.prompt(Prompt(frames[7].stamp_ns, object_id, delete=True))
    assert all((estimate.masks != object_id).all() for estimate in engine.flush())


def test_a_prompt_for_a_frame_that_is_gone_is_one_clear_line(scene: SyntheticScene) -> None:
    engine, frames = engine_for("prompt"), frames_of(scene)
    for frame in frames[:4]:
        engine.push(frame)
    with pytest.raises(Motion4DError):
        engine.prompt(Prompt(frames[0].stamp_ns - 10**12, mask=scene.masks[0] == OBJECT))
