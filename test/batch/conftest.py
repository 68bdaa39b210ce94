"""Fixtures of the tests of a batch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from motion4d_ros.children import environment

sys.path.insert(0, str(Path(__file__).parent))  # the helpers beside this file

from batch_helpers import BREAKER, write_recording


@pytest.fixture
def breaker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders named `crashes`, `hangs` or `swells` do so when they are read; the log of all that were read."""
    folder = tmp_path / "breaker"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(BREAKER)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
    monkeypatch.setenv("BATCH_TEST_LOG", str(tmp_path / "read.log"))
    (tmp_path / "read.log").touch()
    return tmp_path / "read.log"


@pytest.fixture
def make_recordings(tmp_path: Path) -> Callable[..., list[Path]]:
    """Writes recordings with the given names into `in/`."""

    def make(*names: str) -> list[Path]:
        return [write_recording(tmp_path / "in" / name, seed) for seed, name in enumerate(names)]

    return make


@pytest.fixture
def reaped() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ended with the test."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            os.kill(process.pid, 9)
        process.wait()
