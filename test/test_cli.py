"""The command line: exit statuses and one-line errors."""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import cv2
import numpy as np
import pytest

from motion4d_ros import cli
from motion4d_ros.config import Config
from motion4d_ros.failures import Stopped, write_log
from motion4d_ros.offline.command import add_config_options, read_config
from motion4d_ros.offline.resources import find_files, package_version, preset
from motion4d_ros.types import Motion4DError


def run(capsys, *words):
    status = cli.main(words)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["analyze", "nowhere", "--out", "x"], "nowhere: no such file or folder"),
        (["analyze", ".", "--out", "x", "--set", "window.lenght=4"], "did you mean window.length"),
        (["analyze", ".", "--out", "x", "--set", "masks.bodies=false"], "called 'masks.rigid_segmentation' now"),
        (["analyze", ".", "--out", "x", "--set", "rates.haste=3"], "called 'lr.geometry_multiplier' now"),
        (["analyze", ".", "--out", "x", "--set", "window.length"], "expected key=value"),
        (["analyze", ".", "--out", "x", "--set", "window.length=1000"], "must lie in 2 .. 64"),
        (["analyze", ".", "--out", "x", "--config", "none.yaml"], "none.yaml: cannot be read"),
        (["analyze", ".", "--out", "x", "--preset", "nonsense"], "there is no such preset"),
        (["analyze", ".", "--out", "x", "--queries", "none.npy"], "none.npy: no such file or folder"),
        (["analyze", ".", "--out", "x", "--fps", "0"], "frames per second"),
    ],
)
def test_user_errors_are_one_line_and_status_2(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, *words)
    assert status == 2 and out == ""
    assert message in err and err.startswith("motion4d: error: ") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonsense"], "there is no command 'nonsense'; choose one of analyze, batch, view, render, evaluate"),
        (["analyse", "x"], "there is no command 'analyse': did you mean analyze?"),
        (["models", "fecth", "x"], "there is no command 'fecth': did you mean fetch? (motion4d models --help)"),
        (["."], ". is no command; did you mean motion4d analyze . --out DIR?"),
        (["analyze"], "required: INPUT, --out"),
        (["analyze", "x", "--ouy", "y"], "there is no option --ouy: did you mean --out? (motion4d analyze --help)"),
        (["analyze", "x", "--out", "y", "--intrinsic-s=1,2,3,4"], "did you mean --intrinsics?"),
        (["analyze", "x", "--out", "y", "--intrinsics", "1,2"], "expected four numbers fx,fy,cx,cy"),
        (["--versoin"], "did you mean --ver"),
    ],
)
def test_mistakes_are_one_line_that_names_the_nearest(capsys, words, message):
    status, out, err = run(capsys, *words)
    assert status == 2 and out == "" and message in err
    assert err.startswith("motion4d: error: ") and err.count("\n") == 1


