"""Whatever fails, what was finished is there: file by file, on a full disk, after signals, beside a former analysis."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from motion4d_ros.failures import Stopped
from motion4d_ros.offline.analyze import AnalyzeOptions, analyze
from motion4d_ros.offline.command import ending, hints, summary
from motion4d_ros.offline.report.overlay import encode_video
from motion4d_ros.offline.results import disk_space
from motion4d_ros.offline.results.workspace import PRODUCTS, RESERVE_BYTES
from motion4d_ros.types import Motion4DError

FRAMES = 20  # two windows of 8 and an unfinished one


@pytest.fixture
def out(tmp_path):
    return tmp_path / "results" / "out"


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def everything_is_whole(folder: Path, frames: int) -> None:
    """Every file in `folder` can be read to its end, and tells of `frames` frames."""
    for place in (folder / "masks", folder / "online" / "masks"):
        assert sorted(names_in(place)) == [f"{k:06d}.png" for k in range(frames)]
        for path in place.iterdir():
            assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape == (32, 48)
    for path in (folder / "tracks.npz", folder / "online" / "tracks.npz"):
        if path.exists():
            with np.load(path, allow_pickle=False) as tracks:
                assert tracks["tracks"].shape[1] == frames and np.isfinite(tracks["confidence"]).all()
    if (folder / "objects.csv").exists():
        assert len((folder / "objects.csv").read_text().splitlines()) == 1 + frames
    if (folder / "trajectory.tum").exists():
        lines = (folder / "trajectory.tum").read_text().splitlines()
        assert sum(not line.startswith("#") for line in lines) == frames
    if (folder / "output.mcap").exists():
        with AnyReader([folder / "output.mcap"]) as reader:
            assert reader.topics["/motion4d/semantic_mask"].msgcount == frames
    if (folder / "report.html").exists():
        assert (folder / "report.html").read_text().rstrip().endswith("</html>")
    assert metrics_of(folder)["counts"]["frames"] == frames


class ScenelessEngine:
    """Mixed into the engine's double: it writes half a scene, and fails."""

    def save_scene(self, folder):
        (Path(folder) / "scene.safetensors").write_text("whole")
        raise self.error


RESULTS = "motion4d_ros.offline.results.result_files"
WRITERS = {  # file -> function that writes it
    "objects.csv": "write_objects_csv",
    "trajectory.tum": "write_trajectory",
    "output.mcap": "write_output_bag",
    "report.html": "write_report",
}
ERRORS = {
    "full": OSError(errno.ENOSPC, "No space left on device"),
    "full, as told by a library": Motion4DError(
        "x: cannot be written (I/O error: No space left on device (os error 28))"
    ),
    "too large": OSError(errno.EFBIG, "File too large"),
    "defect": ZeroDivisionError("division by zero"),
}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("name", [*WRITERS, "tracks.npz", "online/tracks.npz", "scene.ply"])
def test_one_file_that_fails_costs_no_other(make_bag, topics, out, engine_double, monkeypatch, logs, capfd, name, kind):
    error = ERRORS[kind]

    def fail(path, *_, **__):
        if path.suffix == ".mcap":
            path.mkdir()
            (path / "half").write_text("half")
        else:
            path.write_text("half")
        raise error

    engine = engine_double
    if name in WRITERS:
        monkeypatch.setattr(f"{RESULTS}.{WRITERS[name]}", fail)
    elif name == "scene.ply":
        engine = type("Engine", (ScenelessEngine, engine_double), {"error": error})
    else:
        from motion4d_ros.offline.results import result_files

        save = result_files.save_tracks
        monkeypatch.setattr(
            result_files,
            "save_tracks",
            lambda path, tracks: (fail if f"{path}".endswith(f"products/{name}") else save)(path, tracks),
        )
    result = analyze(AnalyzeOptions(make_bag(frames=FRAMES), out, topics), engine_factory=engine)
    full = kind.startswith("full")
    lost = {name} | ({"report.html"} if full and name not in ("output.mcap", "report.html") else set())
    assert set(result.failed) == lost  # on a full disk the report's pictures make room for what matters more
    assert names_in(out) == set(PRODUCTS) - lost
    assert (out / "online" / "tracks.npz").exists() == ("online/tracks.npz" not in lost)
    everything_is_whole(out, FRAMES)
    metrics = metrics_of(out)
    assert metrics["state"] == "partial" and set(metrics["failed"]) == lost
    if "report.html" not in lost:
        assert f"could not be written: {name}" in (out / "report.html").read_text()
    assert ending(result) == {"too large": 1, "defect": 1}.get(kind, 2)
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and name in said and "Traceback" not in said
    assert ("no space left on" in said) == full
    assert len(list(logs.iterdir())) == (kind == "defect")


