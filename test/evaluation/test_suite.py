"""The benchmark's own workings: what it prepares, how it reads results, and that its tables say what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from motion4d_ros.evaluation.score import load_truth
from motion4d_ros.evaluation.suite import runner
from motion4d_ros.evaluation.suite.__main__ import main
from motion4d_ros.evaluation.suite.cases import Clip, RgbdSequence, SharedScene, SyntheticScene, all_cases, first_frames
from motion4d_ros.evaluation.suite.novel_view import score_novel_views
from motion4d_ros.evaluation.suite.tables import fill_page, render_tables
from motion4d_ros.evaluation.synthetic import SyntheticScene as Rendered
from motion4d_ros.types import Motion4DError


def test_names_are_unique_and_absent_data_is_said_so(tmp_path: Path) -> None:
    cases = all_cases(tmp_path, quick=False)
    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    absent = {case.name for case in cases if case.missing()}
    assert absent == {
        *("tabletop", "static_camera", "car_shadow", "car_shadow_one_mask"),
        *("tennis", "tennis_one_mask", "seven_scenes"),
    }


def test_first_frames_keeps_what_belongs_together(small_scene: Rendered) -> None:
    whole = small_scene.truth()
    cut = first_frames(whole, 5)
    assert cut["masks"].shape[0] == cut["tracks_xyz"].shape[1] == cut["visible"].shape[1] == 5
    assert (cut["queries"][:, 0] < 5).all()
    assert len(cut["queries"]) == len(cut["query_object"]) == len(cut["tracks_yx"]) < len(whole["queries"])
    assert first_frames(whole, None) is whole


def test_synthetic_case_is_rendered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = SyntheticScene("bounce", frames=2)
    case.prepare(tmp_path)
    assert load_truth(tmp_path)["masks"].shape == (2, 240, 320)
    assert Path(case.arguments(tmp_path)[0]).is_dir()
    monkeypatch.setattr("motion4d_ros.evaluation.suite.cases.make_scene", lambda *_: pytest.fail("rendered again"))
    case.prepare(tmp_path)
    with pytest.raises(pytest.fail.Exception):
        SyntheticScene("bounce", seed=1, frames=2).prepare(tmp_path)


def make_clip(folder: Path) -> np.ndarray:
    """A tiny clip with true masks: a square that moves."""
    masks = np.zeros((6, 48, 64), np.uint8)
    for k in range(6):
        masks[k, 10:30, 5 + 4 * k : 25 + 4 * k] = 255
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
        for k, mask in enumerate(masks):
            cv2.imwrite(str(folder / name / f"{k:05d}.png"), mask)
    return masks


def write_labels(folder: Path, labels: np.ndarray) -> None:
    (folder / "masks").mkdir(parents=True)
    for k, image in enumerate(labels):
        cv2.imwrite(str(folder / "masks" / f"{k:06d}.png"), image.astype(np.uint16))


def test_clip_is_given_degraded_masks_and_scored_against_true_ones(tmp_path: Path) -> None:
    masks = make_clip(tmp_path / "clip")
    clip = Clip("clip", tmp_path / "clip", "degraded")
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    clip.prepare(inputs)
    alone = clip.inputs_alone(inputs)
    assert alone is not None
    assert 0.3 < alone["J"] < 0.999
    write_labels(tmp_path / "out", masks > 0)
    write_labels(tmp_path / "out" / "online", np.roll(masks > 0, 3, axis=2))
    scores = clip.measure(inputs, tmp_path / "out")
    assert scores["final"]["J"] == 1.0
    assert scores["online"]["J"] == pytest.approx(17 / 23)


def test_clip_with_one_mask_is_given_the_first(tmp_path: Path) -> None:
    make_clip(tmp_path / "clip")
    clip = Clip("clip", tmp_path / "clip", "first", limit=3)
    clip.prepare(tmp_path)
    words = clip.arguments(tmp_path)
    prompt = cv2.imread(words[words.index("--prompt-mask") + 1], cv2.IMREAD_UNCHANGED)
    assert prompt is not None
    assert set(np.unique(prompt)) == {0, 1}
    assert words[words.index("--limit") + 1] == "3"
    assert clip.inputs_alone(tmp_path) is None


@pytest.fixture
def room(tmp_path: Path) -> RgbdSequence:
    """Four frames of a camera before a wall 2 m away, moving sideways."""
    folder = tmp_path / "room"
    folder.mkdir()
    np.savetxt(folder / "camera-intrinsics.txt", np.array([[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1]]))
    for k in range(4):
        pose = np.eye(4)
        pose[0, 3] = 0.2 * k
        np.savetxt(folder / f"frame-{k:06d}.pose.txt", pose)
        x = (np.arange(64) - 31.5) / 60 * 2 + 0.2 * k
        shade = np.tile(127 + 100 * np.sin(4 * x), (48, 1))
        cv2.imwrite(str(folder / f"frame-{k:06d}.color.jpg"), np.repeat(shade[..., None], 3, -1).astype(np.uint8))
        depth = np.full((48, 64), 2000, np.uint16)
        depth[0] = 65535
        cv2.imwrite(str(folder / f"frame-{k:06d}.depth.png"), depth)
    return RgbdSequence("room", folder)


def test_even_frames_go_in(room: RgbdSequence, tmp_path: Path) -> None:
    room.prepare(tmp_path)
    assert len(list((tmp_path / "color").iterdir())) == 2
    poses = [np.loadtxt(path) for path in sorted((tmp_path / "pose").iterdir())]
    assert [pose[0, 3] for pose in poses] == pytest.approx([0, 0.4])
    depth = cv2.imread(str(tmp_path / "depth" / "000001.png"), cv2.IMREAD_UNCHANGED)
    assert depth is not None
    assert (depth[0] == 0).all()
    assert (depth[1:] == 2000).all()


def test_odd_frames_are_rendered_from_the_saved_scene(room: RgbdSequence, tmp_path: Path) -> None:
    from motion4d_ros.scene.gaussians import GaussianBatch
    from motion4d_ros.scene.scene import Scene
    from motion4d_ros.scene.storage import SCENE_FILE, save_scene

    x, y = (grid.ravel() for grid in np.meshgrid(np.arange(-2, 3, 0.04), np.arange(-1.5, 1.5, 0.04)))
    points = torch.tensor(np.stack([x, y, np.full_like(x, 2.0)], -1), dtype=torch.float32)
    shade = torch.tensor(0.5 + 100 / 255 * np.sin(4 * x), dtype=torch.float32)
    scene = Scene(1)
    scene.append(GaussianBatch.from_points(points, shade[:, None].repeat(1, 3), torch.zeros(len(x), 1), opacity=0.95))
    (tmp_path / "out" / "scene").mkdir(parents=True)
    save_scene(scene, tmp_path / "out" / "scene" / SCENE_FILE)
    scores = score_novel_views(room, tmp_path / "out")
    assert scores["final"]["PSNR"] > 30
    assert scores["final"]["PSNR"] > scores["neighbour"]["PSNR"] + 8
    assert scores["final"]["AbsRel"] < 0.01
    assert scores["final"]["covered"] > 0.98
    assert scores["neighbour"]["AbsRel"] == 0  # the wall is everywhere 2 m away


def record(final: dict[str, float], **more: Any) -> dict[str, Any]:
    cost = {"seconds_per_frame": 1.234, "frames": 48, "peak_mib": 900, "gaussians": 9, "load_before": 0.1}
    scores = {"online": final, "final": final}
    return {"scores": scores, "cost": cost, "command": "motion4d analyze x", "date": "today", "error": "", **more}


SCORES = {"J": 0.9, "F": 0.8, "JF": 0.85, "flips": 2, "labels": 3, "EPE": 0.02, "d05": 1, "d10": 1, "AJ": 0.7}
SCORES |= {"davg": 0.8, "OA": 0.9, "EPE_static": float("nan")}


def test_tables_show_scores_aims_failures_and_means() -> None:
    groups = {"tabletop": "scenes", "bounce": "scenes", "tennis": "clips"}
    off = "no resampling"
    records = {
        "tabletop": {"full": record(SCORES), off: record({**SCORES, "J": 0.6})},
        "bounce": {"full": record({**SCORES, "J": 0.7}), off: record({**SCORES, "J": 0.4})},
        "tennis": {"full": record({}, scores={}, error="camera | lost")},
    }
    tables = render_tables(records, groups)
    assert "| tabletop | final | 0.900 | 0.800 | 2 | 0.020 |" in tables["scenes"]
    assert "| tabletop | *aim* | 0.910 |" in tables["scenes"]
    assert "nan" not in tables["scenes"]
    assert "failed: camera \\| lost" in tables["clips"]
    assert "| full | final | 0.800 | 4 |" in tables["ablation"]
    assert "| no resampling | final | 0.500 | 4 |" in tables["ablation"]
    assert "| tabletop | 48 | 1.23 |  | 900 | 9 | 0.1 |" in tables["cost"]
    assert "rgbd" not in tables


def test_a_mean_over_fewer_recordings_is_not_shown() -> None:
    groups = {"tabletop": "scenes", "bounce": "scenes"}
    records = {
        "tabletop": {"full": record(SCORES), "no resampling": record(SCORES)},
        "bounce": {"full": record(SCORES), "no 3D confidence": record(SCORES)},
    }
    table = render_tables(records, groups)["ablation"]
    assert "no resampling" not in table
    assert "| full |" in table


def test_page_keeps_its_text_and_changes_its_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- cost -->\nold\n<!-- /cost -->\nafter\n")
    fill_page(page, {"cost": r"new \1 | table"})
    assert page.read_text() == "before\n<!-- cost -->\nnew \\1 | table\n<!-- /cost -->\nafter\n"
    with pytest.raises(Motion4DError, match="lacks the markers"):
        fill_page(page, {"ablation": ""})
    with pytest.raises(Motion4DError, match="cannot be read"):
        fill_page(tmp_path / "none.md", {})


def test_page_of_the_project_has_every_marker(repository: Path, tmp_path: Path) -> None:
    page = repository / "docs" / "explanation" / "evaluation.md"
    copy = tmp_path / "evaluation.md"
    copy.write_text(page.read_text(encoding="utf-8"))
    names = ("provenance", "scenes", "ablation", "clips", "rgbd", "cost", "commands")
    fill_page(copy, dict.fromkeys(names, "filled"))
    assert copy.read_text().count("\nfilled\n") == len(names)


def test_a_failed_analysis_is_one_row_and_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clip(tmp_path / "clip")
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\necho working\necho 'motion4d: error: no luck' >&2\nexit 2\n")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    found = runner.run_case(
        Clip("clip", tmp_path / "clip", "degraded"), "no resampling", tmp_path, ["run.seed=3"], True
    )
    assert found["error"] == "motion4d: error: no luck"
    assert "--set fit.resampling=false --set run.seed=3" in found["command"]
    assert found["scores"] == {}


def test_command_refuses_unknown_names_and_shows_what_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--only", "moon", "--out", str(tmp_path)]) == 2
    assert "choose among tabletop" in capsys.readouterr().err
    assert main(["--quick", "--docs", str(tmp_path / "page.md"), "--out", str(tmp_path)]) == 2
    assert "nothing worth a page" in capsys.readouterr().err
    (tmp_path / "results.json").write_text(json.dumps({"bounce": {"full": record(SCORES)}}))
    assert main(["--tables", "--out", str(tmp_path)]) == 0
    assert "| bounce | final | 0.900 |" in capsys.readouterr().out
    (tmp_path / "results.json").write_text("{")
    assert main(["--tables", "--out", str(tmp_path)]) == 2


def test_variants_name_settings_that_exist() -> None:
    from motion4d_ros.config import Config

    for settings in runner.VARIANTS.values():
        for setting in settings:
            path, value = setting.split("=")
            assert Config().get(path) is True, f"{path} is off already: switching it off shows nothing"
            Config().set(path, value)


def test_shared_scene_is_cut_short_with_its_queries(shared_scene: Path, tmp_path: Path) -> None:
    case = SharedScene("static_camera", shared_scene, limit=9)
    case.prepare(tmp_path)
    queries = np.load(tmp_path / "queries.npy")
    assert queries[:, 0].max() == 8
    assert case.arguments(tmp_path)[-2:] == ["--limit", "9"]