@pytest.mark.parametrize("option", ["", "--prompt-mask", "--queries"])
def test_mistyped_paths_are_told_the_nearest(capsys, tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    for name in ("clip.mp4", "first.png", "points.npy"):
        Path(name).touch()
    words = {
        "": ["clpi.mp4"],
        "--prompt-mask": ["clip.mp4", option, "frist.png"],
        "--queries": ["clip.mp4", option, "point.npy"],
    }
    nearest = {"": "clip.mp4", "--prompt-mask": "first.png", "--queries": "points.npy"}[option]
    status, _, err = run(capsys, "analyze", *words[option], "--out", "x")
    assert status == 2 and err.endswith(f"no such file or folder; did you mean {nearest}?\n") and not Path("x").exists()


def test_nothing_asked_shows_the_help(capsys):
    status, out, err = run(capsys)
    assert status == 2 and out == "" and "usage: motion4d" in err and "examples:" in err


def test_help_has_examples_and_presets(capsys):
    _, out, _ = run(capsys, "analyze", "--help")
    assert "motion4d analyze clip.mp4 --out out --prompt-mask first.png" in out
    described = dict(re.findall(r"^  (\w+) +(\S.*)$", out.partition("presets:")[2], re.MULTILINE))
    assert set(described) == {path.stem for path in find_files("config", "*.yaml")} - {"motion4d"} | {"auto"}
    assert described["fast"].startswith("Analyses in half of the time: ")


@pytest.mark.parametrize("words", [["--help"], ["analyze", "--help"], ["models", "--help"], ["evaluate", "--help"]])
def test_help(capsys, words):
    status, out, _ = run(capsys, *words)
    assert status == 0 and "usage: motion4d" in out


def test_every_preset_can_be_read():
    found = find_files("config", "*.yaml")
    assert found
    for path in found:
        Config().update_from_yaml(preset(path.stem))


def test_later_settings_win(tmp_path):
    (tmp_path / "own.yaml").write_text("window: {length: 5, horizon: 20}")
    words = ["--config", str(tmp_path / "own.yaml"), "--set", "window.length=6"]
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    config, explicit = read_config(parser.parse_args(words))
    assert (config.window.length, config.window.horizon, explicit) == (6, 20, {"window.length"})


def test_version(capsys):
    status, out, _ = run(capsys, "version")
    assert status == 0 and out.startswith("motion4d_ros ") and "numpy" in out


def test_version_option_is_one_line(capsys):
    status, out, _ = run(capsys, "--version")
    assert status == 0 and out == f"motion4d_ros {package_version()}\n" and package_version() != "unknown"


def test_cuda_that_does_not_work_is_told_before_the_first_frame(capsys, tmp_path, monkeypatch):
    from motion4d_ros.render import device
    from motion4d_ros.render.gpu import GpuReport

    monkeypatch.setattr(device, "prove_gpu", lambda: GpuReport(visible=True, problem="no gsplat", remedy="pip …"))
    (tmp_path / "in").mkdir()
    for k in range(3):
        cv2.imwrite(str(tmp_path / "in" / f"{k}.png"), np.full((48, 64, 3), 80 * k, np.uint8))
    words = ["analyze", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--fps", "10", "--set", "run.device=cuda"]
    status, out, err = run(capsys, *words)
    assert status == 2 and out == "" and err.count("\n") == 1
    assert err == "motion4d: error: run.device=cuda, but no gsplat: pip …; or set run.device=cpu\n"
    assert not (tmp_path / "out").exists()


def test_missing_package_costs_one_command(capsys, monkeypatch):
    monkeypatch.setitem(cli._COMMANDS, "models", ("no_such_package.command", "…"))
    status, _, err = run(capsys, "models", "list")
    assert status == 2 and "needs the Python package 'no_such_package'" in err
    assert run(capsys, "version")[0] == 0


def test_verbose_shows_where(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["-v", "analyze", "nowhere", "--out", "x"], ["analyze", "nowhere", "--out", "x", "-v"]):
        assert "Traceback" in run(capsys, *words)[2]


def raising(error):
    def add_parser(subparsers):
        def fail(arguments):
            raise error

        subparsers.add_parser("models").set_defaults(run=fail)

    return types.SimpleNamespace(add_parser=add_parser)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ZeroDivisionError("division by zero"), 1, "unforeseen ZeroDivisionError: division by zero (details in "),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 2, "/root/x: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "no space left on the device"),
        (OSError(errno.ENOSPC, "No space left on device", "/mnt/x"), 2, "no space left on /mnt/x"),
        (MemoryError(), 2, "not enough memory"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2, "needs the Python package 'torch'"),
        (ModuleNotFoundError("…", name="motion4d_ros.gone"), 1, "unforeseen ModuleNotFoundError"),
        (Motion4DError("one\nline"), 2, "one line"),
    ],
)
def test_no_error_is_a_traceback(capsys, monkeypatch, logs, error, status, message):
    monkeypatch.setitem(sys.modules, "raising_command", raising(error))
    monkeypatch.setitem(cli._COMMANDS, "models", ("raising_command", "…"))
    code, out, err = run(capsys, "models")
    assert code == status and out == "" and err.startswith(f"motion4d: error: {message}") and err.count("\n") == 1
    written = list(logs.iterdir())
    assert len(written) == (status == 1)
    for log in written:
        assert f"(details in {log}; please report it)" in err
        assert "Traceback" in log.read_text() and type(error).__name__ in log.read_text()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_by_a_signal(capsys, monkeypatch, number, status):
    monkeypatch.setitem(sys.modules, "raising_command", raising(Stopped(number)))
    monkeypatch.setitem(cli._COMMANDS, "models", ("raising_command", "…"))
    assert run(capsys, "models") == (status, "", "motion4d: interrupted, nothing was kept\n")


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"MOTION4D_LOG": "{0}/chosen"}, "chosen"),
        ({"XDG_STATE_HOME": "{0}/state"}, "state/motion4d"),
        ({"HOME": "{0}/home"}, "home/.local/state/motion4d"),
        ({"HOME": "/proc/1/nowhere", "TMPDIR": "{0}"}, "motion4d"),
    ],
)
def test_place_of_the_log(monkeypatch, tmp_path, variables, folder):
    for name in ("MOTION4D_LOG", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    log = write_log(ValueError("x"))
    assert log is not None and log.parent == tmp_path / folder and "ValueError: x" in log.read_text()


SHELL = [
    ("version >&-", 0),
    ("version 2>&-", 0),
    ("version | true", 141),
    ("analyze nowhere --out x 2>&-", 2),
    ("analyze --help | true", 141),
    ("version > /dev/full", 2),
]


@pytest.mark.parametrize(("line", "status"), SHELL)
def test_streams_that_are_closed_or_full(tmp_path, line, status):
    command = f"set -o pipefail; {sys.executable} -m motion4d_ros.cli {line}"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert done.returncode in ({0, status} if "| true" in line else {status})  # `true` may end after the writing


@pytest.mark.parametrize("locale", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_terminal_that_knows_ascii_only(tmp_path, locale):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | locale
    words = [sys.executable, "-m", "motion4d_ros.cli", "analyze", "--help"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "presets:" in done.stdout
