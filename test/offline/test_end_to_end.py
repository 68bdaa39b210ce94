"""The real engine behind `motion4d analyze`: small recordings from end to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from motion4d_ros import cli
from motion4d_ros.offline.results.workspace import PRODUCTS

pytestmark = pytest.mark.slow

TOPICS = ["--image", "/camera/image_raw", "--depth", "/camera/depth", "--masks", "/camera/mask", "--odometry", "/odom"]
QUICK = ["--set", "window.length=4", "--set", "run.threads=1"]


def tracks_of(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "tracks.npz", allow_pickle=False) as content:
        return dict(content)


def test_bag_gives_every_file_and_the_same_twice(make_bag, tmp_path, capsys):
    bag = make_bag(frames=9)
    np.save(tmp_path / "q.npy", np.array([[0, 14, 8], [2, 4, 40], [5, 14, 12]]))
    outs = [tmp_path / "a", tmp_path / "b"]
    for out in outs:
        words = ["analyze", str(bag), *TOPICS, "--queries", str(tmp_path / "q.npy"), "--out", str(out), *QUICK]
        assert cli.main(words) == 0, capsys.readouterr().err
    assert {path.name for path in outs[0].iterdir()} == set(PRODUCTS)
    first, second = map(tracks_of, outs)
    assert first["tracks"].shape == (3, 9, 2)
    for name, values in first.items():
        assert np.array_equal(values, second[name], equal_nan=values.dtype.kind == "f"), name
    for k in range(9):
        name = f"masks/{k:06d}.png"
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()
    metrics = json.loads((outs[0] / "metrics.json").read_text())
    assert metrics["scale"] == "metric" and metrics["counts"]["frames"] == 9


def test_images_with_one_mask(make_images, tmp_path, capsys):
    images = make_images(9)
    words = ["analyze", str(images), "--prompt-mask", str(tmp_path / "masks" / "m0.png"), "--fps", "10"]
    assert cli.main([*words, "--out", str(tmp_path / "out"), *QUICK]) == 0, capsys.readouterr().err
    labels = cv2.imread(str(tmp_path / "out" / "masks" / "000000.png"), cv2.IMREAD_UNCHANGED)
    assert labels.shape == (32, 48) and set(np.unique(labels)) <= {0, 3}
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 9


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_keep_what_is_finished(make_bag, tmp_path, number, status):
    out = tmp_path / "out"
    words = [sys.executable, "-m", "motion4d_ros.cli", "analyze", str(make_bag(frames=160)), *TOPICS, "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([*words, *QUICK], env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not list(out.glob(".partial-*/products/masks/000004.png")):
        time.sleep(0.05)  # until a second window has been closed
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == status and "interrupted: the" in errors
    assert {path.name for path in out.iterdir()} == set(PRODUCTS)
    count = len(list((out / "masks").iterdir()))
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["state"], metrics["counts"]["frames"], metrics["failed"]) == ("partial", count, {})
    assert 8 <= count < 160 and tracks_of(out)["tracks"].shape[1] == count
