"""A network and nobody clicking, through the whole engine: found, outlined, followed, named. The network is a double
that outlines by colour.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from motion4d_ros.config import Config
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.types import Camera, Detection, Estimate, Frame

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (docs/how-to/models.md)")
sys.path.insert(0, str(Path(__file__).parent / "priors"))

from sam_double import ColourSam

HEIGHT, WIDTH, COUNT = 96, 128, 24
CAMERA = Camera(100.0, 100.0, 63.5, 47.5, WIDTH, HEIGHT)


def frame(k: int) -> Frame:
    """A red box that moves, a blue one that stands still, on a still texture, 2 m away."""
    small = np.random.default_rng(0).integers(70, 150, (24, 32, 1), dtype=np.uint8)
    grey = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    image = np.repeat(grey[..., None], 3, -1)
    for x, y, w, h, colour in ((*red(k), (230, 30, 30)), (90, 66, 24, 20, (30, 50, 230))):
        cv2.rectangle(image, (x, y), (x + w - 1, y + h - 1), colour, -1)
        for dx, dy in ((w // 6, h // 6), (5 * w // 6, h // 5), (w // 4, 5 * h // 6)):
            cv2.circle(image, (x + dx, y + dy), 1, tuple(c // 2 for c in colour), -1)
    depth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    return Frame((k + 1) * 10**8, image, CAMERA, np.eye(4), depth)


def red(k: int) -> tuple[int, int, int, int]:
    return 6 + 3 * k, 30, 26, 20


def inside(x: int, y: int, w: int, h: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + h, x : x + w] = True
    return mask


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


def analysed(monkeypatch: pytest.MonkeyPatch, frames: list[Frame], **settings: Any) -> dict[int, Estimate]:
    monkeypatch.setattr("motion4d_ros.priors.masks.sam_onnx.load_sam", lambda config: ColourSam())
    config = Config()
    config.update(
        {
            "run": {"threads": 1, "device": "cpu"},
            "pose.source": "odometry",
            "depth.source": "topic",
            "masks.rigid_segmentation": False,
            "window": {"length": 4, "horizon": 16, "global_every": 0},
            "fit": {"motion_iterations": 4, "semantic_iterations": 4, "final_iterations": 4},
            "geometry": {"iterations": 2, "static_points": 80, "object_points": 60, "max_parts": 1},
            **settings,
        }
    )
    engine = Motion4D(config)
    told = [estimate for each in frames for estimate in engine.push(each)] + engine.flush()
    assert not any("failed" in text for text in engine.status().warnings), engine.status().warnings
    return {estimate.index: estimate for estimate in told}


@pytest.mark.slow
def test_with_a_network_and_nobody_clicking_what_moves_is_found_and_keeps_its_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    final = analysed(monkeypatch, [frame(k) for k in range(COUNT)], **{"masks.source": "sam_onnx"})
    ids = {int(v) for e in final.values() for v in np.unique(e.masks[e.masks > 0])}
    assert len(ids) == 1, ids
    scores = [iou(final[k].masks == min(ids), inside(*red(k))) for k in range(8, COUNT)]
    assert np.mean(scores) > 0.75 and min(scores) > 0.5, np.round(scores, 2)
    assert {state.object_id for state in final[COUNT - 1].objects} == ids


@pytest.mark.slow
@pytest.mark.parametrize("source", ["sam_onnx", "propagation"])
def test_with_a_detector_what_stands_still_is_found_and_named_too(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    rng, frames = np.random.default_rng(0), [frame(k) for k in range(COUNT)]
    for k, each in enumerate(frames):
        found = [Detection((80.0 - 3 * k, 2.0, 100.0 - 3 * k, 14.0), "ghost", 0.6)] if k % 7 == 3 else []
        for (x, y, w, h), label in ((red(k), "car"), ((90, 66, 24, 20), "box")):
            if rng.uniform() > 0.3:
                dx, dy = rng.normal(0, 1, 2)
                found.append(Detection((x + dx, y + dy, x + w - 1 + dx, y + h - 1 + dy), label, 0.7))
        each.detections = tuple(found)
    final = analysed(monkeypatch, frames, **{"masks.source": source, "masks.discovery": "detections"})
    last = final[COUNT - 1]
    names = {state.label: state.object_id for state in last.objects}
    assert set(names) == {"car", "box"}, names
    assert iou(last.masks == names["car"], inside(*red(COUNT - 1))) > 0.7
    assert iou(last.masks == names["box"], inside(90, 66, 24, 20)) > 0.7
    assert all(state.label_score > 0.6 for state in last.objects)
