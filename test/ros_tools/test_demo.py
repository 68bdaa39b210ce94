"""The demo's own decisions, without a node: what it plays, what it says, how it scores."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from motion4d_ros.evaluation.synthetic import SyntheticScene, make_scene, write_bag
from motion4d_ros.ros_tools.demo.command import inputs_missing, main, node_arguments, parse
from motion4d_ros.ros_tools.demo.folder import ResultFolder, written_by_demo
from motion4d_ros.ros_tools.demo.recording import own
from motion4d_ros.ros_tools.demo.results import Said
from motion4d_ros.ros_tools.demo.score import score_stages
from motion4d_ros.ros_tools.demo.show import since_correction
from motion4d_ros.ros_tools.demo.terminal import _Lines
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


def demo_of(bag: Path | str, out: Path, node: str = "raise SystemExit(3)", *more: str) -> int:
    """The demo with a node that ends at once, status 3."""
    return main(["--out", str(out), "--bag", str(bag), *more], node_command=[sys.executable, "-c", node])


def former_demo(out: Path) -> Path:
    """A folder with the result of a former demo, and something of the user's beside it."""
    folder = ResultFolder(out)
    (folder.staging / "report.html").write_text("former")
    (folder.staging / "bag").mkdir()
    (folder.staging / "bag" / "0.mcap").write_text("former")
    folder.publish()
    (out / "notes.txt").write_text("mine")
    return out


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("kind", ["absent", "text", "folder", "cut", "topic", "preset"])
def test_a_wrong_input_is_one_line_and_leaves_the_former_result(
    bag: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = former_demo(tmp_path / "demo")
    before = contents(tmp_path)
    wrong = {"absent": tmp_path / "typo", "topic": bag, "preset": bag}.get(kind, tmp_path / "wrong")
    if kind == "text":
        wrong.with_suffix(".mcap").write_text("hello")
        wrong = wrong.with_suffix(".mcap")
    elif kind == "folder":
        wrong.mkdir()
    elif kind == "cut":
        wrong.mkdir()
        (wrong / "metadata.yaml").write_text("rosbag2_bagfile_information: {version: 9")
    more = {"topic": ["--image", "/nowhere"], "preset": ["--image", "/camera/image_raw", "--preset", "none_such"]}
    before = contents(tmp_path)
    assert demo_of(wrong, out, "", *more.get(kind, [])) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1 and said.err.startswith("demo: ") and "Traceback" not in said.err + said.out
    assert (str(wrong) if kind not in ("topic", "preset") else more[kind][-1]) in said.err
    assert contents(tmp_path) == before, "nothing must have been written or removed"


def test_a_node_that_fails_leaves_the_former_result_and_its_log_beside_it(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = former_demo(tmp_path / "demo")
    before = contents(out)
    for _ in range(2):  # the second one finds what the first one left
        assert demo_of(bag, out, "print('why'); raise SystemExit(3)", "--image", "/camera/image_raw") == 2
        assert contents(out) == before
        assert (tmp_path / "demo.new" / "node.log").read_text() == "why\n"
        assert f"status 3: see {tmp_path / 'demo.new' / 'node.log'}" in capsys.readouterr().err


def test_only_what_a_demo_wrote_is_replaced(tmp_path: Path) -> None:
    out = former_demo(tmp_path / "demo")
    (out / "overlay.png").write_text("mine, too")  # a name that demos use, but no demo wrote it
    folder = ResultFolder(out)
    for name in ("report.html", "overlay.png"):
        (folder.staging / name).write_text("new")
    assert contents(out)["report.html"] == "former"
    assert folder.publish() == [out / "overlay.png.old1"]
    found = contents(out)
    del found["demo.json"]
    assert found == {
        "report.html": "new", "overlay.png": "new", "overlay.png.old1": "mine, too", "notes.txt": "mine"
    }  # fmt: skip
    assert sorted(written_by_demo(out)) == ["overlay.png", "report.html"] and not folder.staging.exists()


@pytest.mark.parametrize("name", ["bag", "output"])
def test_the_recording_that_was_played_stays_even_if_a_demo_made_it(tmp_path: Path, name: str) -> None:
    out = tmp_path / "demo"
    first = ResultFolder(out)
    (first.staging / name).mkdir()
    (first.staging / name / "0.mcap").write_text("played")
    first.publish()
    second = ResultFolder(out)
    (second.staging / "output").mkdir()
    (second.staging / "output" / "0.mcap").write_text("new")
    second.publish(keep=out / name)
    kept = out / name if name == "bag" else out / "output.old1"
    assert (kept / "0.mcap").read_text() == "played" and (out / "output" / "0.mcap").read_text() == "new"


def test_what_no_demo_left_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "demo.new").mkdir()
    (tmp_path / "demo.new" / "mine.txt").write_text("mine")
    with pytest.raises(Motion4DError, match=r"demo\.new: is in the way"):
        ResultFolder(tmp_path / "demo")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(Motion4DError, match="is a file"):
        ResultFolder(tmp_path / "file")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "demo.json").write_text('{"written_by_motion4d_demo": ["../demo.new", "/etc", "", "gone"]}')
    assert written_by_demo(tmp_path / "odd") == []


def test_two_demos_do_not_write_the_same_folder(tmp_path: Path) -> None:
    first = ResultFolder(tmp_path / "demo")
    (first.staging / "report.html").write_text("first")
    with pytest.raises(Motion4DError, match="another demo is writing it"):
        ResultFolder(tmp_path / "demo")
    first.publish()
    assert (tmp_path / "demo" / "report.html").read_text() == "first"


def test_topics_without_a_recording_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--image", "--depth", "--odometry"):
        assert main(["--out", str(tmp_path / "demo"), option, "/camera/image_raw"]) == 2
        assert "BAG=folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_a_terminal_progress_is_a_line_now_and_then() -> None:
    said: list[str] = []
    now = [0.0]
    lines = _Lines(said.append, 40, lambda: now[0])
    for second in range(60):
        now[0] = float(second)
        lines(min(40, second), min(40, max(0, second - 8)))
    assert said == [
        "20 of 40 images received, 12 processed", "40 of 40 images received, 32 processed",
        "40 of 40 images received, 40 processed",
    ]  # fmt: skip
