"""TAP-Vid: pickles of arrays and of nothing else, queries, and the protocol."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np
import pytest

from motion4d_ros.evaluation.benchmarks.interfaces import Place
from motion4d_ros.evaluation.benchmarks.plain_pickle import load_plain_pickle
from motion4d_ros.evaluation.benchmarks.tapvid import TapVidDavis
from motion4d_ros.types import Motion4DError


def videos(frames: int = 12) -> dict:
    """One small video with three points: seen throughout, from frame 4 on, and never."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0.1, 0.9, (3, frames, 2)).astype(np.float32)
    occluded = np.zeros((3, frames), bool)
    occluded[1, :4] = occluded[2] = True
    occluded[0, 5] = True
    video = rng.integers(0, 255, (frames, 40, 64, 3), dtype=np.uint8)
    return {"goat": {"video": video, "points": points, "occluded": occluded}}


def write(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_containers_come_as_they_were(tmp_path: Path, protocol: int) -> None:
    content = {
        "a": np.arange(24, dtype=">i4").reshape(2, 3, 4), "f": np.asfortranarray(np.eye(3, 5)),
        "flag": np.array([True, False]), "half": np.ones(3, np.float16), "u": np.zeros((0, 4), np.uint8),
        "list": [1, 2.5, "text", None, (True, b"raw", b"")], "scalar": np.float64(1.5),
    }  # fmt: skip
    found = load_plain_pickle(write(tmp_path / "a.pkl", content, protocol))
    assert list(found) == list(content)
    for name in ("a", "f", "flag", "half", "u"):
        assert np.array_equal(found[name], content[name]) and found[name].dtype == content[name].dtype, name
    assert found["list"] == content["list"] and found["scalar"] == 1.5


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


class Sly:
    """Names an allowed function and gives it what it must not take."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return self.arguments


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (Evil(), "it wants posix.system"),
        ({"x": [Evil()]}, "it wants posix.system"),
        (np.array([{1: 2}], object), "only numbers are read"),
        (np.zeros(2, [("x", "f4")]), "only numbers are read"),
        (np.array(["text"]), "only numbers are read"),
        (np.ma.masked_array([1.0], [True]), "it wants numpy.ma"),
        (Sly(eval, ("1",)), "it wants builtins.eval"),
        (Sly(getattr, ([], "append")), "it wants builtins.getattr"),
        (Sly(np.dtype, ("O",)), "only numbers are read"),
        (Sly(np.dtype, ("f8",)), "it holds a _Kind"),
        (Sly(bytes, (1000,)), "not a readable pickle"),
        (OrderedDict(a=1), "it wants collections.OrderedDict"),
        (Path("x"), "it wants pathlib"),
        (complex(1, 2), "it wants builtins.complex"),
        ({1, 2}, "it holds a set"),
    ],
)
def test_everything_else_is_refused_and_nothing_runs(tmp_path: Path, monkeypatch, content: object, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Motion4DError, match=said) as caught:
        load_plain_pickle(write(tmp_path / "a.pkl", content))
    assert "\n" not in str(caught.value) and not (tmp_path / "pwned").exists()


def test_damage_is_one_line(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.pkl", videos()).read_bytes()
    for damaged in (b"", b"not a pickle", whole[: len(whole) // 2], whole[:50] + b"\x00" * 20 + whole[70:]):
        (tmp_path / "b.pkl").write_bytes(damaged)
        with pytest.raises(Motion4DError) as caught:
            load_plain_pickle(tmp_path / "b.pkl")
        assert "\n" not in str(caught.value)
    deep: list = []
    for _ in range(40):
        deep = [deep]
    with pytest.raises(Motion4DError, match="too deep"):
        load_plain_pickle(write(tmp_path / "c.pkl", deep))


def test_what_an_analysis_is_given(tmp_path: Path) -> None:
    write(tmp_path / "tapvid_davis.pkl", videos())
    benchmark = TapVidDavis()
    assert benchmark.sequences(tmp_path) == ["goat"] and benchmark.sequences(tmp_path / "tapvid_davis.pkl") == ["goat"]
    words = benchmark.prepare(Place(tmp_path, "goat"), tmp_path / "given")
    images = sorted(Path(words[0]).glob("*.png"))
    assert len(images) == 12 and np.array_equal(cv2.imread(str(images[3]))[..., ::-1], videos()["goat"]["video"][3])
    queries = np.load(words[-1])
    xy = videos()["goat"]["points"] * [64, 40] - 0.5
    assert queries[:2] == pytest.approx(np.array([[0, *xy[0, 0, ::-1]], [4, *xy[1, 4, ::-1]]]), abs=1e-4)
    # strided: at frames 0, 5, 10, where seen: the first point at 0 and 10 (hidden at 5), the second at 5 and 10
    assert queries[2:, 0].tolist() == [0, 10, 5, 10]


def tracks(tmp_path: Path, wrong_px: float = 0.0, hidden: bool = False, limit: int | None = None) -> Path:
    """Perfect tracks, then spoilt."""
    content = videos()["goat"]
    words = TapVidDavis().prepare(Place(tmp_path, "goat", limit), tmp_path / "given")
    owners = [0, 1, 0, 0, 1, 1] if limit is None else [0, 1, 0, 1]
    xy = (content["points"] * [64, 40] - 0.5)[owners][:, :limit] + [wrong_px, 0]
    occluded = content["occluded"][owners][:, :limit] | hidden
    assert len(np.load(words[-1])) == len(owners)
    (tmp_path / "out").mkdir(exist_ok=True)
    np.savez(tmp_path / "out" / "tracks.npz", tracks=xy, tracks_xyz=np.zeros((*xy.shape[:2], 3)), occluded=occluded)
    return tmp_path / "out"


def test_the_protocol(tmp_path: Path) -> None:
    write(tmp_path / "tapvid_davis.pkl", videos())
    benchmark, place = TapVidDavis(), Place(tmp_path, "goat")
    perfect = benchmark.score(place, tracks(tmp_path))
    assert perfect == pytest.approx(dict.fromkeys((column.name for column in benchmark.columns), 1.0))
    # 0.75 px of 64 are 3 px of 256: within 4, 8 and 16, not within 1 and 2
    off = benchmark.score(place, tracks(tmp_path, wrong_px=0.75))
    assert (
        off["first davg"] == pytest.approx(3 / 5) and off["strided AJ"] == pytest.approx(3 / 5) and off["first OA"] == 1
    )
    silent = benchmark.score(place, tracks(tmp_path, hidden=True))
    assert silent["first AJ"] == 0 and silent["first davg"] == 1
    # judged after the query: of point 0 frames 1 to 11, one of them hidden; of point 1 frames 5 to 11
    assert silent["first OA"] == pytest.approx(1 / 18)
    short = benchmark.score(Place(tmp_path, "goat", limit=8), tracks(tmp_path, limit=8))
    assert short["first AJ"] == short["strided AJ"] == 1.0
    with pytest.raises(Motion4DError, match="for queries and frames"):
        benchmark.score(place, tracks(tmp_path, limit=8))


def test_files_that_are_none(tmp_path: Path) -> None:
    assert TapVidDavis().sequences(tmp_path) == []
    write(tmp_path / "tapvid_davis.pkl", [1, 2])
    with pytest.raises(Motion4DError, match="expected a dict of videos"):
        TapVidDavis().sequences(tmp_path)
    content = videos()
    content["goat"].pop("occluded")
    write(tmp_path / "other.pkl", content)
    with pytest.raises(Motion4DError, match="goat has no 'occluded'"):
        TapVidDavis().prepare(Place(tmp_path / "other.pkl", "goat"), tmp_path / "given")
