"""What newer frames say about older Gaussians is heard before new ones are added."""

from __future__ import annotations

import numpy as np
import torch
from fit_builders import CAMERA, make_horizon, make_state

from motion4d_ros.config import Config
from motion4d_ros.fit.optimisation.mapper import Mapper
from motion4d_ros.fit.output.scene_readout import rendered_labels
from motion4d_ros.fit.window.horizon import FrameState, Horizon
from motion4d_ros.types import IntArray

SQUARE = (slice(14, 34), slice(20, 44))  # what turns out to be an object
MIDDLE = (slice(18, 30), slice(24, 40))  # of it, beyond the reach of Gaussians around
BLAND, SQUARED = np.zeros(CAMERA.size, np.int32), np.zeros(CAMERA.size, np.int32)
SQUARED[SQUARE] = 1


def take(mapper: Mapper, horizon: Horizon, states: list[FrameState]) -> None:
    """The mapper gets to know new frames, but does not fit them."""
    for state in states:
        horizon.append(state)
    new = [state.index for state in states]
    mapper.extend(horizon, new)
    mapper.fill(horizon, new)


def states(indices: range, labels: IntArray) -> list[FrameState]:
    return [make_state(k, labels.copy()) for k in indices]


def in_square(mapper: Mapper, owner: int) -> int:
    """Gaussians of an object whose centres are seen in the square."""
    scene = mapper.scene
    uv = CAMERA.project(scene.means_at([0])[:, 0].detach().double().numpy())
    rows, columns = SQUARE
    inside = (uv[:, 1] > rows.start) & (uv[:, 1] < rows.stop - 1)
    inside &= (uv[:, 0] > columns.start) & (uv[:, 0] < columns.stop - 1)
    return int((inside & (scene.object_id.numpy() == owner)).sum())


def test_misnamed_gaussians_make_room_before_a_window_is_fitted() -> None:
    """Else they would go after the fit, and leave a hole in the object when its masks are published."""
    mapper, horizon = Mapper(Config(), torch.device("cpu")), make_horizon([])
    take(mapper, horizon, states(range(2), BLAND))
    assert in_square(mapper, 0) > 20
    take(mapper, horizon, states(range(2, 8), SQUARED))
    assert in_square(mapper, 0) == 0
    newest = horizon.frames[-1]
    shown = rendered_labels(mapper, mapper.view(newest), CAMERA)
    assert (shown[MIDDLE] == 1).mean() > 0.9
