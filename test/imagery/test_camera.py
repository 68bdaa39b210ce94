"""CameraInfo to a pinhole camera; raw pixels to rectified ones and back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motion4d_ros.imagery.camera import Rectifier, is_rectified_topic
from motion4d_ros.imagery.validation import Rejection

W, H = 160, 120


def info(**changes: Any) -> Any:
    values: dict[str, Any] = {
        "width": W, "height": H, "distortion_model": "plumb_bob", "d": [0.0] * 5, "binning_x": 0, "binning_y": 0,
        "k": [140.0, 0, 80, 0, 141, 58, 0, 0, 1], "r": [1.0, 0, 0, 0, 1, 0, 0, 0, 1], "p": [0.0] * 12,
        "roi": SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    }  # fmt: skip
    values.update(changes)
    return SimpleNamespace(**values)


def test_without_distortion_nothing_is_touched() -> None:
    rectifier = Rectifier(info())
    image = np.random.default_rng(0).integers(0, 255, (H, W, 3), dtype=np.uint8)
    assert rectifier.rectify(image) is image and rectifier.unrectify(image) is image
    assert (rectifier.camera.fx, rectifier.camera.cy) == (140.0, 58.0)


@pytest.mark.parametrize(
    ("model", "d"),
    [
        ("plumb_bob", [-0.25, 0.08, 0.001, -0.002, 0.0]),
        ("rational_polynomial", [-0.2, 0.05, 0.001, 0.0, 0.0, 0.01, 0.0, 0.0]),
        ("equidistant", [0.02, -0.01, 0.003, 0.0]),
    ],
)
def test_a_rectified_picture_of_a_line_is_straight_and_the_way_back_is_exact(model: str, d: list[float]) -> None:
    rectifier = Rectifier(info(distortion_model=model, d=d))
    line = np.stack([np.linspace(-0.4, 0.4, 60), np.full(60, 0.22), np.ones(60)], -1)  # a 3D line
    K, coefficients, zero = np.array(info().k).reshape(3, 3), np.array(d), np.zeros(3)
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    points = line.reshape(-1, 1, 3)
    raw = project(points, zero, zero, K, coefficients)[0]
    straight = rectifier.rectify_points(raw.reshape(-1, 2))
    assert np.abs(straight - rectifier.camera.project(line)).max() < 0.05
    labels = np.zeros((H, W), np.uint16)
    labels[40:80, 50:110] = 7
    back = rectifier.unrectify(rectifier.rectify(labels, nearest=True), nearest=True)
    assert set(np.unique(back)) <= {0, 7}
    assert (back != labels).mean() < 0.01


@pytest.mark.parametrize(
    ("model", "d"), [("plumb_bob", [-0.2, 0.05, 0.001, 0, 0]), ("equidistant", [0.05, 0.01, 0, 0])]
)
def test_the_rectified_camera_is_the_projection_matrix_turned_by_the_rotation(model: str, d: list[float]) -> None:
    """Rays of the rectified camera, distorted by OpenCV's own model, land where the rectified picture shows them."""
    R = cv2.Rodrigues(np.array([0.01, -0.03, 0.02]))[0]
    p = [120.0, 0, 79.5, 0, 0, 120.0, 59.5, 0, 0, 0, 1, 0]
    rectifier = Rectifier(info(distortion_model=model, d=d, p=p, r=R.reshape(-1).tolist()))
    assert (rectifier.camera.fx, rectifier.camera.cx) == (120.0, 79.5)
    uv = np.array([[40.0, 30.0], [120.0, 90.0], [79.0, 60.0]])
    rays = np.concatenate([(uv - (79.5, 59.5)) / 120.0, np.ones((3, 1))], -1) @ R  # into the camera's own frame
    K, zero = np.array(info().k).reshape(3, 3), np.zeros(3)
    project = cv2.fisheye.projectPoints if model == "equidistant" else cv2.projectPoints
    raw = project(rays.reshape(-1, 1, 3), zero, zero, K, np.array(d))[0].reshape(-1, 2)
    assert np.allclose(rectifier.rectify_points(raw), uv, atol=0.01)
    spots = np.zeros((H, W), np.uint8)
    for x, y in raw:
        cv2.circle(spots, (round(16 * x), round(16 * y)), 32, 255, -1, shift=4)
    straight = rectifier.rectify(spots)
    for x, y in uv.astype(int):
        assert straight[y, x] > 200


