"""`motion4d benchmark`: what is done is left alone, what fails costs itself, others decide where it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data_sets import write_davis, write_image

from motion4d_ros.cli import main
from motion4d_ros.evaluation.benchmarks import command, driver
from motion4d_ros.evaluation.benchmarks.published import PUBLISHED
from motion4d_ros.evaluation.benchmarks.registry import BENCHMARKS
from motion4d_ros.types import Motion4DError


def truth() -> np.ndarray:
    ids = np.zeros((6, 24, 32), np.int64)
    for t in range(6):
        ids[t, 4:14, 4 + t : 16 + t] = 1
        ids[t, 16:22, 20:30] = 2
    return ids


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_davis(tmp_path / "davis", {"dog": truth(), "cat": truth()})
    return tmp_path / "davis"


@pytest.fixture
def analysed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """In the place of analyses: the true masks, but for the first three rows. What they were told."""
    calls: list[list[str]] = []

    def analyse(words: list[str], log: Path) -> float:
        calls.append(list(words))
        if "fail" in log.read_text(encoding="utf-8") if log.exists() else False:
            raise Motion4DError("it broke")
        out = Path(words[words.index("--out") + 1])
        frames = int(words[words.index("--limit") + 1]) if "--limit" in words else 6
        for t, ids in enumerate(truth()[:frames]):
            ids[:3] = 0
            write_image(out / "masks" / f"{t:06d}.png", ids.astype(np.uint16))
        configuration = {"masks.source": "propagation", "masks.discovery": "none", "pose.source": "visual"}
        content = {"counts": {"frames": frames}, "configuration": configuration}
        (out / "metrics.json").write_text(json.dumps(content), encoding="utf-8")
        return 3.0

    monkeypatch.setattr(driver, "_analysed", analyse)
    return calls


def words(root: Path, *more: str) -> list[str]:
    return ["benchmark", "davis2017", "--root", str(root), "--out", str(root.parent / "out"), *more]


def test_a_table_of_ours_beside_that_of_others(root: Path, analysed: list[list[str]], capsys) -> None:
    assert main(words(root, "--preset", "fast", "--limit", "5")) == 0
    said = capsys.readouterr()
    assert said.err.splitlines()[0].startswith("1/2 dog: J&F 1.000, J 1.000, F 1.000 (3 CPU s)")
    for text in ("ours (preset fast, first 5 frames), 2 sequences", "SAM 2", "Motion4D (offline", "arXiv 2512.03601"):
        assert text in said.out
    assert "objects marked by a person" in said.out, "which priors"
    told = analysed[0]
    assert told[:3] == [str(root / "JPEGImages/480p/dog"), "--fps", "24"] and told[-2:] == ["--preset", "fast"]
    content = json.loads((root.parent / "out" / "results.json").read_text(encoding="utf-8"))
    assert content["mean"] == {"J&F": 1.0, "J": 1.0, "F": 1.0, "objects": 4.0} and content["failed"] == {}
    markdown = (root.parent / "out" / "results.md").read_text(encoding="utf-8")
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1 and "| dog | 1.000 |" in markdown


def test_what_is_done_is_left_alone(root: Path, analysed: list[list[str]], capsys) -> None:
    assert main(words(root, "--only", "cat")) == 0 and len(analysed) == 1
    assert main(words(root)) == 0 and len(analysed) == 2, "only what was missing"
    assert main(words(root)) == 0 and len(analysed) == 2
    assert "(done before)" in capsys.readouterr().err
    assert main(words(root, "--set", "window.length=4")) == 2
    refusal = capsys.readouterr().err
    assert "was made with other settings" in refusal and "--again" in refusal and len(analysed) == 2
    assert main(words(root, "--set", "window.length=4", "--again")) == 0 and len(analysed) == 4


def test_one_that_fails_costs_itself(root: Path, analysed: list[list[str]], capsys) -> None:
    log = root.parent / "out" / "dog" / "log.txt"
    log.parent.mkdir(parents=True)
    log.write_text("fail", encoding="utf-8")
    assert main(words(root)) == 1
    said = capsys.readouterr()
    assert "1/2 dog: no figures: it broke" in said.err and "2/2 cat: J&F" in said.err
    assert "1 sequence " in said.out.replace("│", " ") and "dog: no figures: it broke" in said.out
    log.write_text("", encoding="utf-8")
    assert main(words(root)) == 0 and len(analysed) == 3, "tried again; the other is left alone"


def test_others_may_spread_the_sequences(root: Path, analysed: list[list[str]]) -> None:
    import argparse
    import pickle

    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(words(root))
    seen = []

    def elsewhere(perform: Callable, tasks: list) -> list:
        for task in reversed(tasks):  # in any order, and by way of bytes
            seen.append(task.place.name)
            yield pickle.loads(pickle.dumps(perform))(pickle.loads(pickle.dumps(task)))  # noqa: S301

    assert command.run(arguments, elsewhere) == 0
    assert seen == ["cat", "dog"]
    content = json.loads((root.parent / "out" / "results.json").read_text(encoding="utf-8"))
    assert list(content["sequences"]) == ["dog", "cat"]


def test_a_process_that_ends_badly_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Motion4DError, match=r"no such file or folder.*status 2") as caught:
        driver._analysed([str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")], tmp_path / "log.txt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "davis2018"}, "did you mean davis2017?"),
        ({"name": "imagenet"}, "choose one of davis2016, davis2017"),
        ({"--root": "nowhere"}, "nowhere: no such file or folder"),
        ({"--root": "."}, "holds no DAVIS 2017 val"),
        ({"--only": "horse"}, "--only horse: not a sequence"),
        ({"--limit": "2"}, "2: a number of frames, 3 at least"),
        ({"--preset": "none"}, "there is no such preset"),
        ({"--set": "window.lenght=3"}, "did you mean window.length"),
    ],
)
def test_refusals_are_one_line(root: Path, tmp_path: Path, monkeypatch, capsys, change: dict, said: str) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    options = {"--root": str(root), **{key: value for key, value in change.items() if key.startswith("--")}}
    assert (
        main(["benchmark", change.get("name", "davis2017"), *(word for pair in options.items() for word in pair)]) == 2
    )
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0]
    assert not list((tmp_path / "empty").iterdir())


def test_sequences_are_listed(root: Path, capsys) -> None:
    assert main(words(root, "--list")) == 0
    assert capsys.readouterr().out == "dog\ncat\n"


def test_figures_of_others_have_a_source_and_a_column() -> None:
    assert set(PUBLISHED) <= set(BENCHMARKS)
    for name, rows in PUBLISHED.items():
        columns = {column.name for column in BENCHMARKS[name].columns}
        for row in rows:
            assert row.source and set(row.figures) <= columns, row


@pytest.mark.slow
def test_a_clip_from_end_to_end(shared_data: Path, tmp_path: Path, capsys) -> None:
    root = shared_data
    if not (root / "car_shadow" / "images").is_dir():
        pytest.skip("../shared/data/car_shadow is absent")
    out = tmp_path / "out"
    words = ["benchmark", "davis2016", "--root", str(root), "--only", "car_shadow", "--limit", "8", "--preset", "fast"]
    assert main([*words, "--out", str(out)]) == 0
    content = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert content["mean"]["J"] > 0.7, "the prompt's id is the result's"
    assert main([*words, "--out", str(out)]) == 0 and "(done before)" in capsys.readouterr().err


def test_whatever_fails_costs_its_sequence_alone(root: Path, analysed: list[list[str]], monkeypatch, capsys) -> None:
    score = BENCHMARKS["davis2017"].score

    def breaks(place, out):
        return {}["dog"] if place.name == "dog" else score(place, out)

    monkeypatch.setattr(BENCHMARKS["davis2017"], "score", breaks)
    assert main(words(root)) == 1 and len(analysed) == 2
    content = json.loads((root.parent / "out" / "results.json").read_text(encoding="utf-8"))
    assert list(content["sequences"]) == ["cat"] and "KeyError" in content["failed"]["dog"]


def test_damaged_figures_are_told(root: Path, analysed: list[list[str]], capsys) -> None:
    assert main(words(root)) == 0
    done = root.parent / "out" / "dog" / "done.json"
    done.write_text(json.dumps({**json.loads(done.read_text(encoding="utf-8")), "figures": 5}), encoding="utf-8")
    assert main(words(root)) == 1 and "done.json is damaged" in capsys.readouterr().err
    assert main(words(root, "--only", "dog", "--again")) == 0 and len(analysed) == 3


def test_names_of_sequences_may_be_anything(tmp_path: Path, analysed: list[list[str]], capsys) -> None:
    """Results stay in --out, and the tables stay tables."""
    write_davis(tmp_path / "davis", {"a|b[red]": truth()})
    for folder in tmp_path.glob("davis/ImageSets/*"):
        (folder / "val.txt").write_text("a|b[red]\n..\n", encoding="utf-8")
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "mine").touch()
    assert main(words(tmp_path / "davis")) == 1
    assert (tmp_path / "input" / "mine").exists()
    assert "a|b[red]" in capsys.readouterr().out
    assert "| a\\|b[red] | 1.000" in (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    with pytest.raises(Motion4DError, match="names no sequence"):
        command._sequences(BENCHMARKS["davis2017"], tmp_path / "davis", ",")
