"""SAM 2 and EdgeTAM of `transformers` as streams, with tiny random networks of the real architectures.

What a random network answers means nothing, but that it answers the same is as strict a test as with trained weights.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from motion4d_ros.config import Config
from motion4d_ros.priors.guarded import GuardedMasks
from motion4d_ros.priors.interfaces import Outlines
from motion4d_ros.priors.registry import make_mask_source
from motion4d_ros.types import Camera, Detection, Frame, Motion4DError, Prompt

torch = pytest.importorskip("torch")
pytest.importorskip("transformers", reason="transformers is not installed (docs/how-to/models.md)")
sys.path.insert(0, str(Path(__file__).parent))

from tiny_transformers import SOURCES, tiny_model, tiny_segmenter, write_tiny  # noqa: E402

from motion4d_ros.models.transformers_loading import device_and_type  # noqa: E402
from motion4d_ros.models.video.transformers_video import (  # noqa: E402
    KINDS,
    MAX_CONDITIONING,
    TransformersSegmenter,
    VideoState,
    load_transformers_segmenter,
)
from motion4d_ros.priors.masks.video_network import VideoNetworkMasks  # noqa: E402

HEIGHT, WIDTH = 48, 64
CAMERA = Camera(50.0, 50.0, 32.0, 24.0, WIDTH, HEIGHT)
BOX = np.array([10.0, 10.0, 30.0, 30.0])
CLICK = {"points_px": np.array([[20.0, 20.0]]), "positive": np.array([True])}
NOTHING = np.zeros((0, 2)), np.zeros(0, bool)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several threads make such small networks slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def frames(count: int, seed: int = 0) -> list[Frame]:
    rng = np.random.default_rng(seed)
    base = cv2.resize(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return [Frame(k, np.roll(base, k, 1), CAMERA, index=k) for k in range(count)]


@pytest.fixture
def config() -> Config:
    made = Config()
    made.update({"window.length": 3, "run.threads": 1, "run.device": "cpu", "masks.discovery": "none"})
    return made


@pytest.fixture(params=SOURCES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def source(config: Config, name: str) -> VideoNetworkMasks:
    return VideoNetworkMasks(config, tiny_segmenter(name))


def test_streaming_equals_the_libraries_own_session_over_the_whole_video(name: str) -> None:
    """Same weights, same images, same prompt: same logits in every frame, though hardly anything is kept."""
    count, side = 20, 64
    rng = np.random.default_rng(1)
    images = [cv2.resize(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8), (side, side)) for _ in range(count)]
    network = tiny_segmenter(name, side)
    state = network.open_state((side, side), keep_features=3)
    streamed = []
    for k, image in enumerate(images):
        network.append(state, k, image)
        said = network.prompt(state, k, 7, *NOTHING, BOX, None) if k == 0 else network.track(state, k, 7)
        network.trim(state, 4)
        streamed.append(said.numpy().copy())
    model = tiny_model(name, side)
    model.__class__, session_kind = KINDS[name][0].__mro__[2], KINDS[name][1].__mro__[2]  # the library's own methods
    from motion4d_ros.models.onnx_session import normalisation

    mean, deviation = normalisation("imagenet")
    video = torch.as_tensor(np.stack([((i - mean) / deviation).transpose(2, 0, 1) for i in images]).astype(np.float32))
    session = session_kind(video=video, video_height=side, video_width=side, dtype=torch.float32)
    box = torch.as_tensor(np.append(BOX[:2], BOX[2:] + 1).reshape(1, 1, 2, 2).astype(np.float32))
    session.obj_id_to_idx(7)
    session.add_point_inputs(0, 0, {"point_coords": box, "point_labels": torch.tensor([[[2, 3]]], dtype=torch.int32)})
    session.obj_with_new_inputs = [7]
    model(inference_session=session, frame_idx=0)
    whole = [out.pred_masks.numpy() for out in model.propagate_in_video_iterator(session, start_frame_idx=0)]
    assert len(whole) == count and np.ptp(np.array(whole)) > 0.5
    for k in range(count):
        np.testing.assert_allclose(streamed[k], whole[k], atol=2e-3, err_msg=f"frame {k}")


def held(state: VideoState) -> tuple[int, int]:
    """(frames, bytes) that a state holds: of images, features and what was said of each object."""
    tensors: dict[int, int] = {}

    def count(value: object) -> None:
        if isinstance(value, torch.Tensor):
            tensors[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, dict):
            for part in value.values():
                count(part)
        elif isinstance(value, list | tuple):
            for part in value:
                count(part)

    most = len(state.images)
    for session in state.sessions.values():
        tables = [
            *session.output_dict_per_obj[0].values(), session.frames_tracked_per_obj[0],
            session.point_inputs_per_obj[0], session.mask_inputs_per_obj[0],
        ]  # fmt: skip
        most = max([most, *(len(table) for table in tables)])
        for table in tables:
            count(table)
        assert session.processed_frames is None
    count(dict(state.features.held))
    return most, sum(tensors.values()) + sum(image.nbytes for image in state.images.values())


def test_what_is_kept_does_not_grow(source: VideoNetworkMasks) -> None:
    sizes = []
    for frame in frames(60):
        source.masks(frame, None)
        if frame.index == 0:
            source.prompt(frame, Prompt(0, object_id=2, box_px=BOX + 5))
        if frame.index % 6 == 0:
            source.prompt(frame, Prompt(0, object_id=1, box_px=BOX))
        source.refresh(frame, [Prompt(0, object_id=1, **CLICK)])
        source.revised_masks()
        sizes.append(held(source._state))
    most, size = max(sizes[42:])
    assert most <= max(sizes[30:42])[0] and size <= max(size for _, size in sizes[30:42])
    conditioning = source._state.sessions[1].output_dict_per_obj[0]["cond_frame_outputs"]
    assert len(conditioning) == MAX_CONDITIONING and min(conditioning) == 0
    assert len(source._state.images) == 6 and len(source._state.features.held) == 4


def test_trimming_changes_no_answer(config: Config, name: str) -> None:
    answers = []
    for keep in (4, 1000):
        source = VideoNetworkMasks(config, tiny_segmenter(name))
        source._keep = keep
        found = []
        for frame in frames(30):
            found.append(source.masks(frame, None))
            if frame.index == 2:
                source.prompt(frame, Prompt(0, box_px=BOX))
        answers.append(found)
    assert any((mask > 0).any() for mask in answers[0])
    for index, (short, long) in enumerate(zip(*answers)):
        np.testing.assert_array_equal(short, long, err_msg=f"frame {index}")


def test_objects_come_and_go_and_ids_are_not_used_again(source: VideoNetworkMasks) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:20, 35:55] = True
    for frame in frames(12):
        labels = source.masks(frame, None)
        assert labels.shape == (HEIGHT, WIDTH) and set(np.unique(labels)) <= {0, *source.object_ids}
        if frame.index == 1:
            source.prompt(frame, Prompt(0, box_px=BOX, name="cup"))
            assert source.object_ids == [1] and source.names == {1: "cup"}
        if frame.index == 4:
            source.prompt(frame, Prompt(0, mask=mask))
            assert source.object_ids == [1, 2]
            shown = source.revised_masks()[4] == 2
            assert (shown & mask).sum() > 0.7 * (shown | mask).sum()  # a person's mask is taken as it is
        if frame.index == 5:
            source.prompt(frame, Prompt(0, object_id=2, name="plate"))
            assert source.names == {1: "cup", 2: "plate"}
        if frame.index == 7:
            source.prompt(frame, Prompt(0, object_id=1, delete=True))
            assert source.object_ids == [2] and source.names == {2: "plate"}
            assert all(1 not in revised for revised in source.revised_masks().values())
        if frame.index == 9:
            source.prompt(frame, Prompt(0, **CLICK))
            assert source.object_ids == [2, 3]
    other = Frame(12, np.zeros((24, 32, 3), np.uint8), Camera(25.0, 25.0, 16.0, 12.0, 32, 24), index=12)
    assert source.masks(other, None).shape == (24, 32) and source.object_ids == []
    source.prompt(other, Prompt(0, points_px=np.array([[5.0, 5.0]]), positive=np.array([True])))
    assert source.object_ids == [4]


def test_a_prompt_in_the_past_revises_what_came_after(source: VideoNetworkMasks) -> None:
    given = frames(12)
    for frame in given:
        source.masks(frame, None)
    source.prompt(given[8], Prompt(0, box_px=BOX))
    assert sorted(source.revised_masks()) == [8, 9, 10, 11] and source.revised_masks() == {}
    with pytest.raises(Motion4DError, match="no longer kept"):
        source.prompt(given[3], Prompt(0, box_px=BOX))


def test_refresh_uses_points_and_box_but_neither_a_mask_nor_against_a_person(config: Config, name: str) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:, 40:] = True

    def refreshed(at: int = 4, **prompt: object) -> np.ndarray:
        source = VideoNetworkMasks(config, tiny_segmenter(name))
        given = frames(5)
        for frame in given:
            source.masks(frame, None)
            if frame.index == 2:
                source.prompt(frame, Prompt(0, box_px=BOX))
        labels = source.refresh(given[at], [Prompt(0, object_id=1, **prompt)])  # type: ignore[arg-type]
        assert labels is not None and source.object_ids == [1]
        return np.asarray(source._logits[at][1], float)

    untouched, clicked = refreshed(), refreshed(**CLICK)
    np.testing.assert_array_equal(refreshed(mask=mask), untouched)
    np.testing.assert_array_equal(refreshed(mask=mask, **CLICK), clicked)
    assert np.abs(clicked - untouched).max() > 1e-3 and np.abs(refreshed(box_px=BOX, **CLICK) - clicked).max() > 1e-3
    np.testing.assert_array_equal(refreshed(2, **CLICK), refreshed(2))  # a person spoke there
    assert np.isfinite(refreshed(1, **CLICK)).all()  # before it was first marked


def test_a_correction_shows_the_decoder_what_it_said(
    source: VideoNetworkMasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = source._network._model  # type: ignore[attr-defined]
    shown: list[object] = []
    decode = model._single_frame_forward
    monkeypatch.setattr(
        model, "_single_frame_forward", lambda **given: shown.append(given["input_masks"]) or decode(**given)
    )
    given = frames(3)
    source.masks(given[0], None)
    source.prompt(given[0], Prompt(0, 1, box_px=BOX))
    said = source._logits[0][1].copy()
    source.prompt(given[0], Prompt(0, 1, points_px=np.array([[50.0, 40.0]]), positive=np.array([False])))
    source.masks(given[1], None)
    source.prompt(given[1], Prompt(0, 1, **CLICK))
    assert [mask is None for mask in shown] == [True, False, True, False]
    np.testing.assert_allclose(shown[1][0, 0].numpy(), said, atol=2e-3)  # type: ignore[index]
    outputs = source._state.sessions[1].output_dict_per_obj[0]
    assert sorted(outputs["cond_frame_outputs"]) == [0, 1] and outputs["non_cond_frame_outputs"] == {}


def test_asking_for_an_outline_leaves_no_trace(config: Config, name: str) -> None:
    answers = []
    for asks in (False, True):
        source = VideoNetworkMasks(config, tiny_segmenter(name))
        assert isinstance(source, Outlines)
        for frame in frames(6):
            source.masks(frame, None)
            if frame.index == 0:
                source.prompt(frame, Prompt(0, box_px=BOX))
            if asks:
                found = source.outline(frame, Prompt(0, box_px=BOX, **CLICK))
                assert found is not None and found.shape == (HEIGHT, WIDTH) and found.dtype == bool
        answers.append((source.object_ids, source._logits[5][1].tolist(), source._book.next_id))
        assert source.outline(frames(9)[8], Prompt(0, box_px=BOX)) is None
    assert answers[0] == answers[1]


def test_a_frame_that_is_not_a_number_leaves_no_trace_in_the_memory(
    source: VideoNetworkMasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = frames(8)
    guarded = GuardedMasks(source, "masks.source=sam2")
    guarded.masks(given[0], None)
    guarded.prompt(given[0], Prompt(0, box_px=BOX))
    model = source._network._model  # type: ignore[attr-defined]
    healthy = model.get_image_features
    with monkeypatch.context() as patch:
        patch.setattr(model, "get_image_features", lambda image, **named: healthy(image * float("nan"), **named))
        assert (guarded.masks(given[1], None) == -1).all()
        assert "NaN or infinity" in guarded.trouble.now and len(guarded.trouble.told) == 1
        with pytest.raises(Motion4DError, match="NaN or infinity"):
            source.prompt(given[1], Prompt(0, box_px=BOX))
    assert source.object_ids == [1]
    for frame in given[2:]:
        assert (guarded.masks(frame, None) >= 0).all() and guarded.trouble.told
        assert np.isfinite(source._logits[frame.index][1].astype(np.float32)).all()


def test_a_network_that_raises_or_takes_ten_seconds_is_told_and_gone_on_with(
    source: VideoNetworkMasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    guarded = GuardedMasks(source, "masks.source=edgetam", clock=lambda: now[0])
    given = frames(5)
    guarded.masks(given[0], None)
    guarded.prompt(given[0], Prompt(0, box_px=BOX))
    network, track = source._network, source._network.track

    def fails(*arguments: object) -> object:
        raise RuntimeError("CUDA error: device-side assert triggered\nmore")

    def dawdles(*arguments: object) -> object:
        now[0] += 10.0
        return track(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(network, "track", fails)
    assert (guarded.masks(given[1], None) == -1).all() and "device-side assert" in guarded.trouble.now
    monkeypatch.setattr(network, "track", dawdles)
    guarded.look(given[2], None, None)  # type: ignore[arg-type]
    assert (guarded.masks(given[2], None) >= 0).all() and "takes more than 5 s" in guarded.trouble.now
    assert all("\n" not in text for text in guarded.trouble.told)


@pytest.mark.parametrize("finder", ["none", "motion", "detections"])
def test_from_a_folder_behind_every_finder(tmp_path: Path, config: Config, name: str, finder: str) -> None:
    config.update({"masks.source": name, "masks.model": str(write_tiny(tmp_path, name)), "masks.discovery": finder})
    guarded = make_mask_source(config)
    found = (Detection((10.0, 10.0, 30.0, 30.0), "cup", 0.9),)
    for frame in frames(8):
        frame.detections = found
        labels = guarded.masks(frame, None)
        assert labels.shape == (HEIGHT, WIDTH) and guarded.trouble.told == {}
    guarded.prompt(frame, Prompt(0, 9, box_px=BOX, name="mine"))
    guarded.finish()
    assert 7 in guarded.revised_masks()


def test_weights_of_another_model_are_one_line_at_the_start(tmp_path: Path, config: Config) -> None:
    from safetensors.torch import load_file, save_file

    def refused(folder: Path, source: str = "sam2") -> str:
        config.update({"masks.source": source, "masks.model": str(folder)})
        with pytest.raises(Motion4DError) as caught:
            make_mask_source(config)
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
        return str(caught.value)

    folder = write_tiny(tmp_path / "sam2", "sam2")
    assert "weights of another model (config.json says 'sam2_video'), not a edgetam_video" in refused(folder, "edgetam")
    weights = load_file(folder / "model.safetensors")
    lost = next(key for key in sorted(weights) if key.startswith("memory_attention"))
    save_file({key: value for key, value in weights.items() if key != lost}, folder / "model.safetensors")
    assert "not the weights of this sam2_video (1 missing, like memory_attention" in refused(folder)
    save_file({**weights, lost: torch.zeros(3)}, folder / "model.safetensors")
    assert "not the weights of" in refused(folder) or "cannot load it" in refused(folder)
    (folder / "model.safetensors").write_bytes(b"cut")
    assert "transformers cannot load it" in refused(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'true'\ntR.")  # a pickle that would run a command
    assert "no model.safetensors in it" in refused(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    assert "says 'bert'" in refused(folder)
    (folder / "config.json").write_text("{")
    assert "no model of transformers" in refused(folder)
    assert "must be a folder with config.json" in refused(folder / "config.json", "edgetam")


def test_another_image_size(tmp_path: Path, config: Config, name: str) -> None:
    folder = write_tiny(tmp_path, name)
    config.masks.image_size = 128
    network = load_transformers_segmenter(folder, name, config)
    state = network.open_state((HEIGHT, WIDTH))
    for frame in frames(3):
        network.append(state, frame.index, frame.image)
        said = network.track(state, frame.index, 1) if frame.index else network.prompt(state, 0, 1, *NOTHING, BOX, None)
    assert said.shape == (1, 1, 32, 32)
    config.masks.image_size = 500
    with pytest.raises(Motion4DError, match=r"masks.image_size=500: must be a multiple of"):
        load_transformers_segmenter(folder, name, config)


def test_half_precision_is_for_gpus_alone(config: Config, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.models.half and device_and_type(config) == ("cpu", torch.float32)
    config.run.device = "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for able, number in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda able=able: able)
        assert device_and_type(config) == ("cuda", number)
    config.models.half = False
    assert device_and_type(config) == ("cuda", torch.float32)
    source = VideoNetworkMasks(config, TransformersSegmenter(tiny_model(name), name, "cpu", torch.bfloat16))
    for frame in frames(4):  # slow on a CPU, but the same path
        labels = source.masks(frame, None)
        if frame.index == 0:
            source.prompt(frame, Prompt(0, box_px=BOX))
            source.prompt(frame, Prompt(0, mask=np.ones((HEIGHT, WIDTH), bool)))
    source.refresh(frame, [Prompt(0, 1, **CLICK)])
    assert labels.shape == (HEIGHT, WIDTH) and source.object_ids == [1, 2]


def test_saved_in_half_precision_they_run_in_single_on_a_cpu(tmp_path: Path, config: Config, name: str) -> None:
    tiny_model(name).to(torch.bfloat16).save_pretrained(tmp_path)
    network = load_transformers_segmenter(tmp_path, name, config)
    assert {value.dtype for value in network._model.parameters()} == {torch.float32}


def test_edgetam_with_its_own_backbone(name: str) -> None:
    if name != "edgetam":
        pytest.skip("SAM 2 has the backbone that the other tests use")
    try:
        import timm  # noqa: F401
    except Exception as error:  # not installed, or beside a torchvision that does not fit PyTorch
        pytest.skip(f"timm cannot be imported ({str(error).splitlines()[0]})")
    from tiny_transformers import tiny_description
    from transformers import EdgeTamVisionConfig, TimmWrapperConfig

    from motion4d_ros.models.video.transformers_video import resize

    description = tiny_description(name)
    backbone = TimmWrapperConfig(
        architecture="repvit_m1", model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    )
    description.vision_config = EdgeTamVisionConfig(backbone_config=backbone, fpn_hidden_size=128)
    resize(description, 64)
    network = TransformersSegmenter(KINDS[name][0](description), name)
    state = network.open_state((HEIGHT, WIDTH))
    for frame in frames(3):
        network.append(state, frame.index, frame.image)
        said = network.track(state, frame.index, 1) if frame.index else network.prompt(state, 0, 1, *NOTHING, BOX, None)
    assert said.shape == (1, 1, 16, 16) and torch.isfinite(said).all()
