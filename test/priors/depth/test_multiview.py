"""Depth triangulated from the camera's motion, on boards whose depth is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from boards import CAMERA, SCENE, path, shot

from motion4d_ros.config import Config
from motion4d_ros.priors.depth.multiview import GeometricDepth, contact_inverse_depth
from motion4d_ros.priors.interfaces import DepthPrior, PosePrior, SceneHint
from motion4d_ros.types import Frame, PoseStatus, Scale


def known(index: int, status: PoseStatus = PoseStatus.OK, scale: Scale = Scale.METRIC) -> PosePrior:
    return PosePrior(path(index), status, scale)


def drive(source: GeometricDepth, count: int = 8) -> tuple[DepthPrior, np.ndarray]:
    prior, truth = None, np.zeros(0)
    for index in range(count):
        frame, truth, _ = shot(SCENE, path(index), index)
        prior = source.depth(frame, known(index), None)
    assert prior is not None
    return prior, truth


def test_depth_is_measured_with_an_honest_sigma() -> None:
    prior, truth = drive(GeometricDepth(Config()))
    assert prior.scale is Scale.METRIC and not prior.affine
    error = np.abs(prior.depth - truth) / truth
    assert np.median(error) < 0.03 and np.isfinite(prior.depth).all()
    assert (error < prior.sigma).mean() > 0.5
    assert (error < 3 * prior.sigma).mean() > 0.8


def test_without_parallax_it_says_so_and_stays_the_same() -> None:
    source = GeometricDepth(Config())
    frame, _, _ = shot(SCENE, np.eye(4), 0)
    one = source.depth(frame, PosePrior(np.eye(4), PoseStatus.OK, Scale.UNKNOWN), None)
    two = source.depth(frame.with_index(1), PosePrior(np.eye(4), PoseStatus.OK, Scale.METRIC), None)
    assert one is not None and two is not None
    assert one.scale is Scale.UNKNOWN and two.scale is Scale.UNKNOWN
    assert one.sigma.min() > 0.5 and (one.depth == two.depth).all()


def test_a_lost_pose_measures_nothing() -> None:
    source = GeometricDepth(Config())
    drive(source)
    frame, _, _ = shot(SCENE, path(8), 8)
    prior = source.depth(frame, known(8, PoseStatus.LOST), None)
    assert prior is not None and prior.scale is Scale.UNKNOWN


def test_a_moving_thing_stands_on_what_is_below_it() -> None:
    source = GeometricDepth(Config())
    for index in range(8):
        frame, truth, _ = shot(SCENE, path(index), index)
        labels = np.zeros(CAMERA.size, np.int32)
        labels[40:80, 100:120] = 4
        prior = source.depth(frame, known(index), SceneHint(path(index), None, labels, None))
    assert prior is not None
    inside = prior.depth[45:75, 104:116]
    assert inside == pytest.approx(np.full_like(inside, np.median(truth[84, 100:120])), rel=0.1)
    assert prior.sigma[60, 110] > 0.1


def test_contact_is_hidden_at_the_border_and_behind_others() -> None:
    w = np.full((40, 40), 0.5)
    mask = np.zeros((40, 40), bool)
    mask[10:40, 10:20] = True
    assert contact_inverse_depth(mask, mask, w) is None
    assert contact_inverse_depth(np.zeros_like(mask), mask, w) is None
    mask[30:] = False
    assert contact_inverse_depth(mask, mask, w) == 0.5


def test_better_poses_and_new_sizes_start_the_measurement_over() -> None:
    source = GeometricDepth(Config())
    drive(source)
    source.revise({index: path(index) for index in range(8)})
    frame, _, _ = shot(SCENE, path(8), 8)
    again = source.depth(frame, known(8), None)
    assert again is not None and again.scale is Scale.METRIC
    half = CAMERA.scaled(0.5)
    small = Frame(0, cv2.resize(frame.image, (half.width, half.height)), half, index=9)
    fresh = source.depth(small, known(9), None)
    assert fresh is not None and fresh.depth.shape == half.size and fresh.scale is Scale.UNKNOWN


def test_guesses_are_measured_once_the_camera_motion_is_known() -> None:
    source, truths, frames = GeometricDepth(Config()), [], []
    for index in range(8):  # the first six come before two views have parallax: their poses are told later
        frame, truth, _ = shot(SCENE, path(index), index)
        frames.append(frame)
        truths.append(truth)
        if index == 6:
            source.revise({k: path(k) for k in range(6)})
        unknown = PosePrior(np.eye(4), PoseStatus.OK, Scale.UNKNOWN)
        guess = source.depth(frame, unknown if index < 6 else known(index), None)
        assert guess is not None and (guess.scale is Scale.UNKNOWN) == (index < 6)
    moving = np.zeros(CAMERA.size, np.int32)
    moving[60:80, 60:90] = 3
    for index in (0, 3):
        prior = source.again(frames[index], path(index), Scale.METRIC, moving)
        assert prior is not None and prior.scale is Scale.METRIC
        error = np.abs(prior.depth - truths[index]) / truths[index]
        assert np.median(error[moving == 0]) < 0.03
        assert np.ptp(prior.depth[62:78, 62:88]) < 1e-3  # it stands on one place
    assert source.again(frames[0].with_index(99), path(0), Scale.METRIC, moving) is None  # not held


def test_a_moving_thing_is_known_no_better_than_what_it_stands_on() -> None:
    source = GeometricDepth(Config())
    frame, _, _ = shot(SCENE, np.eye(4), 0)
    masks = np.zeros(CAMERA.size, np.int32)
    masks[60:80, 60:90] = 3
    unknown = PosePrior(np.eye(4), PoseStatus.OK, Scale.UNKNOWN)
    prior = source.depth(Frame(0, frame.image, CAMERA, masks=masks, index=0), unknown, None)
    assert prior is not None and prior.sigma[70, 75] > 0.5
