"""Tiny ONNX files with random weights, written without the `onnx` package: a SAM-style encoder and decoder.

What they answer means nothing; that they load and run as real ones do is the point.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

CHANNELS = 4
Shape = tuple[int | str, ...]


def write_pair(folder: Path, channels: int = CHANNELS, decoder_channels: int | None = None, seed: int = 0) -> Path:
    """`tiny_encoder.onnx` and `tiny_decoder.onnx` in `folder`; with `decoder_channels` they do not belong together."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    patches = rng.normal(0, 0.02, (channels, 3, 16, 16)).astype(np.float32)
    encoder = _graph(
        [_node("Conv", ["image", "patches"], ["features"], kernel_shape=[16, 16], strides=[16, 16])],
        {"image": (1, 3, 1024, 1024)},
        {"features": (1, channels, 64, 64)},
        {"patches": patches},
    )
    (folder / "tiny_encoder.onnx").write_bytes(encoder)
    width = decoder_channels or channels
    up = rng.normal(0, 1.0, (width, 1, 4, 4)).astype(np.float32)
    decoder = _graph(
        [
            _node("ConvTranspose", ["image_embeddings", "up"], ["low_res_masks"], kernel_shape=[4, 4], strides=[4, 4]),
            _node("ReduceMean", ["low_res_masks"], ["iou_predictions"], axes=[2, 3], keepdims=0),
        ],
        {
            "image_embeddings": (1, width, 64, 64),
            "point_coords": (1, "points", 2),
            "point_labels": (1, "points"),
            "mask_input": (1, 1, 256, 256),
            "has_mask_input": (1,),
            "orig_im_size": (2,),
        },
        {"low_res_masks": (1, 1, 256, 256), "iou_predictions": (1, 1)},
        {"up": up},
    )
    (folder / "tiny_decoder.onnx").write_bytes(decoder)
    return folder


def write_detector(
    path: Path, outputs: dict[str, np.ndarray], side: int = 64, slope: float = 0.0, sizes: bool = False
) -> Path:
    """A detector that answers `outputs`, whatever it is shown, plus `slope` times the mean of what it is fed."""
    nodes = [
        _node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        _node("Mul", ["mean", "slope"], ["shift"]),
    ]
    inputs: dict[str, Shape] = {"image": (1, 3, side, side)}
    if sizes:
        inputs["orig_target_sizes"] = (1, 2)
    weights = {"slope": np.array([slope], np.float32)}
    for name, values in outputs.items():
        weights[f"{name}_base"] = values.astype(np.float32)
        nodes.append(_node("Add", [f"{name}_base", "shift"], [name]))
    path.write_bytes(_graph(nodes, inputs, {name: values.shape for name, values in outputs.items()}, weights))
    return path


def _graph(
    nodes: list[bytes], inputs: dict[str, Shape], outputs: dict[str, Shape], weights: dict[str, np.ndarray]
) -> bytes:
    """A whole model file (opset 13, IR version 8) around one graph of float32 tensors."""
    graph = b"".join(_bytes(1, node) for node in nodes) + _bytes(2, b"tiny")
    for name, values in weights.items():
        dims = b"".join(_integer(1, n) for n in values.shape)
        graph += _bytes(5, dims + _integer(2, 1) + _bytes(8, name.encode()) + _bytes(9, values.tobytes()))
    for field, table in ((11, inputs), (12, outputs)):
        for name, shape in table.items():
            axes = [_integer(1, n) if isinstance(n, int) else _bytes(2, n.encode()) for n in shape]
            tensor = _integer(1, 1) + _bytes(2, b"".join(_bytes(1, axis) for axis in axes))
            graph += _bytes(field, _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor)))
    return _integer(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, b"") + _integer(2, 13))


def _node(kind: str, inputs: list[str], outputs: list[str], **attributes: int | list[int]) -> bytes:
    out = b"".join(_bytes(1, name.encode()) for name in inputs) + b"".join(_bytes(2, n.encode()) for n in outputs)
    out += _bytes(4, kind.encode())
    for name, value in attributes.items():
        if isinstance(value, int):
            body = _integer(3, value) + _integer(20, 2)
        else:
            body = b"".join(_integer(8, n) for n in value) + _integer(20, 7)
        out += _bytes(5, _bytes(1, name.encode()) + body)
    return out


def _varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 127
        out.append(low | (128 if value else 0))
        if not value:
            return bytes(out)


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value
