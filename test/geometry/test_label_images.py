"""Label images at other sizes, and outlines that are published at the input's size."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.fit.semantics.identity_association import overlap
from motion4d_ros.geometry.label_images import MOST_BINS, PackedLabels, labels_in, resize_labels
from motion4d_ros.pipeline import Motion4D
from motion4d_ros.priors.interfaces import SceneHint
from motion4d_ros.types import UNKNOWN_LABEL, Camera, Estimate, Frame, IntArray, Prompt, Stage

CAMERA = Camera(150.0, 150.0, 79.5, 59.5, 160, 120)


@pytest.mark.parametrize("values", [[7], [UNKNOWN_LABEL, 0, 3], [0, 65535], [0, 2 * MOST_BINS]])
@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint16])
def test_labels_of_an_image_are_its_values(values: list[int], kind: type[np.integer]) -> None:
    image = np.random.default_rng(0).choice(values, (30, 40)).astype(kind)
    assert labels_in(image).tolist() == np.unique(image).tolist()
    assert labels_in(image[:0]).tolist() == []


def disc(x: float, y: float, radius: float, size: tuple[int, int] = CAMERA.size) -> NDArray[np.int32]:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return ((columns - x) ** 2 + (rows - y) ** 2 < radius**2).astype(np.int32)


@pytest.mark.parametrize("size", [(45, 60), (32, 43), (90, 120), (97, 131)])
def test_labels_are_not_shifted_by_resizing(size: tuple[int, int]) -> None:
    labels = 7 * disc(70.3, 51.6, 25)
    there = resize_labels(labels, size)
    rows, columns = np.nonzero(there == 7)
    ratio = np.array(CAMERA.size) / np.array(size)
    centre = (np.array([rows.mean(), columns.mean()]) + 0.5) * ratio - 0.5
    assert centre == pytest.approx([51.6, 70.3], abs=0.3)
    assert overlap(resize_labels(there, CAMERA.size) == 7, labels == 7) > 0.93


def test_every_label_survives_and_none_is_invented() -> None:
    labels = np.full((60, 80), UNKNOWN_LABEL, np.int32)
    labels[:, 20:40], labels[:, 40:60], labels[:, 60:] = 3, 500, 0
    for size in ((30, 40), (45, 60), (120, 160)):
        assert set(np.unique(resize_labels(labels, size))) == {UNKNOWN_LABEL, 0, 3, 500}
    assert (resize_labels(np.full((9, 9), 4), (3, 5)) == 4).all()


def test_packed_labels_come_back_exactly() -> None:
    labels = np.random.default_rng(0).integers(UNKNOWN_LABEL, 60_000, (40, 50)).astype(np.int32)
    assert (PackedLabels.pack(labels).unpack() == labels).all()
    assert len(PackedLabels.pack(disc(70, 50, 25)).png) < 2000


# -- published at the input's size -------------------------------------------------------------------------------------


class Sharp:
    """A mask source that sees a disc move by 2 px a frame; in `blind` frames it sees nothing."""

    accepts_prompts = True

    def __init__(self, full_size: bool = True, blind: Sequence[int] = ()) -> None:
        self.full_size, self.blind = full_size, blind
        self.asked: list[tuple[int, tuple[int, ...], tuple[int, ...] | None]] = []
        self.refreshed: list[tuple[tuple[int, int], list[Prompt]]] = []

    def masks(self, frame: Frame, hint: SceneHint | None) -> IntArray:
        shown = None if hint is None or hint.masks is None else hint.masks.shape
        self.asked.append((frame.index, frame.image.shape[:2], shown))
        if frame.index in self.blind:
            return np.zeros(frame.camera.size, np.int32)
        return self.truth(frame.index, frame.camera.width / CAMERA.width, frame.camera.size)

    @staticmethod
    def truth(index: int, scale: float = 1.0, size: tuple[int, int] = CAMERA.size) -> NDArray[np.int32]:
        return disc((60 + 2 * index + 0.5) * scale - 0.5, 60.5 * scale - 0.5, 27 * scale, size)

    def refresh(self, frame: Frame, prompts: Sequence[Prompt]) -> IntArray | None:
        self.refreshed.append((frame.camera.size, list(prompts)))
        return None

    def prompt(self, frame: Frame, prompt: Prompt) -> None:
        assert prompt.mask is None or prompt.mask.shape == frame.camera.size

    def reset(self) -> None:
        self.asked.clear()


def film(count: int) -> list[Frame]:
    """A textured disc that moves before a textured wall, both 2 m away."""
    random = np.random.default_rng(3)
    noise = [cv2.GaussianBlur(random.uniform(0, 255, (120, 260, 3)).astype(np.float32), (0, 0), 2) for _ in range(2)]
    wall, ball = (cv2.normalize(n, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8) for n in noise)
    frames = []
    for k in range(count):
        shifted = np.roll(ball, 2 * k, 1)[:, :160]
        image = np.where(Sharp.truth(k)[..., None] > 0, shifted, wall[:, :160])
        depth = np.full(CAMERA.size, 2.0, np.float32)
        frames.append(Frame((k + 1) * 100_000_000, image.astype(np.uint8), CAMERA, np.eye(4), depth))
    return frames


def run(source: Sharp, count: int = 8) -> list[Estimate]:
    config = Config()
    config.update(
        {
            "masks.source": "none",
            "depth.source": "topic",
            "pose.source": "static",
            "budget.working_width": 64,
            "window.length": 4,
            "window.horizon": 8,
            "fit.motion_iterations": 4,
            "fit.semantic_iterations": 4,
            "fit.global_iterations": 2,
            "run.device": "cpu",
        }
    )
    engine = Motion4D(config)
    engine.intake.masks = engine.mask_refinement.source = source
    return [estimate for frame in film(count) for estimate in engine.push(frame)]


def quality(estimate: Estimate) -> float:
    return overlap(estimate.masks == 1, Sharp.truth(estimate.index) == 1)


def test_a_steady_source_keeps_its_outline_in_every_stage() -> None:
    source = Sharp()
    estimates = run(source)
    assert {size for _, size, _ in source.asked} == {CAMERA.size}
    assert {shown for _, _, shown in source.asked[1:]} == {CAMERA.size}
    assert {size for size, _ in source.refreshed} == {CAMERA.size}
    for stage in (Stage.LIVE, Stage.WINDOW):
        told = [quality(estimate) for estimate in estimates if estimate.stage is stage]
        assert len(told) == 8 and min(told) > 0.96


def test_boxes_of_the_refresh_are_in_the_pixels_the_source_sees() -> None:
    source = Sharp()
    run(source, 4)
    boxes = [prompt.box_px for _, prompts in source.refreshed for prompt in prompts]
    assert boxes and all(box is not None and 40 < box[2] - box[0] < 70 for box in boxes)


def test_a_source_at_working_size_is_told_and_published_without_a_shift() -> None:
    source = Sharp(full_size=False)
    told = [estimate for estimate in run(source, 4) if estimate.stage is Stage.WINDOW]
    assert {size for _, size, _ in source.asked} == {(48, 64)}
    assert min(quality(estimate) for estimate in told) > 0.93
    for estimate in told:
        columns = np.nonzero(estimate.masks == 1)[1]
        assert columns.mean() == pytest.approx(60 + 2 * estimate.index, abs=0.6)


def test_a_frame_in_which_a_steady_source_fails_is_bridged() -> None:
    estimates = run(Sharp(blind=[6]))
    told = {(estimate.stage, estimate.index): quality(estimate) for estimate in estimates}
    assert told[Stage.LIVE, 6] > 0.75 and told[Stage.WINDOW, 6] > 0.85
    assert told[Stage.WINDOW, 5] > 0.96
