"""Settings that several tests of the engine share."""

from __future__ import annotations

from typing import Any

from motion4d_ros.config import Config
from motion4d_ros.pipeline import Motion4D


def given(**values: Any) -> Config:
    """Masks, depth and poses come with the frames; one thread. `values` are set afterwards."""
    config = Config()
    config.update(
        {
            "run": {"threads": 1, "device": "cpu"},
            "masks.source": "topic",
            "depth.source": "topic",
            "pose.source": "odometry",
        }
    )
    config.update(values)
    return config


def realtime_engine(**values: Any) -> Motion4D:
    """An engine in realtime mode, with short windows and few steps."""
    settings = {
        "budget.mode": "realtime",
        "window": {"length": 4, "horizon": 16, "global_every": 0},
        "fit": {"motion_iterations": 4, "semantic_iterations": 4},
        "geometry": {"iterations": 3, "static_points": 80, "object_points": 60, "max_parts": 1},
    }
    return Motion4D(given(**{**settings, **values}))
