"""Tunables: declared once, parsed and checked everywhere alike."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from motion4d_ros.config import RENAMED, Config
from motion4d_ros.tunables import Tunable, section, tunable, walk
from motion4d_ros.types import Motion4DError

TUNABLES = Config().tunables()
PATHS = [item.path for item in TUNABLES]


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# --- every declaration ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("item", TUNABLES, ids=PATHS)
def test_declaration_is_complete(item: Tunable) -> None:
    assert item.type in (bool, int, float, str)
    assert type(item.default) is item.type, "the default must have exactly the declared type"
    assert len(item.meaning.split()) >= 2, f"{item.path}: one word explains nothing"
    assert not item.meaning.endswith("."), "meanings go into tables: no full stop"
    if item.type in (int, float):
        assert item.minimum is not None or item.maximum is not None, f"{item.path} needs a range"
        assert item.range_text
    if item.type is str and item.choices:
        assert item.default in item.choices
    assert item.parse(item.default) == item.default, "the default must be allowed"


@pytest.mark.parametrize("item", TUNABLES, ids=PATHS)
def test_lengths_times_and_angles_have_a_unit(item: Tunable) -> None:
    """Whoever writes a distance or a time in the meaning of a number must say in what."""
    if item.type not in (int, float):
        return
    if "share" in item.meaning.lower():
        return  # a ratio
    words = set(item.meaning.lower().replace(",", " ").replace(";", " ").split())
    if words & {"distance", "radius", "pixels", "metres", "seconds", "degrees", "metre", "timeout"}:
        assert item.unit, f"{item.path}: {item.meaning!r} has no unit"


def test_paths_are_unique_and_dotted() -> None:
    assert len(PATHS) == len(set(PATHS))
    assert all(path.count(".") >= 1 and path == path.lower() for path in PATHS)


@pytest.mark.parametrize("item", [item for item in TUNABLES if item.type in (int, float)], ids=lambda item: item.path)
def test_range_is_closed_and_enforced(item: Tunable) -> None:
    config = Config()
    step = 1 if item.type is int else 1e-3
    for bound, outward in ((item.minimum, -1), (item.maximum, 1)):
        if bound is None:
            continue
        config.set(item.path, item.type(bound))
        assert config.get(item.path) == bound
        with pytest.raises(Motion4DError, match=item.path):
            config.set(item.path, bound + outward * max(step, abs(bound) * step))
        assert config.get(item.path) == bound, "a refused value must leave the old one"


@pytest.mark.parametrize("item", TUNABLES, ids=PATHS)
def test_text_is_parsed_as_on_a_command_line(item: Tunable) -> None:
    config = Config()
    config.set(item.path, str(item.default))
    assert config.get(item.path) == item.default
    assert type(config.get(item.path)) is item.type


@pytest.mark.parametrize("item", TUNABLES, ids=PATHS)
def test_nonsense_is_refused_in_one_line(item: Tunable) -> None:
    config = Config()
    for nonsense in ([1, 2], {"a": 1}, None):
        with pytest.raises(Motion4DError) as caught:
            config.set(item.path, nonsense)
        assert item.path in str(caught.value) and "\n" not in str(caught.value)


# --- parsing ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("value", [float("nan"), "nan", "inf", "-inf"])
def test_numbers_that_are_none(value: Any) -> None:
    with pytest.raises(Motion4DError, match=r"budget\.load"):
        Config().set("budget.load", value)


@pytest.mark.parametrize("value", [2.5, "2.5", "x", "", True])
def test_whole_numbers(value: Any) -> None:
    with pytest.raises(Motion4DError, match="whole number"):
        Config().set("window.length", value)


def test_whole_floats_are_whole_numbers() -> None:
    config = Config()
    config.set("window.length", 4.0)
    assert config.get("window.length") == 4 and type(config.get("window.length")) is int


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", True), ("YES", True), ("1", True), (" on ", True), (1, True), ("no", False), (0, False), (False, False)],
)
def test_true_and_false(value: Any, expected: bool) -> None:
    config = Config()
    config.set("run.archive", value)
    assert config.get("run.archive") is expected


@pytest.mark.parametrize("value", ["maybe", "", "2", 2, 0.5])
def test_neither_true_nor_false(value: Any) -> None:
    with pytest.raises(Motion4DError, match="true or false"):
        Config().set("run.archive", value)


def test_choices_are_named() -> None:
    with pytest.raises(Motion4DError, match="auto, cpu, cuda"):
        Config().set("run.device", "gpu")


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("window.lenght", "window.length"), ("budget.queuesize", "budget.queue_size"), ("depth.minimun", "depth.minimum")],
)
def test_misspelt_names_get_a_suggestion(wrong: str, right: str) -> None:
    with pytest.raises(Motion4DError, match=f"did you mean {right}"):
        Config().set(wrong, 1)
    with pytest.raises(Motion4DError, match=f"did you mean {right}"):
        Config().get(wrong)


def test_names_like_nothing_point_to_the_documentation() -> None:
    with pytest.raises(Motion4DError, match=r"docs/reference/interface\.md"):
        Config().set("zzzz", 1)


def test_a_section_is_not_a_setting() -> None:
    with pytest.raises(Motion4DError, match="unknown setting 'window'"):
        Config().set("window", 3)


# --- YAML -------------------------------------------------------------------------------------------------------------
def test_plain_yaml(tmp_path: Path) -> None:
    config = Config()
    config.update_from_yaml(write(tmp_path, "window:\n  length: 4\n  horizon: 32\nrun.archive: true\n"))
    assert (config.window.length, config.window.horizon, config.run.archive) == (4, 32, True)


def test_ros_parameter_file(tmp_path: Path) -> None:
    config = Config()
    text = "/**:\n  ros__parameters:\n    use_sim_time: true\n    window: {length: 4}\n    depth.source: topic\n"
    config.update_from_yaml(write(tmp_path, text))
    assert (config.window.length, config.depth.source) == (4, "topic")


def test_every_tunable_survives_a_round_trip(tmp_path: Path) -> None:
    config = Config()
    config.set("run.seed", 17)
    config.set("tracks.forward_backward", 0.75)
    nested: dict[str, Any] = {}
    for path, value in config.as_dict().items():
        *parents, name = path.split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = value
    again = Config()
    again.update_from_yaml(write(tmp_path, yaml.safe_dump({"motion4d": {"ros__parameters": nested}})))
    assert again == config


def test_empty_yaml_changes_nothing(tmp_path: Path) -> None:
    config = Config()
    config.update_from_yaml(write(tmp_path, "# nothing yet\n"))
    assert config == Config()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("window: [1, 2", "not valid YAML"),
        ("- 1\n- 2\n", "keys and values"),
        ("window: {lenght: 3}\n", "did you mean window.length"),
        ("window: {length: three}\n", "whole number"),
    ],
)
def test_bad_yaml_says_why(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(Motion4DError, match=reason) as caught:
        Config().update_from_yaml(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files_say_where(tmp_path: Path) -> None:
    with pytest.raises(Motion4DError, match=r"absent\.yaml: cannot be read"):
        Config().update_from_yaml(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(Motion4DError, match="not valid YAML"):
        Config().update_from_yaml(tmp_path / "binary.yaml")


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    with pytest.raises(Motion4DError, match="not valid YAML"):
        Config().update_from_yaml(write(tmp_path, "!!python/object/apply:os.getcwd []\n"))


def test_shipped_configuration_is_valid(repository: Path) -> None:
    for path in sorted((repository / "config").glob("*.yaml")):
        Config().update_from_yaml(path)


# --- copies and declarations ------------------------------------------------------------------------------------------
def test_copies_are_independent() -> None:
    config = Config()
    twin = config.copy()
    twin.set("window.length", 3)
    assert config.window.length == Config().window.length != twin.window.length
    assert Config().window is not Config().window


@given(st.sampled_from([item for item in TUNABLES if item.type in (int, float)]), st.data())
def test_any_value_in_range_is_kept_exactly(item: Tunable, data: st.DataObject) -> None:
    low, high = item.minimum, item.maximum
    if item.type is int:
        value: Any = data.draw(st.integers(None if low is None else int(low), None if high is None else int(high)))
    else:
        value = data.draw(st.floats(low, high, allow_nan=False, allow_infinity=False))
    config = Config()
    config.set(item.path, value)
    assert config.get(item.path) == value
    config.set(item.path, repr(value))
    assert config.get(item.path) == value


@dataclass
class Wrong:
    value: int | None = tunable(None, "A value that may be absent")


@dataclass
class Holder:
    inner: Wrong = section(Wrong)


def test_a_tunable_has_one_type() -> None:
    with pytest.raises(TypeError, match=r"inner\.value"):
        list(walk(Holder(), ""))


def test_walking_does_not_change_anything() -> None:
    config = Config()
    before = copy.deepcopy(config)
    config.tunables()
    assert config == before


# --- former names -----------------------------------------------------------------------------------------------------
def test_former_names_lead_to_names_of_today() -> None:
    assert set(RENAMED.values()) <= set(PATHS) and not set(RENAMED) & set(PATHS)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_former_name_is_refused_with_the_new_one(old: str, new: str, tmp_path: Path) -> None:
    section, leaf = old.split(".")
    nested = write(tmp_path, f"{section}:\n  {leaf}: 1\n")
    for ask in (
        lambda: Config().set(old, "1"),
        lambda: Config().get(old),
        lambda: Config().update({old: 1}),
        lambda: Config().update_from_yaml(nested),
        lambda: Config().update_from_yaml(
            write(tmp_path, f"/**:\n  ros__parameters:\n    {section}:\n      {leaf}: 1")
        ),
    ):
        with pytest.raises(Motion4DError) as caught:
            ask()
        assert str(caught.value) == f"setting {old!r} is called {new!r} now: use that name"
