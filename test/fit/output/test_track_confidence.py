"""The confidence of a track is the probability that it is where it is told to be."""

from __future__ import annotations

import numpy as np
import pytest

from motion4d_ros.fit.output.track_confidence import (
    SHARE_RIGHT,
    SHARE_RIGHT_HIDDEN,
    SHARE_RIGHT_POINTS,
    WITHIN_M,
    point_confidence,
    probability_within,
    track_confidence,
)
from motion4d_ros.geometry.pose_covariance import PoseCovariance
from motion4d_ros.types import Camera, TrackedPoints

CAMERA = Camera(200.0, 200.0, 79.5, 59.5, 160, 120)
CAMERAS = np.tile(np.eye(4), (3, 1, 1))
POINTS = np.tile(np.array([0.0, 0.0, 1.0]), (2, 3, 1))  # (Q, T, 3)


@pytest.mark.parametrize("sigmas", [(0.01, 0.01, 0.01), (0.05, 0.01, 0.002), (0.1, 0.1, 0.1)])
def test_the_probability_of_a_short_error_is_what_samples_say(sigmas) -> None:
    errors = np.random.default_rng(0).standard_normal((200_000, 3)) * sigmas
    share = float((np.linalg.norm(errors, axis=1) < WITHIN_M).mean())
    assert probability_within(WITHIN_M, np.diag(np.square(sigmas))) == pytest.approx(share, abs=0.03)


def confidence(sigma_m: float, sigma_rad: float = 0.0, metric: bool = True, occluded: bool = False) -> np.ndarray:
    known = PoseCovariance(np.array([0.5, 0.0, 1.0]), np.diag([sigma_m**2] * 3 + [sigma_rad**2] * 3), np.zeros((6, 6)))
    return track_confidence(
        POINTS, np.full((2, 3), occluded), np.array([1, 0]), np.zeros(2, int), CAMERAS, CAMERA,
        lambda label, column: known, metric,
    )  # fmt: skip


def test_a_point_is_as_uncertain_as_its_object() -> None:
    sure, unsure = confidence(0.001), confidence(0.1)
    assert sure[0] == pytest.approx(SHARE_RIGHT, abs=0.01)
    assert unsure[0].max() < 0.2
    assert unsure[1] == pytest.approx(sure[1]), "what stands still does not depend on it"
    assert confidence(0.001, occluded=True)[0] == pytest.approx(SHARE_RIGHT_HIDDEN, abs=0.01)


def test_a_turn_moves_what_is_far_from_the_centre() -> None:
    assert confidence(0.001, sigma_rad=0.2)[0].max() < 0.6


def test_without_metres_only_pixels_count() -> None:
    known = 0.1 * np.eye(3)
    known[:2, :2] = 0  # along the ray alone
    along = PoseCovariance(np.array([0.0, 0.0, 1.0]), np.zeros((6, 6)), np.zeros((6, 6)))
    along.covariance[:3, :3] = known
    values = {
        metric: track_confidence(
            POINTS, np.zeros((2, 3), bool), np.array([1, 0]), np.zeros(2, int), CAMERAS, CAMERA,
            lambda label, column: along, metric,
        )[0, 0]
        for metric in (True, False)
    }  # fmt: skip
    assert values[True] < 0.3 and values[False] > 0.9


def test_points_of_a_frame_are_as_uncertain_as_their_object() -> None:
    def known(label: int) -> PoseCovariance | None:
        covariance = np.diag([{1: 0.001, 2: 0.1}.get(label, 0.0) ** 2] * 3 + [1e-6] * 3)
        return None if label == 3 else PoseCovariance(np.array([0.0, 0.0, 1.0]), covariance, covariance)

    ids = np.array([1, 2, 3], np.uint32)
    places, zeros = np.tile(np.float32([0.0, 0.0, 1.0]), (3, 1)), np.zeros((3, 3), np.float32)
    points = TrackedPoints(ids, ids, places, zeros, zeros.astype(np.uint8), np.ones(3, np.float32))
    sure, unsure, untold = point_confidence(points, known, np.eye(4), CAMERA, True)
    assert sure == pytest.approx(SHARE_RIGHT_POINTS, abs=0.01) and unsure < 0.2 and untold == 0.0
