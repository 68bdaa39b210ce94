"""The command line: exit statuses and one-line errors."""

from __future__ import annotations

import argparse

import cv2
import numpy as np
import pytest

from motion4d_ros import cli
from motion4d_ros.config import Config
from motion4d_ros.offline.command import add_config_options, read_config
from motion4d_ros.offline.resources import find_files, package_version, preset


def run(capsys, *words):
    status = cli.main(words)
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["analyze", "nowhere", "--out", "x"], "nowhere: no such file or folder"),
        (["analyze", ".", "--out", "x", "--set", "window.lenght=4"], "did you mean window.length"),
        (["analyze", ".", "--out", "x", "--set", "window.length"], "expected key=value"),
        (["analyze", ".", "--out", "x", "--set", "window.length=1000"], "must lie in 2 .. 64"),
        (["analyze", ".", "--out", "x", "--config", "none.yaml"], "none.yaml: cannot be read"),
        (["analyze", ".", "--out", "x", "--preset", "nonsense"], "there is no such preset"),
        (["analyze", ".", "--out", "x", "--queries", "none.npy"], "none.npy: cannot be read"),
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
    "words", [[], ["nonsense"], ["analyze"], ["analyze", "x", "--out", "y", "--intrinsics", "1,2"]]
)
def test_usage_errors_are_status_2(capsys, words):
    status, _, err = run(capsys, *words)
    assert status == 2 and "usage: motion4d" in err


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