@pytest.mark.parametrize("what", ["query", "static_points", "status", "T_map_cams"])
def test_engine_that_cannot_answer_costs_what_it_was_asked_for(make_bag, topics, out, engine_double, logs, what):
    engines = []

    def factory(config):
        engines.append(engine_double(config))
        return engines[0]

    def break_it(progress):
        if progress.doing == "writing tracks":
            broken = type("Broken", (engine_double,), {what: property(lambda self: 1 // 0)})
            engines[0].__class__ = broken

    result = analyze(AnalyzeOptions(make_bag(frames=FRAMES), out, topics), break_it, engine_factory=factory)
    assert result.defect and ending(result) == 1 and not result.failed
    assert names_in(out) == set(PRODUCTS) and metrics_of(out)["state"] == "partial"
    assert any("could not be had" in text and str(next(logs.iterdir())) in text for text in result.warnings)


def test_complete_analysis_says_so(make_bag, topics, out, engine_double):
    result = analyze(AnalyzeOptions(make_bag(frames=FRAMES), out, topics), engine_factory=engine_double)
    metrics = metrics_of(out)
    assert (metrics["state"], metrics["failed"], metrics["failure"]) == ("complete", {}, "")
    assert result.complete and ending(result) == 0
    everything_is_whole(out, FRAMES)


# -- the disk ----------------------------------------------------------------------------------------------------------


def free_space(monkeypatch, free):
    usage = type("Usage", (), {"free": free})
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda path: usage)


def test_room_is_asked_for_before_anything_is_computed(make_bag, topics, out, engine_double, monkeypatch):
    """20 frames of 48x32 px: 61 440 bytes of labels in the bag, and 20 small pictures."""
    options = AnalyzeOptions(make_bag(frames=FRAMES), out, topics)

    def no_engine(index):
        raise AssertionError("computed")

    def factory(config):
        engine = engine_double(config)
        engine.on_accept = no_engine
        return engine

    free_space(monkeypatch, 60_000)
    words = r"no space left on .*out for the results: 20 frames of 48x32 px take at least 0\.\d MB, 0\.3 MB are free"
    with pytest.raises(Motion4DError, match=words):
        analyze(options, engine_factory=factory)
    assert not out.exists()


def test_scant_room_is_said(make_bag, topics, out, engine_double, monkeypatch):
    free_space(monkeypatch, 100_000)
    result = analyze(AnalyzeOptions(make_bag(frames=FRAMES), out, topics), engine_factory=engine_double)
    assert any(text.startswith("the disk may become full: 20 frames") for text in result.warnings)
    free_space(monkeypatch, 10_000_000)
    result = analyze(AnalyzeOptions(make_bag("other", frames=FRAMES), out, topics), engine_factory=engine_double)
    assert not any("disk" in text for text in result.warnings)


def test_reading_ends_while_the_finished_frames_still_fit(make_bag, topics, out, engine_double, monkeypatch, capfd):
    """Somebody else fills the disk: once the finished part would hardly fit, it is written, with every file."""
    free = 10_000_000

    def factory(config):
        engine = engine_double(config)

        def shrink(index):
            nonlocal free
            if index == 14:
                free = RESERVE_BYTES + 100_000
            free_space(monkeypatch, free)

        engine.on_accept = shrink
        return engine

    result = analyze(AnalyzeOptions(make_bag(frames=60), out, topics), engine_factory=factory)
    assert result.full and result.frames == 16 and not result.failed
    assert names_in(out) == set(PRODUCTS) and metrics_of(out)["state"] == "partial"
    everything_is_whole(out, 16)
    assert ending(result) == 2
    assert capfd.readouterr().err == (
        f"motion4d: error: no space left on {out} (the 16 finished frames are in {out})\n"
    )


def test_queries_beyond_a_recording_that_said_it_was_longer(
    make_bag, topics, out, engine_double, tmp_path, monkeypatch
):
    from motion4d_ros.offline.sources.bags.bag_source import BagSource

    monkeypatch.setattr(BagSource, "count", 40, raising=False)
    monkeypatch.setattr(BagSource, "__setattr__", lambda s, n, v: None if n == "count" else object.__setattr__(s, n, v))
    np.save(tmp_path / "q.npy", np.array([[0, 14, 8], [30, 14, 8]]))
    options = AnalyzeOptions(make_bag(frames=FRAMES), out, topics, queries=tmp_path / "q.npy")
    result = analyze(options, engine_factory=engine_double)
    assert result.failure == "--queries: frame 30 does not exist, there are 20" and ending(result) == 2
    everything_is_whole(out, FRAMES)
    with np.load(out / "tracks.npz") as tracks:
        assert not tracks["occluded"][0].any() and tracks["occluded"][1].all()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("jpeg", "a JPEG, which blurs object ids"),
        ("soft", "of its 10 ids have fewer than 24 pixels"),
        ("folder", "is a folder"),
    ],
)
def test_prompt_masks_that_are_none(make_bag, topics, out, engine_double, tmp_path, kind, words):
    labels = np.zeros((32, 48), np.uint8)
    labels[8:20, 8:20] = 200
    path = tmp_path / {"jpeg": "first.jpg", "soft": "first.png", "folder": ""}[kind]
    if kind == "soft":
        labels[8:17, 7] = np.arange(20, 200, 20)
    if kind != "folder":
        cv2.imwrite(str(path), labels)
    with pytest.raises(Motion4DError, match=words):
        analyze(AnalyzeOptions(make_bag(), out, topics, prompt_mask=path), engine_factory=engine_double)
    assert not out.exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder]).returncode:
        pytest.skip("only root can mount a small file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(folder: Path, leave: int) -> None:
    """Takes all but `leave` bytes of a file system."""
    status = os.statvfs(folder)
    with (folder / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - leave)


@pytest.mark.parametrize(
    ("at", "leave", "kept"),
    [(3, 0, 0), (12, 0, 8), (17, 0, 16), (17, 8192, 16)],
)
def test_disk_that_fills_up_in_mid_run(make_bag, topics, small_disk, engine_double, capfd, at, leave, kept):
    out = small_disk / "out"

    def factory(config):
        engine = engine_double(config)
        engine.on_accept = lambda index: fill(small_disk, leave) if index == at else None
        return engine

    options = AnalyzeOptions(make_bag(frames=60), out, topics)
    if not kept:
        with pytest.raises(Motion4DError, match=r"no space left on .*out"):
            analyze(options, engine_factory=factory)
        assert not out.exists()
        return
    result = analyze(options, engine_factory=factory)
    assert result.full and result.failure == f"no space left on {out}" and result.frames == kept
    everything_is_whole(out, kept)
    assert metrics_of(out)["state"] == "partial"
    assert f"ended before the end of the input: no space left on {out}" in result.warnings
    assert {"masks", "metrics.json"} <= names_in(out) and set(result.failed) | names_in(out) >= set(PRODUCTS)
    assert ending(result) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "error: no space left on" in said and f"{kept} finished frames are in" in said


def test_video_that_a_full_disk_cuts_short_is_none(small_disk, capfd):
    pytest.importorskip("imageio_ffmpeg")
    noise = np.random.default_rng(0).integers(0, 255, (40, 240, 320, 3)).astype(np.uint8)
    assert encode_video(small_disk / "whole.mp4", iter(noise[:2]), 10.0)
    fill(small_disk, 100_000)
    assert not encode_video(small_disk / "short.mp4", iter(noise), 10.0)
    assert capfd.readouterr().err == ""


def test_disk_that_is_full_at_once(make_bag, topics, small_disk, engine_double):
    fill(small_disk, RESERVE_BYTES // 2)
    with pytest.raises(Motion4DError, match=r"no space left on .*out; choose another folder"):
        analyze(AnalyzeOptions(make_bag(), small_disk / "out", topics), engine_factory=engine_double)
    assert names_in(small_disk) == {"filler"}


def test_folder_that_cannot_be_written(make_bag, topics, tmp_path, engine_double):
    folder = tmp_path / "readonly"
    folder.mkdir()
    if os.geteuid() == 0:
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder]).returncode:
            pytest.skip("no read-only file system can be mounted")
    else:
        folder.chmod(0o555)
    try:
        with pytest.raises(Motion4DError, match=r"readonly/out: cannot be written \((Read-only|Permission)"):
            analyze(AnalyzeOptions(make_bag(), folder / "out", topics), engine_factory=engine_double)
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", folder], check=True)


