"""The tests exercise what is installed, not the source tree: only the installed package has messages."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import motion4d_ros
from motion4d_ros.children import environment, module_command
from motion4d_ros.offline.resources import find_files
from motion4d_ros.offline.results.workspace import PRODUCTS

PACKAGE = Path(motion4d_ros.__file__).resolve().parent


@pytest.fixture
def prefix() -> Path:
    """The colcon install folder of the package; only `make test` says where it must be."""
    if "MOTION4D_INSTALLED" not in os.environ:
        pytest.skip("not run by `make test`: MOTION4D_INSTALLED is not set")
    return Path(os.environ["MOTION4D_INSTALLED"]).resolve() / "motion4d_ros"


def test_modules_come_from_the_install_space(prefix: Path) -> None:
    assert prefix in PACKAGE.parents


def test_every_source_module_is_installed_and_nothing_else(prefix: Path, repository: Path) -> None:
    source = repository / "motion4d_ros"
    expected = {path.relative_to(source) for path in source.rglob("*.py")}
    installed = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")}
    generated = {path for path in installed if path.parts[0] in ("msg", "srv")}
    assert installed - generated == expected
    assert generated


def test_version_is_the_one_of_package_xml(repository: Path) -> None:
    found = re.search(r"<version>(.*?)</version>", (repository / "package.xml").read_text())
    assert found and importlib.metadata.version("motion4d_ros") == found[1]


def test_package_initialiser_is_empty(repository: Path) -> None:
    # The message generator installs an __init__.py of its own at the same place: whichever wins must not matter.
    assert (repository / "motion4d_ros" / "__init__.py").read_text() == ""


def test_raster_library_lies_beside_its_loader(prefix: Path) -> None:
    assert (PACKAGE / "render" / "libmotion4d_raster.so").is_file()


COMMANDS = ["lib/motion4d_ros/motion4d_node", "lib/motion4d_ros/motion4d", "bin/motion4d"]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_start_the_interpreter_of_the_build(prefix: Path, command: str) -> None:
    path = prefix / command
    assert path.stat().st_mode & stat.S_IXUSR
    (named,) = re.findall(r"^python='(.*)'$", path.read_text(), re.MULTILINE)
    assert Path(named).resolve() == Path(sys.executable).resolve()


def test_commands_are_executable_where_they_are_built(prefix: Path) -> None:
    """`colcon build --symlink-install` installs links to them."""
    built = [
        path for path in (prefix.parents[1] / "build" / "motion4d_ros" / "scripts").rglob("motion4d*") if path.is_file()
    ]
    assert built and all(path.stat().st_mode & stat.S_IXOTH for path in built)


def run_moved(words: list[str | Path], cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a shell that sourced nothing."""
    kept = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.run(
        list(map(str, words)), cwd=cwd, env=kept | variables, capture_output=True, text=True, timeout=500
    )


JOBS = ["bench", "eval", "gate", "gpu-bench", "gpu-check"]


@pytest.mark.parametrize("job", JOBS)
def test_jobs_of_the_makefile_use_what_is_installed(prefix: Path, repository: Path, job: str) -> None:
    """Though they run in the checkout, where a folder of the same name lies: it has neither messages nor library."""
    shown = ["make", "-n", "-o", "install/.stamp", job]
    variables = {name: text for name, text in os.environ.items() if name not in ("MAKEFLAGS", "ARGS")}
    line = subprocess.run(shown, cwd=repository, env=variables, capture_output=True, text=True, check=True).stdout
    asked = re.sub(r" motion4d_ros\.evaluation\..*", " motion4d_ros.doctor.child raster_library messages", line.strip())
    assert asked != line.strip()
    done = subprocess.run(["bash", "-c", asked], cwd=repository, env=variables, capture_output=True, text=True)
    assert done.stdout.count('"found"') == 2, done.stdout + done.stderr


