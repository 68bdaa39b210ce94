"""The output folder is complete or untouched."""

from __future__ import annotations

import json

import pytest

from motion4d_ros.offline.results.workspace import MARKER, Workspace
from motion4d_ros.types import Motion4DError


def fill(work, text):
    (work.products / MARKER).write_text(json.dumps({"motion4d": {}, "text": text}))
    (work.products / "masks").mkdir()
    (work.products / "masks" / f"{text}.png").write_text(text)


def test_published_at_once(tmp_path):
    out = tmp_path / "a" / "out"
    with Workspace(out) as work:
        fill(work, "one")
        assert [p.name[:9] for p in out.iterdir()] == [".partial-"]
        work.publish()
    assert sorted(p.name for p in out.iterdir()) == ["masks", MARKER]


def test_failure_leaves_no_trace(tmp_path):
    out = tmp_path / "a" / "out"
    with pytest.raises(ZeroDivisionError), Workspace(out) as work:
        fill(work, "one")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_failure_keeps_the_former_analysis(tmp_path):
    with Workspace(tmp_path) as work:
        fill(work, "one")
        work.publish()
    with pytest.raises(ZeroDivisionError), Workspace(tmp_path) as work:
        fill(work, "two")
        raise ZeroDivisionError
    assert [p.name for p in (tmp_path / "masks").iterdir()] == ["one.png"]


def test_former_analysis_is_replaced_as_a_whole(tmp_path):
    with Workspace(tmp_path) as work:
        fill(work, "one")
        (work.products / "objects.csv").write_text("old")
        work.publish()
    (tmp_path / "my notes.txt").write_text("mine")
    with Workspace(tmp_path) as work:
        fill(work, "two")
        work.publish()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["masks", MARKER, "my notes.txt"]
    assert [p.name for p in (tmp_path / "masks").iterdir()] == ["two.png"]


def test_foreign_folder_is_refused_unless_asked(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(Motion4DError, match="--overwrite"):
        Workspace(tmp_path)
    with Workspace(tmp_path, overwrite=True) as work:
        fill(work, "one")
        work.publish()
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_marker_of_somebody_else_is_no_analysis(tmp_path):
    (tmp_path / MARKER).write_text('{"accuracy": 0.9}')
    with pytest.raises(Motion4DError, match="no former analysis"):
        Workspace(tmp_path)


def test_file_in_the_way(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(Motion4DError, match="is a file"):
        Workspace(tmp_path / "out")


def test_leftovers_of_a_killed_run_do_not_count(tmp_path):
    (tmp_path / ".partial-dead").mkdir()
    Workspace(tmp_path)
