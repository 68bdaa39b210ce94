"""The demo's own decisions, without a node: what it plays, what it says, how it scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from motion4d_ros.evaluation.synthetic import SyntheticScene, make_scene, write_bag
from motion4d_ros.ros.demo.command import inputs_missing, node_arguments, parse
from motion4d_ros.ros.demo.recording import own
from motion4d_ros.ros.demo.results import Said
from motion4d_ros.ros.demo.score import score_stages
from motion4d_ros.ros.demo.show import since_correction
from motion4d_ros.types import Motion4DError


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return make_scene("bounce", seed=2, frames=4, size=(48, 64))


@pytest.fixture(scope="module")
def bag(scene: SyntheticScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "bag"
    write_bag(scene, folder)
    return folder


def test_a_bag_with_images_alone_says_what_was_not_given_and_what_else_it_holds(bag: Path) -> None:
    recording = own(bag, "/camera/image_raw", {})
    assert recording.others == ["/camera/depth", "/camera/mask", "/odom"]
    text = " ".join(inputs_missing(recording, []))
    assert "Not given: depth, masks, camera poses" in text and "/camera/depth, /camera/mask, /odom" in text
    assert "depth" not in inputs_missing(recording, ["depth.source=model"])[0].split(".")[0]
    given = own(bag, "/camera/image_raw", {"depth": "/camera/depth", "masks": "/camera/mask", "odometry": "/odom"})
    assert not given.others and not inputs_missing(given, [])


@pytest.mark.parametrize(
    ("image", "sources", "words"),
    [
        ("", {}, "say which images"),
        ("/nowhere", {}, "not in"),
        ("/camera/image_raw", {"odometry": "/camera/depth"}, "odometry must be a nav_msgs/msg/Odometry"),
    ],
)
def test_wrong_topics_are_one_line(bag: Path, image: str, sources: dict[str, str], words: str) -> None:
    with pytest.raises(Motion4DError, match=words):
        own(bag, image, sources)


def test_at_full_speed_without_a_gpu_the_small_preset_is_used(bag: Path) -> None:
    live = parse(["--out", "x", "--rate", "1"])
    assert live.preset == "cpu_small" and parse(["--out", "x"]).preset == ""
    arguments = node_arguments(own(bag, "/camera/image_raw", {}), live=True, settings=[], preset_name=live.preset)
    assert arguments[1] == "--params-file" and arguments[2].endswith("cpu_small.yaml")
    assert "budget.mode:=realtime" in arguments
    with pytest.raises(Motion4DError, match="no such preset"):
        node_arguments(own(bag, "/camera/image_raw", {}), live=True, settings=[], preset_name="cpu_tiny")


def test_a_stage_is_scored_on_the_frames_it_spoke_of(scene: SyntheticScene) -> None:
    said = Said()
    for t, stamp in enumerate(scene.stamps_ns):
        said.masks["live"][int(stamp)] = scene.masks[t].astype(np.uint16)
    said.masks["window"] = {int(scene.stamps_ns[1]): scene.masks[1].astype(np.uint16)}
    scores = score_stages(scene, said)
    assert (scores["live"].JF, scores["live"].told) == (1.0, 1.0)
    assert (scores["window"].JF, scores["window"].told) == (1.0, 0.25)
    assert "final" not in scores


def test_a_trail_begins_anew_where_its_object_was_put_elsewhere() -> None:
    uv = np.stack([np.arange(12.0) * 3, np.full(12, 50.0)], -1)
    assert (since_correction(uv, 640) == uv).all()
    uv[7:] += [120.0, -60.0]  # found again
    assert (since_correction(uv, 640) == uv[7:]).all()
    uv[11:] += [0.0, 90.0]  # corrected just now: nothing is known of how it came there
    assert len(since_correction(uv, 640)) == 1
    resting = np.full((6, 2), 40.0)
    resting[5] += 8.0  # it begins to move
    assert (since_correction(resting, 640) == resting).all()
