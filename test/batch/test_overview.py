"""What is told of a batch: lines of progress, the summaries, the page."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser

import pytest

from motion4d_ros.batch.overview.progress import batch_progress, duration, pace
from motion4d_ros.batch.overview.rows import COLUMNS, Rows, totals
from motion4d_ros.batch.overview.summary import write_summary
from motion4d_ros.batch.places import LocalPlace

ODD = "<script>alert(1)</script> & \"é\" '\udcff'"
GOOD = {
    "input": "/a.mp4", "folder": "a", "state": "ok", "reason": "", "frames": 9, "objects": 2, "seconds": 61.5,
    "unit": "m", "top_speed": 1.25, "seconds_per_frame": 0.5, "cpu_seconds": 50.0, "peak_mib": 300.0, "node": "one",
    "attempts": 1, "more": "than is kept",
}  # fmt: skip
BAD = {"input": ODD, "folder": "b c", "state": "failed", "reason": ODD}


@pytest.fixture
def rows():
    """One that is ok, one that failed, one that was not begun; written out of order, the first one twice."""
    made = Rows(4)
    made.put(3, {"input": "/d", "folder": "d", "state": "open"})
    made.put(1, BAD)
    made.put(0, BAD)
    made.put(0, GOOD)
    yield made
    made.close()


class Page(HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data):
        self.text += data


def test_rows_come_in_their_order_each_once(rows):
    assert [row["folder"] for row in rows] == ["a", "b c", "d"] and 2 not in rows
    counts = totals(rows)
    assert (counts.states, counts.frames, counts.cpu_seconds) == ({"ok": 1, "failed": 1, "open": 1}, 9, 50.0)


def test_all_summaries_say_the_same(rows, tmp_path):
    place = LocalPlace(tmp_path)
    place.open()
    about = {"version": "1", "ended": "today", "interrupted": ""}
    names = write_summary(rows, place, about)
    place.close()
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    whole = json.loads((tmp_path / "summary.json").read_text())
    assert whole["counts"] == {"ok": 1, "failed": 1, "open": 1} and whole["version"] == "1"
    assert whole["recordings"] == list(rows) and whole["recordings"][1]["reason"] == ODD
    with (tmp_path / "summary.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == list(COLUMNS) and [row["frames"] for row in table] == ["9", "", ""]
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    read = parquet.read_table(tmp_path / "summary.parquet").to_pylist()
    assert [row["top_speed"] for row in read] == [1.25, None, None] and [row["folder"] for row in read] == [
        "a",
        "b c",
        "d",
    ]


def test_the_page_escapes_names_and_needs_no_network(rows, tmp_path):
    place = LocalPlace(tmp_path)
    place.open()
    write_summary(rows, place, {"version": "1", "ended": "today", "interrupted": ""})
    place.close()
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 1 and "<script>alert(1)" in page.text  # as text, twice: name and reason
    assert sorted(page.links) == ["a/report.html", "a/report.html", "a/thumbnail.jpg"]
    assert "http" not in text.replace("http-equiv", "") and "1.25 m/s" in page.text and "1 min 1 s" in page.text
    assert page.tags.count("tr") == 4


def test_pace_and_durations_read_well():
    assert [duration(s) for s in (5.4, 95, 7260)] == ["5 s", "1 min 35 s", "2 h 1 min"]
    assert (
        pace(0, 9.0, 5) == ""
        and pace(6, 60.0, 12) == "6.0 a minute, 2 min 0 s left"
        and pace(2, 600.0, 0) == "12.0 an hour"
    )


def test_where_there_is_no_terminal_lines_come_now_and_then():
    now, stream = [0.0], io.StringIO()
    with batch_progress(stream, 3, lambda: now[0]) as progress:
        for failed in (False, True):
            now[0] += 20.0
            progress.count(failed=failed)
            progress.tick()
        progress.say("b: failed: for a test")
        now[0] += 1.0
        progress.count(failed=False)
    assert stream.getvalue().splitlines() == [
        "motion4d: 2/3 recordings, 3.0 a minute, 20 s left, 1 failed",
        "motion4d: b: failed: for a test",
        "motion4d: 3/3 recordings, 4.4 a minute, 1 failed",
    ]
