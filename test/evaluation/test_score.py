"""Scores of whole analyses: against the yardstick, against the truth itself, and on input that does not fit."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from motion4d_ros.evaluation.command import add_parser
from motion4d_ros.evaluation.score import COLUMNS, NEEDED, load_result, load_truth, score, score_priors
from motion4d_ros.evaluation.synthetic import SyntheticScene
from motion4d_ros.types import Motion4DError

SAME_DEFINITION = ("J", "flips", "labels", "EPE", "d05", "d10", "AJ", "davg", "OA", "EPE_static")


def write_result(folder: Path, masks: np.ndarray, xy: np.ndarray, xyz: np.ndarray, occluded: np.ndarray) -> None:
    """The files of an analysis that are scored."""
    (folder / "masks").mkdir(parents=True)
    for k, image in enumerate(masks):
        cv2.imwrite(str(folder / "masks" / f"{k:06d}.png"), image.astype(np.uint16))
    np.savez(folder / "tracks.npz", tracks=xy, tracks_xyz=xyz, occluded=occluded)


def write_truth_as_result(scene: SyntheticScene, folder: Path) -> None:
    write_result(folder, scene.masks, scene.tracks_yx[..., ::-1], scene.tracks_xyz, ~scene.visible)


def test_agrees_with_the_yardstick(shared_scene: Path, yardstick: Path, tmp_path: Path) -> None:
    truth = load_truth(shared_scene)
    rng = np.random.default_rng(0)
    masks = np.roll(truth["in_masks"], 1, axis=2)
    xy = truth["tracks_yx"][..., ::-1] + rng.normal(0, 3, (*truth["visible"].shape, 2))
    xyz = truth["tracks_xyz"] + rng.normal(0, 0.03, truth["tracks_xyz"].shape)
    occluded = ~truth["visible"] ^ (rng.random(truth["visible"].shape) < 0.2)
    write_result(tmp_path / "out", masks, xy, xyz, occluded)
    command = [sys.executable, str(yardstick), str(shared_scene), str(tmp_path / "out")]
    theirs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    ours = score(truth, tmp_path / "out")
    for name in SAME_DEFINITION:  # F differs: the yardstick's tolerance is 2 px, DAVIS' a share of the diagonal
        assert ours["final"][name] == pytest.approx(theirs["ours"][name], abs=6e-5), name
        assert ours["priors"][name] == pytest.approx(theirs["priors"][name], abs=6e-5), name


def test_the_truth_scores_full_marks(small_scene: SyntheticScene, tmp_path: Path) -> None:
    write_truth_as_result(small_scene, tmp_path / "out")
    table = score(small_scene.truth(), tmp_path / "out")
    assert set(table) == {"priors", "final"}
    assert set(table["final"]) == set(COLUMNS)
    best = {"J": 1, "F": 1, "JF": 1, "flips": 0, "labels": 2, "EPE": 0, "d05": 1, "d10": 1, "AJ": 1, "davg": 1, "OA": 1}
    for name, value in best.items():
        assert table["final"][name] == pytest.approx(value, abs=1e-6), name
    for name in ("J", "d05", "AJ"):
        assert table["priors"][name] < 0.95, f"the degraded {name} is too good to measure anything"


def test_online_results_are_scored_where_there_are_any(small_scene: SyntheticScene, tmp_path: Path) -> None:
    write_truth_as_result(small_scene, tmp_path / "out")
    lazy = small_scene.tracks_xyz + np.float32(0.07)
    write_result(
        tmp_path / "out" / "online", small_scene.in_masks, small_scene.tracks_yx[..., ::-1], lazy, ~small_scene.visible
    )
    table = score(small_scene.truth(), tmp_path / "out")
    assert list(table) == ["priors", "online", "final"]
    assert table["online"]["EPE"] == pytest.approx(0.07 * np.sqrt(3), abs=1e-4)
    assert table["online"]["J"] == pytest.approx(table["priors"]["J"])


def test_what_does_not_fit_is_refused_in_one_line(small_scene: SyntheticScene, tmp_path: Path) -> None:
    truth = small_scene.truth()
    with pytest.raises(Motion4DError, match="no label images"):
        load_result(tmp_path)
    write_truth_as_result(small_scene, tmp_path / "out")
    without_inputs = {name: truth[name] for name in NEEDED}
    with pytest.raises(Motion4DError, match="--queries"):
        score({**without_inputs, "queries": truth["queries"][:5]}, tmp_path / "out")
    (tmp_path / "out" / "masks" / "000003.png").unlink()
    with pytest.raises(Motion4DError, match="every frame counts"):
        score(without_inputs, tmp_path / "out")
    (tmp_path / "out" / "tracks.npz").write_bytes(b"not a zip")
    with pytest.raises(Motion4DError, match="cannot be read"):
        load_result(tmp_path / "out")
    with pytest.raises(Motion4DError, match="no readable ground truth"):
        load_truth(tmp_path)
    np.savez(tmp_path / "gt.npz", masks=truth["masks"])
    with pytest.raises(Motion4DError, match="lacks queries"):
        load_truth(tmp_path)


def test_truth_without_inputs_has_no_baseline(small_scene: SyntheticScene) -> None:
    truth = {name: array for name, array in small_scene.truth().items() if not name.startswith("in_")}
    assert score_priors(truth) is None


def test_command_prints_a_table_and_writes_json(
    small_scene: SyntheticScene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_scene.save_npz(tmp_path / "gt.npz")
    write_truth_as_result(small_scene, tmp_path / "out")
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    words = ["evaluate", str(tmp_path), str(tmp_path / "out"), "--json", str(tmp_path / "scores.json")]
    arguments = parser.parse_args(words)
    assert arguments.run(arguments) == 0
    assert "AJ" in capsys.readouterr().out
    assert json.loads((tmp_path / "scores.json").read_text())["final"]["J"] == 1.0


def test_an_analysis_of_a_video_is_scored_against_its_true_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth, out = tmp_path / "true", tmp_path / "out"
    truth.mkdir()
    (out / "masks").mkdir(parents=True)
    for k in range(4):
        mask = np.zeros((40, 60), np.uint8)
        mask[10:30, 10 + k : 30 + k] = 255
        cv2.imwrite(str(truth / f"{k:05d}.png"), mask)
        if k < 3:  # the first frames only
            found = np.zeros((40, 60), np.uint16)
            found[10:30, 10 + k : 30 + k - 5 * (k == 1)] = 7
            cv2.imwrite(str(out / "masks" / f"{k:06d}.png"), found)
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["evaluate", str(truth), str(out), "--json", str(tmp_path / "scores.json")])
    assert arguments.run(arguments) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert list(scores) == ["final"]
    assert scores["final"]["J"] == pytest.approx((1 + 0.75 + 1) / 3)
    assert scores["final"]["worst"] == pytest.approx(0.75)
    assert "EPE" not in capsys.readouterr().out
    cv2.imwrite(str(out / "masks" / "000000.png"), np.zeros((41, 60), np.uint16))
    for arguments in (["evaluate", str(truth)], ["evaluate", str(truth), str(out)]):
        words = parser.parse_args(arguments)
        with pytest.raises(Motion4DError) as error:
            words.run(words)
        assert "\n" not in str(error.value)
