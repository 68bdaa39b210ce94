"""The tests exercise what is installed, not the source tree: only the installed package has messages."""

from __future__ import annotations

import importlib.metadata
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import motion4d_ros

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


@pytest.mark.parametrize("command", ["lib/motion4d_ros/motion4d_node", "lib/motion4d_ros/motion4d", "bin/motion4d"])
def test_commands_start_the_interpreter_of_the_build(prefix: Path, command: str) -> None:
    path = prefix / command
    assert path.stat().st_mode & stat.S_IXUSR
    first_line = path.read_text().splitlines()[0]
    assert Path(first_line.removeprefix("#!")).resolve() == Path(sys.executable).resolve()


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


def test_only_the_ros_folder_imports_ros(repository: Path) -> None:
    ros_import = re.compile(
        r"^\s*(?:from|import)\s+(?:rclpy|launch|tf2_\w+|\w+_msgs|std_srvs|builtin_interfaces|motion4d_ros\.(?:msg|srv|ros))\b",
        re.MULTILINE,
    )
    source = repository / "motion4d_ros"
    offenders = [
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if path.relative_to(source).parts[0] != "ros" and ros_import.search(path.read_text())
    ]
    assert offenders == []