# -- signals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_keep_what_is_finished(make_bag, topics, out, engine_double, capfd, number, status):
    def factory(config):
        engine = engine_double(config)
        engine.on_accept = lambda index: os.kill(os.getpid(), number) if index == 17 else None
        return engine

    before = signal.getsignal(number)
    result = analyze(AnalyzeOptions(make_bag(frames=60), out, topics), engine_factory=factory)
    assert result.interrupted and result.frames == 16 and signal.getsignal(number) is before
    everything_is_whole(out, 16)
    metrics = metrics_of(out)
    assert (metrics["state"], metrics["interrupted"], metrics["failed"]) == ("partial", True, {})
    assert ending(result) == status
    assert capfd.readouterr().err == f"motion4d: interrupted: the 16 finished frames are in {out}\n"


def test_signal_before_anything_is_finished(make_bag, topics, out, engine_double):
    def factory(config):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal comes first")

    with pytest.raises(Stopped) as stopped:
        analyze(AnalyzeOptions(make_bag(), out, topics), engine_factory=factory)
    assert stopped.value.number == signal.SIGTERM and not out.exists()


def test_nohup_stays(make_bag, topics, out, engine_double):
    def factory(config):
        engine = engine_double(config)
        engine.on_accept = lambda index: os.kill(os.getpid(), signal.SIGHUP) if index == 9 else None
        return engine

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        result = analyze(AnalyzeOptions(make_bag(frames=FRAMES), out, topics), engine_factory=factory)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert result.complete and result.frames == FRAMES


