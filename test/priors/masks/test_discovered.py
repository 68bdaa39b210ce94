"""Found by one, outlined by another: proposals become objects, false alarms go, ids stay, people have the last word."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from motion4d_ros.config import Config
from motion4d_ros.priors.interfaces import DepthPrior, PosePrior, SceneHint
from motion4d_ros.priors.masks.discovered import TRIES, DiscoveredMasks
from motion4d_ros.priors.masks.discovery.detections import PROBATION, DetectionDiscovery
from motion4d_ros.priors.masks.discovery.motion import MotionDiscovery
from motion4d_ros.priors.masks.discovery.proposals import Proposal, inner_points, scaled_pixels
from motion4d_ros.priors.masks.prompted import PromptedMasks
from motion4d_ros.types import Camera, Detection, Frame, IntArray, Prompt

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (docs/how-to/models.md)")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from sam_double import ColourSam

from motion4d_ros.models.sam_onnx import Decoded
from motion4d_ros.priors.masks.sam_onnx import SamOnnxMasks
from motion4d_ros.priors.masks.video_network import VideoNetworkMasks

HEIGHT, WIDTH = 120, 160
CAMERA = Camera(120.0, 120.0, 80.0, 60.0, WIDTH, HEIGHT)
RED, BLUE = (230, 30, 30), (30, 50, 230)


def config_of(**values: object) -> Config:
    config = Config()
    config.update({"window.length": 8, "run.threads": 1, "masks.rigid_segmentation": False, **values})
    return config


def scene(index: int, *boxes: tuple[int, int, int, int, tuple[int, int, int]]) -> Frame:
    """Coloured boxes (x, y, width, height, colour) with dots on a grey texture."""
    small = np.random.default_rng(0).integers(70, 150, (30, 40, 1), dtype=np.uint8)
    grey = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    image = np.repeat(grey[..., None], 3, -1)
    for x, y, w, h, colour in boxes:
        cv2.rectangle(image, (x, y), (x + w - 1, y + h - 1), colour, -1)
        for dx, dy in ((w // 6, h // 6), (5 * w // 6, h // 5), (w // 4, 5 * h // 6)):
            cv2.circle(image, (x + dx, y + dy), 1, tuple(c // 2 for c in colour), -1)
    return Frame(index * 10**8, image, CAMERA, index=index)


def inside(x: int, y: int, w: int, h: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + h, x : x + w] = True
    return mask


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


class Told:
    """A discovery that proposes what it is told to, with regions at half the size."""

    def __init__(self) -> None:
        self.shown: dict[int, IntArray] = {}
        self.lost: set[int] = set()
        self.hints: list[SceneHint | None] = []

    def show(self, index: int, **masks: np.ndarray) -> None:
        labels = np.zeros((HEIGHT // 2, WIDTH // 2), np.int32)
        for name, mask in masks.items():
            labels[mask[::2, ::2]] = int(name[1:])
        self.shown[index] = labels

    def look(self, frame: Frame, pose: PosePrior, depth: DepthPrior | None) -> None: ...

    def push(self, frame: Frame, hint: SceneHint | None) -> None:
        self.hints.append(hint)

    def hear(self, frame: Frame, detections: Sequence[Detection], outlined: IntArray) -> None: ...

    def revise_poses(self, poses: object) -> None: ...

    def finish(self) -> None: ...

    def proposals(self, kept: Sequence[int]) -> list[Proposal]:
        newest = self.shown.get(max(kept))
        found = []
        for key in () if newest is None else np.unique(newest[newest > 0]).tolist():
            first = min(index for index in kept if index in self.shown and (self.shown[index] == key).any())
            region = self.shown[first] == key
            ys, xs = np.nonzero(region)
            box = np.array([2 * xs.min(), 2 * ys.min(), 2 * xs.max() + 1, 2 * ys.max() + 1], float)
            points = scaled_pixels(inner_points(region), region.shape, (HEIGHT, WIDTH))
            found.append(Proposal(key, first, box, points, region))
        return found

    def gone(self) -> set[int]:
        lost, self.lost = self.lost, set()
        return lost

    def changed(self) -> set[int]:
        return set()

    def regions(self, index: int) -> IntArray | None:
        return self.shown.get(index)

    def reset(self) -> None: ...


def source_with(discovery: object) -> tuple[DiscoveredMasks, ColourSam]:
    sam, config = ColourSam(), config_of()
    return DiscoveredMasks(config, SamOnnxMasks(config, sam), discovery), sam  # type: ignore[arg-type]


def test_what_is_found_is_outlined_by_the_network_from_the_first_frame_that_shows_it() -> None:
    discovery = Told()
    source, sam = source_with(discovery)
    red = [(10 + 4 * k, 40, 30, 24) for k in range(8)]
    revised: dict[int, IntArray] = {}
    for k in range(8):
        if k >= 3:  # noticed late, and by then followed back; what was seen of it is a part
            for i in range(k + 1):
                discovery.show(i, k7=inside(red[i][0] + 4, 42, 20, 16))
        labels = source.masks(scene(k, (*red[k], RED)), None)
        revised |= source.revised_masks()
        if k >= 3:
            assert iou(labels == 1, inside(*red[k])) > 0.75, f"frame {k}: the network's outline, not the part"
    assert set(revised) >= {0, 1, 2} and all(iou(revised[i] == 1, inside(*red[i])) > 0.75 for i in range(3))
    first = next(asked for asked in sam.asked if asked["box"] is not None)  # with the points alone comes before
    assert len(first["points"]) and all(inside(*red[0])[int(y), int(x)] for x, y in first["points"])
    assert np.allclose(first["box"], [14, 42, 33, 57])


class ColourVideo:
    """A stand-in for SAM 2 and EdgeTAM: what hangs together in colour with the prompt, or with what it was before."""

    def __init__(self) -> None:
        self.sam, self.outlines = ColourSam(), 0

    def open_state(self, size: tuple[int, int], keep_features: int) -> dict[str, Any]:
        return {"images": {}, "said": {}}

    def object_ids(self, state: dict[str, Any]) -> list[int]:
        return list(state["said"])

    def append(self, state: dict[str, Any], index: int, image: np.ndarray) -> None:
        state["images"][index] = self.sam.embed(image)

    def _decoded(self, state: dict[str, Any], index: int, points: Any, positive: Any, box: Any) -> Any:
        found = self.sam.decode(state["images"][index], points, positive, box).logits
        return torch.as_tensor(found[None, None])

    def track(self, state: dict[str, Any], index: int, object_id: int) -> Any:
        before = state["said"][object_id]
        ys, xs = np.nonzero(before[0, 0].numpy() > 0)
        centre = np.array([[xs.mean(), ys.mean()]]) if len(xs) else np.array([[0.0, 0.0]])
        state["said"][object_id] = self._decoded(state, index, centre, [True], None)
        return state["said"][object_id]

    def prompt(self, state: Any, index: int, object_id: int, points: Any, positive: Any, box: Any, mask: Any) -> Any:
        state["said"][object_id] = self._decoded(state, index, points, positive, box)
        return state["said"][object_id]

    def refresh(self, state: Any, index: int, object_id: int, points: Any, positive: Any, box: Any) -> Any:
        return self.prompt(state, index, object_id, points, positive, box, None)

    def outline(self, state: Any, index: int, points: Any, positive: Any, box: Any) -> Any:
        self.outlines += 1
        return self._decoded(state, index, points, positive, box)

    def forget(self, state: Any, object_id: int) -> None:
        state["said"].pop(object_id, None)

    def trim(self, state: Any, keep_images: int) -> None: ...


@pytest.mark.parametrize("finder", ["told", "detections"])
def test_a_video_network_outlines_and_follows_what_is_found(finder: str) -> None:
    config, network = config_of(), ColourVideo()
    discovery: Any = Told() if finder == "told" else DetectionDiscovery(config)
    source = DiscoveredMasks(config, VideoNetworkMasks(config, network), discovery)
    red = [(10 + 3 * k, 40, 30, 24) for k in range(12)]
    for k, (x, y, w, h) in enumerate(red):
        frame = scene(k, (*red[k], RED), (110, 20, 30, 30, BLUE))
        if finder == "told" and k >= 2:
            for i in range(k + 1):
                discovery.show(i, k7=inside(red[i][0] + 4, 42, 20, 16))
        elif finder == "detections":
            ghost = (Detection((60.0, 90.0, 90.0, 110.0), "ghost", 0.4),) if k == 3 else ()
            frame.detections = (Detection((x, y, x + w - 1.0, y + h - 1.0), "cup", 0.8), *ghost)
        labels = source.masks(frame, None)
        if k >= 6:
            assert iou(labels == 1, inside(*red[k])) > 0.75 and set(np.unique(labels)) == {0, 1}, f"frame {k}"
    assert (network.outlines > 0) == (finder == "told"), "points alone were asked about: the second look"
    source.prompt(frame, Prompt(frame.stamp_ns, 1, delete=True))
    assert not (source.masks(scene(12, (*red[11], RED)), None) == 1).any()
    source.prompt(scene(12, (*red[11], RED)), Prompt(12 * 10**8, box_px=np.array([50.0, 42.0, 60.0, 60.0])))
    assert 1 not in source.outliner.object_ids and max(source.outliner.object_ids) >= 2  # type: ignore[attr-defined]


def test_what_the_network_answers_elsewhere_is_shown_as_found_and_asked_about_again_later() -> None:
    discovery = Told()
    source, sam = source_with(discovery)
    answer = sam.decode

    def run_away(*args: object, **kwargs: object) -> object:
        decoded = answer(*args, **kwargs)  # type: ignore[arg-type]
        everything = np.full_like(decoded.logits, 5.0), np.full_like(decoded.low, 5.0)
        return type(decoded)(*everything, 0.9)

    sam.decode = run_away  # type: ignore[assignment,method-assign]
    for k in range(60):
        where = inside(60, 40, 30, 24)
        discovery.show(k, k7=where)
        labels = source.masks(scene(k, (60, 40, 30, 24, RED)), None)
        assert iou(labels == 1, where) > 0.8, f"frame {k}"
        assert set(np.unique(labels)) == {0, 1}
    assert sum(asked["mask"] is None for asked in sam.asked) == TRIES + 2, "not every frame"  # 2: a look first


def test_what_has_no_outline_of_its_own_is_no_thing() -> None:
    """Waves: with a box the network outlines something there, with points alone something else."""

    class Waves(ColourSam):
        def decode(
            self, embedding: Any, points_px: Any = None, positive: Any = (), box_px: Any = None, mask: Any = None
        ) -> Decoded:
            answer = super().decode(embedding, points_px, positive, box_px, mask)
            if box_px is not None:
                return answer
            return replace(answer, logits=-answer.logits, low=-answer.low)

    for sam, shown in ((Waves(), False), (ColourSam(), True)):
        discovery, config = Told(), config_of()
        source = DiscoveredMasks(config, SamOnnxMasks(config, sam), discovery)
        for k in range(3):
            discovery.show(k, k7=inside(14 + 4 * k, 42, 20, 16))
            labels = source.masks(scene(k, (10 + 4 * k, 40, 30, 24, RED)), None)
            assert bool(labels.any()) is shown


def test_a_false_alarm_that_is_taken_back_goes_from_all_frames() -> None:
    discovery = Told()
    source, _ = source_with(discovery)
    for k in range(5):
        discovery.show(k, k3=inside(40, 40, 30, 24))
        assert (source.masks(scene(k, (40, 40, 30, 24, RED)), None) == 1).any()
    source.revised_masks()
    discovery.lost, discovery.shown = {3}, {}
    assert not source.masks(scene(5, (40, 40, 30, 24, RED)), None).any()
    revised = source.revised_masks()
    assert set(revised) == {0, 1, 2, 3, 4} and not any(labels.any() for labels in revised.values())
    discovery.show(6, k4=inside(90, 40, 30, 24))
    labels = source.masks(scene(6, (90, 40, 30, 24, BLUE)), None)
    assert set(np.unique(labels)) == {0, 2}, "an id is never used again"


def test_two_proposals_in_one_outline_are_one_object() -> None:
    discovery = Told()
    source, _ = source_with(discovery)
    for k in range(4):
        discovery.show(k, k3=inside(40, 40, 16, 24), **({"k4": inside(58, 44, 10, 16)} if k > 1 else {}))
        labels = source.masks(scene(k, (40, 40, 30, 24, RED)), None)
    assert set(np.unique(labels)) == {0, 1} and iou(labels == 1, inside(40, 40, 30, 24)) > 0.8
    discovery.lost = {4}
    discovery.show(4, k3=inside(40, 40, 16, 24))
    assert (source.masks(scene(4, (40, 40, 30, 24, RED)), None) == 1).any(), "the other one still stands for it"


def test_people_have_the_last_word() -> None:
    discovery = Told()
    source, _ = source_with(discovery)
    for k in range(6):
        discovery.show(k, k3=inside(40, 40, 30, 24))
        frame = scene(k, (40, 40, 30, 24, RED), (100, 60, 30, 24, BLUE))
        source.masks(frame, None)
        if k == 2:
            source.prompt(frame, Prompt(0, box_px=np.array([100.0, 60, 129, 83])))
        if k == 3:
            source.prompt(frame, Prompt(0, 1, delete=True))
    labels = source.masks(scene(6, (40, 40, 30, 24, RED), (100, 60, 30, 24, BLUE)), None)
    assert set(np.unique(labels)) == {0, 2}, "deleted things stay away, though they are still found"
    assert iou(labels == 2, inside(100, 60, 30, 24)) > 0.8


def test_a_hint_speaks_the_discoverys_language() -> None:
    discovery = Told()
    source, _ = source_with(discovery)
    discovery.show(0, k7=inside(40, 40, 30, 24))
    source.masks(scene(0, (40, 40, 30, 24, RED)), None)
    hint = SceneHint(np.eye(4), None, np.where(inside(40, 40, 30, 24), 1, 0) + np.where(inside(0, 0, 9, 9), 5, 0), None)
    source.masks(scene(1, (40, 40, 30, 24, RED)), hint)
    told = discovery.hints[-1]
    assert told is not None and told.masks is not None
    assert set(np.unique(told.masks)) == {0, 7} and ((told.masks == 7) == inside(40, 40, 30, 24)).all()


def test_memory_and_work_stay_bounded() -> None:
    discovery = Told()
    source, sam = source_with(discovery)
    for k in range(60):
        discovery.show(k, k3=inside(40, 40, 30, 24))
        source.masks(scene(k, (40, 40, 30, 24, RED)), None)
        source.revised_masks()
    assert len(source._frames) <= 16 and len(source._outlined) <= 16
    assert len(sam.asked) <= 63


# ---- what moves -----------------------------------------------------------------------------------------------------


def test_motion_finds_and_the_network_outlines() -> None:
    """Nobody prompts. The box moves on a still background; its outline is the network's."""
    config = config_of()
    discovery = MotionDiscovery(config)
    source = DiscoveredMasks(config, SamOnnxMasks(config, ColourSam()), discovery)
    final: dict[int, IntArray] = {}
    for k in range(24):
        red = (8 + 4 * k, 40, 30, 24)
        final[k] = source.masks(scene(k, (*red, RED), (120, 85, 24, 24, BLUE)), None)  # the blue one stands still
        final |= source.revised_masks()
    source.finish()
    final |= source.revised_masks()
    ids = {int(v) for labels in final.values() for v in np.unique(labels[labels > 0])}
    assert len(ids) == 1
    scores = [iou(final[k] == min(ids), inside(8 + 4 * k, 40, 30, 24)) for k in range(4, 24)]
    assert np.mean(scores) > 0.8 and min(scores) > 0.6, np.round(scores, 2)


