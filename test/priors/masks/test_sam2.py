"""The real `sam2` code path with a tiny random network: prompts, additions, trimming, equality with sam2's own answers.

What a random network answers means nothing, but that it answers the same is as strict a test as with trained weights.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from motion4d_ros.config import Config
from motion4d_ros.types import Camera, Frame, Motion4DError, Prompt

torch = pytest.importorskip("torch")
pytest.importorskip("sam2", reason="the sam2 package is not installed (docs/how-to/models.md)")
sys.path.insert(0, str(Path(__file__).parent))

from PIL import Image  # noqa: E402
from sam2.sam2_video_predictor import SAM2VideoPredictor  # noqa: E402
from tiny_sam2 import tiny_architecture, tiny_predictor  # noqa: E402

from motion4d_ros.models.video.choice import load_segmenter  # noqa: E402
from motion4d_ros.models.video.sam2_predictor import MAX_CONDITIONING, architecture, build_predictor  # noqa: E402
from motion4d_ros.priors.masks.video_network import VideoNetworkMasks  # noqa: E402

HEIGHT, WIDTH = 48, 64
CAMERA = Camera(50.0, 50.0, 32.0, 24.0, WIDTH, HEIGHT)
BOX = np.array([10.0, 10.0, 30.0, 30.0])
CLICK = {"points_px": np.array([[20.0, 20.0]]), "positive": np.array([True])}


def frames(count: int, seed: int = 0) -> list[Frame]:
    rng = np.random.default_rng(seed)
    base = cv2.resize(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return [Frame(k, np.roll(base, k, 1), CAMERA, index=k) for k in range(count)]


@pytest.fixture
def config() -> Config:
    made = Config()
    made.window.length = 3  # 6 frames are kept
    return made


@pytest.fixture
def source(config: Config) -> VideoNetworkMasks:
    return VideoNetworkMasks(config, tiny_predictor())


def test_streaming_equals_the_packages_own_video_predictor(tmp_path: Path) -> None:
    """Same weights, same images (as JPEG, `init_state` wants it so), same prompt: same logits in every frame."""
    side, count = 64, 12
    predictor = tiny_predictor(side)
    rng = np.random.default_rng(1)
    for k in range(count):
        noise = cv2.resize(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8), (side, side))
        cv2.imwrite(str(tmp_path / f"{k:05d}.jpg"), noise, [cv2.IMWRITE_JPEG_QUALITY, 95])
    state = predictor.open_state((side, side), keep_features=3)
    images = [np.asarray(Image.open(tmp_path / f"{k:05d}.jpg").convert("RGB")) for k in range(count)]
    streamed = []
    for k, image in enumerate(images):
        predictor.append(state, k, image)
        if k == 0:
            logits = predictor.prompt(state, 0, 7, np.zeros((0, 2)), np.zeros(0, bool), BOX, None)
        else:
            logits = predictor.track(state, k, 7)
        predictor.trim(state, 4)
        streamed.append(logits.numpy().copy())
    predictor.__class__ = SAM2VideoPredictor  # sam2's own methods on the same weights
    official = predictor.init_state(str(tmp_path))
    with torch.inference_mode():
        predictor.add_new_points_or_box(official, 0, 7, box=np.append(BOX[:2], BOX[2:] + 1).astype(np.float32))
        for k, _, logits in predictor.propagate_in_video(official):
            outputs = official["output_dict_per_obj"][0]
            kept = outputs["cond_frame_outputs"].get(k) or outputs["non_cond_frame_outputs"][k]
            np.testing.assert_allclose(streamed[k], kept["pred_masks"].numpy(), atol=2e-3, err_msg=f"frame {k}")
            assert logits.shape == (1, 1, side, side)


def test_trimming_changes_no_answer(config: Config) -> None:
    answers = []
    for keep in (4, 1000):
        source = VideoNetworkMasks(config, tiny_predictor())
        source._keep = keep
        found = []
        for frame in frames(40):
            found.append(source.masks(frame, None))
            if frame.index == 2:
                source.prompt(frame, Prompt(0, box_px=BOX))
        answers.append(found)
    assert any((mask > 0).any() for mask in answers[0])
    for index, (short, long) in enumerate(zip(*answers)):
        np.testing.assert_array_equal(short, long, err_msg=f"frame {index}")


def test_state_stays_bounded(source: VideoNetworkMasks) -> None:
    def entries(value: object) -> int:
        return 1 + sum(entries(v) for v in value.values()) if isinstance(value, dict) else 1

    sizes = []
    for frame in frames(120):
        source.masks(frame, None)
        if frame.index % 10 == 0:
            source.prompt(frame, Prompt(0, object_id=1, box_px=BOX))
        source.refresh(frame, [Prompt(0, object_id=1, **CLICK)])
        assert source._state is not None
        sizes.append(entries(source._state))
    assert max(sizes[60:]) <= max(sizes[40:60])
    conditioning = source._state["output_dict_per_obj"][0]["cond_frame_outputs"]
    assert len(conditioning) == MAX_CONDITIONING and min(conditioning) == 0


def test_without_prompts_everything_is_background(source: VideoNetworkMasks) -> None:
    for frame in frames(3):
        assert not source.masks(frame, None).any()


def test_objects_are_added_and_deleted_midway(source: VideoNetworkMasks) -> None:
    for frame in frames(12):
        labels = source.masks(frame, None)
        assert labels.shape == (HEIGHT, WIDTH)
        assert set(np.unique(labels)) <= {0, *source.object_ids}
        if frame.index == 1:
            source.prompt(frame, Prompt(0, box_px=BOX, name="cup"))
            assert source.object_ids == [1] and source.names == {1: "cup"}
        if frame.index == 4:
            mask = np.zeros((HEIGHT, WIDTH), bool)
            mask[5:20, 35:55] = True
            source.prompt(frame, Prompt(0, mask=mask))
            assert source.object_ids == [1, 2]
            shown = source.revised_masks()[4] == 2
            assert (shown & mask).sum() > 0.8 * (shown | mask).sum()  # a person's mask is taken as it is
        if frame.index == 7:
            source.prompt(frame, Prompt(0, object_id=1, delete=True))
            assert source.object_ids == [2] and source.names == {}
            assert all(1 not in revised for revised in source.revised_masks().values())
        if frame.index == 9:
            source.prompt(frame, Prompt(0, **CLICK))
            assert source.object_ids == [2, 3]  # 1 is not used again


def test_prompt_in_the_past_revises_what_came_after(source: VideoNetworkMasks) -> None:
    given = frames(6)
    for frame in given:
        source.masks(frame, None)
    source.prompt(given[2], Prompt(0, box_px=BOX))
    assert sorted(source.revised_masks()) == [2, 3, 4, 5]
    assert source.revised_masks() == {}


def test_prompt_for_a_forgotten_frame_is_refused(source: VideoNetworkMasks) -> None:
    given = frames(20)
    for frame in given:
        source.masks(frame, None)
    with pytest.raises(Motion4DError, match="no longer kept"):
        source.prompt(given[3], Prompt(0, box_px=BOX))


def test_refresh_uses_points_and_box_but_never_the_mask(config: Config) -> None:
    def refreshed(**prompt: object) -> np.ndarray:
        source = VideoNetworkMasks(config, tiny_predictor())
        for frame in frames(5):
            source.masks(frame, None)
            if frame.index == 0:
                source.prompt(frame, Prompt(0, box_px=BOX))
        labels = source.refresh(frame, [Prompt(0, object_id=1, **prompt)])  # type: ignore[arg-type]
        assert labels is not None
        logits = source._logits[4][1]
        return np.asarray(logits, float)

    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:, 40:] = True
    untouched, clicked = refreshed(), refreshed(**CLICK)
    np.testing.assert_array_equal(refreshed(mask=mask), untouched)  # a mask alone says nothing
    np.testing.assert_array_equal(refreshed(mask=mask, **CLICK), clicked)
    assert np.abs(clicked - untouched).max() > 1e-3
    assert np.abs(refreshed(box_px=BOX, **CLICK) - clicked).max() > 1e-3


def test_refresh_does_not_overrule_a_person(source: VideoNetworkMasks) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:20, 35:55] = True
    for frame in frames(3):
        source.masks(frame, None)
    source.prompt(frame, Prompt(0, mask=mask))
    before = source.revised_masks()[2]
    np.testing.assert_array_equal(source.refresh(frame, [Prompt(0, object_id=1, **CLICK)]), before)


def test_refresh_starts_what_the_scene_found(source: VideoNetworkMasks) -> None:
    for frame in frames(3):
        source.masks(frame, None)
    source.refresh(frame, [Prompt(0, object_id=5, box_px=BOX)])
    assert source.object_ids == [5]
    source.prompt(frame, Prompt(0, **CLICK))
    assert source.object_ids == [5, 6]


def test_reset_and_new_image_size(source: VideoNetworkMasks) -> None:
    for frame in frames(3):
        source.masks(frame, None)
        if frame.index == 0:
            source.prompt(frame, Prompt(0, box_px=BOX))
    other = Frame(9, np.zeros((24, 32, 3), np.uint8), Camera(25.0, 25.0, 16.0, 12.0, 32, 24), index=9)
    assert source.masks(other, None).shape == (24, 32)
    assert source.object_ids == []
    source.reset()
    source.masks(other, None)
    source.prompt(other, Prompt(0, points_px=np.array([[5.0, 5.0]]), positive=np.array([True])))
    assert source.object_ids == [2]  # ids go on


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(0), "empty prompt"),
        (Prompt(0, points_px=np.array([[200.0, 5.0]]), positive=np.array([True])), "outside"),
        (Prompt(0, points_px=np.array([[2.0, 5.0]])), "one sign per point"),
        (Prompt(0, box_px=np.array([30.0, 10.0, 20.0, 20.0])), "is empty"),
        (Prompt(0, mask=np.zeros((3, 3), bool)), "resize it"),
        (Prompt(0, mask=np.zeros((HEIGHT, WIDTH), bool)), "mark the object"),
        (Prompt(0, xyz_map=np.array([0.0, 0.0, 1.0])), "camera pose"),
    ],
)
def test_bad_prompts_are_explained(source: VideoNetworkMasks, prompt: Prompt, message: str) -> None:
    frame = frames(1)[0]
    source.masks(frame, None)
    with pytest.raises(Motion4DError, match=message):
        source.prompt(frame, prompt)
    assert source.object_ids == []


def test_published_weights_are_loaded_as_tensors(tmp_path: Path, config: Config) -> None:
    given = tiny_predictor(seed=3)
    path = tmp_path / "tiny.pt"
    torch.save({"model": given.state_dict()}, path)
    loaded = build_predictor(tiny_architecture(), path, "cpu")
    for name, value in given.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value)
    torch.save({"model": {}}, path)
    with pytest.raises(Motion4DError, match="not the weights"):
        build_predictor(tiny_architecture(), path, "cpu")
    path.write_bytes(b"cposix\nsystem\n(S'true'\ntR.")  # a pickle that would run a command
    with pytest.raises(Motion4DError, match="not the weights"):
        build_predictor(tiny_architecture(), path, "cpu")
    config.masks.source, config.masks.model = "sam2", str(path)
    with pytest.raises(Motion4DError, match="cannot tell which"):
        load_segmenter(config)


def test_image_size_must_fit_the_backbone() -> None:
    with pytest.raises(Motion4DError, match="multiple of 32"):
        architecture("configs/sam2.1/sam2.1_hiera_t.yaml", 500)


def test_a_frame_that_is_not_a_number_leaves_no_trace_in_the_memory(source: VideoNetworkMasks) -> None:
    given = frames(6)
    source.masks(given[0], None)
    source.prompt(given[0], Prompt(0, box_px=BOX))
    predictor = source._network
    healthy = predictor.forward_image

    def poisoned(image: torch.Tensor) -> dict[str, object]:
        return healthy(image * float("nan"))

    predictor.forward_image = poisoned  # type: ignore[method-assign]
    with pytest.raises(Motion4DError, match="NaN"):
        source.masks(given[1], None)
    predictor.forward_image = healthy  # type: ignore[method-assign]
    for frame in given[2:]:
        assert source.masks(frame, None).shape == (HEIGHT, WIDTH)
        assert np.isfinite(source._logits[frame.index][1].astype(np.float32)).all()
    assert source.refresh(Frame(99, given[0].image, CAMERA, index=99), [Prompt(0, 1, **CLICK)]) is None
