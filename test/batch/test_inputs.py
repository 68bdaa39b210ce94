"""What is to be analysed: globs, lists, manifests, names of folders, options of each recording, keys."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motion4d_ros.batch.carriers import Recording
from motion4d_ros.batch.fingerprint import input_key
from motion4d_ros.batch.folder_names import folder_name, name_folders, sanitised
from motion4d_ros.batch.inputs import read_inputs
from motion4d_ros.batch.recording_options import settings_key, words_of_row
from motion4d_ros.types import Motion4DError


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    """Empty files that are called like videos."""
    found = [tmp_path / f"{name}.mp4" for name in ("b", "a", "c d")]
    for path in found:
        path.touch()
    return found


def test_globs_are_expanded_and_paths_absolute(clips, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = read_inputs(["*.mp4", "a.mp4"], ["--fps", "5"])
    assert [r.input for r in found] == [str(tmp_path / name) for name in ("a.mp4", "b.mp4", "c d.mp4", "a.mp4")]
    assert all(r.words == ("--fps", "5") for r in found)
    with pytest.raises(Motion4DError, match="nothing matches"):
        read_inputs(["*.mkv"], [])


def test_a_manifest_gives_options_to_each(clips, tmp_path):
    (tmp_path / "first.png").touch()
    (tmp_path / "list.csv").write_text(
        "input,name,fps,prompt-mask,set\na.mp4,one,30,first.png,window.length=4; run.seed=3\nb.mp4,,,,\n"
        "nix.mp4,,,,\na.mp4,bad,,,window.lenght=4\n,,,,\n"
    )
    one, two, gone, bad, empty = read_inputs([str(tmp_path / "list.csv")], ["--fps", "5"])
    assert (one.input, one.folder, two.folder) == (str(tmp_path / "a.mp4"), "one", "")
    assert one.words == (
        "--fps", "5", "--fps", "30.0", "--prompt-mask", str(tmp_path / "first.png"), "--set", "window.length=4",
        "--set", "run.seed=3",
    )  # fmt: skip
    assert settings_key(one.words) != settings_key(two.words) == settings_key(("--fps", "5"))
    assert gone.input == str(tmp_path / "nix.mp4") and gone.problem == ""  # found out when its key is made
    with pytest.raises(Motion4DError, match=r"window\.lenght.*window\.length"):
        settings_key(bad.words)
    assert empty.problem == "has no input" and empty.origin == "list.csv:6"


@pytest.mark.parametrize("whole", [True, False])
def test_json_says_the_same(clips, tmp_path, whole):
    rows = ["a.mp4", {"input": "b.mp4", "fps": 30, "set": {"window.length": 4}, "limit": 2}]
    (tmp_path / "list.json").write_text(json.dumps({"recordings": rows} if whole else rows))
    one, two = read_inputs([str(tmp_path / "list.json")], [])
    assert one.words == () and one.input == str(clips[1])
    assert set(zip(two.words[::2], two.words[1::2])) == {
        ("--fps", "30.0"), ("--set", "window.length=4"), ("--limit", "2")
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "path,fps\nx,1\n", "one of them `input`"),
        ("a.csv", "input\nx,1\n", "a.csv:2.*more fields"),
        ("a.json", "{", "is no JSON"),
        ("a.json", '{"input": "x"}', "expected a list of recordings"),
        ("a.json", "[3]", "a.json:1.*expected a recording"),
        ("a.txt", "# nothing\n\n", "names no recording"),
    ],
)
def test_a_bad_list_is_refused_in_one_line(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(Motion4DError, match=says) as caught:
        read_inputs([str(tmp_path / name)], [])
    assert "\n" not in str(caught.value)


def test_a_misspelt_option_costs_its_row(clips, tmp_path):
    (tmp_path / "list.csv").write_text("input,fsp\na.mp4,30\nb.mp4,\n")
    bad, good = read_inputs([str(tmp_path / "list.csv")], [])
    assert "--fps" in bad.problem and good.problem == ""
    with pytest.raises(Motion4DError, match="no option"):
        words_of_row({"overwrite": 1}, tmp_path)


def test_names_say_what_a_recording_is():
    assert folder_name("/data/davis/bear/images") == "bear"
    assert folder_name("s3://bucket/2026/run 7.mcap") == "run_7"
    assert folder_name("https://host/clip.mp4?token=x/y") == "clip"
    assert folder_name("/bags/ride.2026") == "ride.2026"


@given(st.text())
def test_any_name_becomes_a_legal_one(name):
    clean = sanitised(name)
    assert clean and "/" not in clean and "\0" not in clean and not clean.startswith(".") and clean.isprintable()
    assert sanitised(clean) == clean


def nobody(_: str) -> None:
    return None


def test_names_that_collide_are_told_apart_in_any_order():
    asked = [Recording("/x/run 1.mp4"), Recording("/y/run_1.mp4"), Recording("/z/Run_1.mp4"), Recording("/z/other.mp4")]
    notes: list[str] = []
    named = name_folders(asked, nobody, notes.append)
    assert len({r.folder.casefold() for r in named}) == 4 and named[3].folder == "other"
    assert len(notes) == 3 and all("run_1" in note.casefold() for note in notes)
    turned = name_folders(asked[::-1], nobody, notes.append)
    assert {r.input: r.folder for r in turned} == {r.input: r.folder for r in named}


def test_who_had_a_folder_keeps_it():
    """A second recording of the same name comes later: the first's results are still found."""
    alone = name_folders([Recording("/x/a.mp4")], nobody, print)
    assert alone[0].folder == "a"
    both = name_folders([Recording("/w/a.mp4"), Recording("/x/a.mp4")], {"a": "/x/a.mp4"}.get, print)
    assert both[1].folder == "a" and both[0].folder.startswith("a-")
    other = name_folders([Recording("/w/a.mp4")], {"a": "/x/a.mp4"}.get, print)
    assert other[0].folder == both[0].folder


