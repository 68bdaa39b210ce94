"""Votes on labels: of pixels along the flow, and of points over the frames that saw them."""

from __future__ import annotations

import numpy as np
import pytest
from fit_builders import CAMERA, UniformFlow, make_horizon, make_state, move, pose
from numpy.typing import NDArray

from motion4d_ros.fit.semantics import pixel_votes as label_votes
from motion4d_ros.fit.tracks.point_table import PointTable, from_chains, lift
from motion4d_ros.fit.window.horizon import Horizon
from motion4d_ros.types import UNKNOWN_LABEL, PointTracks

LENGTH = 9
SIZE = CAMERA.size


def truth(k: int, step: int = 0) -> NDArray[np.int32]:
    """Two boxes side by side; they move `step` px a frame to the right."""
    labels = np.zeros(SIZE, np.int32)
    x = step * k
    labels[10:30, 6 + x : 20 + x] = 1
    labels[10:30, 24 + x : 38 + x] = 2
    return labels


def sequence(step: int = 0) -> Horizon:
    return make_horizon([make_state(k, truth(k, step)) for k in range(LENGTH)])


def vote(horizon: Horizon, step: int = 0, reach: int = 4, trusted: bool = True) -> None:
    label_votes.vote(horizon, UniformFlow(SIZE, (float(step), 0.0), trusted), reach, 0)  # type: ignore[arg-type]


def agreement(horizon: Horizon, k: int, step: int = 0) -> float:
    return float((horizon.frames[k].labels == truth(k, step)).mean())


@pytest.mark.parametrize("step", [0, 2])
def test_flicker_is_outvoted(step: int) -> None:
    horizon = sequence(step)
    horizon.frames[4].raw_labels = np.where(truth(4, step) == 1, 0, truth(4, step))
    horizon.frames[5].raw_labels = np.zeros(SIZE, np.int32)
    vote(horizon, step)
    assert agreement(horizon, 4, step) > 0.99 and agreement(horizon, 5, step) > 0.99


def test_a_swap_of_two_frames_is_outvoted() -> None:
    horizon = sequence()
    for k in (3, 4):
        horizon.frames[k].raw_labels = np.array([0, 2, 1], np.int32)[truth(k)]
    vote(horizon)
    assert all(agreement(horizon, k) == 1.0 for k in range(LENGTH))


def test_a_leak_is_outvoted() -> None:
    horizon = sequence()
    leaked = truth(6)
    leaked[30:45, 5:60] = 2
    horizon.frames[6].raw_labels = leaked
    vote(horizon)
    assert agreement(horizon, 6) == 1.0


def test_frames_that_know_nothing_take_their_neighbours_word() -> None:
    horizon = sequence()
    horizon.frames[4].raw_labels = np.full(SIZE, UNKNOWN_LABEL, np.int32)
    vote(horizon)
    assert agreement(horizon, 4) == 1.0


def test_where_nobody_knows_the_label_stays_unknown() -> None:
    horizon = make_horizon([make_state(k, np.full(SIZE, UNKNOWN_LABEL, np.int32)) for k in range(4)])
    vote(horizon)
    assert all((state.labels == UNKNOWN_LABEL).all() for state in horizon.frames)


def test_neighbours_beyond_untrusted_flow_have_no_vote() -> None:
    horizon = sequence()
    horizon.frames[4].raw_labels = np.zeros(SIZE, np.int32)
    vote(horizon, trusted=False)
    assert (horizon.frames[4].labels == 0).all()


def test_only_frames_from_the_first_on_are_voted() -> None:
    horizon = sequence()
    for k in (2, 6):
        horizon.frames[k].raw_labels = horizon.frames[k].labels = np.zeros(SIZE, np.int32)
    label_votes.vote(horizon, UniformFlow(SIZE), 4, 5)  # type: ignore[arg-type]
    assert (horizon.frames[2].labels == 0).all()
    assert agreement(horizon, 6) > 0.99


def test_frames_that_miss_an_object_do_not_outvote_those_that_show_it() -> None:
    horizon = sequence()
    for k in (3, 4, 5, 6, 7):
        horizon.frames[k].raw_labels = np.where(truth(k) == 1, 0, truth(k))
    vote(horizon)
    assert all(agreement(horizon, k) > 0.99 for k in range(LENGTH))  # it was there before and after


def test_what_is_gone_is_gone() -> None:
    horizon = sequence()
    for k in range(4, LENGTH):
        horizon.frames[k].raw_labels = np.where(truth(k) == 1, 0, truth(k))
    vote(horizon)
    assert not (horizon.frames[-1].labels == 1).any()


def test_what_looks_otherwise_has_no_vote() -> None:
    horizon = sequence()
    for k in range(LENGTH):  # something comes into view, and flow, which sees nothing move, says it was always there
        seen = k >= LENGTH - 2
        horizon.frames[k].raw_labels = truth(k) if seen else np.zeros(SIZE, np.int32)
        horizon.frames[k].image[:] = np.where(seen & (truth(k) > 0), 200, 90)[..., None]
    vote(horizon)
    assert all(agreement(horizon, k) > 0.97 for k in (LENGTH - 2, LENGTH - 1))
    assert not horizon.frames[LENGTH - 3].labels.any()