# ---- what a detector sees -------------------------------------------------------------------------------------------


def seen(x: float, y: float, w: float, h: float, score: float = 0.7, label: str = "cup") -> Detection:
    return Detection((x, y, x + w - 1, y + h - 1), label, score)


def detections_of(k: int, rng: np.random.Generator) -> tuple[Detection, ...]:
    """A detector with misses, jitter and false alarms, of a red box that moves and a blue one that stands still."""
    found = []
    for box in ((10 + 3 * k, 20, 30, 24), (110, 80, 30, 24)):
        if rng.uniform() > 0.35:
            found.append(seen(*(np.array(box) + rng.normal(0, 1.5, 4)), score=rng.uniform(0.4, 0.9)))
    for _ in range(2):
        found.append(seen(rng.uniform(0, 120), rng.uniform(0, 90), 20, 20, score=rng.uniform(0.2, 0.8), label="ghost"))
    return tuple(found)


@pytest.mark.parametrize("network", [True, False])
def test_a_detector_finds_whether_it_moves_or_not(network: bool) -> None:
    config, rng = config_of(), np.random.default_rng(3)
    outliner = SamOnnxMasks(config, ColourSam()) if network else PromptedMasks(config)
    source = DiscoveredMasks(config, outliner, DetectionDiscovery(config))
    for k in range(30):
        frame = scene(k, (10 + 3 * k, 20, 30, 24, RED), (110, 80, 30, 24, BLUE))
        frame.detections = detections_of(k, rng)
        labels = source.masks(frame, None)
        source.revised_masks()
        if k > 12:
            assert len(np.unique(labels)) == 3, f"frame {k}: two objects, no ghost: {np.unique(labels)}"
    moving, still = labels[32, 10 + 87 + 15], labels[92, 125]
    assert moving > 0 and still > 0 and moving != still
    assert iou(labels == moving, inside(97, 20, 30, 24)) > 0.7 and iou(labels == still, inside(110, 80, 30, 24)) > 0.7


