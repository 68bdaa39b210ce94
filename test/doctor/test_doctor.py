"""`motion4d doctor`: every row has a state and a remedy, whatever is missing, broken or hanging."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from motion4d_ros import cli, remedies
from motion4d_ros.doctor import ask as asking
from motion4d_ros.doctor import command, machine, packages, renderer, robot
from motion4d_ros.doctor.ask import Answer, ask
from motion4d_ros.doctor.rows import Row, State, as_json, as_text, worst

WELL = {package.probe: Answer("1.0") for package in (*packages.REQUIRED, *packages.NETWORKS)}
WELL |= {name: Answer("well") for name in (*command.OURS, *command.ROBOT)}
NO_GPU = {"hardware": False, "visible": False, "problem": "no CUDA", "remedy": "a GPU"}
GPU = {"hardware": True, "visible": True, "cuda": "13.0", "gpu": "RTX", "gsplat": "1.5.3", "problem": "", "remedy": ""}


@pytest.fixture
def quick(monkeypatch):
    """No other process: all answers as given."""
    monkeypatch.setattr(command, "ask_all", lambda compile_kernels: (dict(WELL), dict(NO_GPU)))


def find(rows, name):
    return next(row for row in rows if row.name == name)


# --- the table ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_real_table_of_this_machine(capsys):
    """Everything that tests need is here, so nothing is FAIL; and no check failed in itself."""
    status = cli.main(["doctor", "--json"])
    table = json.loads(capsys.readouterr().out)
    assert set(table) == {"version", "state", "rows"}
    states = {row["name"]: row["state"] for row in table["rows"]}
    assert "fail" not in states.values() and status == 0, [row for row in table["rows"] if row["state"] == "fail"]
    assert "check" not in states
    for name in ("Python", "NumPy", "SciPy", "PyTorch", "OpenCV", "raster library", "CUDA", "gsplat", "C++ compiler"):
        assert name in states
    for name in ("onnxruntime", "transformers", "sam2", "models", "message files", "ROS 2", "memory", "cores"):
        assert name in states
    for row in table["rows"]:
        assert set(row) == {"group", "name", "state", "found", "remedy"}
        assert row["state"] in ("ok", "warn", "fail") and row["found"]
        assert row["remedy"] or row["state"] == "ok", row


def test_exit_status_and_worst_state(quick, capsys, monkeypatch):
    assert cli.main(["doctor"]) == 0
    monkeypatch.setattr(machine, "rows", lambda: [Row("machine", "memory", State.FAIL, "none", "buy some")])
    assert cli.main(["doctor"]) == 1
    assert "1 FAIL" in capsys.readouterr().out
    assert worst([]) is State.OK
    assert worst([Row("a", "b", State.WARN, "c", "d")]) is State.WARN


def test_piped_output_is_ascii_and_fits_80_columns(quick, capsys):
    cli.main(["doctor"])
    out = capsys.readouterr().out
    assert out.isascii() and "\033" not in out
    assert max(len(line) for line in out.splitlines()) <= 80
    assert re.search(r"^  OK    Python +3\.", out, re.MULTILINE)


def test_nothing_is_cut_off_at_any_width():
    remedy = "pip install " + " ".join(f"package{i}" for i in range(12))
    rows = [Row("g", "a name that is longer than its column", State.WARN, "found " * 30, remedy)]
    for width in (10, 60, 80, 120):
        text = as_text(rows, width)
        assert text.split().count("found") == 30
        assert all(word in text.split() for word in remedy.split())
    assert "\033[33mWARN" in as_text(rows, 80, colour=True)
    assert as_text([Row("g", "n", State.OK, "é → ü")], 80).isascii()


def test_json_is_whole_whatever_the_characters():
    table = json.loads(as_json([Row("g", "n", State.FAIL, 'é "quoted"\n', "→")], "1.2.3"))
    assert table["state"] == "fail" and table["version"] == "1.2.3"
    assert table["rows"] == [{"group": "g", "name": "n", "state": "fail", "found": 'é "quoted"\n', "remedy": "→"}]


def test_a_check_that_breaks_is_a_row(quick, monkeypatch):
    def breaks(*_):
        raise RuntimeError("an odd machine")

    for module in (machine, renderer, robot):
        monkeypatch.setattr(module, "rows", breaks)
    rows = command.examine()
    assert [row.found for row in rows if row.name == "check"] == [
        "the check itself failed: RuntimeError: an odd machine"
    ] * 3
    assert find(rows, "NumPy").state is State.OK


# --- probes in processes of their own -------------------------------------------------------------------------------


@pytest.fixture
def module_of(tmp_path, monkeypatch):
    """Makes modules that child processes find."""

    def make(name: str, code: str) -> str:
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(code))
        return f"import:{name}"

    monkeypatch.syspath_prepend(str(tmp_path))
    return make


def test_a_library_that_crashes_or_hangs_costs_its_own_row(module_of):
    probes = [
        module_of("m4d_fine", "__version__ = '1.5'\nprint('chatter')"),
        module_of("m4d_crash", "import os\nos.abort()"),
        module_of("m4d_raise", "raise ImportError('numpy.core.multiarray failed to import\\nmore')"),
        module_of("m4d_exit", "import sys\nsys.exit(3)"),
        module_of("m4d_hang", "import time\ntime.sleep(600)"),
        module_of("m4d_last", "__version__ = '2'"),
    ]
    answers = ask(probes, limit_s=5)
    assert answers["import:m4d_fine"] == Answer("1.5") and answers["import:m4d_last"] == Answer("2")
    assert "signal 6" in answers["import:m4d_crash"].error
    assert answers["import:m4d_raise"].error == "numpy.core.multiarray failed to import"
    assert answers["import:m4d_exit"].error
    assert "did not answer within 5 s" in answers["import:m4d_hang"].error


def test_many_that_hang_do_not_add_up(module_of):
    probes = [module_of(f"m4d_hang{i}", "import time\ntime.sleep(600)") for i in range(6)]
    answers = ask(probes, limit_s=1)
    assert set(answers) == set(probes) and not any(answer.well for answer in answers.values())
    assert sum("did not answer" in answer.error for answer in answers.values()) == asking.HANGS


def test_an_interpreter_that_cannot_be_started_is_an_answer(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert "cannot be started" in ask(["import:json"])["import:json"].error
    assert "cannot be started" in renderer.ask_gpu(False)["error"]


BLOCK = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
"""
ALMOST_NOTHING = {package.module.partition(".")[0] for package in (*packages.REQUIRED, *packages.NETWORKS)}


