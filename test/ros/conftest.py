"""Real `rclpy` over real DDS, confined to this machine (see ../conftest.py)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if "MOTION4D_INSTALLED" not in os.environ:  # `make test` always has ROS 2: there, an import that fails is an error
    pytest.importorskip("rclpy", reason="needs ROS 2")
sys.path.insert(0, str(Path(__file__).parent))  # the helpers beside this file

from harness import Harness


@pytest.fixture
def harness() -> Iterator[Callable[..., Harness]]:
    """Makes a node with its own context, a camera to feed it and ears to hear it; all of it goes away afterwards."""
    made: list[Harness] = []

    def make(*args: object, **kwargs: object) -> Harness:
        made.append(Harness(*args, **kwargs))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for item in made:
        item.close()
