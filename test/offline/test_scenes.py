"""A recording with a cut in it: two scenes, one folder of results, nothing lost."""

from __future__ import annotations

import csv
import json

import cv2
import numpy as np
import pytest

from motion4d_ros.config import Config
from motion4d_ros.evaluation.synthetic import make_scene
from motion4d_ros.offline.analyze import AnalyzeOptions, analyze

SIZE = (120, 160)
CUT, AFTER, FRAMES = 10, 4, 24


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The analysis of a folder of images with a cut before frame `CUT`, and queries about both scenes."""
    folder = tmp_path_factory.mktemp("cut")
    (folder / "images").mkdir()
    images = [
        *make_scene("tabletop_like", seed=2, frames=CUT, size=SIZE).images,
        *make_scene("tabletop_like", seed=31, frames=FRAMES - CUT, size=SIZE).images,
    ]
    for k, image in enumerate(images):
        cv2.imwrite(str(folder / "images" / f"{k:03d}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    np.save(folder / "queries.npy", np.array([[2, 60, 80], [20, 60, 80], [5, 30, 40]]))
    config = Config()
    config.update(
        {
            "run": {"threads": 1, "device": "cpu"},
            "window": {"length": 4, "horizon": 8, "global_every": 0},
            "fit": {"motion_iterations": 1, "semantic_iterations": 1, "final_iterations": 1},
            "geometry": {"iterations": 1, "static_points": 60, "object_points": 40, "max_parts": 1},
            "pose": {"restart_after": AFTER},
        }
    )
    result = analyze(AnalyzeOptions(folder / "images", folder / "out", config=config, queries=folder / "queries.npy"))
    return folder / "out", result


def test_no_frame_is_lost(results):
    out, result = results
    assert result.frames == FRAMES and not result.failure
    for folder in ("masks", "online/masks"):
        assert len(list((out / folder).iterdir())) == FRAMES
    lines = [line for line in (out / "trajectory.tum").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == FRAMES


def test_the_scenes_are_told(results):
    out, result = results
    scenes = json.loads((out / "metrics.json").read_text())["scenes"]
    begin = CUT + AFTER + 1
    assert [(s["first_frame"], s["last_frame"]) for s in scenes] == [(0, begin - 1), (begin, FRAMES - 1)]
    assert scenes[1]["began"] == "camera lost"
    assert f"frame {begin}: a new scene begins (camera lost), with its own origin and scale" in result.warnings
    assert f"New scenes begin with frame {begin} (camera lost)" in (out / "report.html").read_text()


@pytest.mark.parametrize("name", ["tracks.npz", "online/tracks.npz"])
def test_tracks_live_in_the_scene_of_their_query(results, name):
    out, _ = results
    begin = CUT + AFTER + 1
    with np.load(out / name, allow_pickle=False) as content:
        known = np.isfinite(content["tracks"]).all(-1)
        tracks, occluded = content["tracks"], content["occluded"]
    assert known.shape == (3, FRAMES)
    before, after = slice(0, begin), slice(begin, None)
    for row, (own, other) in enumerate([(before, after), (after, before), (before, after)]):
        assert known[row, own].all() and not known[row, other].any() and occluded[row, other].all()
    if name == "tracks.npz":
        assert np.allclose(tracks[0, 2], (80, 60)) and np.allclose(tracks[1, 20], (80, 60))


def test_ids_are_not_shared(results):
    out, _ = results
    with (out / "objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    before = {row["id"] for row in rows if int(row["frame"]) < CUT + AFTER + 1}
    after = {row["id"] for row in rows if int(row["frame"]) >= CUT + AFTER + 1}
    assert before and not before & after
