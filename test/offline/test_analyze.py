"""The whole way from a recording to a folder of results, with a stand-in for the engine."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from motion4d_ros.config import Config
from motion4d_ros.failures import Stopped
from motion4d_ros.offline.analyze import AnalyzeOptions, analyze, effective_config
from motion4d_ros.offline.interrupt import Interrupt
from motion4d_ros.offline.results.workspace import PRODUCTS
from motion4d_ros.offline.sources import SourceOptions
from motion4d_ros.types import Motion4DError, PoseStatus, Scale

FRAMES = 11  # a window of 8 and an unfinished one


@pytest.fixture
def out(tmp_path):
    return tmp_path / "results" / "out"


@pytest.fixture
def analysis(make_bag, topics, out, engine_double):
    """A finished analysis of a small bag."""
    return analyze(AnalyzeOptions(make_bag(frames=FRAMES), out, topics), engine_factory=engine_double)


def tracks_of(path):
    with np.load(path, allow_pickle=False) as content:
        return dict(content)


def test_every_file_of_the_contract(analysis, out):
    assert {path.name for path in out.iterdir()} == set(PRODUCTS)
    assert analysis.frames == FRAMES and not analysis.interrupted and not analysis.failure


def test_masks(analysis, out):
    for folder in (out / "masks", out / "online" / "masks"):
        names = sorted(path.name for path in folder.iterdir())
        assert names == [f"{k:06d}.png" for k in range(FRAMES)]
    labels = cv2.imread(str(out / "masks" / "000004.png"), cv2.IMREAD_UNCHANGED)
    assert labels.dtype == np.uint16 and labels.shape == (32, 48)
    assert (labels[8:20, 8:20] == 3).all() and (labels == 3).sum() == 144


def test_tracks_on_a_grid(analysis, out):
    tracks = tracks_of(out / "tracks.npz")
    count = len(tracks["query_points"])
    assert count > 3 and (tracks["query_points"][:, 0] == 0).all()  # the object is there from the first frame on
    assert tracks["tracks"].shape == (count, FRAMES, 2) and tracks["tracks_xyz"].shape == (count, FRAMES, 3)
    assert tracks["occluded"].shape == (count, FRAMES) and tracks["occluded"].dtype == bool
    assert tracks["confidence"].shape == (count, FRAMES)
    assert (np.diff(tracks["stamps_ns"]) == 100_000_000).all()
    assert np.allclose(tracks["tracks"][:, 5, 0] - tracks["query_points"][:, 2], 5.0)  # x moves one px a frame


def test_online_tracks_are_those_of_the_moment(analysis, out):
    """The stand-in answers 0.25 px off until it is flushed: online keeps that for the windows closed before."""
    online, final = tracks_of(out / "online" / "tracks.npz"), tracks_of(out / "tracks.npz")
    assert online["tracks"].shape == final["tracks"].shape
    difference = online["tracks"] - final["tracks"]
    assert np.allclose(difference[:, :8], 0.25) and np.allclose(difference[:, 8:], 0.0)


def test_given_queries(make_bag, topics, out, engine_double, tmp_path):
    points = np.array([[0, 10, 8], [9, 12, 20], [5, 1, 1], [10, 0, 47]])
    np.save(tmp_path / "q.npy", points)
    options = AnalyzeOptions(make_bag(frames=FRAMES), out, topics, queries=tmp_path / "q.npy")
    analyze(options, engine_factory=engine_double)
    for name in ("tracks.npz", "online/tracks.npz"):
        tracks = tracks_of(out / name)
        assert np.array_equal(tracks["query_points"], points)
        assert np.isfinite(tracks["tracks"]).all() and not tracks["occluded"].any()


def test_objects_csv(analysis, out):
    with (out / "objects.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == FRAMES and {row["id"] for row in rows} == {"3"}
    assert rows[0]["state"] == "new" and rows[1]["state"] == "tracked"
    assert rows[2]["stamp"] == "1700000000.200000000" and rows[2]["pixels"] == "144"
    assert all(np.isfinite(float(rows[5][name])) for name in ("x", "qw", "size_x", "vx", "speed", "wz", "sigma_x"))


def test_trajectory(analysis, out):
    lines = [line for line in (out / "trajectory.tum").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == FRAMES
    stamp, x, *_ = lines[3].split()
    assert stamp == "1700000000.300000000" and float(x) == pytest.approx(0.3)


def test_output_bag(analysis, out):
    with AnyReader([out / "output.mcap"]) as reader:
        counts = {topic: info.msgcount for topic, info in reader.topics.items()}
        messages = {}
        for connection, stamp, raw in reader.messages():
            messages.setdefault(connection.topic, []).append((stamp, reader.deserialize(raw, connection.msgtype)))
    for name in ("tracked_points", "tracked_objects", "camera_pose", "semantic_mask", "markers"):
        assert counts[f"/motion4d/{name}"] == FRAMES
    assert counts["/motion4d/static_points"] == counts["/motion4d/status"] == 1
    stamp, objects = messages["/motion4d/tracked_objects"][4]
    assert stamp == 1_700_000_000_400_000_000 and objects.header.frame_id == "map"
    assert objects.stage == "global" and objects.scale == "metric"
    assert [o.id for o in objects.objects] == [3] and objects.objects[0].state == "tracked"
    assert objects.objects[0].twist.twist.linear.x != 0.0
    _, mask = messages["/motion4d/semantic_mask"][4]
    labels = np.frombuffer(mask.data, np.uint16).reshape(mask.height, mask.width)
    assert mask.encoding == "16UC1" and mask.header.frame_id == "camera_optical" and (labels == 3).sum() == 144
    _, cloud = messages["/motion4d/tracked_points"][4]
    names = [field.name for field in cloud.fields]
    assert names == ["x", "y", "z", "rgb", "point_id", "object_id", "vx", "vy", "vz", "confidence"]
    points = np.frombuffer(cloud.data, np.dtype([(n, "<u4" if n.endswith("_id") else "<f4") for n in names]))
    assert cloud.width == len(points) == 20 and (points["object_id"] == 3).all()
    assert points["rgb"].view(np.uint32)[0] == 180 << 16 | 180 << 8 | 180
    _, pose = messages["/motion4d/camera_pose"][3]
    assert pose.header.frame_id == "map" and pose.pose.position.x == pytest.approx(0.3)
    _, drawn = messages["/motion4d/markers"][4]
    assert [marker.ns for marker in drawn.markers] == ["box", "label", "velocity", "trajectory"]
    assert len(drawn.markers[3].points) == 5  # where it has been so far
    _, status = messages["/motion4d/status"][0]
    assert status.received == status.processed == FRAMES


@pytest.mark.parametrize(
    ("scale", "unit"), [(Scale.METRIC, "m/s"), (Scale.RELATIVE, "units/s"), (Scale.UNKNOWN, "units/s")]
)
def test_metres_are_named_only_where_there_are_metres(make_bag, topics, out, engine_double, scale, unit):
    class Engine(engine_double):
        def _estimate(self, index, stage):
            return replace(super()._estimate(index, stage), scale=scale)

    analyze(AnalyzeOptions(make_bag(frames=FRAMES), out, topics), engine_factory=Engine)
    assert json.loads((out / "metrics.json").read_text())["scale"] == scale.value
    with AnyReader([out / "output.mcap"]) as reader:
        markers = [
            marker
            for connection, _, raw in reader.messages()
            if connection.topic == "/motion4d/markers"
            for marker in reader.deserialize(raw, connection.msgtype).markers
        ]
    labels = [marker.text for marker in markers if marker.ns == "label"]
    assert labels and all(text.endswith(f" {unit}") for text in labels)
    page = (out / "report.html").read_text()
    assert f"Speed, {unit}" in page and ("Lengths are <b>metres" in page) == (scale is Scale.METRIC)
    assert "there was no depth" not in page


def test_metrics(analysis, out):
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["counts"]["frames"] == FRAMES and metrics["counts"]["objects"] == 1
    assert metrics["configuration"]["masks.source"] == "topic" and metrics["configuration"]["pose.source"] == "odometry"
    assert metrics["input"]["used"]["depth"] == "/camera/depth"
    assert metrics["timings"]["stages_seconds"]["stage 1 motion"] == 1.5
    assert metrics["memory"]["peak_mib"] > 1 and metrics["versions"]["numpy"]
    assert "a warning of the engine (2 times)" in metrics["warnings"]


def test_report_needs_no_network_and_no_file(analysis, out):
    page = (out / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "http://" not in page and "https://" not in page and "@import" not in page
    assert "a warning of the engine" in page and "metres" in page and "/camera/depth" in page
    data = json.loads(re.search(r'id="scene-data">(.*?)</script>', page, re.S).group(1).replace("<\\/", "</"))
    assert [o["id"] for o in data["objects"]] == [3] and len(data["keyframes"]) == FRAMES


def test_same_input_same_output(make_bag, topics, tmp_path, engine_double):
    bag = make_bag(frames=FRAMES)
    for name in ("a", "b"):
        analyze(AnalyzeOptions(bag, tmp_path / name, topics), engine_factory=engine_double)
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    timed = {"report.html", "metrics.json", "output.mcap"}
    for file in files:
        if file.parts[0] not in timed:
            assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_images_without_anything(make_images, out, engine_double):
    result = analyze(AnalyzeOptions(make_images(9), out, SourceOptions()), engine_factory=engine_double)
    assert result.metrics["configuration"]["masks.discovery"] == "motion"
    assert result.metrics["input"]["missing"] == ["depth", "masks", "camera poses", "camera intrinsics"]
    page = (out / "report.html").read_text()
    assert "focal length is a guess" in page and "no --fps" in page


def test_lost_poses_are_told(make_images, out, engine_double):
    class Lost(engine_double):
        def _estimate(self, index, stage):
            status = PoseStatus.LOST if index >= 7 else PoseStatus.OK
            return replace(super()._estimate(index, stage), pose_status=status)

    result = analyze(AnalyzeOptions(make_images(9), out, SourceOptions()), engine_factory=Lost)
    assert "camera pose lost in 2 of 9 frames: nothing in 3D holds there" in result.warnings
    assert "lost in 2 of 9 frames" in (out / "report.html").read_text()


def test_the_report_tells_how_much_of_the_input_was_used(make_images, out, engine_double):
    analyze(AnalyzeOptions(make_images(9), out, SourceOptions(), limit=4), engine_factory=engine_double)
    assert "of which the first 4 were used" in (out / "report.html").read_text()


def test_prompt_mask(make_images, out, engine_double, tmp_path):
    labels = np.zeros((32, 48), np.uint8)
    labels[5:10, 5:10], labels[20:25, 20:30] = 2, 7
    cv2.imwrite(str(tmp_path / "first.png"), labels)
    engines = []

    def factory(config):
        engines.append(engine_double(config))
        return engines[0]

    options = AnalyzeOptions(make_images(9), out, prompt_mask=tmp_path / "first.png")
    result = analyze(options, engine_factory=factory)
    assert result.metrics["configuration"]["masks.discovery"] == "none"
    assert [p.object_id for p in engines[0].prompts] == [2, 7]
    assert [int(p.mask.sum()) for p in engines[0].prompts] == [25, 50]
    assert {p.stamp_ns for p in engines[0].prompts} == {0}


def test_prompt_mask_of_another_size(make_images, out, engine_double, tmp_path):
    cv2.imwrite(str(tmp_path / "first.png"), np.ones((10, 10), np.uint8))
    with pytest.raises(Motion4DError, match="--prompt-mask is 10x10 px, the images are 48x32"):
        options = AnalyzeOptions(make_images(9), out, prompt_mask=tmp_path / "first.png")
        analyze(options, engine_factory=engine_double)
    assert not out.exists()


def test_what_options_imply():
    given = SourceOptions(depth="d", masks="m", odometry="o")
    config = effective_config(AnalyzeOptions(Path("in"), Path("out"), given))
    sources = (config.masks.source, config.depth.source, config.pose.source, config.budget.mode)
    assert sources == ("topic", "topic", "odometry", "lossless")
    own = Config()
    own.set("pose.source", "static")
    own.set("budget.mode", "realtime")
    config = effective_config(AnalyzeOptions(Path("in"), Path("out"), given, own, frozenset({"pose.source"})))
    assert config.pose.source == "static" and config.budget.mode == "lossless" and own.budget.mode == "realtime"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("masks.source", "topic", "--masks"),
        ("depth.source", "topic", "--depth"),
        ("masks.discovery", "none", "--prompt-mask"),
        ("masks.discovery", "detections", "--detections"),
        ("pose.source", "odometry", "--odometry TOPIC"),
        ("budget.mode", "realtime", "leaves frames out"),
    ],
)
def test_settings_that_contradict_the_input(path, value, words):
    config = Config()
    config.set(path, value)
    with pytest.raises(Motion4DError, match=words):
        effective_config(AnalyzeOptions(Path("in"), Path("out"), config=config, explicit=frozenset({path})))


def test_ctrl_c_keeps_what_is_finished(make_bag, topics, out, engine_double):
    interrupt = Interrupt()

    def factory(config):
        engine = engine_double(config)
        engine.on_accept = lambda index: interrupt.request() if index == 17 else None
        return engine

    options = AnalyzeOptions(make_bag(frames=30), out, topics)
    result = analyze(options, engine_factory=factory, interrupt=interrupt)
    assert result.interrupted and result.frames == 16  # two windows; frames 16 and 17 were only accepted
    assert {path.name for path in out.iterdir()} == set(PRODUCTS)
    assert len(list((out / "masks").iterdir())) == 16
    assert tracks_of(out / "tracks.npz")["tracks"].shape[1] == 16
    assert "interrupted" in result.warnings[0] and "interrupted" in (out / "report.html").read_text()


def test_ctrl_c_during_the_last_refinement_keeps_all_frames(make_bag, topics, out, engine_double):
    interrupt = Interrupt()

    class Slow(engine_double):
        def flush(self, should_yield=None):
            interrupt.request()
            assert should_yield()
            return super().flush()

    options = AnalyzeOptions(make_bag(frames=FRAMES), out, topics)
    result = analyze(options, engine_factory=Slow, interrupt=interrupt)
    assert result.interrupted and result.frames == FRAMES


def test_ctrl_c_before_anything_is_finished(make_bag, topics, out, engine_double):
    interrupt = Interrupt()
    interrupt.request()
    with pytest.raises(Stopped):
        options = AnalyzeOptions(make_bag(), out, topics)
        analyze(options, engine_factory=engine_double, interrupt=interrupt)
    assert not out.exists()


def test_input_that_breaks_off_keeps_what_is_finished(make_bag, topics, out, engine_double):
    bag = make_bag(frames=14, image_sizes=[(48, 32)] * 10 + [(24, 16)] * 4)
    result = analyze(AnalyzeOptions(bag, out, topics), engine_factory=engine_double)
    assert "midway" in result.failure and result.frames == 10
    assert len(list((out / "masks").iterdir())) == 10


def test_defect_in_the_engine_keeps_what_is_finished(make_bag, topics, out, engine_double, capsys, logs):
    def factory(config):
        engine = engine_double(config)
        engine.on_accept = lambda index: 1 // (12 - index)
        engine.flush = None  # must not be asked any more
        return engine

    result = analyze(AnalyzeOptions(make_bag(frames=20), out, topics), engine_factory=factory)
    assert result.frames == 8 and "ZeroDivisionError" in result.failure
    assert "Traceback" not in capsys.readouterr().err and result.defect
    (log,) = logs.iterdir()
    assert str(log) in result.failure and "ZeroDivisionError" in log.read_text()


def test_one_frame_only(make_bag, topics, out, engine_double):
    result = analyze(AnalyzeOptions(make_bag(frames=1), out, topics), engine_factory=engine_double)
    assert result.frames == 1 and any("only one frame" in text for text in result.warnings)
    assert (out / "report.html").exists()


def test_limit(make_bag, topics, out, engine_double):
    result = analyze(AnalyzeOptions(make_bag(frames=30), out, topics, limit=9), engine_factory=engine_double)
    assert result.frames == 9


def test_progress_reaches_the_end(make_bag, topics, out, engine_double):
    seen = []
    analyze(AnalyzeOptions(make_bag(frames=FRAMES), out, topics), seen.append, engine_factory=engine_double)
    assert [p.frames for p in seen if p.doing == "frames"] == list(range(1, FRAMES + 1))
    assert seen[-1].doing == "writing the report" and seen[0].total == FRAMES


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.zeros((3, 2)), r"\(Q, 3\)"),
        (np.array([[0.0, np.nan, 1.0]]), "finite"),
        (np.array([[0.5, 1.0, 1.0]]), "whole frame numbers"),
        (np.array([[0, 5, 480]]), "outside the 48x32 image"),
        (np.array([[99, 5, 5]]), "frame 99 does not exist"),
    ],
)
def test_bad_queries_leave_nothing_behind(make_bag, topics, out, engine_double, tmp_path, content, words):
    np.save(tmp_path / "q.npy", content)
    with pytest.raises(Motion4DError, match=words):
        options = AnalyzeOptions(make_bag(), out, topics, queries=tmp_path / "q.npy")
        analyze(options, engine_factory=engine_double)
    assert not out.exists() and not out.parent.exists()


def test_garbage_is_looked_for_again_once_an_engine_is_there() -> None:
    """What the first import makes is left alone; what a second analysis finds in memory is not kept for good."""
    words = """
        import gc
        from motion4d_ros.config import Config
        from motion4d_ros.offline import analyze
        analyze._make_engine(Config())
        frozen = gc.get_freeze_count()
        assert gc.isenabled() and frozen > 100_000, frozen
        left = [[] for _ in range(1000)]
        analyze._make_engine(Config())
        assert gc.isenabled() and gc.get_freeze_count() <= frozen
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(words)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