# -- a former analysis -------------------------------------------------------------------------------------------------


def interrupted_at(engine_double, index_of_signal):
    def factory(config):
        engine = engine_double(config)
        engine.on_accept = lambda index: os.kill(os.getpid(), signal.SIGINT) if index == index_of_signal else None
        return engine

    return factory


def test_partial_analysis_does_not_replace_a_complete_one(make_bag, topics, out, engine_double):
    options = AnalyzeOptions(make_bag(frames=FRAMES), out, topics)
    analyze(options, engine_factory=engine_double)
    former = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    result = analyze(options, engine_factory=interrupted_at(engine_double, 10))
    assert result.out == out / "partial" and result.frames == 8
    assert {path: path.stat().st_mtime_ns for path in former} == former
    assert names_in(out) == {*PRODUCTS, "partial"} and names_in(out / "partial") == set(PRODUCTS)
    everything_is_whole(out / "partial", 8)
    result = analyze(options, engine_factory=interrupted_at(engine_double, 17))  # the newest of its kind stays
    everything_is_whole(out / "partial", 16)
    analyze(options, engine_factory=engine_double)
    assert names_in(out) == set(PRODUCTS)


def test_partial_analysis_replaces_a_partial_one(make_bag, topics, out, engine_double):
    options = AnalyzeOptions(make_bag(frames=FRAMES), out, topics)
    analyze(options, engine_factory=interrupted_at(engine_double, 17))
    result = analyze(options, engine_factory=interrupted_at(engine_double, 10))
    assert result.out == out
    everything_is_whole(out, 8)
    assert names_in(out) == set(PRODUCTS)


# -- what is said when little came out ---------------------------------------------------------------------------------


def test_hint_after_too_few_frames(make_bag, topics, out, engine_double):
    result = analyze(AnalyzeOptions(make_bag(), out, topics, limit=2), engine_factory=engine_double)
    (hint,) = hints(result)
    assert hint.startswith("a window is 8 frames") and "only 2" in hint and "--limit" in hint
    assert f"hint: {hint}\n" in summary(result, 1.0)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"masks.source": "sam_onnx", "masks.discovery": "motion"}, "--prompt-mask"),
        ({"masks.source": "topic"}, "all 0"),
        ({"masks.source": "propagation", "masks.discovery": "none"}, "lie on the objects"),
        ({"masks.source": "sam2", "masks.discovery": "detections"}, "often enough"),
        ({"masks.source": "none"}, "masks.source=none"),
    ],
)
def test_hint_after_nothing_was_found(make_bag, topics, out, engine_double, source, words):
    result = analyze(AnalyzeOptions(make_bag(frames=FRAMES), out, topics), engine_factory=engine_double)
    assert hints(result) == []
    result.metrics["counts"]["objects"] = 0
    result.metrics["configuration"].update(source)
    (hint,) = hints(result)
    assert words in hint