@pytest.mark.slow
@pytest.mark.parametrize("everywhere", [True, False], ids=["in all processes", "in the first process"])
@pytest.mark.parametrize("blocked", [{"torch"}, ALMOST_NOTHING], ids=["torch", "almost nothing"])
def test_missing_libraries_are_rows_and_not_crashes(tmp_path, blocked, everywhere):
    code = BLOCK.format(blocked=blocked)
    environment = dict(os.environ)
    if everywhere:
        (tmp_path / "sitecustomize.py").write_text(code)
        environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    else:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    words = code + "\nfrom motion4d_ros.cli import main; sys.exit(main(['doctor', '--json']))"
    done = subprocess.run(
        [sys.executable, "-c", words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1 and done.stderr == "", done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["PyTorch"]["state"] == "fail"
    assert rows["PyTorch"]["found"] == "not installed" and rows["PyTorch"]["remedy"] == "pip install torch"
    assert "needs" in rows["raster library"]["found"] and "needs" in rows["gsplat"]["found"]
    if "numpy" in blocked:
        assert rows["NumPy"]["state"] == rows["OpenCV"]["state"] == rows["rosbags"]["state"] == "fail"
        assert rows["onnxruntime"]["state"] == rows["sam2"]["state"] == "warn"
    else:
        assert rows["NumPy"]["state"] == rows["OpenCV"]["state"] == "ok"


# --- one by one -----------------------------------------------------------------------------------------------------


def test_what_pip_installs_is_what_is_looked_for(repository):
    lines = (repository / "requirements" / "runtime.txt").read_text(encoding="utf-8").splitlines()
    stated = {re.split(r"[<>=!~;\[ ]", line)[0].lower() for line in lines if line and not line.startswith("#")}
    assert {package.distribution.lower() for package in packages.REQUIRED} == stated, "packages.REQUIRED is behind"


def test_a_library_that_is_there_but_broken_is_reinstalled():
    answers = WELL | {"import:cv2": Answer(error="libGL.so.1: cannot open shared object file")}
    row = find(packages.required_rows(answers), "OpenCV")
    assert row.state is State.FAIL and "libGL" in row.found and "--force-reinstall" in row.remedy


def test_a_version_outside_the_range_is_a_warning(monkeypatch):
    monkeypatch.setattr(packages, "version_ranges", lambda: {"numpy": "<1.0"})
    row = find(packages.required_rows(WELL), "NumPy")
    assert row.state is State.WARN and "<1.0" in row.found and row.remedy == "pip install 'numpy<1.0'"


def test_commands_are_those_for_this_user_and_this_python(monkeypatch):
    package = packages.REQUIRED[0]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(packages, "externally_managed", lambda: True)
    assert package.command == "sudo apt-get install -y python3-numpy"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert package.command == "apt-get install -y python3-numpy"
    monkeypatch.setattr(packages, "externally_managed", lambda: False)
    assert package.command == "pip install numpy"
    monkeypatch.setattr(remedies, "externally_managed", lambda: True)
    rosbags = find(packages.REQUIRED, "rosbags")
    assert rosbags.command == "pip install --user --break-system-packages rosbags"


def test_a_folder_that_is_gone_and_no_temporary_files(monkeypatch):
    def gone() -> Path:
        raise FileNotFoundError(2, "No such file or directory")

    assert machine.disk_row("disk here", gone).state is State.FAIL
    monkeypatch.setattr(asking.tempfile, "TemporaryFile", lambda *_, **__: gone())
    assert "no temporary files" in ask(["import:json"])["import:json"].error


def test_an_old_python_fails():
    assert packages.python_row((3, 9, 2)).state is State.FAIL
    assert packages.python_row((3, 14, 0)).state is State.OK


@pytest.mark.parametrize(
    ("gpu", "cuda", "gsplat", "words"),
    [
        (NO_GPU, State.OK, State.OK, "no NVIDIA GPU"),
        (GPU, State.OK, State.OK, "draws the reference picture"),
        (GPU | {"problem": "CUDA is there but gsplat is not", "remedy": "pip"}, State.OK, State.WARN, "gsplat is not"),
        (NO_GPU | {"hardware": True, "problem": "this PyTorch is built without CUDA"}, State.WARN, State.WARN,
         "an NVIDIA GPU is there, but this PyTorch is built without CUDA"),
        ({"error": "crashed with signal 11"}, State.WARN, State.WARN, "crashed with signal 11"),
        ({}, State.OK, State.OK, "no NVIDIA GPU"),
    ],
)  # fmt: skip
def test_gpu_rows(gpu, cuda, gsplat, words):
    rows = renderer.gpu_rows(WELL, gpu)
    assert [row.name for row in rows] == ["CUDA", "gsplat"] and [row.state for row in rows] == [cuda, gsplat]
    assert any(words in row.found for row in rows)
    assert all(row.remedy for row in rows if row.state is not State.OK)


def test_raster_library_missing_fails():
    row = renderer.raster_row(WELL | {"raster_library": Answer(error="libmotion4d_raster.so not found")})
    assert row.state is State.FAIL and row.remedy


def test_no_compiler_is_a_warning(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    row = renderer.compiler_row()
    assert row.state is State.WARN and "apt-get install" in row.remedy


@pytest.mark.parametrize(("free_gib", "state"), [(0.3, State.FAIL), (1.2, State.WARN), (8, State.OK)])
def test_memory(free_gib, state):
    assert machine.memory_row(int(free_gib * 2**30), 0).state is state


def test_memory_of_a_container_counts(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 999 kB\nMemAvailable:   4194304 kB\n")
    assert machine.free_memory(tmp_path / "meminfo", tmp_path) == (4 * 2**30, 0)
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.free_memory(tmp_path / "meminfo", tmp_path)[1] == 0
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    (tmp_path / "memory.current").write_text(f"{2**29}\n")
    assert machine.free_memory(tmp_path / "meminfo", tmp_path) == (2**29, 2**30)


def test_disk(tmp_path, monkeypatch):
    assert machine.disk_row("disk here", lambda: tmp_path / "nowhere").state is State.FAIL
    for room_gib, state in ((0.1, State.FAIL), (1.0, State.WARN), (50, State.OK)):
        usage = type("Usage", (), {"free": int(room_gib * 2**30)})
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda _, usage=usage: usage)
        assert machine.disk_row("disk here", lambda: tmp_path).state is state


def test_one_core_is_a_warning():
    assert machine.cores_row(1).state is State.WARN and machine.cores_row(2).state is State.OK


@pytest.mark.parametrize(
    ("text", "state"),
    [("", State.OK), ("42", State.OK), ("150", State.WARN), ("233", State.FAIL), ("-1", State.FAIL), ("x", State.FAIL)],
)
def test_domain(text, state):
    assert robot.domain_row(text).state is state


@pytest.mark.parametrize(
    ("text", "only", "state", "words"),
    [
        ("", "", State.OK, "subnet"),
        ("LOCALHOST", "", State.OK, "this machine only"),
        ("", "1", State.OK, "this machine only"),
        ("OFF", "", State.WARN, "nothing is found"),
        ("localhost", "", State.WARN, "none of SUBNET"),
    ],
)
def test_discovery_range(text, only, state, words):
    row = robot.range_row(text, only)
    assert row.state is state and words in row.found


def test_receive_buffer_and_shared_memory(tmp_path, monkeypatch):
    path = tmp_path / "rmem_max"
    for text, state in (("212992\n", State.WARN), ("67108864", State.OK), ("nonsense", State.OK)):
        path.write_text(text)
        assert robot.receive_buffer_row(path).state is state
    assert robot.receive_buffer_row(tmp_path / "none").state is State.OK
    assert robot.shared_memory_row(tmp_path / "none").state is State.WARN
    for free_mib, total_mib, state, words in (
        (60, 64, State.WARN, "--ipc=host"), (10, 8000, State.WARN, "clean"), (4000, 8000, State.OK, ""),
    ):  # fmt: skip
        usage = type("Usage", (), {"free": free_mib * 2**20, "total": total_mib * 2**20})
        monkeypatch.setattr(robot.shutil, "disk_usage", lambda _, usage=usage: usage)
        row = robot.shared_memory_row(tmp_path)
        assert row.state is state and words in row.remedy


def test_middleware_that_is_not_installed_fails(tmp_path, monkeypatch):
    index = tmp_path / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "rmw_fastrtps_cpp").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")
    environment = {"RMW_IMPLEMENTATION": "rmw_cyclonedds_cpp", "ROS_DISTRO": "kilted"}
    row = robot.dds_rows(environment)[0]
    assert row.state is State.FAIL and "ros-kilted-rmw-cyclonedds-cpp" in row.remedy
    assert robot.dds_rows({"RMW_IMPLEMENTATION": "rmw_fastrtps_cpp"})[0].state is State.OK
    assert robot.dds_rows({})[0].state is State.OK


def test_profiles_that_do_not_exist_are_told(tmp_path):
    (tmp_path / "dds.xml").touch()
    rows = robot.dds_rows({
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(tmp_path / "none.xml"),
        "CYCLONEDDS_URI": f"file://{tmp_path}/dds.xml",
    })  # fmt: skip
    assert find(rows, "FASTRTPS_DEFAULT_PROFILES_FILE").state is State.WARN
    assert find(rows, "CYCLONEDDS_URI").state is State.OK


def test_ros_of_all_kinds(tmp_path, monkeypatch):
    for name in ("jazzy", "kilted"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "setup.bash").touch()
    assert robot.sourceable(tmp_path) == ["kilted", "jazzy"]
    assert robot.sourceable(tmp_path / "none") == []
    row = robot.absent_row("", ["kilted"])
    assert row.state is State.WARN and row.remedy == "source /opt/ros/kilted/setup.bash"
    assert robot.absent_row("", []).state is State.WARN
    assert robot.absent_row("jazzy", []).state is State.FAIL
    assert robot.ros_row("jazzy", Answer("rclpy runs on rmw_fastrtps_cpp")).state is State.OK
    assert robot.ros_row("humble", Answer("rclpy runs on rmw_fastrtps_cpp")).state is State.WARN
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_zenoh_cpp")
    row = robot.ros_row("kilted", Answer(error="librmw_zenoh_cpp.so not found"))
    assert row.state is State.FAIL and row.remedy.endswith("apt-get install -y ros-kilted-rmw-zenoh-cpp")


def test_optional_packages_name_their_apt_package(monkeypatch):
    monkeypatch.setattr(robot, "installed", lambda module: module == "launch_ros")
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    rows = [robot.optional_row("jazzy", *item) for item in robot.OPTIONAL]
    assert find(rows, "launch_ros").state is State.OK
    assert find(rows, "tf2_ros_py").remedy.endswith("apt-get install -y ros-jazzy-tf2-ros-py")
    assert find(rows, "compressed_image_transport").state is State.WARN


def test_cv_bridge_that_converts_wrongly_is_not_used(monkeypatch):
    monkeypatch.setattr(robot, "installed", lambda module: True)
    row = robot.bridge_row("jazzy", {"cv_bridge": Answer(error="it converts known pictures wrongly")})
    assert row.state is State.WARN and "converts known pictures wrongly" in row.found


def test_our_messages(repository: Path):
    assert robot.messages_row({"messages": Answer("generated")}).state is State.OK
    row = robot.messages_row({"messages": Answer(error="No module named 'motion4d_ros.msg'")})
    assert row.state is State.WARN and "colcon build" in row.remedy
    row = robot.definitions_row(WELL | {"message_definitions": Answer(error="not installed")})
    assert row.state is State.FAIL


def test_the_doctor_imports_nothing_but_the_standard_library(tmp_path):
    code = (
        "import sys\nbefore = set(sys.modules)\nimport motion4d_ros.cli, motion4d_ros.doctor.command\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before} - {'motion4d_ros'}\n"
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
