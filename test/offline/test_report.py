"""The pieces of the report: charts, words, packed scenes, pictures where there is no video."""

from __future__ import annotations

import base64
import io
import logging
import re
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motion4d_ros.offline.analyze import AnalyzeOptions, Progress, analyze
from motion4d_ros.offline.progress import progress_display
from motion4d_ros.offline.report import charts, overlay, words
from motion4d_ros.offline.report.charts import Line
from motion4d_ros.offline.report.scene_data import _Box, plan_axes
from motion4d_ros.viewer import palette
from motion4d_ros.viewer.drawn import up_direction


@given(st.floats(-1e5, 1e5), st.floats(1e-3, 1e5))
def test_ticks_enclose_and_are_few(low, span):
    ticks = charts._ticks(low, low + span)
    tolerance = 1e-6 * max(1.0, abs(low), span)
    assert ticks[0] <= low + tolerance and ticks[-1] >= low + span - tolerance
    assert 2 <= len(ticks) <= 10


@pytest.mark.parametrize(
    "svg",
    [
        charts.bars([("a <b>", 1.0, "#123456"), ("c", 0.0, "#123456")]),
        charts.lines([Line([0, 1, 2, 3], [0.0, np.nan, 2.0, 1.0], "#123456", "a & b")], "s", "m/s"),
        charts.plan(np.zeros((0, 2)), [], [Line([0, 1], [0, 1], "#123456", "1")], Line([0, 1], [2, 2], "#000"), "m"),
        charts.plan(np.random.default_rng(0).normal(size=(50, 2)), ["#fff"] * 50, [], None, "units"),
    ],
)
def test_charts_are_well_formed(svg):
    root = ElementTree.fromstring(svg)
    numbers = [float(v) for e in root.iter() for k, v in e.attrib.items() if k in ("x", "y", "cx", "cy", "width")]
    assert numbers and np.isfinite(numbers).all()


def test_nothing_to_draw_is_said():
    assert "nothing was measured" in charts.bars([])
    assert "too few values" in charts.lines([Line([0], [np.nan], "#000")], "x", "y")
    assert "nothing to draw" in charts.plan(np.zeros((0, 2)), [], [], None, "m")


def test_the_numbers_of_an_axis_leave_room_for_its_label():
    svg = charts.lines([Line([0, 1], [0.0, 140000.0], "#000")], "frames", "peak MiB")
    ends = [(float(x), text) for x, text in re.findall(r"<text x='(\d+)' [^>]*end' class='tick'>([\d.]+)<", svg)]
    assert ends and all(x - 8 * len(text) >= 20 for x, text in ends)


def test_gaps_interrupt_a_curve():
    pieces = charts._pieces(np.arange(6.0), np.array([1, 2, np.nan, 3, 4, np.nan]))
    assert [len(piece) for piece in pieces] == [2, 2]


COUNTS = {"poses": {"ok": 50}, "frames": 50, "objects": 2, "frames_without_ground": 0}


def metrics(**changes):
    base = {
        "failure": "",
        "scenes": [{"first_frame": 0, "last_frame": 49, "scale": "metric", "began": ""}],
        "interrupted": False,
        "failed": {},
        "input": {"missing": []},
        "configuration": {"pose.source": "odometry", "depth.source": "topic", "masks.source": "topic"},
        "counts": COUNTS,
        "tracks": {"visible_share": 0.9, "mean_confidence": 0.9},
    }
    return base | changes


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, None),
        ({"counts": COUNTS | {"poses": {"ok": 40, "lost": 10}}}, "lost in 10 of 50"),
        ({"counts": COUNTS | {"poses": {"ok": 40, "predicted": 10}}}, "predicted in 10 of 50"),
        ({"counts": COUNTS | {"objects": 0}}, "No moving object"),
        ({"counts": COUNTS | {"poses": {"ok": 5}, "frames": 5}}, "Only 5 frames"),
        ({"input": {"missing": ["camera intrinsics"]}}, "focal length is a guess"),
        ({"counts": COUNTS | {"frames_without_ground": 20}}, "In 20 of 50 frames too little"),
        ({"configuration": {"pose.source": "static"}}, "assumed to stand still"),
        ({"configuration": {"depth.source": "geometry"}}, "viewing direction"),
        ({"configuration": {"pose.source": "visual"}}, "most of the picture agrees on"),
        ({"configuration": {"masks.source": "sam2", "masks.discovery": "motion"}}, "found by motion"),
        ({"tracks": {"visible_share": 0.9, "mean_confidence": 0.2}}, "contradicts"),
        ({"tracks": {"visible_share": 0.1, "mean_confidence": 0.9}}, "hidden most of the time"),
        ({"failure": "the disk ended"}, "the disk ended"),
        ({"scenes": [{}, {"first_frame": 30, "began": "camera lost"}]}, "begin with frame 30 (camera lost)"),
        ({"interrupted": True}, "interrupted"),
        ({"failed": {"scene.ply": "no space left on out"}}, "not be written: scene.ply (no space left on out)"),
    ],
)
def test_what_to_distrust(changes, expected):
    found = words.distrust(metrics(**changes))
    assert found == [] if expected is None else expected in found[0]