def test_images_that_are_rectified_already_are_those_of_the_projection_matrix() -> None:
    p = [90.0, 0, 30, 0, 0, 90.0, 20, 0, 0, 0, 1, 0]
    rectifier = Rectifier(info(d=[0.1] * 5, p=p), rectified=True)
    assert rectifier.is_identity and rectifier.camera.fx == 90.0
    assert Rectifier(info(distortion_model="nonsense", d=[0.1] * 5, p=p), rectified=True).camera.fx == 90.0
    names = {"/camera/image_rect": True, "/left/image_rect_color/compressed": True, "/rect/image_raw": False}
    assert {name: is_rectified_topic(name) for name in names} == names


def test_fisheye_drivers_that_append_zeros() -> None:
    d = [0.02, -0.01, 0.003, 0.0]
    given, padded = (Rectifier(info(distortion_model="equidistant", d=c)) for c in (d, [*d, 0.0]))
    uv = np.array([[20.0, 30.0]])
    assert np.allclose(given.rectify_points(uv), padded.rectify_points(uv))
    with pytest.raises(Rejection, match="4 coefficients"):
        Rectifier(info(distortion_model="equidistant", d=[*d, 0.1]))


def test_uncalibrated_camera() -> None:
    with pytest.raises(Rejection, match="calibrated"):
        Rectifier(info(k=[0.0] * 9))


def test_projection_matrix_binning_and_region_of_interest() -> None:
    p = [100.0, 0, 70, 0, 0, 101, 50, 0, 0, 0, 1, 0]
    assert Rectifier(info(d=[-0.1, 0, 0, 0, 0], p=p)).camera.fx == 100.0
    binned = Rectifier(info(binning_x=2, binning_y=2)).camera
    assert binned.size == (H // 2, W // 2) and binned.fx == 70.0 and binned.cx == pytest.approx(39.75)
    roi = SimpleNamespace(x_offset=20, y_offset=10, width=100, height=80)
    cropped = Rectifier(info(roi=roi)).camera
    assert cropped.size == (80, 100) and (cropped.cx, cropped.cy) == (60.0, 48.0)


@settings(max_examples=300, deadline=None)
@given(
    k=st.lists(st.sampled_from([0.0, 1.0, 140.0, -5.0, 1e12, float("nan"), float("inf")]), min_size=9, max_size=9),
    d=st.lists(st.sampled_from([0.0, 0.1, float("nan"), 1e30]), max_size=16),
    model=st.sampled_from(["plumb_bob", "equidistant", "fisheye", "", "nonsense"]),
    width=st.sampled_from([0, 64, W, 2**32 - 1]),
    binning=st.sampled_from([0, 1, 2, 10**6]),
)
def test_nonsense_is_rejected_and_nothing_else(
    k: list[float], d: list[float], model: str, width: int, binning: int
) -> None:
    try:
        rectifier = Rectifier(info(k=k, d=d, distortion_model=model, width=width, binning_x=binning))
    except Rejection as error:
        assert error.reason
    else:
        assert np.isfinite(rectifier.camera.K).all()


def test_without_its_maps_a_calibration_says_the_same_and_holds_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 255, (H, W, 3), dtype=np.uint8)
    bent = info(d=[0.1, -0.05, 0.0, 0.0, 0.0])
    kept, bare = Rectifier(bent), Rectifier(bent)
    bare.forget_maps()
    for one in (kept, bare):
        one.rectify(image)
    np.testing.assert_array_equal(bare.rectify(image), kept.rectify(image))
    np.testing.assert_array_equal(bare.unrectify(image), kept.unrectify(image))
    assert bare._to_rectified is None and bare._to_raw is None and kept._to_rectified is not None
