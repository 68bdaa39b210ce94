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
from PIL import Image

from motion4d_ros.evaluation.command import add_parser
from motion4d_ros.evaluation.compare import compare
from motion4d_ros.evaluation.score import COLUMNS, NEEDED, load_result, load_truth, score_priors, score_result
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
    ours = compare(shared_scene, tmp_path / "out").scores
    for name in SAME_DEFINITION:  # F differs: the yardstick's tolerance is 2 px, DAVIS' a share of the diagonal
        assert ours["final"][name] == pytest.approx(theirs["ours"][name], abs=6e-5), name
        assert ours["priors"][name] == pytest.approx(theirs["priors"][name], abs=6e-5), name


def test_the_truth_scores_full_marks(small_scene: SyntheticScene, tmp_path: Path) -> None:
    write_truth_as_result(small_scene, tmp_path / "out")
    small_scene.save_npz(tmp_path / "gt.npz")
    table = compare(tmp_path, tmp_path / "out").scores
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
    small_scene.save_npz(tmp_path / "gt.npz")
    table = compare(tmp_path, tmp_path / "out").scores
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
        score_result({**without_inputs, "queries": truth["queries"][:5]}, load_result(tmp_path / "out"))
    (tmp_path / "out" / "masks" / "000003.png").unlink()
    with pytest.raises(Motion4DError, match="every frame counts"):
        score_result(without_inputs, load_result(tmp_path / "out"))
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
    assert list(scores) == ["final", "remarks"]
    assert scores["remarks"] == ["the result has 3 frames, the truth 4: the first 3 count"]
    assert scores["final"]["J"] == pytest.approx((1 + 0.75 + 1) / 3)
    assert scores["final"]["worst"] == pytest.approx(0.75)
    assert "EPE" not in capsys.readouterr().out
    cv2.imwrite(str(out / "masks" / "000000.png"), np.zeros((41, 60), np.uint16))
    for arguments in (["evaluate", str(truth)], ["evaluate", str(truth), str(out)]):
        words = parser.parse_args(arguments)
        with pytest.raises(Motion4DError) as error:
            words.run(words)
        assert "\n" not in str(error.value)


def command(*words: object) -> int:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["evaluate", *map(str, words)])
    return int(arguments.run(arguments))


def squares(folder: Path, numbers: list[int], ids: dict[int, int], *, palette: bool = False) -> None:
    """One 20 px square per entry of `ids` (column -> value), in a file for each frame number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        labels = np.zeros((40, 100), np.uint8)
        for column, value in ids.items():
            labels[10:30, column : column + 20] = value
        image = Image.fromarray(labels)
        if palette:
            image.putpalette([255 - k // 3 for k in range(768)])
        image.save(folder / f"{number:05d}.png")


def analysis_of_squares(out: Path, frames: int, ids: dict[int, int]) -> None:
    squares(out / "masks", list(range(frames)), ids)


@pytest.mark.parametrize("palette", [False, True])
def test_palette_and_grey_truth_hold_ids(tmp_path: Path, palette: bool) -> None:
    """The palette's colours say nothing: 1 and 2 are objects whatever they look like."""
    squares(tmp_path / "true", list(range(6)), {0: 1, 40: 2}, palette=palette)
    analysis_of_squares(tmp_path / "out", 6, {0: 4, 40: 9})
    result = compare(tmp_path / "true", tmp_path / "out")
    assert result.scores["final"]["J"] == 1.0 and result.scores["final"]["labels"] == 2 and result.remarks == []


@pytest.mark.parametrize(("first", "numbers"), [(0, [0, 5, 10]), (1, [1, 6, 11])])
def test_truth_of_some_frames_is_matched_by_number(tmp_path: Path, first: int, numbers: list[int]) -> None:
    frames = numbers[-1] + 1 - first
    for k in range(frames):
        squares(tmp_path / "out" / "masks", [k], {k: 1})
    for number in numbers:
        squares(tmp_path / "true", [number], {number - first: 1})
    result = compare(tmp_path / "true", tmp_path / "out")
    assert result.scores["final"]["J"] == 1.0
    assert result.remarks == [f"3 of {frames} frames have a true mask (matched by the numbers in the files' names)"]


def test_void_is_not_judged(tmp_path: Path) -> None:
    squares(tmp_path / "true", list(range(3)), {0: 1, 40: 255})
    analysis_of_squares(tmp_path / "out", 3, {0: 1, 40: 1})  # all over the void, which costs nothing
    result = compare(tmp_path / "true", tmp_path / "out")
    assert result.scores["final"]["J"] == 1.0 and result.remarks == [
        "10.0 % of the pixels are void in the truth (255) and not judged"
    ]


def test_what_has_no_partner_is_counted(tmp_path: Path) -> None:
    squares(tmp_path / "true", list(range(3)), {0: 1, 25: 2, 50: 3})
    analysis_of_squares(tmp_path / "out", 3, {0: 7})
    result = compare(tmp_path / "true", tmp_path / "out")
    assert result.scores["final"]["J"] == pytest.approx(1 / 3)
    assert result.remarks == ["final: 2 of 3 true objects have no id of their own in the result"]
    analysis_of_squares(tmp_path / "other", 3, {0: 7, 25: 8, 50: 9, 75: 10})
    assert compare(tmp_path / "true", tmp_path / "other").remarks == [
        "final: 1 of 4 ids in the result are of no true object"
    ]


