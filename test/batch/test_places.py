"""Where results go and recordings come from: a folder, and what fsspec has a name for."""

from __future__ import annotations

import http.server
import json
import threading
import uuid
from functools import partial
from pathlib import Path

import pytest

from motion4d_ros.batch.carriers import DONE, OK, Planned, Recording
from motion4d_ros.batch.fingerprint import input_key
from motion4d_ros.batch.inputs import read_inputs
from motion4d_ros.batch.places import LocalPlace, RemotePlace, fetch, place_at
from motion4d_ros.batch.plan import KEEP, REDO, REFUSE, done_text, make_plan, read_done
from motion4d_ros.types import Motion4DError

fsspec = pytest.importorskip("fsspec", reason="fsspec (extra [batch]) is not installed")


@pytest.fixture
def memory() -> str:
    """The URL of an empty folder in fsspec's memory."""
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture(params=["folder", "file", "memory"])
def place(request, tmp_path, memory):
    """A place of each kind."""
    names = {"folder": str(tmp_path / "out"), "file": f"file://{tmp_path}/out", "memory": memory}
    made = place_at(names[request.param])
    made.open()
    yield made
    made.close()


def results(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_json", ".json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_results_are_published_whole_and_take_the_place_of_former_ones(place, tmp_path):
    assert place.read_text(f"bear/{DONE}") is None
    for turn in ("1", "2"):
        files = {"done_json": turn, "masks__0": turn, f"only{turn}": turn}
        scratch = place.scratch() if isinstance(place, LocalPlace) else tmp_path
        place.publish(results(scratch / f"results{turn}", **files), "bear")
    assert [place.read_text(f"bear/{name}") for name in (DONE, "masks/0", "only2", "only1")] == ["2", "2", "2", None]


def test_done_comes_last(memory, tmp_path, monkeypatch):
    """A transfer that breaks off leaves no result, whatever it was that failed."""
    place = RemotePlace(memory)
    place.publish(results(tmp_path / "first", done_json="1", a="1", z="1"), "bear")
    sent: list[str] = []
    put = RemotePlace.put_file

    def breaking(self: RemotePlace, name: str, file: Path) -> None:
        if name.endswith("z"):
            raise Motion4DError("the line is dead")
        sent.append(name)
        put(self, name, file)

    monkeypatch.setattr(RemotePlace, "put_file", breaking)
    with pytest.raises(Motion4DError):
        place.publish(results(tmp_path / "second", done_json="2", a="2", z="2"), "bear")
    assert sent == ["bear/a"] and place.read_text(f"bear/{DONE}") is None


def test_a_place_that_may_not_be_written_to_is_refused(memory, tmp_path, monkeypatch):
    from fsspec.implementations.memory import MemoryFileSystem

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("Access Denied: 403")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    monkeypatch.setattr(MemoryFileSystem, "info", refuse)
    with pytest.raises(Motion4DError, match=r"--out memory://.*not allowed.*403"):
        RemotePlace(memory).open()
    with pytest.raises(Motion4DError, match="not allowed to read"):
        input_key(f"{memory}/a.mp4")
    (tmp_path / "file").touch()
    with pytest.raises(Motion4DError, match="cannot be written"):
        LocalPlace(tmp_path / "file" / "out").open()


@pytest.mark.parametrize("url", ["nonsense://x/y", "wrong+thing://x"])
def test_a_url_that_nobody_knows_is_refused_in_one_line(url):
    with pytest.raises(Motion4DError, match="://") as caught:
        place_at(url)
    assert "\n" not in str(caught.value)


def test_two_batches_do_not_share_a_folder(tmp_path):
    first, second = LocalPlace(tmp_path / "out"), LocalPlace(tmp_path / "out")
    first.open()
    with pytest.raises(Motion4DError, match="another batch"):
        second.open()
    LocalPlace(tmp_path / "out", first.token).check_same()
    with pytest.raises(Motion4DError, match="all nodes share"):
        LocalPlace(tmp_path / "elsewhere", first.token).check_same()
    first.close()
    assert not (tmp_path / "out").exists()
    second.open()
    second.close()


def test_remote_recordings_are_found_keyed_and_fetched(memory, tmp_path):
    files = fsspec.filesystem("memory")
    for name in ("a/images/0.png", "a/images/sub/1.png", "b.mp4"):
        files.pipe_file(f"{memory.removeprefix('memory:/')}/{name}", name.encode())
    found = [r.input for r in read_inputs([f"{memory}/*.mp4", f"{memory}/a/images"], [])]
    assert found[1] == f"{memory}/a/images" and found[0].endswith("b.mp4") and found[0].startswith("memory://")
    folder = fetch(found[1], tmp_path)
    assert {p.relative_to(tmp_path).as_posix() for p in folder.rglob("*.png")} == {"images/0.png", "images/sub/1.png"}
    assert fetch(found[0], tmp_path).read_text() == "b.mp4"
    before = [input_key(name) for name in found]
    assert before == [input_key(name) for name in found]
    files.pipe_file(f"{memory.removeprefix('memory:/')}/a/images/0.png", b"longer than before")
    assert [input_key(name) == key for name, key in zip(found, before)] == [True, False]
    with pytest.raises(Motion4DError, match="no such file"):
        fetch(f"{memory}/nix", tmp_path)


def test_a_recording_comes_from_the_web(tmp_path):
    pytest.importorskip("aiohttp", reason="fsspec reads http with aiohttp, which is not installed")
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "clip.mp4").write_bytes(b"film")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/clip.mp4"
        assert fetch(url, tmp_path).read_bytes() == b"film"
        assert input_key(url) == input_key(url)
        with pytest.raises(Motion4DError, match="no such file"):
            input_key(f"{url}x")
        server.shutdown()


