"""Outlines that the frames around agree on, from constructed faults of the masks."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from fit_builders import CAMERA, UniformFlow, make_horizon, make_state
from numpy.typing import NDArray

from motion4d_ros.fit.semantics.consensus import Consensus
from motion4d_ros.fit.semantics.mask_selection import overlap
from motion4d_ros.fit.window.horizon import Horizon
from motion4d_ros.types import UNKNOWN_LABEL, IntArray

SIZE = CAMERA.size
LENGTH = 11


def truth(k: int, step: int = 2, grow: int = 0) -> NDArray[np.int32]:
    """A disc of label 3 that moves `step` px a frame; its radius is off by `grow` px."""
    labels = np.zeros(SIZE, np.int32)
    cv2.circle(labels, (18 + step * k, 24), 10 + grow, 3, -1)
    return labels


def sequence(step: int = 2) -> Horizon:
    return make_horizon([make_state(k, truth(k, step)) for k in range(LENGTH)])


def agreed(horizon: Horizon, k: int, step: int = 2, trusted: bool = True) -> NDArray[np.int32]:
    return Consensus(horizon, UniformFlow(SIZE, (float(step), 0.0), trusted)).carried(k, [3])  # type: ignore[arg-type]


def quality(labels: IntArray, k: int, step: int = 2) -> float:
    return overlap(labels == 3, truth(k, step) == 3)


@pytest.mark.parametrize("step", [0, 2])
def test_outlines_that_come_and_go_are_averaged(step: int) -> None:
    horizon = sequence(step)
    for k, state in enumerate(horizon.frames):
        state.raw_labels = truth(k, step, grow=(-3, 3, 2, -2, 0)[k % 5])
    told = [quality(agreed(horizon, k, step), k, step) for k in range(2, 9)]
    given = [quality(horizon.frames[k].raw_labels, k, step) for k in range(2, 9)]
    assert min(told) > 0.82 and np.mean(told) > np.mean(given) + 0.1


def test_a_gap_is_bridged_even_where_flow_stops_at_the_outline() -> None:
    horizon = sequence()
    for k in (4, 5, 6):
        horizon.frames[k].raw_labels = np.zeros(SIZE, np.int32)
    assert all(quality(agreed(horizon, k), k) > 0.95 for k in (4, 5, 6))


def test_an_object_that_leaves_is_gone_and_one_seen_once_was_never_there() -> None:
    horizon = sequence(0)
    for k in range(5, LENGTH):
        horizon.frames[k].raw_labels = np.zeros(SIZE, np.int32)
    assert not (agreed(horizon, 8, 0, trusted=False) == 3).any()
    ghost = make_horizon([make_state(k, truth(k, 0) if k == 5 else None) for k in range(LENGTH)])
    assert not (agreed(ghost, 5, 0) == 3).any()


def test_frames_without_an_opinion_do_not_speak_against_an_object() -> None:
    horizon = sequence()
    for k in range(3, 8):
        horizon.frames[k].raw_labels = np.full(SIZE, UNKNOWN_LABEL, np.int32)
    assert quality(agreed(horizon, 5), 5) > 0.95


def test_a_steady_source_keeps_its_outline_but_loses_a_speck_and_fills_a_hole() -> None:
    horizon = sequence()
    spoilt = truth(5)
    spoilt[24, 26:30] = 0
    spoilt[40:44, 50:54] = 3
    horizon.frames[5].adopt(spoilt)
    consensus = Consensus(horizon, UniformFlow(SIZE, (2.0, 0.0)))  # type: ignore[arg-type]
    assert (consensus.mended(5) == truth(5)).all()
    grown = sequence()
    grown.frames[5].adopt(truth(5, grow=1))
    consensus = Consensus(grown, UniformFlow(SIZE, (2.0, 0.0), trusted=False))  # type: ignore[arg-type]
    assert (consensus.mended(5) == truth(5, grow=1)).all()
