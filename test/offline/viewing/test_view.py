"""`motion4d view` and `analyze --rerun`: what recordings of Rerun hold, and what is refused."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

from motion4d_ros.cli import main
from motion4d_ros.offline.analyze import AnalyzeOptions, analyze
from motion4d_ros.viewer import destinations, palette

ENTITIES = {
    "/world/static", "/world/camera", "/world/camera/image", "/world/camera/image/masks", "/world/moving",
    "/world/tracks", "/world/trails", "/world/camera/image/tracks", "/world/camera/image/trails", "/world/boxes",
    "/world/velocities", "/world/uncertainty", "/speed/3", "/cost/seconds", "/cost/memory",
}  # fmt: skip


@pytest.fixture
def rerun():
    return pytest.importorskip("rerun")


def content(path):
    """Entity -> {frame number -> its last row: component -> value}; and the blueprints' entities."""
    from rerun.chunk import RrdReader

    reader = RrdReader(path)
    found = {}
    for chunk in reader.stream():
        batch = chunk.to_record_batch()
        kept = [name for name in batch.schema.names if ":" in name or name == "frame" or name.endswith("RowId")]
        rows = batch.select(kept).to_pylist()
        for row in rows:  # in the order in which they were told
            values = {k: v for k, v in row.items() if ":" in k}
            found.setdefault(chunk.entity_path, {}).setdefault(row.get("frame", "static"), {}).update(values)
    layouts = [chunk.entity_path for entry in reader.blueprints() for chunk in reader.stream(store=entry)]
    return found, layouts


