"""Networks that see depth in one image: Depth Anything V2 and its kin through `transformers`, any other as ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from motion4d_ros.config import Config
from motion4d_ros.models.onnx_session import input_shape, normalisation, open_session
from motion4d_ros.models.store import ModelStore
from motion4d_ros.types import Motion4DError

TRAINED_SIDE = 518  # px, shorter side at which Depth Anything V2 was trained
PATCH = 14  # px, of its backbone: sides must be multiples
DISPARITY, DEPTH, METRIC = "disparity", "depth", "metric"
TRANSFORMERS_KINDS = ("depth_anything",)
"""`model_type` of what is read from a folder: others want their images prepared in another way."""


class DepthNetwork(Protocol):
    """An image in, numbers that mean `output` out."""

    output: str
    """DISPARITY (relative inverse depth), DEPTH (relative) or METRIC (m)."""

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(h, w) values, at whatever size the network has, of an (H, W, 3) RGB image."""


def fitting_size(height: int, width: int, longer: int, multiple: int = PATCH) -> tuple[int, int]:
    """(height, width) to show the image at: multiples of `multiple`, the aspect kept as well as that allows.

    `longer` is the longer side, px; 0 = shorter side as trained.
    """
    factor = longer / max(height, width) if longer else TRAINED_SIDE / min(height, width)
    rows, columns = (max(multiple, round(n * factor / multiple) * multiple) for n in (height, width))
    return rows, columns


class OnnxDepth:
    """A depth network as one ONNX file: one image (1, 3, h, w) in, one map of that size out."""

    def __init__(self, path: Path, config: Config, given: str, output: str) -> None:
        self.output, self._path = output, path
        self._session = open_session(path, config)
        self._mean, self._deviation = normalisation(given)
        self._longer = config.depth.model_size
        item = self._session.get_inputs()[0]
        self._name, self._shape = item.name, input_shape(self._session)
        if len(self._session.get_inputs()) != 1 or len(self._shape) != 4 or self._shape[1] not in (3, None):
            raise Motion4DError(f"{path}: takes {self._shape}, not one RGB image (1, 3, height, width)")

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(h, w) values of an (H, W, 3) RGB image."""
        height, width = fitting_size(image.shape[0], image.shape[1], self._longer)
        height, width = self._shape[2] or height, self._shape[3] or width
        feed = _planes(image, height, width, self._mean, self._deviation)
        out = np.asarray(self._session.run(None, {self._name: feed})[0], np.float32)
        return _single(out)

    def try_out(self) -> None:
        """One small image. Raises `Motion4DError` when what comes back is no map of depth."""
        try:
            self.infer(np.full((48, 64, 3), 128, np.uint8))
        except Exception as error:  # onnxruntime raises its own types, one per kind of defect
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise Motion4DError(f"{self._path}: not a network that sees depth ({reason})") from None


class TransformersDepth:
    """A Depth Anything of `transformers` in a local folder (`config.json`, `model.safetensors`).

    Its description says whether it was trained for metres; `output`, where given, must agree.
    """

    def __init__(self, folder: Path, config: Config, output: str = "") -> None:
        from transformers import AutoModelForDepthEstimation

        from motion4d_ros.models.transformers_loading import device_and_type, kind_of, load_pretrained

        kind_of(folder, TRANSFORMERS_KINDS, "a network that sees depth")
        self._device, self._kind = device_and_type(config)
        model = load_pretrained(AutoModelForDepthEstimation, folder, self._kind)
        self._model: Any = model.to(self._device).eval()
        self._longer = config.depth.model_size
        trained = {"metric": METRIC, "relative": DISPARITY}.get(getattr(model.config, "depth_estimation_type", ""), "")
        if output and trained and output != trained:
            raise Motion4DError(f"{folder}: weights of another model (config.json says {trained}, not {output})")
        self.output = trained or output or config.depth.model_output

    def infer(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(h, w) values of an (H, W, 3) RGB image."""
        import torch

        height, width = fitting_size(image.shape[0], image.shape[1], self._longer)
        feed = torch.as_tensor(_planes(image, height, width, *normalisation("imagenet")))
        with torch.inference_mode():
            out = self._model(feed.to(self._device, self._kind)).predicted_depth
        return _single(out.float().cpu().numpy())


def load_depth_network(config: Config) -> DepthNetwork:
    """The network `depth.model` names: one of the registry, an ONNX file, or a folder of a `transformers` model."""
    loaders = {"transformers_depth", "onnx_depth"}
    located = ModelStore(config.models.folder).resolve(config.depth.model, "depth", loaders, "depth.model")
    model, path = located.model, located.paths[0]
    if model is not None and model.loader == "transformers_depth":
        return TransformersDepth(path.parent, config, model.variant)
    if model is not None:
        return OnnxDepth(path, config, "imagenet", model.variant)
    if path.is_dir():
        return TransformersDepth(path, config)
    network = OnnxDepth(path, config, config.depth.model_input, config.depth.model_output)
    network.try_out()  # nobody has checked what this file is
    return network


def _planes(
    image: NDArray[np.uint8], height: int, width: int, mean: NDArray[np.float32], deviation: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(1, 3, height, width) normalised."""
    method = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_CUBIC
    resized = cv2.resize(image, (width, height), interpolation=method).astype(np.float32)
    return np.ascontiguousarray(((resized - mean) / deviation).transpose(2, 0, 1)[None], np.float32)


def _single(out: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w) of an output with leading axes of length 1."""
    if out.ndim < 2 or out.size != out.shape[-1] * out.shape[-2]:
        raise Motion4DError(f"the depth network returned {out.shape}, not one map")
    return out.reshape(out.shape[-2:])