def test_masks_alone_are_scored_where_tracks_cannot_be(small_scene: SyntheticScene, tmp_path: Path) -> None:
    write_truth_as_result(small_scene, tmp_path / "out")
    truth = small_scene.truth()
    np.savez(tmp_path / "masks.npz", masks=truth["masks"])
    result = compare(tmp_path / "masks.npz", tmp_path / "out")
    assert result.scores["final"]["J"] == 1.0 and "AJ" not in result.scores["final"]
    assert result.remarks == [f"tracks are not scored: the truth lacks {', '.join(NEEDED[1:])}"]
    small_scene.save_npz(tmp_path / "gt.npz")
    with np.load(tmp_path / "out" / "tracks.npz") as arrays:
        fewer = {name: arrays[name][:3] for name in arrays.files}
    np.savez(tmp_path / "out" / "tracks.npz", **fewer)
    result = compare(tmp_path, tmp_path / "out")
    assert result.scores["final"]["J"] == 1.0 and "AJ" not in result.scores["final"]
    assert "follows 3 points of its own" in result.remarks[0] and "--queries" in result.remarks[0]
    (tmp_path / "out" / "tracks.npz").unlink()
    assert compare(tmp_path, tmp_path / "out").remarks[0].startswith("tracks are not scored: there is no")


def test_beginning_of_a_scene_is_scored_as_far_as_it_goes(small_scene: SyntheticScene, tmp_path: Path) -> None:
    count = len(small_scene.masks) - 2
    small_scene.save_npz(tmp_path / "gt.npz")
    write_result(
        tmp_path / "out", small_scene.masks[:count], small_scene.tracks_yx[:, :count, ::-1],
        small_scene.tracks_xyz[:, :count], ~small_scene.visible[:, :count],
    )  # fmt: skip
    (tmp_path / "out" / "metrics.json").write_text('{"motion4d": {}, "state": "partial", "interrupted": true}')
    result = compare(tmp_path, tmp_path / "out")
    assert result.scores["final"]["J"] == 1.0 and result.scores["final"]["AJ"] == 1.0 and len(result.scores) == 1
    assert (
        result.remarks[0] == "the analysis is partial: interrupted" and f"the first {count} count" in result.remarks[1]
    )


def test_label_images_of_anybody_are_scored(shared_data: Path) -> None:
    """OSVOS was shown the first frame's truth: J of the run is what DAVIS' own definition gives."""
    folder = shared_data / "davis" / "camel"
    result = compare(folder / "truth", folder / "osvos")
    truth = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) > 0 for file in sorted((folder / "truth").iterdir())]
    found = [np.array(Image.open(file)) > 0 for file in sorted((folder / "osvos").iterdir())]
    expected = np.mean([(a & b).sum() / (a | b).sum() for a, b in zip(found, truth, strict=True)])
    assert result.scores["final"]["J"] == pytest.approx(expected) and result.scores["final"]["flips"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "out"], "nowhere: no such file or folder"),
        (["true", "nowhere"], "nowhere: no such folder"),
        (["true", "empty"], "empty: no label images in it"),
        (["parent", "out"], "did you mean parent/truth?"),
        (["true"], "name its folder, too"),
        (["wide", "out"], "masks of 100x40 px, the true ones have 50x40"),
        (["colour", "out"], "a colour image"),
        (["notes.txt", "out"], "no readable ground truth"),
        (["unnumbered", "out"], "no numbers in names"),
    ],
)
def test_what_cannot_be_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    squares(Path("true"), [0, 1, 2], {0: 1})
    squares(Path("parent/truth"), [0, 1, 2], {0: 1})
    squares(Path("parent/network"), [0, 1, 2], {0: 1})
    analysis_of_squares(Path("out"), 3, {0: 1})
    for name in ("empty", "wide", "colour", "unnumbered"):
        Path(name).mkdir()
    Path("notes.txt").write_text("J = 1")
    Image.fromarray(np.zeros((40, 50), np.uint8)).save("wide/0.png")
    Image.fromarray(np.full((40, 100, 3), (1, 2, 3), np.uint8)).save("colour/0.png")
    Image.fromarray(np.zeros((40, 100), np.uint8)).save("unnumbered/a.png")
    with pytest.raises(Motion4DError) as error:
        command(*words)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_table_says_what_the_measures_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    squares(tmp_path / "true", [0, 1, 2], {0: 255})
    analysis_of_squares(tmp_path / "out", 3, {0: 5})
    assert command(tmp_path / "true", tmp_path / "out") == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if line.startswith("│ J ")]
    assert "1.000" in row and "overlap of found and true masks" in row
    (row,) = [line for line in lines if line.startswith("│ flips ")]
    assert " 0 " in row and "changes its id" in row
