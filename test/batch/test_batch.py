"""`motion4d batch` as a user meets it: on Ray, on this machine."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path

import pytest
from batch_helpers import QUICK, finish, start, summary, wait_for, write_recording
from safetensors.numpy import load_file

from motion4d_ros.cli import main

pytest.importorskip("ray", reason="Ray (extra [batch]) is not installed")

SAME = (
    "masks/*.png",
    "online/masks/*.png",
    "tracks.npz",
    "online/tracks.npz",
    "objects.csv",
    "trajectory.tum",
    "scene.ply",
    "scene/*.json",
)


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """A batch that has run: two recordings, one of them with masks by a manifest, and one that is not there."""
    folder = tmp_path_factory.mktemp("batch")
    for seed, name in enumerate(("one", "two")):
        write_recording(folder / "in" / name, seed)
    rows = [{"input": "in/one/images", "masks": "in/one/masks"}, "in/two/images", "in/nix/images"]
    (folder / "list.json").write_text(json.dumps(rows))
    words = [folder / "list.json", "--out", folder / "out", *QUICK]
    return folder, words, finish(start(*words))


def test_one_failure_costs_itself(batch):
    folder, _, (status, out, err) = batch
    found = summary(folder / "out")
    assert status == 1 and {name: row["state"] for name, row in found.items()} == {
        "one": "ok",
        "two": "ok",
        "nix": "failed",
    }
    failures = [line for line in err.splitlines() if "failed:" in line]
    assert len(failures) == 1 and "no such file or folder" in failures[0] and "list.json:3" in failures[0]
    assert out.splitlines()[0].startswith("2 ok, 1 failed in") and "Traceback" not in err
    assert found["one"]["objects"] == 1 and found["one"]["frames"] == 5 and found["one"]["cpu_seconds"] > 0
    for name in ("one", "two"):
        done = json.loads((folder / "out" / name / "done.json").read_text())
        assert done["state"] == "ok" and done["input"] == str(folder / "in" / name / "images") and done["key"]
        assert (folder / "out" / name / "thumbnail.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert sorted(path.name for path in (folder / "out").iterdir() if path.is_dir()) == ["one", "two"]


def test_results_are_the_same_bits_as_those_of_analyze_alone(batch, tmp_path):
    folder, _, _ = batch
    words = shlex.split(json.loads((folder / "out" / "one" / "done.json").read_text())["command"])
    words[words.index("--out") + 1] = str(tmp_path / "alone")
    assert words[:2] == ["motion4d", "analyze"] and main(words[1:]) == 0
    compared = 0
    for pattern in SAME:
        for path in sorted((tmp_path / "alone").glob(pattern)):
            name = path.relative_to(tmp_path / "alone")
            assert (folder / "out" / "one" / name).read_bytes() == path.read_bytes(), name
            compared += 1
    assert compared >= 2 * 5 + 5
    mine, other = (
        load_file(place / "scene" / "scene.safetensors") for place in (tmp_path / "alone", folder / "out" / "one")
    )
    assert mine.keys() == other.keys()  # the file's header has them in any order
    assert all(mine[name].tobytes() == other[name].tobytes() for name in mine)


def test_the_same_command_again_does_only_what_is_not_done(batch):
    folder, words, _ = batch
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*") if path.parent != folder / "out"}
    status, out, _ = finish(start(*words))
    assert status == 1 and "2 ok (2 of them before), 1 failed" in out
    assert before == {
        path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*") if path.parent != folder / "out"
    }
    status, out, err = finish(start(*words, "--set", "window.length=5"))
    assert status == 2 and err.strip().count("\n") == 0 and "--changed redo" in err and out == ""
    assert "2 ok (2 of them before)" in finish(start(*words, "--set", "window.length=5", "--changed", "keep"))[1]


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done(breaker, make_recordings, tmp_path, reaped):
    recordings = make_recordings("ride", "hangs")
    process = start(*recordings, "--out", tmp_path / "out", "--jobs", 1, *QUICK)
    reaped.append(process)
    wait_for(lambda: "hangs" in breaker.read_text(), process)
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert status == 130 and "1 ok, 1 not done" in out and "the same command goes on" in err
    assert {name: row["state"] for name, row in summary(tmp_path / "out").items()} == {"ride": "ok", "hangs": "open"}
    assert not (tmp_path / "out" / "hangs").exists() and not (tmp_path / "out" / ".batch").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a.mp4", "--address", "127.0.0.1:1"], "no head node answers there"),
        (["a.mp4", "--address", "nonsense"], "expected HOST:PORT"),
        (["a.mp4", "--memory", "much"], "such as 500M or 4G"),
        (["a.mp4", "--cpus", "0"], "above 0"),
        (["*.mp4x"], "nothing matches"),
        (["a.mp4", "--cpus", "100000"], "has not what --cpus"),
        (["a.mp4", "--slurm", "partition=long"], "is for --launcher slurm"),
        (["a.mp4", "--launcher", "slurm", "--address", "x:1"], "is for --launcher ray"),
        (["a.mp4", "--launcher", "slurm"], "no sbatch here"),
        (["a.mp4", "--retry", "3", "--retires", "2"], "did you mean --retries"),
    ],
)
def test_bad_use_is_one_line(words, says, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))  # no sbatch
    (tmp_path / "a.mp4").touch()
    assert main(["batch", *words, "--out", "out"]) == 2
    lines = capfd.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and says in lines[0] and not (tmp_path / "out").exists()


def test_without_ray_one_line_says_how_to_get_it(tmp_path, monkeypatch, capfd):
    (tmp_path / "a.mp4").touch()
    monkeypatch.setattr("motion4d_ros.batch.launchers.ray_launcher.find_spec", lambda name: None)
    assert main(["batch", str(tmp_path / "a.mp4"), "--out", str(tmp_path / "out")]) == 2
    line = capfd.readouterr().err.strip()
    assert "\n" not in line and "needs Ray: pip install" in line and "motion4d_ros[batch]" in line