def refusal(capsys, *words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_recording_holds_everything_in_every_frame(rerun, small_result, tmp_path, capfd):
    assert main(["view", str(small_result), "--save", str(tmp_path / "a.rrd")]) == 0
    said = capfd.readouterr()
    assert said.out == f"{tmp_path / 'a.rrd'}: 9 frames\n" and "ERROR" not in said.err
    found, layouts = content(tmp_path / "a.rrd")
    assert set(found) >= ENTITIES
    for entity in ENTITIES - {"/world/static"}:
        assert set(found[entity]) - {"static"} == set(range(9)), entity
    assert set(found["/world/static"]) == {0} and len(found["/world/static"][0]["Points3D:positions"]) > 50
    assert {"/viewport", "/time_panel"} <= set(layouts) and sum("/ViewContents" in name for name in layouts) >= 4
    assert found["/world/boxes"][8]["Boxes3D:labels"] == ["3"]
    image = found["/world/camera/image"][4]
    assert bytes(image["EncodedImage:blob"][0])[:2] == b"\xff\xd8" and image["Pinhole:resolution"] == [[48.0, 32.0]]
    classes = found["/"]["static"]["AnnotationContext:context"][0]
    colours = {item["class_id"]: item["class_description"]["info"]["color"] for item in classes}
    red, green, blue = palette.rgb(3)
    assert colours[0] == 0 and colours[3] == (red << 24) + (green << 16) + (blue << 8) + 255


def test_colours_are_told_once(rerun, small_result, tmp_path):
    """A viewer that looks on forgets them when they are told again."""
    assert main(["view", str(small_result), "--save", str(tmp_path / "a.rrd")]) == 0
    from rerun.chunk import RrdReader

    told = [chunk for chunk in RrdReader(tmp_path / "a.rrd").stream() if chunk.entity_path == "/"]
    assert sum(chunk.to_record_batch().num_rows for chunk in told) == 1


def test_plots_say_what_the_files_say(rerun, small_result, tmp_path):
    assert main(["view", str(small_result), "--save", str(tmp_path / "a.rrd")]) == 0
    found, _ = content(tmp_path / "a.rrd")
    header, *lines = [line.split(",") for line in (small_result / "objects.csv").read_text().splitlines()]
    for line in lines:
        row = dict(zip(header, line, strict=True))
        speed = found[f"/speed/{row['id']}"][int(row["frame"])]["Scalars:scalars"]
        assert speed[0] == pytest.approx(float(row["speed"]), rel=1e-4)
        half = found["/world/boxes"][int(row["frame"])]["Boxes3D:half_sizes"][0]
        assert np.allclose(2 * np.array(half), [float(row[k]) for k in ("size_x", "size_y", "size_z")], rtol=1e-4)


def test_a_recording_that_is_gone_costs_its_pictures(rerun, small_result, tmp_path, capsys):
    moved = tmp_path / "out"
    shutil.copytree(small_result, moved)
    metrics = json.loads((moved / "metrics.json").read_text())
    bag, metrics["input"]["path"] = metrics["input"]["path"], "gone"
    (moved / "metrics.json").write_text(json.dumps(metrics))
    assert main(["view", str(moved), "--save", str(tmp_path / "a.rrd")]) == 0
    assert "note: no pictures: gone: no such file or folder" in capsys.readouterr().out
    found, _ = content(tmp_path / "a.rrd")
    assert "EncodedImage:blob" not in found["/world/camera/image"][0] and 8 in found["/world/boxes"]
    assert main(["view", str(moved), "--save", str(tmp_path / "b.rrd"), "--input", bag]) == 0
    assert "EncodedImage:blob" in content(tmp_path / "b.rrd")[0]["/world/camera/image"][8]


def test_a_result_that_lacks_files_shows_the_rest(rerun, small_result, tmp_path, capsys):
    part = tmp_path / "out"
    shutil.copytree(small_result, part)
    shutil.rmtree(part / "output.mcap")
    (part / "tracks.npz").unlink()
    assert main(["view", str(part), "--save", str(tmp_path / "a.rrd")]) == 0
    out = capsys.readouterr().out
    assert "note: output.mcap is not there" in out and "note: tracks.npz is not there" in out
    assert "/world/camera/image" in content(tmp_path / "a.rrd")[0]


def test_analysis_streams_what_it_believes(rerun, make_bag, topics, tmp_path, engine_double):
    out = tmp_path / "out"
    options = AnalyzeOptions(make_bag(frames=10), out, topics, rerun=str(tmp_path / "live.rrd"))
    result = analyze(options, engine_factory=engine_double)
    assert result.complete and not result.warnings[1:]
    found, layouts = content(tmp_path / "live.rrd")
    assert set(found) >= ENTITIES and "/viewport" in layouts
    for entity in ENTITIES - {"/world/static"}:
        assert set(found[entity]) - {"static"} == set(range(10)), entity
    tracks = np.load(out / "tracks.npz")
    shown = found["/world/camera/image/tracks"][3]["Points2D:positions"]
    assert np.allclose(
        sorted(p[0] for p in shown), np.sort(tracks["tracks"][:, 3, 0]) + 0.5, atol=1e-3
    )  # the last word


def test_a_failing_viewer_costs_no_analysis(rerun, make_bag, topics, tmp_path, engine_double, monkeypatch, caplog):
    def fail(*_, **__):
        raise RuntimeError("the viewer broke")

    monkeypatch.setattr("motion4d_ros.viewer.rerun_stream.RerunStream.estimate", fail)
    options = AnalyzeOptions(make_bag(frames=10), tmp_path / "out", topics, rerun=str(tmp_path / "live.rrd"))
    assert analyze(options, engine_factory=engine_double).complete
    assert [r.getMessage() for r in caplog.records if "viewer" in r.getMessage()] == [
        "the viewer is told nothing more: RuntimeError the viewer broke"
    ]


def test_web_page_is_served_until_it_is_ended(rerun, small_result, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = min(probe.getsockname()[1], 60000)
    code = "import sys; from motion4d_ros.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["view", str(small_result), "--web", "--no-browser", "--port", str(port)]
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        line = next(line for line in process.stdout if "frames at" in line)
        assert f"9 frames at http://127.0.0.1:{port}/" in line
        deadline = time.monotonic() + 30
        page = b""
        while not page and time.monotonic() < deadline:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
                page = answer.read()
        assert b"rerun" in page.lower()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()


def test_refusals_are_one_line(rerun, small_result, make_bag, tmp_path, capsys, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for words, said in (
            (["view", tmp_path / "nowhere"], "no such file or folder"),
            (["view", tmp_path], "is no folder of results"),
            (["view", small_result], "there is no display for the viewer's window here: use --web"),
            (["view", small_result, "--save", tmp_path / "a.txt"], "name a file that ends in .rrd"),
            (["view", small_result, "--save", tmp_path / "no" / "a.rrd"], "no such file or folder"),
            (["view", small_result, "--save", "/proc/a.rrd"], "cannot be written"),
            (["view", small_result, "--web", "--no-browser", "--port", port], f"port {port} cannot be used"),
            (["view", small_result, "--web", "--save", "x.rrd"], "not allowed with argument"),
        ):
            assert said in refusal(capsys, *words)
    bag, out = make_bag(frames=4), tmp_path / "out"
    for target, said in (
        ("x.mp4", "expected FILE.rrd, spawn, or rerun+http"),
        ("spawn", "there is no display"),
        ("http://127.0.0.1:1/proxy", "expected rerun+http://HOST:PORT/proxy"),
        ("rerun+http://127.0.0.1:1/proxy", "no viewer answers there"),
        (str(tmp_path / "no" / "a.rrd"), "no such file or folder"),
    ):
        assert said in refusal(capsys, "analyze", bag, "--out", out, "--rerun", target)
        assert not out.exists()


def test_without_the_extra_one_line_says_what_to_install(small_result, make_bag, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    for words in (
        ["view", small_result],
        ["view", small_result, "--web"],
        ["analyze", make_bag(frames=4), "--out", tmp_path / "out", "--rerun", tmp_path / "a.rrd"],
    ):
        assert "the viewer Rerun is not installed" in refusal(capsys, *words)
        assert "rerun-sdk" in refusal(capsys, *words)
    assert not (tmp_path / "out").exists() and not (tmp_path / "a.rrd").exists()


def test_nothing_imports_the_viewer_unless_asked(make_bag, tmp_path):
    code = "import sys; from motion4d_ros.cli import main; main(['view', '--help']); print('rerun' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip().endswith("False")


def test_targets(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(destinations, "need_viewer", lambda: None)
    destinations.check_target("spawn")
    destinations.check_target("where.rrd")
