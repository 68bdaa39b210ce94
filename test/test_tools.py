"""The set-up scripts: what they mend in the ROS wheels, and how they say what is missing."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture
def repair_ros_wheels(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("repair_ros_wheels", repository / "tools" / "repair_ros_wheels.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_exported_include_folders_become_those_of_this_python(repair_ros_wheels: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "share" / "std_msgs" / "cmake"
    folder.mkdir(parents=True)
    (folder / "export.cmake").write_text(
        'INCLUDE "${_IMPORT_PREFIX}/include;/opt/python/cp311-cp311/include/python3.11;'
        '/opt/python/cp311-cp311/lib/python3.11/site-packages/numpy/_core/include"\n'
    )
    (folder / "other.cmake").write_text("set(unrelated /opt/elsewhere)\n")
    assert repair_ros_wheels.repair(tmp_path) == 1
    include = sysconfig.get_path("include")
    expected = f'INCLUDE "${{_IMPORT_PREFIX}}/include;{include};{np.get_include()}"\n'
    assert (folder / "export.cmake").read_text() == expected
    assert (folder / "other.cmake").read_text() == "set(unrelated /opt/elsewhere)\n"
    assert repair_ros_wheels.repair(tmp_path) == 0, "a second run must find nothing to do"


def set_up(
    repository: Path, tmp_path: Path, commands: dict[str, str], **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs the set-up with nothing but `commands` (name -> program) on the PATH."""
    path = tmp_path / "bin"
    path.mkdir()
    for name, program in {**{name: name for name in ("bash", "dirname", "sed")}, **commands}.items():
        found = shutil.which(program)
        assert found, program
        (path / name).symlink_to(found)
    return subprocess.run(
        [str(path / "bash"), str(repository / "tools" / "setup_venv.sh"), str(tmp_path / "venv")],
        env={"PATH": str(path), "ROS_ROOT": str(tmp_path / "no_ros"), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_everything_missing_is_named_in_one_line(repository: Path, tmp_path: Path) -> None:
    done = set_up(repository, tmp_path, {})
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.endswith("install with: sudo apt-get install -y python3 python3-venv python3-dev cmake g++\n")
    assert not (tmp_path / "venv").exists()


def test_only_what_is_missing_is_named(repository: Path, tmp_path: Path) -> None:
    true = "true"  # stands for a compiler: only its presence is asked for
    done = set_up(repository, tmp_path, {"g++": true}, PYTHON=str(Path(sys.executable).resolve()))
    assert done.stderr == "missing: cmake; install with: sudo apt-get install -y cmake\n"
    assert done.returncode == 2
