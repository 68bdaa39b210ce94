"""Registration by flow and grey values, of a textured plane that has turned by a known angle."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from fit_builders import move, pose, texture
from numpy.typing import NDArray

from motion4d_ros.fit.tracks.photometric_alignment import align_photometrically
from motion4d_ros.geometry.rigid import rotation_angle
from motion4d_ros.types import Camera, FloatArray

CAMERA = Camera(120.0, 120.0, 63.5, 47.5, 128, 96)
DEPTH_M = 2.0
UV = CAMERA.pixel_grid()
XYZ = CAMERA.unproject(UV, np.full(CAMERA.size, DEPTH_M)).reshape(-1, 3)
EXPECTED = texture(96, 128, seed=4, blur=1.5)


def turned(degrees: float) -> FloatArray:
    """About the middle of the picture, and a little aside."""
    T = pose((0, 0, np.radians(degrees)), (0.01, -0.005, 0.0))
    middle = np.array([0.0, 0.0, DEPTH_M])
    T[:3, 3] += middle - T[:3, :3] @ middle
    return T


def seen(T: FloatArray, shade: float) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The picture that shows at p what was expected at project(T xyz(p)), lit by a ramp; and the flow to there."""
    where = CAMERA.project(move(T, XYZ)).reshape(*CAMERA.size, 2).astype(np.float32)
    picture = cv2.remap(EXPECTED, where, None, cv2.INTER_CUBIC).astype(np.float32)
    light = 1 + shade * np.linspace(-1, 1, CAMERA.width)[None]
    return np.clip(picture * light * 0.8, 0, 255).astype(np.uint8), where - UV.astype(np.float32)


def register(T: FloatArray, taken_back: float, shade: float = 0.0) -> FloatArray:
    picture, flow = seen(T, shade)
    known = np.hypot(UV[..., 0] - 63.5, UV[..., 1] - 47.5) < 30
    chosen = np.argwhere(known)[::7][:, ::-1].astype(float)
    rows = (chosen[:, 1] * CAMERA.width + chosen[:, 0]).astype(int)
    return align_photometrically(EXPECTED, picture, flow * np.float32(taken_back), known, chosen, XYZ[rows], CAMERA)


def missed(found: FloatArray, T: FloatArray) -> float:
    return float(np.degrees(rotation_angle(found[:3, :3] @ T[:3, :3].T)))


@pytest.mark.parametrize("shade", [0.0, 0.6])
def test_what_flow_leaves_of_a_turn_grey_values_find_whatever_the_light(shade: float) -> None:
    T = turned(5)
    assert missed(register(T, taken_back=0.65, shade=shade), T) < 0.2


def test_flow_is_believed_where_grey_values_lead_far_away() -> None:
    """A picture of something else: whatever grey values find there is not within reach of the flow."""
    T = turned(2)
    _, flow = seen(T, 0.0)
    other = texture(96, 128, seed=99, blur=6.0)
    known = np.ones(CAMERA.size, bool)
    chosen = np.argwhere(known)[::31][:, ::-1].astype(float)
    rows = (chosen[:, 1] * CAMERA.width + chosen[:, 0]).astype(int)
    found = align_photometrically(EXPECTED, other, flow, known, chosen, XYZ[rows], CAMERA)
    shift = CAMERA.project(move(found, XYZ[rows])) - CAMERA.project(move(T, XYZ[rows]))
    assert np.median(np.linalg.norm(shift, axis=1)) < 1.6


def test_nothing_missing_is_nothing_found() -> None:
    still = np.eye(4)
    assert missed(register(still, taken_back=1.0), still) < 0.05