def test_the_same_recording_twice_is_analysed_once():
    notes: list[str] = []
    found = name_folders(
        [Recording("/a.mp4"), Recording("/a.mp4"), Recording("/a.mp4", words=("--fps", "3"))], nobody, notes.append
    )
    assert [bool(r.problem) for r in found] == [False, True] and "twice" in notes[0] and "name" in found[1].problem
    rows = [Recording("/a.mp4", "slow"), Recording("/a.mp4", "fast", ("--preset", "fast"))]
    assert [r.folder for r in name_folders(rows, nobody, notes.append)] == ["slow", "fast"]


def test_a_key_knows_its_files(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for name in ("1.png", "sub/2.png"):
        (folder / name).write_bytes(b"x")
    first = input_key(str(folder))
    assert input_key(str(folder)) == first
    os.utime(folder / "sub/2.png", ns=(1, 1))
    second = input_key(str(folder))
    (folder / "1.png").write_bytes(b"xy")
    assert len({first, second, input_key(str(folder))}) == 3
    with pytest.raises(Motion4DError, match="no such file"):
        input_key(str(tmp_path / "imags"))


def test_a_key_of_settings_is_of_what_they_say_not_of_how():
    assert settings_key(("--set", "window.length=4")) == settings_key(
        ("--set", "window.length=4", "--set", "run.threads=2")
    )
    assert settings_key(("--preset", "fast")) != settings_key(())
    assert settings_key(("--limit", "3")) != settings_key(("--limit", "4"))


def test_a_path_that_cannot_be_costs_its_row_alone(clips, tmp_path):
    long, rest = "x" * 300, ["a.mp4", "b\0.mp4", "\ud800"]
    (tmp_path / "list.json").write_text(json.dumps([long, *rest]))
    found = read_inputs([str(tmp_path / "list.json")], [])
    assert ["is no path" in recording.problem for recording in found] == [True, False, True, True]
    with pytest.raises(Motion4DError, match="is empty"):  # a variable of the shell that was not set
        read_inputs([""], [])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "input,fps,fps\na,1,2\n", "two columns `fps`"),
        ("a.csv", "\ufeffinput;fps\na;1\n", "parted by commas"),
        ("a.json", "[" * 100_000, "is no JSON"),
    ],
)
def test_lists_that_cannot_be_meant(tmp_path, name, text, said):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(Motion4DError, match=said):
        read_inputs([str(tmp_path / name)], [])


def test_a_link_that_leads_nowhere_is_no_hindrance(tmp_path):
    (tmp_path / "0.png").touch()
    before = input_key(str(tmp_path))
    (tmp_path / ".#0.png").symlink_to("nowhere")
    assert input_key(str(tmp_path)) != before


def test_names_of_folders_fit_a_file_system():
    assert len(sanitised("\U00020000" * 300).encode()) <= 240
