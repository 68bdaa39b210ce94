"""The cost of a fixed run: every run adds a line to the history, and a failed one does not."""

import json

import pytest

from motion4d_ros.evaluation.cost import __main__ as cost


@pytest.fixture
def run(monkeypatch):
    record = {"date": "today", "revision": "abc", "error": "", "scores": {"final": {"J": 0.9, "EPE": 0.012}}}
    monkeypatch.setattr(cost, "run_case", lambda *_, **__: record)
    children = iter([1.0, 33.0, 33.0, 49.0])
    monkeypatch.setattr(cost, "_children", lambda: next(children))
    monkeypatch.setattr(cost, "reference_seconds", lambda: 0.02)
    return record


def test_every_run_adds_a_line(run, tmp_path, capsys):
    assert cost.main(["--out", str(tmp_path)]) == 0
    assert cost.main(["--out", str(tmp_path)]) == 0
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [line["cpu_s_per_frame"] for line in lines] == [2.0, 1.0]  # 32 and 16 s in 16 frames
    assert [line["per_reference"] for line in lines] == [100.0, 50.0]
    assert capsys.readouterr().out.count("abc") == 3  # one line, then both


def test_a_failed_run_is_told_and_leaves_no_line(run, tmp_path, capsys):
    run["error"] = "no room"
    assert cost.main(["--out", str(tmp_path)]) == 1
    assert "no room" in capsys.readouterr().out and not (tmp_path / "history.jsonl").exists()


def test_the_reference_takes_time_and_leaves_opencv_as_it_was():
    threads = cost.cv2.getNumThreads()
    assert cost.reference_seconds() > 0
    assert cost.cv2.getNumThreads() == threads
