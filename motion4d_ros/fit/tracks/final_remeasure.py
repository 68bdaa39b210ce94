"""Hindsight: objects are measured where the scene shows them by now, but wrong masks once said they were not.

Points are looked for on the mask of their object. A source that swaps, leaks or misses an object for a second therefore
leaves its motion unmeasured there, though every frame shows it plainly. Bridged by what was measured before and after,
the scene renders the object about where it is, and that is a better mask to look for points on. Only images decide:
points that are not found again on them change nothing, and the labels stay what they were.

And what was measured early began from what was known then: all objects are measured again from what is known by now.
"""

from __future__ import annotations

import numpy as np

from motion4d_ros.fit.optimisation.mapper import Mapper
from motion4d_ros.fit.semantics.mask_fusion import channel_names
from motion4d_ros.fit.window.horizon import FrameState, Horizon
from motion4d_ros.priors.interfaces import TrackSource
from motion4d_ros.types import UNKNOWN_LABEL, BoolArray, IntArray

LIKELY = 0.5  # rendered probability of a label from which points are looked for by it
MEASURED = 2  # times the points that a motion needs: an object with as many is measured in a frame


def remeasure_final(mapper: Mapper, horizon: Horizon, tracks: TrackSource) -> None:
    """Measures objects again, and also in frames of the horizon in which they are rendered, but hardly any of their
    points were found. Motions change, and labels of these frames.
    """
    before = {state.index: state.labels for state in horizon.frames}
    missed = {state.index: _relabelled(mapper, state) for state in horizon.frames}
    missed = {index: labels for index, labels in missed.items() if labels}
    with mapper.clock("geometry"):
        mapper.geometry.reconsider(horizon, tracks, missed.keys())
    mapper.adopt_motions(horizon)
    for index, labels in missed.items():
        _settle(mapper, horizon.get(index), labels, before[index])


def _relabelled(mapper: Mapper, state: FrameState) -> set[int]:
    """Objects that the scene shows in a frame in which they were not measured. Where they are concerned, the frame's
    labels become what is rendered.
    """
    mapper.yield_point()
    doubtful = [label for label in mapper.geometry.motions if not _is_measured(mapper, state.index, label)]
    if not doubtful:
        return set()
    shown = _shown(mapper, state)
    least = mapper.geometry.options.relocalise_min_pixels
    missed = {label for label in doubtful if (shown == label).sum() >= least}
    if missed:
        theirs = _of(missed, shown) | (_of(missed, state.labels) & (shown != UNKNOWN_LABEL))
        state.labels = np.where(theirs, shown, state.labels).astype(state.labels.dtype)
    return missed


def _shown(mapper: Mapper, state: FrameState) -> IntArray:
    """(H, W) the labels that the scene renders in a frame, UNKNOWN_LABEL where it isn't sure."""
    probability = mapper.view(state).labels.cpu().numpy()
    names = channel_names(mapper.channel_of, probability.shape[-1])
    return np.where(probability.max(-1) > LIKELY, names[probability.argmax(-1)], UNKNOWN_LABEL)


def _settle(mapper: Mapper, state: FrameState, labels: set[int], before: IntArray) -> None:
    """Objects that the images have confirmed in a frame are labelled where they are rendered by now, since the outline
    that points were looked for by was drawn before; of others, the labels become what they were `before` (H, W).
    """
    confirmed = {label for label in labels if _is_measured(mapper, state.index, label)}
    drawn = _of(labels, state.labels) | _of(labels, before)
    state.labels = np.where(drawn, before, state.labels)
    if not confirmed:
        return
    shown = _shown(mapper, state)
    theirs = _of(confirmed, shown) | (_of(confirmed, state.labels) & (shown != UNKNOWN_LABEL))
    unsure = (shown == UNKNOWN_LABEL) & (state.labels == 0)
    state.labels = np.where(theirs, shown, np.where(unsure, UNKNOWN_LABEL, state.labels)).astype(before.dtype)


def _is_measured(mapper: Mapper, index: int, label: int) -> bool:
    least = MEASURED * mapper.geometry.options.min_points
    return mapper.geometry.motions[label].support.get(index, 0) >= least


def _of(labels: set[int], image: IntArray) -> BoolArray:
    return np.isin(image, list(labels))
