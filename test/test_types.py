"""Cameras, frames and the other carriers of data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motion4d_ros.types import Camera, Frame, Motion4DError, PointTracks, Prompt, TrackedPoints


def make_camera(**changes: Any) -> Camera:
    values = {"fx": 300.0, "fy": 310.0, "cx": 159.5, "cy": 119.5, "width": 320, "height": 240, **changes}
    return Camera(**values)


def make_frame(**changes: Any) -> Frame:
    values: dict[str, Any] = {
        "stamp_ns": 1,
        "image": np.zeros((240, 320, 3), np.uint8),
        "camera": make_camera(),
        **changes,
    }
    return Frame(**values)


cameras = st.builds(
    Camera,
    fx=st.floats(10, 5000),
    fy=st.floats(10, 5000),
    cx=st.floats(-100, 2000),
    cy=st.floats(-100, 2000),
    width=st.integers(1, 2000),
    height=st.integers(1, 2000),
)


# --- camera -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "wrong",
    [{"fx": 0.0}, {"fy": -1.0}, {"fx": float("nan")}, {"cx": float("inf")}, {"cy": float("nan")}],
)
def test_camera_without_calibration_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Motion4DError, match="calibrated"):
        make_camera(**wrong)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"height": 0}, {"width": -3}])
def test_camera_without_pixels_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(Motion4DError, match="width and height"):
        make_camera(**wrong)


@given(cameras, st.floats(-500, 2500), st.floats(-500, 2500), st.floats(0.01, 1000))
def test_unproject_inverts_project(camera: Camera, x: float, y: float, depth: float) -> None:
    uv = np.array([x, y])
    back = camera.project(camera.unproject(uv, np.array(depth)))
    np.testing.assert_allclose(back, uv, atol=1e-6)


@given(cameras)
def test_project_is_the_intrinsic_matrix(camera: Camera) -> None:
    xyz = np.array([0.3, -0.2, 1.7])
    homogeneous = camera.K @ xyz
    np.testing.assert_allclose(camera.project(xyz), homogeneous[:2] / homogeneous[2], rtol=1e-12)


def test_points_not_in_front_have_no_pixel() -> None:
    camera = make_camera()
    uv = camera.project(np.array([[0.1, 0.1, -1.0], [0.1, 0.1, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, np.nan]]))
    np.testing.assert_array_equal(np.isnan(uv).all(axis=1), [True, True, False, True])
    np.testing.assert_allclose(uv[2], [camera.cx, camera.cy])


@given(cameras, st.floats(0.05, 4.0))
def test_scaling_keeps_rays_through_the_corners(camera: Camera, factor: float) -> None:
    """The outer corner of the image (half a pixel beyond the last centre) must see the same ray at any size."""
    scaled = camera.scaled(factor)
    for full, small in (
        ((-0.5, -0.5), (-0.5, -0.5)),
        ((camera.width - 0.5, camera.height - 0.5), (scaled.width - 0.5, scaled.height - 0.5)),
    ):
        before = camera.unproject(np.array(full), np.array(1.0))
        after = scaled.unproject(np.array(small), np.array(1.0))
        np.testing.assert_allclose(after, before, atol=1e-9 * (1 + np.abs(before).max()))


def test_scaling_never_loses_all_pixels() -> None:
    assert make_camera().scaled(1e-6).size == (1, 1)


def test_size_and_grid_are_rows_first() -> None:
    camera = make_camera(width=4, height=3)
    grid = camera.pixel_grid()
    assert camera.size == (3, 4) and grid.shape == (3, 4, 2)
    np.testing.assert_array_equal(grid[2, 1], [1, 2])


# --- frame ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "image",
    [
        np.zeros((240, 320), np.uint8),
        np.zeros((320, 240, 3), np.uint8),
        np.zeros((240, 320, 3), np.float32),
        np.zeros((240, 320, 4), np.uint8),
    ],
)
def test_image_must_fit_its_camera(image: np.ndarray) -> None:
    with pytest.raises(Motion4DError, match="camera_info"):
        make_frame(image=image)


@pytest.mark.parametrize("name", ["depth_m", "masks"])
def test_depth_and_masks_must_fit_the_image(name: str) -> None:
    with pytest.raises(Motion4DError, match=name):
        make_frame(**{name: np.zeros((120, 160))})


@pytest.mark.parametrize("pose", [np.eye(3), np.full((4, 4), np.nan), np.zeros((4, 4)) + np.inf])
def test_pose_must_be_a_finite_matrix(pose: np.ndarray) -> None:
    with pytest.raises(Motion4DError, match="pose source"):
        make_frame(T_map_cam=pose)


def test_messages_are_one_line() -> None:
    with pytest.raises(Motion4DError) as caught:
        make_frame(depth_m=np.zeros((1, 1), np.float32))
    assert "\n" not in str(caught.value)


def test_numbering_leaves_the_original_alone() -> None:
    frame = make_frame()
    numbered = frame.with_index(7)
    assert (frame.index, numbered.index) == (-1, 7)
    assert numbered.image is frame.image


# --- carriers ---------------------------------------------------------------------------------------------------------
def test_tracks_know_their_extent() -> None:
    tracks = PointTracks(
        ids=np.arange(5),
        uv_px=np.zeros((5, 3, 2), np.float32),
        visible=np.ones((5, 3), bool),
        sigma_px=np.ones((5, 3), np.float32),
        query_index=np.zeros(5, np.int64),
        first_index=4,
    )
    assert (tracks.count, tracks.length) == (5, 3)


def test_no_points_have_the_declared_types() -> None:
    points = TrackedPoints.empty()
    assert points.point_id.dtype == np.uint32 and points.object_id.dtype == np.uint32
    assert points.xyz_map.shape == points.velocity.shape == points.rgb.shape == (0, 3)
    assert points.rgb.dtype == np.uint8 and points.confidence.dtype == np.float32


def test_prompts_take_plain_lists_and_refuse_other_shapes() -> None:
    prompt = Prompt(stamp_ns=0, points_px=[[1, 2], [3, 4]], positive=[True, False], box_px=[1, 2, 3, 4])  # type: ignore
    assert prompt.points_px.shape == (2, 2) and prompt.positive.tolist() == [True, False]
    assert prompt.box_px is not None and (prompt.box_px + 0.5).tolist() == [1.5, 2.5, 3.5, 4.5]
    for wrong in ({"box_px": [1, 2, 3]}, {"points_px": [1, 2, 3]}, {"xyz_map": "here"}):
        with pytest.raises(Motion4DError, match=f"{next(iter(wrong))}.*expected"):
            Prompt(0, **wrong)


def test_prompts_do_not_share_their_points() -> None:
    first, second = Prompt(stamp_ns=1), Prompt(stamp_ns=2)
    assert first.points_px.shape == (0, 2) and first.positive.shape == (0,)
    assert first.points_px is not second.points_px
