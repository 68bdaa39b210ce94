"""Folders, videos, masks, depth and trajectories as the field has them: matched, recognised, or refused by name."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation


def notes(report):
    return " | ".join(report.sentences())


def positions(frames):
    return [None if f.T_map_cam is None else f.T_map_cam[:3, 3].round(6).tolist() for f in frames]


def stamps_s(frames):
    return [round(f.stamp_ns / 1e9, 4) for f in frames]


# -- the cases --------------------------------------------------------------------------------------------------------


def test_the_control_is_read_as_documented(case, read):
    frames, report = read(case(0)[0])
    assert not report.warnings and not report.missing
    assert positions(frames) == [[round(0.05 * k, 6), 0, 0] for k in range(10)]
    assert all(np.median(f.depth_m) == 4.0 and f.depth_m[f.masks == 1].max() == 2.0 for f in frames)


def test_depth_with_dropped_frames_is_matched_by_stamp(case, read):
    frames, report = read(case(1)[0])
    assert [f.depth_m is None for f in frames] == [True] * 2 + [False] * 12
    for k, frame in enumerate(frames):  # the near box goes left by 0.04 m a frame, the camera right by 0.05
        if 2 <= k <= 11:  # then it leaves the picture
            columns = np.nonzero((np.abs(frame.depth_m - 2.0) < 0.01).sum(0) > 60)[0]
            assert columns.mean() == pytest.approx(159.5 + 160 * (0.35 - 0.09 * k), abs=1.0)
    assert "12 by stamp, +4 ms" in report.used["depth"] and "12 depth files for 14 images" in notes(report)


def test_depth_of_5000_a_metre_is_recognised_and_said(case, read):
    words = case(2)[0]
    frames, report = read(words)
    assert all(f.depth_m[f.masks == 1].max() == pytest.approx(2.0) for f in frames)
    assert "1/5000 m" in notes(report) and "65535 = 13.1 m" in notes(report)
    frames, report = read([*words, "--depth-scale", "5000"])
    assert frames[0].depth_m[frames[0].masks == 1].max() == pytest.approx(2.0) and not report.warnings


def test_trajectories_in_nanoseconds_meet_images_named_so(case, read):
    whole, late = case(4)
    frames, report = read(whole)
    assert positions(frames) == [[round(0.05 * k, 6), 0, 0] for k in range(10)]
    assert frames[3].stamp_ns == 1403636579763555584 + 300_000_000
    assert "stamps in ns" in report.used["camera poses"]
    frames, report = read(late)
    assert positions(frames) == [None, None, *([round(0.05 * k, 6), 0, 0] for k in range(2, 10))]
    assert "8 of 10 frames have a pose" in notes(report)


def test_poses_that_are_nan_are_left_out_and_said(case, read):
    frames, report = read(case(5)[0])
    assert positions(frames) == [None if k in (4, 5) else [round(0.05 * k, 6), 0, 0] for k in range(10)]
    assert "2 of 10 poses are NaN" in notes(report)


def test_a_header_names_the_order_of_the_columns(case, read):
    frames, _ = read(case(6)[0])
    for frame in frames:
        assert np.allclose(
            Rotation.from_matrix(frame.T_map_cam[:3, :3]).as_quat(), [0, 0.173648, 0, 0.984808], atol=1e-5
        )
    assert stamps_s(frames) == [round(0.1 * k, 4) for k in range(10)]


def test_stamps_without_their_last_zeros_are_in_order_of_time(case, read):
    words = case(7)[0]
    frames, _ = read(words)
    assert [f.stamp_ns for f in frames] == [1551915398_000_000_000 + 62_500_000 * k for k in range(12)]
    fps = words.index("--fps")
    frames, report = read(words[:fps] + words[fps + 2 :])
    assert frames[1].stamp_ns - frames[0].stamp_ns == 62_500_000 and "no --fps" not in notes(report)


def test_thermal_pictures_are_stretched_alike_over_the_recording(case, read):
    frames, report = read(case(8)[0])
    assert all(frame.image.std() > 25 and len(np.unique(frame.image)) > 100 for frame in frames)
    assert "are shown as black to white" in notes(report)


def test_255_beside_small_ids_is_void(case, read):
    frames, report = read(case(10)[0])
    assert all(set(np.unique(f.masks)) == {-1, 0, 1} for f in frames) and "255" in notes(report)


def test_a_video_of_variable_rate_keeps_the_stamps_of_its_container(case, read):
    frames, report = read(case(14)[0])
    assert stamps_s(frames) == [0, 0.12, 0.2, 0.32, 0.4, 0.52, 0.6, 0.72, *(round(1.12 + 0.4 * k, 4) for k in range(8))]
    assert "rate varies" in notes(report)


def test_masks_from_the_middle_of_a_video_are_matched_by_number(case, read):
    frames, report = read(case(19)[0])
    assert [f.masks is None for f in frames] == [True] * 4 + [False] * 8
    columns = np.nonzero(frames[4].masks.any(0))[0]
    assert columns.mean() == pytest.approx(159.5 + 160 * (0.35 - 0.09 * 4), abs=1.0)
    assert "00004 belongs to frame 4" in notes(report)


def test_poses_of_a_body_take_the_cameras_place_on_it(case, read):
    frames, _ = read(case(38)[0])
    assert positions(frames) == [[0.1, round(-0.05 * k, 6), 0.3] for k in range(10)]
    for frame in frames:
        assert np.allclose(np.abs(Rotation.from_matrix(frame.T_map_cam[:3, :3]).as_quat()), 0.5)


def test_a_calibration_file_is_read_and_a_trajectory_has_its_option(case, read, refused):
    calibrated, odometry = case(41)
    frames, report = read(calibrated)
    assert frames[0].camera.fx == 320.0 and "rectified: plumb_bob" in report.used["camera"]
    K, D = frames[0].camera.K, np.array([-0.3, 0.1, 0, 0, 0])
    raw = cv2.imread(f"{calibrated[1]}/00000.png")[..., ::-1]
    assert np.abs(frames[0].image.astype(int) - cv2.undistort(np.ascontiguousarray(raw), K, D)).mean() < 0.5
    assert "takes no --odometry: it has no topics; use --poses FILE" in refused(odometry)
