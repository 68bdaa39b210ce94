"""A detector of our own: what RT-DETR and YOLOX return becomes boxes with names, through real onnxruntime sessions."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motion4d_ros.config import Config
from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.models.class_names import COCO, read_names
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.priors.guarded import GuardedDetections
from motion4d_ros.priors.registry import DETECTION_SOURCES, make_detection_source
from motion4d_ros.types import Camera, Detection, Estimate, Frame, Motion4DError

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (docs/how-to/models.md)")
sys.path.insert(0, str(Path(__file__).parent))

from engine_builders import given
from tiny_onnx import write_detector, write_pair

from motion4d_ros.models.onnx_detector import LABELLED, RT_DETR, YOLOX, decode_yolox

HEIGHT, WIDTH, SIDE = 60, 80, 64
CAMERA = Camera(60.0, 60.0, 40.0, 30.0, WIDTH, HEIGHT)
BOX = (20.0, 12.0, 44.0, 42.0)  # edges, px of the image


def frame(index: int = 0, grey: int = 128) -> Frame:
    return Frame(index, np.full((HEIGHT, WIDTH, 3), grey, np.uint8), CAMERA, index=index)


def config_for(path: Path, **values: object) -> Config:
    config = Config()
    config.update({"detections.source": "onnx", "detections.model": str(path), "run.threads": 1, **values})
    return config


def logit(probability: float) -> float:
    return float(np.log(probability / (1.0 - probability)))


def rt_detr(*boxes: tuple[tuple[float, float, float, float], int, float], classes: int = 80) -> dict[str, np.ndarray]:
    """`logits` and `pred_boxes` of boxes in edges of the image, their class and score, among many that see nothing."""
    logits, where = np.full((1, 20, classes), -9.0), np.full((1, 20, 4), 0.1)
    for row, ((x0, y0, x1, y1), kind, score) in enumerate(boxes):
        logits[0, row, kind] = logit(score)
        where[0, row] = (x0 + x1) / 2 / WIDTH, (y0 + y1) / 2 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT
    return {"logits": logits, "pred_boxes": where}


def yolox(*boxes: tuple[tuple[float, float, float, float], int, float], decoded: bool = False) -> np.ndarray:
    """The same as YOLOX returns them, each by the stride-8 cell in which its centre lies."""
    factor, count = min(SIDE / HEIGHT, SIDE / WIDTH), (8 * 8 + 4 * 4 + 2 * 2)
    answer = np.zeros((1, count, 85))
    if decoded:
        answer[0, :, 2:4] = 40.0
    for number, ((x0, y0, x1, y1), kind, score) in enumerate(boxes):
        x, y, w, h = (v * factor for v in ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0))
        row = int(y // 8) * 8 + int(x // 8) + number  # neighbours see the same thing
        cell = np.array([row % 8, row // 8])
        answer[0, row, :2] = (x, y) if decoded else np.array([x, y]) / 8 - cell
        answer[0, row, 2:4] = (w, h) if decoded else np.log(np.array([w, h]) / 8)
        answer[0, row, 4], answer[0, row, 5 + kind] = 0.9, score / 0.9
    return answer


def close(found: Detection, box: tuple[float, float, float, float], label: str, score: float) -> bool:
    inclusive = (box[0], box[1], box[2] - 1, box[3] - 1)
    return np.allclose(found.box_px, inclusive, atol=0.05) and found.label == label and abs(found.score - score) < 0.01


@pytest.mark.parametrize("kind", [RT_DETR, LABELLED, YOLOX, "yolox, decoded"])
def test_every_kind_of_output_becomes_boxes_with_names(tmp_path: Path, kind: str) -> None:
    said = [(BOX, 2, 0.8), ((5.0, 5.0, 15.0, 20.0), 0, 0.6), ((50.0, 40.0, 70.0, 50.0), 16, 0.1)]
    if kind == RT_DETR:
        outputs = rt_detr(*said)
    elif kind == LABELLED:
        outputs = {
            "labels": np.array([[number for _, number, _ in said]]),
            "boxes": np.array([[box for box, _, _ in said]]),
            "scores": np.array([[score for _, _, score in said]]),
        }
    else:
        twice = [*said, ((20.5, 12.0, 44.0, 41.0), 2, 0.7)]
        outputs = {"output": yolox(*twice, decoded="decoded" in kind)}
    source = make_detection_source(
        config_for(write_detector(tmp_path / "net.onnx", outputs, SIDE, sizes=kind == LABELLED))
    )
    assert isinstance(source, GuardedDetections)
    found = source.detections(frame())
    assert found is not None and source.trouble.told == {}
    assert len(found) == 2, "what scores below the limit, and what YOLOX says a second time, is left out"
    assert close(found[0], BOX, "car", 0.8) and close(found[1], (5.0, 5.0, 15.0, 20.0), "person", 0.6)


def test_overlapping_boxes_of_two_classes_both_stay() -> None:
    answer = yolox((BOX, 2, 0.8), (BOX, 7, 0.7), (BOX, 7, 0.5))
    found = decode_yolox(answer, (SIDE, SIDE), min(SIDE / HEIGHT, SIDE / WIDTH), 0.3)
    assert found.classes.tolist() == [2, 7] and np.allclose(found.scores, [0.8, 0.7])


@pytest.mark.parametrize(("kind", "fed"), [(RT_DETR, 128 / 255), (YOLOX, (128 * 48 + 114 * 16) / 64)])
def test_each_kind_is_fed_as_it_was_trained(tmp_path: Path, kind: str, fed: float) -> None:
    outputs = rt_detr((BOX, 2, 0.8)) if kind == RT_DETR else {"output": yolox((BOX, 2, 0.8))}
    source = make_detection_source(config_for(write_detector(tmp_path / "net.onnx", outputs, SIDE)))
    assert source is not None
    prepared = source.source._detector._prepared(frame().image)  # type: ignore[attr-defined]
    assert prepared.shape == (1, 3, SIDE, SIDE) and prepared.mean() == pytest.approx(fed, rel=1e-3)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 0] = 200  # red
    planes = source.source._detector._prepared(image)[0, :, 10, 10]  # type: ignore[attr-defined]
    assert planes.argmax() == (0 if kind == RT_DETR else 2)


def test_names_come_from_a_file_from_beside_the_network_or_are_cocos(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(COCO) == 80 and COCO[0] == "person" and COCO[79] == "toothbrush"
    network = write_detector(tmp_path / "net.onnx", rt_detr((BOX, 1, 0.8), classes=3), SIDE)

    def label(**values: object) -> str:
        source = make_detection_source(config_for(network, **values))
        assert source is not None
        return (source.detections(frame()) or ())[0].label

    with caplog.at_level(logging.WARNING):
        assert label() == "class 1" and "what its 3 classes are called is not known" in caplog.text
    names = tmp_path / "names.txt"
    names.write_text("cup\nfork\nspoon\n")
    assert label(**{"detections.classes": str(names)}) == "fork"
    (tmp_path / "config.json").write_text(json.dumps({"id2label": {"0": "a", "1": "b", "2": "c"}}))
    assert label() == "b"
    names.write_text("cup\nfork\n")
    with pytest.raises(Motion4DError, match="tells 3 classes apart, and 2 names are given"):
        label(**{"detections.classes": str(names)})
    listed = tmp_path / "list.json"
    for text in ('["cup"', '{"id2label": {"0": "a", "2": "b"}}', "[1, 2]", "[]"):
        listed.write_text(text)
        with pytest.raises(Motion4DError, match=str(listed)) as caught:
            read_names(listed)
        assert "\n" not in str(caught.value)
    with pytest.raises(Motion4DError, match="cannot be read"):
        read_names(tmp_path / "nowhere.txt")


def test_what_is_no_detector_is_refused_at_the_start(tmp_path: Path) -> None:
    write_pair(tmp_path)
    wrong = {"output": np.zeros((1, 7, 85))}
    for path, match in (
        (tmp_path / "tiny_encoder.onnx", "no detector of the kind RT-DETR or YOLOX"),
        (tmp_path / "tiny_decoder.onnx", "no detector"),
        (write_detector(tmp_path / "cells.onnx", wrong, SIDE), "not .1, 84, 5 . classes. as YOLOX does"),
        (write_detector(tmp_path / "nan.onnx", {"output": np.full((1, 84, 85), np.nan)}, SIDE), "NaN"),
        (tmp_path, "must be an ONNX file"),
    ):
        with pytest.raises(Motion4DError, match=match) as caught:
            make_detection_source(config_for(path))
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    config = Config()
    config.update({"detections.source": "onnx", "models.folder": str(tmp_path / "empty")})
    with pytest.raises(Motion4DError, match="motion4d models fetch rtdetr-r18"):
        make_detection_source(config)


def test_choices_and_registry_agree() -> None:
    choices = next(item.choices for item in Config().tunables() if item.path == "detections.source")
    assert set(choices) == {"given", *DETECTION_SOURCES} and make_detection_source(Config()) is None


def test_a_detector_that_floods_answers_nan_or_takes_ten_seconds_is_told_and_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = {
        "labels": np.zeros((1, 10_000)), "scores": np.full((1, 10_000), 0.9),
        "boxes": np.tile(np.array(BOX), (1, 10_000, 1)),
    }  # fmt: skip
    source = make_detection_source(config_for(write_detector(tmp_path / "flood.onnx", flood, SIDE)))
    assert source is not None
    assert len(source.detections(frame()) or ()) == 100 and "beyond the best 100" in source.trouble.now
    assert source.detections(frame()) and source.trouble.now == "", "said once"

    source = make_detection_source(config_for(write_detector(tmp_path / "net.onnx", rt_detr((BOX, 2, 0.8)), SIDE)))
    assert source is not None
    now = [0.0]
    source.trouble._clock = lambda: now[0]
    detector = source.source._detector  # type: ignore[attr-defined]
    healthy = detector._session

    class Broken:
        def __init__(self, kind: str) -> None:
            self.kind = kind

        def run(self, names: object, feeds: object) -> list[np.ndarray]:
            found = [np.asarray(part) for part in healthy.run(names, feeds)]
            if self.kind == "slow":
                now[0] += 10.0
                return found
            if self.kind == "raises":
                raise RuntimeError("CUDA failure 999\nmore")
            return [np.full_like(part, np.nan) if self.kind == "nan" else part[0] for part in found]

    for kind, told in (("nan", "NaN or infinity"), ("shape", "answered"), ("raises", "CUDA failure 999")):
        monkeypatch.setattr(detector, "_session", Broken(kind))
        assert source.detections(frame()) is None and told in source.trouble.now and "\n" not in source.trouble.now
    monkeypatch.setattr(detector, "_session", Broken("slow"))
    assert source.detections(frame()) and "takes more than 5 s" in source.trouble.now
    monkeypatch.setattr(detector, "_session", healthy)
    assert source.detections(frame()) and source.trouble.now == ""


QUICK = {
    "window": {"length": 4, "horizon": 16, "global_every": 0},
    "fit": {"motion_iterations": 2, "semantic_iterations": 2, "final_iterations": 2},
    "geometry": {"iterations": 2, "static_points": 80, "object_points": 60, "max_parts": 1},
}


def test_objects_are_named_by_the_own_detector_and_what_comes_with_a_frame_stands_above_it(tmp_path: Path) -> None:
    scene = make_scene("tabletop_like", seed=2, frames=8, size=(HEIGHT, WIDTH))
    frames = scene.frames()
    masks = frames[0].masks
    assert masks is not None
    ys, xs = np.nonzero(masks == 2)  # it hardly moves
    box = (xs.min(), ys.min(), xs.max() + 1.0, ys.max() + 1.0)
    network = write_detector(tmp_path / "net.onnx", rt_detr((box, 41, 0.9)), SIDE)
    settings = {"detections.source": "onnx", "detections.model": str(network)}
    engine = Motion4D(given(**QUICK, **settings))
    told: list[Estimate] = []
    for each in frames:
        mine = (Detection((0.0, 0.0, 5.0, 5.0), "mine", 0.9),)
        told += engine.push(replace(each, detections=mine) if each.stamp_ns == frames[2].stamp_ns else each)
    told += engine.flush()
    seen = {state.index: state.frame.detections for state in engine.horizon.frames}
    assert [found[0].label for _, found in sorted(seen.items()) if found] == [*["cup"] * 2, "mine", *["cup"] * 5]
    names = [state.label for state in {e.index: e for e in told}[7].objects]
    assert names.count("cup") == 1 and not any("detections" in text for text in engine.status().warnings)


def test_it_looks_at_every_so_manieth_frame(tmp_path: Path) -> None:
    network = write_detector(tmp_path / "net.onnx", rt_detr((BOX, 41, 0.9)), SIDE)
    source = make_detection_source(config_for(network, **{"detections.every": 3}))
    assert source is not None
    assert [source.detections(frame(k)) is not None for k in range(7)] == [True, False, False] * 2 + [True]
