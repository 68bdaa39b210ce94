"""What a recording does to its process costs that process alone, and is said in one line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from batch_helpers import QUICK

from motion4d_ros.batch.attempt import PREFIX, run_attempt
from motion4d_ros.batch.carriers import Task
from motion4d_ros.batch.places import LocalPlace
from motion4d_ros.offline.resources import package_version

MIB = 2**20


@pytest.fixture
def attempt(tmp_path):
    """Runs one attempt at a recording; its outcome."""
    place = LocalPlace(tmp_path / "out")
    place.open()

    def run(recording: Path, **changes: object) -> dict[str, object]:
        key = {"input": "i", "settings": "s", "version": "v"}
        fields = {
            "input": str(recording),
            "folder": "x",
            "words": list(QUICK),
            "place": place.name,
            "token": place.token,
        }
        task = Task(**{**fields, "key": key, "version": package_version(), **changes})  # type: ignore[arg-type]
        outcome = run_attempt(task.as_dict())
        assert "\n" not in str(outcome["reason"]) and outcome["node"] == os.uname().nodename
        assert not list(place.scratch().glob(f"{PREFIX}*")), "the scratch folder is still there"
        return outcome

    yield run
    place.close()


def test_a_crash_is_an_outcome(attempt, breaker, make_recordings, tmp_path):
    outcome = attempt(*make_recordings("crashes"))
    assert (outcome["state"], outcome["kind"]) == ("failed", "crash") and "SIGSEGV" in outcome["reason"]
    assert not (tmp_path / "out" / "x").exists()


def test_time_and_memory_are_bounded(attempt, breaker, make_recordings):
    slow, large = make_recordings("hangs", "swells")
    outcome = attempt(slow, timeout_s=1.0)
    assert outcome["kind"] == "timeout" and "--timeout 1 s" in outcome["reason"]
    outcome = attempt(large, memory=500 * MIB)
    assert outcome["kind"] == "memory" and "500 MiB" in outcome["reason"]
    assert [line.split()[0] for line in breaker.read_text().splitlines()][-1] == "swells"


def test_what_is_wrong_with_a_recording_is_said_as_analyze_says_it(attempt, tmp_path):
    (tmp_path / "a.mp4").write_text("this is no video\n" * 9)
    outcome = attempt(tmp_path / "a.mp4")
    assert (outcome["kind"], outcome["state"]) == ("input", "failed") and "a text file is neither" in outcome["reason"]
    assert "did you mean" in attempt(tmp_path / "b.mp4")["reason"]


def test_another_version_or_another_folder_is_refused(attempt, tmp_path):
    outcome = attempt(tmp_path, version="0.0.0")
    assert outcome["kind"] == "place" and "0.0.0" in outcome["reason"]
    outcome = attempt(tmp_path, token="of another batch")
    assert outcome["kind"] == "place" and "all nodes share" in outcome["reason"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("no small file system can be mounted (needs root)")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_the_machines_fault(attempt, small_disk, make_recordings, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    outcome = attempt(*make_recordings("ride"), place=f"file://{tmp_path}/remote", token="")
    assert outcome["kind"] == "full" and f"no space left on {small_disk}" in outcome["reason"]
    assert not list(small_disk.glob(f"{PREFIX}*")) and not (tmp_path / "remote" / "x").exists()
