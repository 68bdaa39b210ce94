"""What all tests share: DDS traffic that stays on this machine, and the measured data where it is at hand."""

from __future__ import annotations

import os
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# Before anything imports rclpy. The Makefile sets the same; this covers a bare `pytest`.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("ROS_DOMAIN_ID", str(1 + zlib.crc32(str(ROOT).encode()) % 100))
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"  # messages check the types of what they are given
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["HF_HUB_CACHE"] = str(ROOT / "no-such-folder")  # what somebody has fetched must not change a test

sys.path.append(str(Path(__file__).parent))  # for `engine_builders`

# A busy machine must not fail a test, so examples have no deadline; in CI the same ones are drawn every time.
settings.register_profile("motion4d", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("motion4d")


@pytest.fixture(scope="session")
def repository() -> Path:
    """Top folder of the checkout: for tests of what is not installed (documents, message sources)."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with measured data beside the checkout (or MOTION4D_SHARED); the test is skipped where it is absent."""
    folder = Path(os.environ.get("MOTION4D_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no data at {folder}/data: lay it there or set MOTION4D_SHARED")
    return folder


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Path:
    """`shared`/data: real sequences and scenes with exact truth. Read only."""
    return shared / "data"


@pytest.fixture
def logs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which defects leave their logs during this test."""
    folder = tmp_path_factory.mktemp("logs")
    monkeypatch.setenv("MOTION4D_LOG", str(folder))
    return folder