def test_names_hold_where_no_pixel_can_be_followed() -> None:
    horizon = sequence()
    for k in (5, 6, 7):
        horizon.frames[k].raw_labels = np.array([0, 2, 1], np.int32)[truth(k)]
    vote(horizon, trusted=False)
    assert all(agreement(horizon, k) == 1.0 for k in range(LENGTH))
    assert np.array_equal(horizon.frames[6].named_labels, truth(6))
    assert np.array_equal(horizon.frames[6].raw_labels, np.array([0, 2, 1])[truth(6)])  # as the source said


def test_names_that_turn_out_wrong_are_mended_in_frames_voted_before() -> None:
    frames = [make_state(k, np.array([0, 2, 1], np.int32)[truth(k)] if k < 3 else truth(k)) for k in range(LENGTH)]
    horizon = make_horizon(frames[:4])
    vote(horizon)
    assert agreement(horizon, 3) < 1.0  # three frames against one
    for state in frames[4:]:
        horizon.append(state)
    label_votes.vote(horizon, UniformFlow(SIZE), 1, 6)  # type: ignore[arg-type]
    assert all(agreement(horizon, k) == 1.0 for k in range(LENGTH))


def test_names_of_a_source_that_takes_a_users_word_are_its_own() -> None:
    horizon = sequence()
    for state in horizon.frames:
        state.holds_names = True
    for k in (6, 7, 8):
        horizon.frames[k].raw_labels = np.array([0, 7, 2], np.int32)[
            truth(k)
        ]  # somebody has said what the first one is
    vote(horizon, trusted=False)
    assert set(np.unique(horizon.frames[-1].labels)) == {0, 2, 7}


def test_one_that_takes_the_place_of_another_keeps_its_own_name() -> None:
    horizon = sequence()
    for k in range(LENGTH):  # one leaves; later another one comes to where it was
        horizon.frames[k].raw_labels = np.where(truth(k) == 1, (1, 0, 3)[(k > 3) + (k > 5)], 0)
    vote(horizon, trusted=False)
    assert set(np.unique(horizon.frames[-1].labels)) == {0, 3}
    assert set(np.unique(horizon.frames[0].labels)) == {0, 1}


# -- points ------------------------------------------------------------------------------------------------------------


def table_at(uv: list[tuple[float, float]], length: int = LENGTH) -> PointTable:
    count = len(uv)
    return PointTable(
        np.arange(count),
        np.zeros(count, np.int64),
        np.repeat(np.array(uv, np.float32)[:, None], length, 1),
        np.ones((count, length), bool),
        np.full((count, length), 0.2, np.float32),
        np.zeros(count, np.int64),
        np.zeros(count, np.float32),
    )


def test_points_take_the_label_of_most_frames_that_saw_them() -> None:
    horizon = sequence()
    horizon.frames[2].labels = np.zeros(SIZE, np.int32)
    points = table_at([(10, 20), (30, 20), (50, 40), (10, 20)])
    points.seen[3, :2] = points.seen[3, 3:] = False  # seen only where the label was missing
    points.vote(horizon)
    assert points.labels.tolist() == [1, 2, 0, 0]
    assert points.purity == pytest.approx([8 / 9, 8 / 9, 1.0, 1.0])


def test_voting_over_no_points_is_harmless() -> None:
    empty = PointTable.empty(LENGTH)
    empty.vote(sequence())
    assert empty.count == 0 and empty.joined(table_at([(1, 1)])).count == 1


def test_lifted_points_lie_on_the_depth_map() -> None:
    T = pose((0, 0.1, 0), (0.3, 0, 0))
    depth = np.linspace(1, 3, SIZE[0] * SIZE[1]).reshape(SIZE)
    horizon = make_horizon([make_state(0, depth_m=depth, T_map_cam=T)])
    points = table_at([(12, 7), (40, 30)], 1)
    points.seen[1, 0] = False
    xyz = lift(points, horizon)
    expected = move(T, CAMERA.unproject(np.array([[12.0, 7.0]]), depth[7, 12][None]))
    assert xyz[0, 0] == pytest.approx(expected[0], rel=1e-4)
    assert np.isnan(xyz[1, 0]).all()


def test_observations_carry_raw_or_mended_depth() -> None:
    horizon = make_horizon([make_state(0, depth_m=2.0), make_state(1, depth_m=2.0)])
    for state in horizon.frames:
        state.depth_m[:] = 4.0
    points = table_at([(12, 7)], 2)
    points.seen[0, 1] = False
    assert points.observations(horizon, mended=False).inverse_depth[0, 0] == pytest.approx(0.5)
    mended = points.observations(horizon, mended=True)
    assert mended.inverse_depth[0, 0] == pytest.approx(0.25)
    assert np.isnan(mended.inverse_depth[0, 1])
    assert np.isfinite(mended.uv_px).all() and mended.seconds.tolist() == pytest.approx([0, 0.1])


def test_chains_get_noisier_with_age_and_end() -> None:
    tracks = PointTracks(
        np.array([5]),
        np.zeros((1, 6, 2), np.float32),
        np.array([[True, True, True, True, False, True]]),
        np.full((1, 6), 0.3, np.float32),
        np.array([12]),
        first_index=10,
    )
    points = from_chains(tracks, drift_px=0.4, max_age=2)
    assert points.sigma_px[0] == pytest.approx(np.hypot(0.3, 0.4 * np.array([2, 1, 0, 1, 2, 3])))
    assert points.seen[0].tolist() == [True, True, True, True, False, False]
