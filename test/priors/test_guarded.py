"""No source of masks or depth ends a run: what it does wrong is said, and the rest goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motion4d_ros.config import Config
from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.priors.guarded import GuardedDepth, GuardedMasks, trouble_now, troubles
from motion4d_ros.priors.interfaces import DepthPrior, PosePrior, SceneHint
from motion4d_ros.priors.masks.given import GivenMasks
from motion4d_ros.types import Camera, Frame, Motion4DError, PoseStatus, Prompt, Scale

sys.path.insert(0, str(Path(__file__).parent))

CAMERA = Camera(50.0, 50.0, 32.0, 24.0, 64, 48)
POSE = PosePrior(np.eye(4), PoseStatus.OK, Scale.METRIC)


def frame(index: int) -> Frame:
    return Frame(index, np.zeros((48, 64, 3), np.uint8), CAMERA, index=index)


class Moody(GivenMasks):
    """Answers whatever it is told to, or raises it."""

    accepts_prompts = True
    said: Any = None

    def __init__(self) -> None:
        super().__init__(Config())

    def answer(self) -> Any:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said

    def masks(self, frame: Frame, hint: SceneHint | None) -> Any:
        return self.answer()

    def refresh(self, frame: Frame, prompts: Any) -> Any:
        return self.answer()

    def prompt(self, frame: Frame, prompt: Prompt) -> None:
        self.answer()

    def revised_masks(self) -> Any:
        return self.answer()


NONSENSE = [
    np.zeros((3, 3), np.int32),
    np.full((48, 64), np.nan),
    np.zeros((48, 64, 1), np.int32),
    None,
    RuntimeError("the device is gone\nin line two"),
    Motion4DError("the decoder answered NaN"),
    IndexError(),
]


@pytest.mark.parametrize("said", NONSENSE, ids=str)
def test_a_frame_that_fails_is_unknown_and_said_and_the_next_one_is_as_always(said: Any) -> None:
    source = Moody()
    guarded = GuardedMasks(source, "masks.source=moody")
    source.said = said
    guarded.look(frame(0), POSE, None)
    assert (guarded.masks(frame(0), None) == -1).all()
    (line,) = trouble_now(guarded)
    assert "masks.source=moody" in line and "\n" not in line
    source.said = np.full((48, 64), 3, np.int32)
    guarded.look(frame(1), POSE, None)
    assert (guarded.masks(frame(1), None) == 3).all() and trouble_now(guarded) == []
    assert troubles(guarded) == {line: 1}


def test_what_a_source_does_besides_may_fail_too() -> None:
    source = Moody()
    guarded = GuardedMasks(source, "masks.source=moody")
    source.said = RuntimeError("no")
    assert guarded.refresh(frame(0), []) is None and guarded.revised_masks() == {}
    with pytest.raises(Motion4DError, match="failed on this prompt") as caught:
        guarded.prompt(frame(0), Prompt(0))
    assert "\n" not in str(caught.value)
    source.said = Motion4DError("the prompt marks nothing")
    with pytest.raises(Motion4DError, match=r"^the prompt marks nothing$"):  # a person's own mistake is theirs to hear
        guarded.prompt(frame(0), Prompt(0))
    guarded.finish()
    guarded.revise_poses({})


def test_memory_that_runs_out_is_the_callers_to_mend() -> None:
    source = Moody()
    source.said = MemoryError()
    with pytest.raises(MemoryError):
        GuardedMasks(source, "masks.source=moody").masks(frame(0), None)


def test_a_source_that_takes_ten_seconds_is_named() -> None:
    times = iter([0.0, 10.0, 20.0, 30.0, 40.0, 40.1])
    source = Moody()
    source.said = np.zeros((48, 64), np.int32)
    guarded = GuardedMasks(source, "masks.source=moody", clock=lambda: next(times))
    for index in range(3):
        assert not guarded.masks(frame(index), None).any()
    ((line, count),) = troubles(guarded).items()
    assert "takes more than 5 s" in line and "smaller" in line and count == 2


class MoodyDepth:
    def __init__(self, said: Any) -> None:
        self.said = said

    def depth(self, frame: Frame, pose: PosePrior, hint: SceneHint | None) -> Any:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said

    def reset(self) -> None:
        pass


@pytest.mark.parametrize("size", [(48, 64), (4, 4)])
def test_depth_of_another_size_or_none_at_all(size: tuple[int, int]) -> None:
    values = np.ones(size, np.float32)
    prior = DepthPrior(values, values, Scale.METRIC)
    guarded = GuardedDepth(MoodyDepth(prior), "depth.source=model")
    right = size == CAMERA.size
    assert (guarded.depth(frame(0), POSE, None) is prior) == right
    assert bool(trouble_now(guarded)) != right
    failing = GuardedDepth(MoodyDepth(ValueError("no")), "depth.source=model")
    assert failing.depth(frame(0), POSE, None) is None and "ValueError: no" in trouble_now(failing)[0]
    assert failing.again(frame(0), np.eye(4), Scale.METRIC, np.zeros(CAMERA.size, np.int32)) is None


# ---- through the whole engine ---------------------------------------------------------------------------------------


def engine_with_network(monkeypatch: pytest.MonkeyPatch) -> tuple[Motion4D, Any]:
    """An engine whose masks come from a network that outlines by colour; hardly any steps."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (docs/how-to/models.md)")
    from sam_double import ColourSam

    sam = ColourSam()
    monkeypatch.setattr("motion4d_ros.priors.masks.sam_onnx.load_sam", lambda config: sam)
    config = Config()
    config.update(
        {
            "run": {"threads": 1, "device": "cpu"},
            "masks": {"source": "sam_onnx"},
            "pose": {"source": "odometry"},
            "depth": {"source": "topic"},
            "window": {"length": 3, "horizon": 16, "global_every": 0},
            "fit": {"motion_iterations": 2, "semantic_iterations": 2, "final_iterations": 2},
            "geometry": {"iterations": 2, "static_points": 80, "object_points": 60, "max_parts": 1},
        }
    )
    return Motion4D(config), sam


