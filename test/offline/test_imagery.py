"""Image messages into arrays: what is right gets through, what contradicts itself does not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motion4d_ros.offline import imagery
from motion4d_ros.types import Motion4DError


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from(["rgb8", "mono8", "16UC1", "32FC1", "bgra8"]),
    st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_padding_and_byte_order(height, width, encoding, padding):
    kind, channels = {
        "rgb8": ("u1", 3),
        "mono8": ("u1", 1),
        "16UC1": ("u2", 1),
        "32FC1": ("f4", 1),
        "bgra8": ("u1", 4),
    }[encoding]
    values = np.random.default_rng(0).integers(0, 200, (height, width, channels))
    for big in (False, True):
        array = np.ascontiguousarray(values.astype((">" if big else "<") + kind))
        rows = array.view(np.uint8).reshape(height, -1)
        padded = np.pad(rows, ((0, 0), (0, padding)))
        decoded = imagery.decode_raw(height, width, encoding, big, padded.shape[1], padded.tobytes())
        assert np.array_equal(decoded.reshape(height, width, channels), values)
        assert decoded.dtype.isnative


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ((4, 4, "rgb8", False, 11, bytes(48)), "need 12 bytes, step says 11"),
        ((4, 4, "rgb8", False, 12, bytes(40)), "truncated"),
        ((4, 4, "nv21", False, 12, bytes(48)), "encoding 'nv21' is not supported"),
        ((0, 4, "rgb8", False, 12, b""), "corrupt"),
        ((10**9, 4, "rgb8", False, 12, b""), "corrupt"),
    ],
)
def test_contradictions(fields, words):
    with pytest.raises(Motion4DError, match=words):
        imagery.decode_raw(*fields)


def test_last_row_without_padding():
    assert imagery.decode_raw(2, 2, "mono8", False, 3, bytes([1, 2, 0, 3, 4])).tolist() == [[1, 2], [3, 4]]


def test_colours():
    blue = np.zeros((2, 2, 3), np.uint8)
    blue[..., 2] = 255
    assert np.array_equal(imagery.to_rgb(blue[..., ::-1], "bgr8"), blue)
    assert imagery.to_rgb(np.full((2, 2), 65535, np.uint16), "mono16").tolist() == [[[255] * 3] * 2] * 2
    with pytest.raises(Motion4DError, match="is this a depth topic"):
        imagery.to_rgb(np.zeros((2, 2), np.float32), "32FC1")


def test_depth_of_every_kind():
    assert np.allclose(imagery.to_depth_m(np.array([[1500, 0, 65535]], np.uint16), "16UC1"), [[1.5, 0, 0]])
    odd = np.array([[1.5, np.nan, np.inf, -np.inf, -1.0, 0.0]], np.float32)
    assert np.allclose(imagery.to_depth_m(odd, "32FC1"), [[1.5, 0, 0, 0, 0, 0]])
    assert np.isnan(odd[0, 1])  # the input is left alone
    with pytest.raises(Motion4DError, match="16UC1"):
        imagery.to_depth_m(np.zeros((2, 2), np.uint8), "mono8")


def test_labels():
    assert imagery.to_labels(np.array([[-1, 4]], np.int16), "16SC1").tolist() == [[-1, 4]]
    with pytest.raises(Motion4DError, match="negative"):
        imagery.to_labels(np.array([[-2]], np.int16), "16SC1")
    with pytest.raises(Motion4DError, match="16UC1 or mono8"):
        imagery.to_labels(np.zeros((2, 2, 3), np.uint8), "rgb8")


def test_compressed():
    image = np.random.default_rng(0).integers(0, 255, (6, 5, 3)).astype(np.uint8)
    png = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    assert np.array_equal(imagery.compressed_to_rgb(imagery.decode_compressed(png, "rgb8; png compressed bgr8")), image)
    for data in (b"", b"rubbish", png[: len(png) // 3]):
        with pytest.raises(Motion4DError, match="cannot be decoded"):
            imagery.decode_compressed(data)


def test_compressed_depth():
    millimetres = np.array([[1000, 2000]], np.uint16)
    data = bytes(12) + cv2.imencode(".png", millimetres)[1].tobytes()
    assert np.array_equal(imagery.decode_compressed(data, "16UC1; compressedDepth png"), millimetres)
    quant_a, quant_b = np.float32(1000.0), np.float32(100.0)  # depth = a / (inverse - b)
    head = bytes(4) + quant_a.tobytes() + quant_b.tobytes()
    data = head + cv2.imencode(".png", np.array([[600, 0]], np.uint16))[1].tobytes()
    assert np.allclose(imagery.decode_compressed(data, "32FC1; compressedDepth png"), [[2.0, 0.0]])


K = [100.0, 0, 32, 0, 100.0, 24, 0, 0, 1]


def test_nothing_to_rectify():
    rectifier = imagery.rectifier_from_camera_info(64, 48, K, [0.0] * 5)
    assert rectifier.maps is None and rectifier.camera.fx == 100.0


def test_rectified_topic_uses_its_projection():
    P = [90.0, 0, 30, 0, 0, 90.0, 20, 0, 0, 0, 1, 0]
    rectifier = imagery.rectifier_from_camera_info(64, 48, K, [0.1] * 5, P, rectified=True)
    assert rectifier.maps is None and rectifier.camera.fx == 90.0


@pytest.mark.parametrize(
    ("model", "D"), [("plumb_bob", [-0.2, 0.05, 0.001, 0, 0]), ("equidistant", [0.05, 0.01, 0, 0])]
)
def test_straight_lines_become_straight(model, D):
    """Points of the rectified image, distorted by OpenCV's own model, are where the map says they are."""
    P = [80.0, 0, 31.5, 0, 0, 80.0, 23.5, 0, 0, 0, 1, 0]
    rectifier = imagery.rectifier_from_camera_info(64, 48, K, D, P, model=model)
    uv = np.array([[10, 8], [50, 40], [31, 23]])
    rays = np.stack([(uv[:, 0] - 31.5) / 80.0, (uv[:, 1] - 23.5) / 80.0, np.ones(3)], 1)
    matrix, zero = np.array(K).reshape(3, 3), np.zeros(3)
    if model == "equidistant":
        expected = cv2.fisheye.projectPoints(rays[:, None], zero, zero, matrix, np.array(D))[0][:, 0]
    else:
        expected = cv2.projectPoints(rays, zero, zero, matrix, np.array(D))[0][:, 0]
    found = np.stack([m[uv[:, 1], uv[:, 0]] for m in rectifier.maps], 1)
    assert np.allclose(found, expected, atol=1e-3)


def test_uncalibrated_camera():
    with pytest.raises(Motion4DError, match="calibrate"):
        imagery.rectifier_from_camera_info(64, 48, [0.0] * 9, [])
