"""Opens ONNX files with `onnxruntime` on the right hardware."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from motion4d_ros.config import Config
from motion4d_ros.types import Motion4DError

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


def choose_providers(wanted: str, device: str, available: list[str]) -> list[str]:
    """Names of onnxruntime's execution providers, best first; the CPU is always the last resort.

    `wanted` is `models.provider`, `device` is `run.device`. Raises `Motion4DError` when a GPU was demanded and this
    onnxruntime has none.
    """
    if wanted == "auto":
        wanted = "cuda" if device != "cpu" and PROVIDERS["cuda"] in available else "cpu"
    if PROVIDERS[wanted] not in available:
        raise Motion4DError(
            f"models.provider={wanted}: this onnxruntime has only {', '.join(available)}; install onnxruntime-gpu "
            "(on a Jetson: NVIDIA's wheel) or choose models.provider=cpu"
        )
    chain = {"cpu": ["cpu"], "cuda": ["cuda", "cpu"], "tensorrt": ["tensorrt", "cuda", "cpu"]}[wanted]
    return [PROVIDERS[name] for name in chain if PROVIDERS[name] in available]


def open_session(path: Path, config: Config) -> Any:
    """An `onnxruntime.InferenceSession` for `path`; raises `Motion4DError` when the file is no usable network."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.run.threads  # 0 = all cores, as with us
    options.log_severity_level = 3  # errors only: warnings about graph optimisation help no user
    # spinning worker threads would starve the rasteriser between two frames
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = choose_providers(
        config.models.provider, config.run.device, onnxruntime.get_available_providers()
    )
    if providers[0] == PROVIDERS["tensorrt"]:
        engines = {
            "trt_fp16_enable": config.models.half,
            "trt_engine_cache_enable": True,  # building an engine takes minutes: once per machine
            "trt_engine_cache_path": str(path.parent),
        }
        providers[0] = (providers[0], engines)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime raises its own types, one per kind of defect
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise Motion4DError(f"{path}: onnxruntime cannot load it ({reason}); is it a complete ONNX file?") from None


def input_shape(session: Any, index: int = 0) -> tuple[int | None, ...]:
    """Shape of an input; None where the axis is free."""
    return tuple(axis if isinstance(axis, int) and axis > 0 else None for axis in session.get_inputs()[index].shape)


@functools.lru_cache(maxsize=8)
def normalisation(kind: str) -> tuple[Any, Any]:
    """(mean, deviation) of RGB in 0..255 for `imagenet`, `unit` (0..1) or `byte` (0..255)."""
    import numpy as np

    if kind == "imagenet":
        mean, deviation = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    elif kind == "unit":
        mean, deviation = [0.0] * 3, [255.0] * 3
    else:
        mean, deviation = [0.0] * 3, [1.0] * 3
    return np.array(mean, np.float32), np.array(deviation, np.float32)