def planned(place, recordings, changed=REFUSE, version="1", notes=None):
    return make_plan(recordings, place, version, 1.0, changed, (notes if notes is not None else []).append)


def test_what_is_finished_is_left_alone_and_what_changed_is_not(place, tmp_path):
    clip = tmp_path / "a.mp4"
    clip.write_bytes(b"film")
    asked = [Recording(str(clip)), Recording(str(tmp_path / "nix.mp4"))]
    first = planned(place, asked)
    assert list(first.todo) == [0] and "no such file" in first.failed[1]
    work: Planned = first.todo[0]
    place.write_text(f"a/{DONE}", done_text(work, {"state": "failed", "reason": "for a test"}))
    assert list(planned(place, asked).todo) == [0], "failed ones are tried again"
    place.write_text(f"a/{DONE}", done_text(work, {"state": OK, "frames": 7}))
    again = planned(place, asked)
    assert not again.todo and again.done[0]["frames"] == 7

    other = [Recording(str(clip), words=("--set", "window.length=4"))]
    with pytest.raises(Motion4DError, match=r"1 recording has .*other settings \(a\).*--changed redo"):
        planned(place, other)
    assert list(planned(place, other, REDO).todo) == [0] and list(planned(place, other, KEEP).done) == [0]
    with pytest.raises(Motion4DError, match="other version"):
        planned(place, asked, version="2")

    clip.write_bytes(b"another film")
    notes: list[str] = []
    assert list(planned(place, asked, notes=notes).todo) == [0] and "has changed" in notes[0]
    clip.unlink()
    assert list(planned(place, asked).done) == [0], "a recording that is gone after it was analysed is no loss"


def test_half_a_note_is_none(place, tmp_path):
    (tmp_path / "a.mp4").touch()
    place.write_text(f"a/{DONE}", '{"state": "ok", "par')
    assert list(planned(place, [Recording(str(tmp_path / "a.mp4"))]).todo) == [0]


def test_what_is_no_result_is_never_replaced(tmp_path):
    """A recording, or anything else, that has the name which results would get in --out."""
    place = LocalPlace(tmp_path)
    for name in ("ride/images", "letters", "empty"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("ride/images/0.png", "letters/one", "file", "clip.h264"):
        (tmp_path / name).write_text("precious")
    place.open()
    try:
        scratch = results(place.scratch() / "results", done_json="1")
        for name in ("letters", "file"):
            with pytest.raises(Motion4DError, match="something else than results"):
                place.publish(scratch, name)
        place.publish(scratch, "empty")
        inputs = [str(tmp_path / name) for name in ("ride/images", "clip.h264")] + ["/elsewhere/letters"]
        plan = make_plan([Recording(text) for text in inputs], place, "1", 1.0, REFUSE, lambda _: None)
        assert not plan.todo and ["replace it" in reason for reason in plan.failed.values()] == [True, True, False]
    finally:
        place.close()
    assert (tmp_path / "letters/one").read_text() == (tmp_path / "file").read_text() == "precious"


def test_results_do_not_lie_in_a_recording(place, tmp_path):
    inside = f"{place.name.rpartition('/')[0]}"
    with pytest.raises(Motion4DError, match="lies in the recording"):
        make_plan([Recording(inside)], place, "1", 1.0, REFUSE, lambda _: None)


@pytest.mark.parametrize("text", ["[" * 100_000, b"\xff\xfe\0", "5", '{"parts": 3}', '{"parts": {}, "sta'])
def test_damaged_done_json_is_none(tmp_path, text):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / DONE).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert read_done(LocalPlace(tmp_path), "a") is None


def test_edited_figures_are_left_out(tmp_path):
    """Else they would end up in the summaries, which add them up."""
    figures = {"frames": 10**400, "objects": True, "seconds": float("nan"), "top_speed": "<b>", "peak_mib": 2.5,
               "cpu_seconds": float("inf"), "node": ["x"], "reason": None, "state": OK}  # fmt: skip
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / DONE).write_text(json.dumps({"parts": {}, **figures}))
    found = read_done(LocalPlace(tmp_path), "a")
    assert found is not None and found["peak_mib"] == 2.5 and found["state"] == OK
    assert [found[name] for name in ("frames", "objects", "seconds", "top_speed", "cpu_seconds")] == [None] * 5
    assert found["node"] == found["reason"] == ""
