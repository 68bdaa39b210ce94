"""Settings that several tests of the engine share."""

from __future__ import annotations

from typing import Any

from motion4d_ros.config import Config


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
