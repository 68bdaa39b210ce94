from __future__ import annotations

import pytest
import torch

from motion4d_ros.evaluation import bench_render, gpu_check
from motion4d_ros.evaluation.splat_scenes import random_scene
from motion4d_ros.types import Camera


def test_the_table_holds_what_was_asked_for(capsys):
    assert bench_render.main(["--quick", "--seconds", "0", "--threads", "2"]) == 0
    text = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| 320")]
    assert [(row[4], row[5]) for row in rows] == [("cpu", "1"), ("cpu", "2"), ("reference", "1")]
    assert all(row[1] == "10000" and float(row[6]) > 0 and float(row[7]) > 0 for row in rows)
    assert "x the PyTorch tile renderer" in text and "ns a pair" in text


def test_pairs_are_those_of_the_reference():
    camera = Camera(40.0, 40.0, 19.5, 14.5, 40, 30)
    scene = random_scene(1, 100, 3, camera, dtype=torch.float64)
    assert abs(scene.render("cpu", stats=True).pairs - scene.render("reference", stats=True).pairs) <= 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="only without a GPU")
def test_without_a_gpu_the_gpu_commands_skip_and_say_so(capsys):
    assert gpu_check.main() == 0
    assert capsys.readouterr().out.startswith("SKIP: ")
    assert bench_render.main(["--device", "cuda"]) == 0
    assert "SKIP: " in capsys.readouterr().out


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here: gsplat cannot run")
def test_gsplat_agrees_on_the_gpu():
    assert gpu_check.main() == 0


def test_a_disagreement_is_a_failure():
    good = {"set aside": 0.0, "features": 1e-6, "d means": 1e-5}
    assert gpu_check.failures(good) == []
    assert gpu_check.failures({**good, "features": 1e-2}) == ["features"]
    assert gpu_check.failures({**good, "d means": float("nan")}) == ["d means"]
    assert gpu_check.failures({**good, "set aside": 0.1}) == ["set aside"]
