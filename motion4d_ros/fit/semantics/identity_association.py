"""Names of the masks of a horizon: what holds together from frame to frame has the one name it was called by most.

Sources swap identities for a moment, above all when things come out from behind something. Pixels can outvote that
where flow can be trusted. Where it can't, as on what spins, a mask as a whole can still be followed: it covers the
place to which its past was carried.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from motion4d_ros.fit.window.horizon import Horizon
from motion4d_ros.geometry.image_warping import warp
from motion4d_ros.priors.interfaces import TrackSource
from motion4d_ros.types import UNKNOWN_LABEL, BoolArray, IntArray

SAME_NAME = 0.3  # overlap from which a mask is the one of the frames before that is called the same
OTHER_NAME = 0.5  # overlap from which it is one that was called otherwise in the frame before: a stronger claim
MIN_PIXELS = 30  # of a mask that counts as present
BRIDGED = 5  # frames for which a mask may be missing


@dataclass
class _Path:
    """One mask through some frames."""

    mask: BoolArray  # (H, W) where it was last seen, carried to the frame at hand
    called: dict[int, int] = field(default_factory=dict)  # position of a frame -> name in the source

    @property
    def last(self) -> int:
        """Position of the frame in which it was last seen."""
        return max(self.called)


def associate_identities(horizon: Horizon, tracks: TrackSource) -> int:
    """Sets `names` of every frame: each mask of its source gets the name that most of its path has.

    A mask whose name another one has a better claim to keeps silent: its pixels are unknown. The position of the first
    frame whose labels have thereby changed; the number of frames if none has. Sources that keep names themselves, and
    may have been told them, are believed.
    """
    if horizon.frames[-1].holds_names:
        return len(horizon)
    paths: list[_Path] = []
    for position, state in enumerate(horizon.frames):
        labels = state.raw_labels
        current = [path for path in paths if position - path.last <= BRIDGED]
        if current:
            back, _ = tracks.flow(state.index, horizon.frames[position - 1].index)
            for path in current:
                path.mask = warp(path.mask, back, nearest=True)
        masks = {label: labels == label for label in sorted(shown(labels))}
        follows = _matched(current, masks, position)
        for label, mask in masks.items():
            if label not in follows:
                follows[label] = _Path(mask)
                paths.append(follows[label])
            follows[label].mask = mask
            follows[label].called[position] = label
    changed = len(horizon)
    for position, state in reversed(list(enumerate(horizon.frames))):
        names = _names(paths, position)
        changed = changed if names == state.names else position
        state.names = names
    return changed


def shown(labels: IntArray) -> AbstractSet[int]:
    """Objects of which (H, W) labels show enough to count as present."""
    values, pixels = np.unique(labels[labels > 0], return_counts=True)
    return set(values[pixels >= MIN_PIXELS].tolist())


def _matched(paths: list[_Path], masks: dict[int, BoolArray], position: int) -> dict[int, _Path]:
    """The path that each mask of a frame continues, by its name in the source."""
    if not paths or not masks:
        return {}
    names = list(masks)
    gain: NDArray[np.float64] = np.zeros((len(names), len(paths)))
    for i, name in enumerate(names):
        for j, path in enumerate(paths):
            shared = overlap(masks[name], path.mask)
            same = path.called[path.last] == name
            if shared >= SAME_NAME if same else shared >= OTHER_NAME and path.last == position - 1:
                gain[i, j] = shared + 0.1 * same
    return {names[i]: paths[j] for i, j in zip(*linear_sum_assignment(-gain), strict=True) if gain[i, j] > 0}


def _names(paths: list[_Path], position: int) -> dict[int, int]:
    """What the masks of a frame are to be called, by the names that their paths have earned in all."""
    here = [path for path in paths if position in path.called]
    names = sorted({name for path in here for name in path.called.values()})
    if not here or all(len(set(path.called.values())) == 1 for path in here):
        return {}
    counts = [Counter(path.called.values()) for path in here]
    claims = np.array([[count[name] for name in names] for count in counts], float)
    given = {int(i): names[j] for i, j in zip(*linear_sum_assignment(-claims), strict=True) if claims[i, j] > 0}
    called = {path.called[position]: given.get(i, UNKNOWN_LABEL) for i, path in enumerate(here)}
    return {label: name for label, name in called.items() if label != name}


def overlap(a: BoolArray, b: BoolArray) -> float:
    """Intersection over union of two masks; 1 when both are empty."""
    union = int((a | b).sum())
    return float((a & b).sum()) / union if union else 1.0