def test_a_scene_fitted_anew_does_not_ask_about_frames_that_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The camera's motion becomes known after more frames than the network keeps: the horizon is fitted again."""
    scene = make_scene("tabletop_like", seed=2, frames=12, size=(60, 80))
    engine, _ = engine_with_network(monkeypatch)
    adopt = engine.intake.adopt_revised_poses
    monkeypatch.setattr(
        engine.intake, "adopt_revised_poses", lambda horizon: adopt(horizon) or engine.intake.newest_index == 11
    )
    frames = scene.frames()
    labels = scene.labels[0] if hasattr(scene, "labels") else frames[0].masks
    assert labels is not None
    told = []
    for k, given in enumerate(frames):
        given.masks = None
        told += [engine.add_frame(given)]
        if k == 0:
            engine.prompt(Prompt(given.stamp_ns, mask=labels == np.unique(labels)[-1]))
        told += engine.process_window()
    told += engine.flush()
    assert {e.index for e in told} == set(range(12))
    assert engine.status().warnings == {} or all("failed" not in text for text in engine.status().warnings)
    final = {e.index: e for e in told}
    assert (final[0].masks > 0).any() and (final[11].masks > 0).any()


def test_a_network_that_fails_now_and_then_costs_those_frames_only(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = make_scene("tabletop_like", seed=2, frames=9, size=(60, 80))
    engine, sam = engine_with_network(monkeypatch)
    embed = sam.embed

    def failing(image: Any) -> Any:
        found = embed(image)
        if sam.encoded in (4, 5):
            raise RuntimeError("CUDA error")
        return found

    monkeypatch.setattr(sam, "embed", failing)
    frames = scene.frames()
    labels = frames[0].masks
    assert labels is not None
    told = []
    for k, given in enumerate(frames):
        given.masks = None
        told += [engine.add_frame(given)]
        if k == 0:
            engine.prompt(Prompt(given.stamp_ns, mask=labels == np.unique(labels)[-1]))
        told += engine.process_window()
    said = {e.index for e in told if any("CUDA error" in text for text in e.warnings)}
    told += engine.flush()
    final = {e.index: e for e in told}
    assert set(final) == set(range(9)) and said == {3, 4}
    assert all((final[k].masks > 0).any() for k in range(9)), "the frames around say where the object was"
    ((line, count),) = engine.status().warnings.items()
    assert "CUDA error" in line and count == 2