def test_one_detection_is_no_object_however_sure() -> None:
    config = config_of()
    source = DiscoveredMasks(config, SamOnnxMasks(config, ColourSam()), DetectionDiscovery(config))
    frame = scene(0, (40, 40, 30, 24, RED))
    frame.detections = (seen(40, 40, 30, 24, score=1.0),)
    assert not source.masks(frame, None).any()
    for k in range(1, 6):
        frame = scene(k, (40, 40, 30, 24, RED))
        frame.detections = ()
        assert not source.masks(frame, None).any()


def test_what_the_detector_soon_sees_no_more_is_taken_back_and_what_it_has_seen_for_long_stays() -> None:
    for seen_for, stays in ((3, False), (PROBATION + 2, True)):
        config = config_of()
        source = DiscoveredMasks(config, SamOnnxMasks(config, ColourSam()), DetectionDiscovery(config))
        for k in range(seen_for + 20):
            frame = scene(k, (40, 40, 30, 24, RED))
            frame.detections = (seen(40, 40, 30, 24),) if k < seen_for else ()
            labels = source.masks(frame, None)
            if k == seen_for - 1:
                assert labels.any()
        assert labels.any() == stays


def test_detections_that_come_late_count_as_well() -> None:
    config = config_of()
    source = DiscoveredMasks(config, SamOnnxMasks(config, ColourSam()), DetectionDiscovery(config))
    given = [scene(k, (40 + k, 40, 30, 24, RED)) for k in range(6)]
    for k, frame in enumerate(given):
        labels = source.masks(frame, None)
        if k >= 2:
            source.hear_detections(given[k - 2], (seen(40 + k - 2, 40, 30, 24),))
    assert iou(labels == 1, inside(45, 40, 30, 24)) > 0.75
    revised = source.revised_masks()
    assert iou(revised[3] == 1, inside(43, 40, 30, 24)) > 0.75
    source.hear_detections(scene(99), (seen(40, 40, 30, 24),))  # a frame that is not kept


def test_points_lie_deep_inside_and_apart() -> None:
    region = inside(10, 10, 60, 20) | inside(100, 50, 40, 40)
    points = inner_points(region)
    assert len(points) == 3 and all(region[int(y), int(x)] for x, y in points)
    assert points[0].tolist() == pytest.approx([119.5, 69.5], abs=1.0)  # the middle of the thickest part
    assert min(np.linalg.norm(points[i] - points[j]) for i in range(3) for j in range(i)) > 8
    assert len(inner_points(inside(5, 5, 1, 30))) <= 1 and len(inner_points(np.zeros((4, 4), bool))) == 0