def test_a_flat_curve_of_confidence_is_commented():
    assert "hardly changes" in words.confidence_note([0.8, 0.81] * 10 + [float("nan")])
    assert words.confidence_note([0.2, 0.9] * 10) == ""
    assert words.confidence_note([0.8] * 3) == words.confidence_note([float("nan")] * 20) == ""


def test_scale_is_never_called_metres_when_it_is_not():
    assert words.unit("metric") == "m" and words.unit("relative") == words.unit("unknown") == "units"
    assert "metres per second" in words.scale_sentence("metric")
    assert "relative" in words.scale_sentence("relative") and "unknown" in words.scale_sentence("unknown")


def test_colours_differ_between_neighbours():
    assert len({palette.css(k) for k in range(1, 11)}) == 10
    assert palette.css(3) == palette.css(13)


def test_up_is_z_for_robots_and_the_cameras_own_elsewhere():
    level = np.eye(4)
    level[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]  # optical frame looking along the map's x
    assert np.allclose(up_direction({0: level}), [0, 0, 1])
    assert np.allclose(up_direction({0: np.eye(4)}), [0, -1, 0])
    right, forward = plan_axes({0: np.eye(4)})
    assert np.allclose(right, [1, 0, 0]) and np.allclose(forward, [0, 0, 1])


def test_coordinates_survive_packing():
    points = np.random.default_rng(0).uniform(-3, 5, (100, 3))
    box = _Box(points)
    packed = np.frombuffer(base64.b64decode(box.pack(points)), "<u2").reshape(-1, 3)
    assert np.abs(box.low + packed * box.step - points).max() < 1e-4


def test_pictures_where_no_video_can_be_made(make_bag, topics, tmp_path, engine_double, monkeypatch):
    monkeypatch.setattr(overlay, "encode_video", lambda *_: False)
    analyze(AnalyzeOptions(make_bag(), tmp_path / "out", topics), engine_factory=engine_double)
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg") >= 10 and "<video" not in page


def test_video_is_playable(tmp_path):
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("imageio_ffmpeg")
    frames = (np.full((48, 64, 3), 20 * k, np.uint8) for k in range(10))
    if not overlay.encode_video(tmp_path / "v.mp4", frames, 10.0):
        pytest.skip("this ffmpeg has no H.264 encoder")
    capture = cv2.VideoCapture(str(tmp_path / "v.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 10
    assert abs(capture.read()[1].mean() - 0) < 8


def test_plain_lines_where_there_is_no_terminal():
    stream = io.StringIO()
    with progress_display(stream) as show:
        for k in range(1, 101):
            show(Progress(k, 100, "frames"))
        show(Progress(100, 100, "writing the bag"))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "frames: 1/100" and lines[1].startswith("frames: 100/100, ")
    assert lines[2:] == ["writing the bag: 100/100"] and "\x1b" not in stream.getvalue()


def test_stream_that_nobody_reads_any_more():
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    with progress_display(Closed()) as show:
        show(Progress(1, 2, "frames"))
        show(Progress(2, 2, "frames"))


@pytest.mark.parametrize("terminal", ["dumb", ""])
def test_terminal_without_control_codes(monkeypatch, terminal):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", terminal)
    stream = Terminal()
    with progress_display(stream) as show:
        show(Progress(1, 2, "frames"))
    assert stream.getvalue() == "frames: 1/2\n"


def test_what_modules_say_is_shown_between_the_lines():
    stream = io.StringIO()
    with progress_display(stream) as show:
        logging.getLogger("motion4d_ros.render.gpu").info("kernels are compiled now")
        show(Progress(10, 10, "frames"))
    assert stream.getvalue().splitlines()[0] == "kernels are compiled now"


def test_bar_on_a_terminal():
    stream = SimpleNamespace(isatty=lambda: True)
    text = io.StringIO()
    stream.write, stream.flush, stream.encoding = text.write, text.flush, "utf-8"
    with progress_display(stream) as show:
        show(Progress(3, 10, "frames"))
        logging.getLogger("motion4d_ros.render.gpu").info("kernels [3] are compiled now")
        show(Progress(10, 10, "writing the report"))
    assert "writing the report" in text.getvalue() and "kernels [3] are compiled now" in text.getvalue()
