"""What several tests of the evaluation need."""

from __future__ import annotations

from pathlib import Path

import pytest

from motion4d_ros.evaluation.synthetic import SyntheticScene, make_scene


@pytest.fixture
def shared_scene(shared_data: Path) -> Path:
    """Folder of a shared scene with ground truth; skips where it is absent."""
    folder = shared_data / "scenes" / "static_camera"
    if not (folder / "gt.npz").is_file():
        pytest.skip("../shared/data/scenes is absent")
    return folder


@pytest.fixture
def yardstick(shared: Path) -> Path:
    """The shared evaluation script; skips where it is absent."""
    script = shared / "eval" / "evaluate.py"
    if not script.is_file():
        pytest.skip("../shared/eval is absent")
    return script


@pytest.fixture(scope="session")
def small_scene() -> SyntheticScene:
    """Twelve small frames of a bar that bends and a flag that waves."""
    return make_scene("bending", seed=1, frames=12, size=(120, 160))
