"""Measures against examples worked out by hand and against their definitions written out naively."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from motion4d_ros.evaluation.metrics import (
    absolute_trajectory_error,
    align_umeyama,
    boundary_f,
    depth_errors,
    identity_flips,
    match_labels,
    point_errors,
    psnr,
    region_j,
    score_masks,
    score_tracks,
    ssim,
    strided_queries,
)
from motion4d_ros.evaluation.metrics.segmentation import boundary_map


def square(size: int, y: int, x: int, side: int) -> np.ndarray:
    mask = np.zeros((size, size), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_region_j_of_shifted_squares() -> None:
    # two 10 x 10 squares, one shifted by 5: 50 shared pixels of 150
    assert region_j(square(40, 5, 5, 10), square(40, 5, 10, 10)) == pytest.approx(50 / 150)
    assert region_j(np.zeros((4, 4), bool), np.zeros((4, 4), bool)) == 1.0


def test_boundary_map_marks_the_pixels_before_a_change() -> None:
    expected = np.zeros((5, 5), bool)
    expected[1:3, 1:3] = True
    expected[2, 2] = True
    # one pixel at (2, 2): it differs from its right, lower and diagonal neighbour; so do those up, left and up-left
    assert (boundary_map(square(5, 2, 2, 1)) == expected).all()


def test_boundary_map_ignores_the_image_border() -> None:
    full = np.ones((6, 6), bool)
    assert not boundary_map(full).any()


@pytest.mark.parametrize(("shift", "tolerance", "expected"), [(0, 2, 1.0), (2, 2, 1.0)])
def test_boundary_f_forgives_what_lies_within_the_tolerance(shift: int, tolerance: int, expected: float) -> None:
    assert boundary_f(square(60, 20, 20 + shift, 20), square(60, 20, 20, 20), tolerance) == pytest.approx(expected)


def test_boundary_f_of_a_shift_beyond_the_tolerance() -> None:
    a, b = square(60, 20, 24, 20), square(60, 20, 20, 20)
    others = np.argwhere(boundary_map(b))
    matched = [((others - point) ** 2).sum(1).min() <= 1 for point in np.argwhere(boundary_map(a))]
    assert boundary_f(a, b, 1) == pytest.approx(np.mean(matched))  # by symmetry precision and recall are equal
    assert 0.3 < np.mean(matched) < 0.6  # of four sides the two that moved along themselves still meet


def test_boundary_tolerance_is_a_share_of_the_diagonal() -> None:
    # 0.008 of the diagonal of 60 x 60 is 0.68: one pixel
    a, b = square(60, 20, 21, 20), square(60, 20, 20, 20)
    assert boundary_f(a, b) == boundary_f(a, b, 1) == 1.0
    assert boundary_f(square(60, 20, 22, 20), b) < 1.0


def test_boundary_f_of_nothing() -> None:
    empty = np.zeros((30, 30), bool)
    assert boundary_f(empty, empty) == 1.0
    assert boundary_f(empty, square(30, 5, 5, 9)) == boundary_f(square(30, 5, 5, 9), empty) == 0.0


def two_objects() -> np.ndarray:
    labels = np.zeros((6, 30, 40), np.int64)
    labels[:, 5:15, 5:15] = 1
    labels[:, 5:15, 25:35] = 2
    return labels


def test_labels_are_matched_over_the_whole_run() -> None:
    truth = two_objects()
    renamed = np.choose(truth, [0, 7, 4])
    assert match_labels(renamed, truth) == {1: 7, 2: 4}
    scores = score_masks(renamed, truth)
    assert (scores.J, scores.F, scores.JF, scores.flips, scores.labels) == (1.0, 1.0, 1.0, 0, 2)


def test_a_swap_costs_overlap_and_two_flips_per_object() -> None:
    truth = two_objects()
    swapped = truth.copy()
    swapped[2] = np.choose(truth[2], [0, 2, 1])
    scores = score_masks(swapped, truth)
    assert scores.flips == 4  # there and back, for two objects
    assert pytest.approx(5 / 6) == scores.J
    assert identity_flips(swapped, truth, 1) == 2


def test_a_gap_is_no_flip() -> None:
    truth = two_objects()
    gappy = truth.copy()
    gappy[2:4] = 0
    assert score_masks(gappy, truth).flips == 0


def test_tracks_by_hand() -> None:
    # one point, query at frame 0, 256 px image: three later frames
    true_xy = np.array([[[10, 10], [20, 10], [30, 10], [40, 10]]], float)
    visible = np.array([[True, True, True, False]])
    tracks = true_xy.copy()
    tracks[0, 1] += [1.5, 0]  # within 2, 4, 8, 16
    tracks[0, 2] += [0, 5]  # within 8, 16
    claimed = np.array([[True, True, True, True]])
    scores = score_tracks(tracks, ~claimed, true_xy, visible, np.zeros(1), (256, 256))
    assert scores.davg == pytest.approx((0 + 1 / 2 + 1 / 2 + 2 / 2 + 2 / 2) / 5)
    assert pytest.approx(2 / 3) == scores.OA
    # per threshold: hits h of 2 visible; false alarms = the occluded frame + visible ones too far off
    assert pytest.approx(np.mean([0 / (2 + 3), 1 / (2 + 2), 1 / (2 + 2), 2 / (2 + 1), 2 / (2 + 1)])) == scores.AJ


def test_tracks_are_measured_on_a_256_grid() -> None:
    true_xy = np.zeros((1, 2, 2))
    off = true_xy + np.array([0.0, 3.0])  # 3 px of 768 are 1 px of the grid, not below 1
    visible = np.ones((1, 2), bool)
    near = score_tracks(off * 0.99, ~visible, true_xy, visible, np.zeros(1), (768, 768))
    far = score_tracks(off, ~visible, true_xy, visible, np.zeros(1), (768, 768))
    assert (near.davg, far.davg) == (1.0, pytest.approx(0.8))


def test_first_judges_later_frames_and_strided_all_but_the_query() -> None:
    true_xy, visible = np.zeros((1, 5, 2)), np.ones((1, 5), bool)
    tracks = true_xy.copy()
    tracks[0, 0] = 100  # before the query at frame 2
    tracks[0, 2] = 100  # the query itself
    first = score_tracks(tracks, ~visible, true_xy, visible, np.array([2]), (256, 256), "first")
    strided = score_tracks(tracks, ~visible, true_xy, visible, np.array([2]), (256, 256), "strided")
    assert first.davg == 1.0
    assert strided.davg == pytest.approx(3 / 4)
    with pytest.raises(ValueError, match="first or strided"):
        score_tracks(tracks, ~visible, true_xy, visible, np.array([2]), (256, 256), "last")


def test_nan_positions_are_misses() -> None:
    true_xy, visible = np.zeros((1, 3, 2)), np.ones((1, 3), bool)
    scores = score_tracks(np.full((1, 3, 2), np.nan), ~visible, true_xy, visible, np.zeros(1), (256, 256))
    assert (scores.AJ, scores.davg, scores.OA) == (0.0, 0.0, 1.0)


def test_strided_queries_ask_at_every_fifth_visible_frame() -> None:
    true_xy = np.arange(2 * 12 * 2, dtype=float).reshape(2, 12, 2)
    visible = np.ones((2, 12), bool)
    visible[1, 5] = False
    queries, rows = strided_queries(true_xy, visible)
    assert rows.tolist() == [0, 0, 0, 1, 1]
    assert queries[:, 0].tolist() == [0, 5, 10, 0, 10]
    assert queries[1, 1:].tolist() == true_xy[0, 5, ::-1].tolist()


def test_point_errors_by_hand() -> None:
    truth = np.zeros((1, 4, 3))
    points = np.array([[[0.03, 0, 0], [0, 0.04, 0.03], [3, 0, 0], [np.nan, 0, 0]]])
    errors = point_errors(points, truth, np.ones((1, 4), bool))
    assert errors.epe_m == pytest.approx((0.03 + 0.05 + 1 + 1) / 4)
    assert (errors.d05, errors.d10) == (0.25, 0.5)  # 5 cm itself is not within 5 cm
    assert np.isnan(point_errors(points, truth, np.zeros((1, 4), bool)).epe_m)


def test_psnr_by_hand() -> None:
    truth = np.zeros((8, 8, 3))
    assert psnr(truth + 16, truth) == pytest.approx(20 * np.log10(255 / 16))
    assert psnr(truth, truth) == np.inf
    where = np.zeros((8, 8), bool)
    where[0, 0] = True
    noisy = truth.copy()
    noisy[1:] = 200
    assert psnr(noisy, truth, where=where) == np.inf


def naive_ssim(x: np.ndarray, y: np.ndarray) -> float:
    offset = np.arange(-5, 6)
    window = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            ma, mb = (window * a).sum(), (window * b).sum()
            va, vb = (window * (a - ma) ** 2).sum(), (window * (b - mb) ** 2).sum()
            cov = (window * (a - ma) * (b - mb)).sum()
            values.append((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2)))
    return float(np.mean(values))


def test_ssim_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (18, 21))
    y = x + rng.normal(0, 25, x.shape)
    assert ssim(x, y) == pytest.approx(naive_ssim(x, y), abs=1e-9)
    assert ssim(x, x) == pytest.approx(1.0)
    assert ssim(np.stack([x, y], -1), np.stack([x, x], -1)) == pytest.approx((1 + naive_ssim(y, x)) / 2, abs=1e-9)
    with pytest.raises(ValueError, match="at least 11"):
        ssim(x[:10], x[:10])


def test_depth_errors_by_hand() -> None:
    truth = np.array([[2.0, 4.0, 0.0, 1.0]])
    depth = np.array([[2.2, 3.0, 5.0, np.nan]])
    errors = depth_errors(depth, truth)
    assert errors.abs_rel == pytest.approx((0.1 + 0.25) / 2)
    assert errors.rmse_m == pytest.approx(np.sqrt((0.04 + 1.0) / 2))
    assert errors.rmse_log == pytest.approx(np.sqrt((np.log(1.1) ** 2 + np.log(0.75) ** 2) / 2))
    assert errors.delta1 == 0.5
    assert errors.coverage == pytest.approx(2 / 3)


def test_depth_alignment_undoes_the_ambiguity_it_is_for() -> None:
    truth = np.random.default_rng(1).uniform(1, 5, (20, 20))
    assert depth_errors(truth * 3, truth, "median").rmse_m == pytest.approx(0, abs=1e-12)
    assert depth_errors(1 / (0.7 / truth + 0.05), truth, "disparity").rmse_m == pytest.approx(0, abs=1e-9)
    assert depth_errors(truth * 3, truth).delta1 == 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), with_scale=st.booleans())
def test_umeyama_recovers_a_similarity(seed: int, with_scale: bool) -> None:
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(12, 3))
    rotation = Rotation.random(random_state=seed).as_matrix()
    scale = rng.uniform(0.2, 4) if with_scale else 1.0
    target = scale * source @ rotation.T + [1, -2, 3]
    s, R, t = align_umeyama(source, target, with_scale)
    assert s == pytest.approx(scale)
    np.testing.assert_allclose(R, rotation, atol=1e-9)
    np.testing.assert_allclose(t, [1, -2, 3], atol=1e-9)


def test_umeyama_never_mirrors() -> None:
    source = np.random.default_rng(2).normal(size=(10, 3))
    _, R, _ = align_umeyama(source, source * [1, 1, -1])
    assert np.linalg.det(R) == pytest.approx(1)


def test_trajectory_error_by_hand() -> None:
    truth = np.tile(np.eye(4), (4, 1, 1))
    truth[:, :3, 3] = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    moved = truth.copy()
    moved[:, :3, 3] = moved[:, :3, 3] @ Rotation.from_euler("z", 30, degrees=True).as_matrix().T + 5
    assert absolute_trajectory_error(moved, truth) == pytest.approx(0, abs=1e-9)
    doubled = truth.copy()
    doubled[:, :3, 3] *= 2
    # corners of a square of half diagonal sqrt(2)/2, twice as far out: each is off by sqrt(2)/2
    assert absolute_trajectory_error(doubled, truth) == pytest.approx(np.sqrt(0.5))
    assert absolute_trajectory_error(doubled, truth, with_scale=True) == pytest.approx(0, abs=1e-9)