def test_processes_of_ours_pass_by_what_lies_in_the_current_folder(tmp_path: Path) -> None:
    other = tmp_path / "motion4d_ros" / "doctor"
    other.mkdir(parents=True)
    for folder in (other.parent, other):
        (folder / "__init__.py").touch()
    (other / "child.py").write_text("print('the wrong one')")
    words = module_command("motion4d_ros.doctor.child", "message_definitions")
    done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"name": "message_definitions", "found": "4 definitions"}


@pytest.fixture
def moved(prefix: Path, tmp_path: Path) -> Path:
    """The package's install folder, laid somewhere else, where blanks stand in the path."""
    return shutil.copytree(prefix, tmp_path / "moved to here" / "motion4d_ros", symlinks=True)


@pytest.mark.parametrize("command", COMMANDS[1:])
def test_commands_of_a_moved_install_space_use_what_moved_with_them(
    moved: Path, repository: Path, tmp_path: Path, command: str
) -> None:
    manifest = moved / "share" / "motion4d_ros" / "package.xml"
    manifest.write_text(re.sub("<version>.*?<", "<version>12.3.4<", manifest.read_text()))
    preset = moved / "share" / "motion4d_ros" / "config" / "only_here.yaml"
    preset.write_text("window: {length: 5}")
    (tmp_path / "link").symlink_to(moved / command)
    for path in (moved / command, tmp_path / "link"):
        assert run_moved([path, "--version"], tmp_path).stdout == "motion4d_ros 12.3.4\n"
    refused = run_moved([moved / command, "analyze", "none", "--out", "out", "--preset", "nonsense"], tmp_path)
    assert refused.returncode == 2 and "only_here, quality" in refused.stderr


def test_a_moved_command_falls_back_on_the_paths_python(moved: Path, tmp_path: Path) -> None:
    path = moved / "bin" / "motion4d"
    path.write_text(re.sub("^python='.*'$", "python='/gone/bin/python'", path.read_text(), flags=re.MULTILINE))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text('#!/bin/sh\necho "the other: $1 $2"\n')
    (tmp_path / "bin" / "python3").chmod(0o755)
    done = run_moved([path, "--version"], tmp_path, PATH=f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert done.stdout == f"the other: {path} --version\n"


@pytest.mark.slow
def test_a_moved_install_space_analyses(moved: Path, tmp_path: Path) -> None:
    """From the interpreter of its environment, without the executables, with a preset."""
    (tmp_path / "images").mkdir()
    picture = np.random.default_rng(1).integers(0, 255, (60, 90, 3), np.uint8)
    for index in range(8):
        shifted = np.roll(cv2.GaussianBlur(picture, (0, 0), 2), index, axis=1)
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), shifted[:48, :64])
    (modules,) = (path.parent for path in moved.glob("lib*/python3*/*-packages/motion4d_ros"))
    words = ["-m", "motion4d_ros.cli", "analyze", "images", "--out", "out", "--preset", "fast", "--fps", "10"]
    done = run_moved([sys.executable, *words], tmp_path, PYTHONPATH=str(modules))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(PRODUCTS)


def test_shared_files_are_those_of_the_install_space(prefix: Path) -> None:
    for folder, pattern, least in (
        ("msg", "*.msg", 4),
        ("srv", "*.srv", 1),
        ("config", "*.yaml", 8),
        ("launch", "*.py", 3),
    ):
        found = find_files(folder, pattern)
        assert len(found) >= least and {path.parent for path in found} == {prefix / "share" / "motion4d_ros" / folder}


@pytest.mark.parametrize("folder", ["launch", "config"])
def test_launch_and_configuration_are_installed(prefix: Path, repository: Path, folder: str) -> None:
    source = repository / folder
    expected = {path.name for path in source.iterdir() if path.is_file()} if source.is_dir() else set()
    target = prefix / "share" / "motion4d_ros" / folder
    assert expected <= ({path.name for path in target.iterdir()} if target.is_dir() else set())


def test_the_engine_does_not_import_ros(tmp_path: Path) -> None:
    """A workstation without ROS analyses recordings."""
    code = "import sys, motion4d_ros.pipeline, motion4d_ros.config; print('rclpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"
