"""What is written about the node is true: generated tables, presets, launch files, RViz."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from motion4d_ros.config import Config
from motion4d_ros.ros.document import contents, default_yaml
from motion4d_ros.ros.parameters import NODE_DEFAULTS, node_config, parameter_name
from motion4d_ros.ros.publishers import TOPICS


def test_generated_parts_are_up_to_date(repository: Path) -> None:
    for path, text in contents(repository).items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run python -m motion4d_ros.ros.document ."


def test_the_defaults_file_says_what_the_node_does() -> None:
    values = yaml.safe_load(default_yaml(node_config()))["/**"]["ros__parameters"]
    config = Config()
    config.update(values)
    assert config.as_dict() == node_config().as_dict()
    assert {path for path, value in config.as_dict().items() if value != Config().get(path)} == set(NODE_DEFAULTS)


def test_every_topic_and_parameter_is_documented(repository: Path) -> None:
    text = (repository / "docs" / "interface.md").read_text(encoding="utf-8")
    for topic in TOPICS:
        assert f"| `{topic}` |" in text or f"`{topic}`" in text.split("### Outputs")[1].split("### Services")[0], topic
    for tunable in node_config().tunables():
        assert f"| `{parameter_name(tunable.path)}` |" in text


@pytest.mark.parametrize("name", ["cpu_small", "fast", "realtime_gpu", "quality", "lossless"])
def test_presets_hold_known_parameters_of_the_right_type(repository: Path, name: str) -> None:
    path = repository / "config" / f"{name}.yaml"
    config = Config()
    config.update_from_yaml(path)
    given = yaml.safe_load(path.read_text(encoding="utf-8"))["/**"]["ros__parameters"]
    for section, values in given.items():
        for leaf, value in values.items():
            assert type(value) is type(config.get(f"{section}.{leaf}")), f"{section}.{leaf}: ROS is strict about types"


def test_rviz_shows_every_output_with_a_qos_that_fits(repository: Path) -> None:
    content = yaml.safe_load((repository / "config" / "motion4d.rviz").read_text(encoding="utf-8"))
    displays = {d["Topic"]["Value"]: d for d in content["Visualization Manager"]["Displays"] if "Topic" in d}
    drawn = set(TOPICS) - {"tracked_objects", "status", "camera_pose"}
    assert set(displays) == {f"/motion4d/{name}" for name in drawn}
    assert displays["/motion4d/static_points"]["Topic"]["Durability Policy"] == "Transient Local"


@pytest.mark.parametrize("name", ["motion4d", "offline", "rviz"])
def test_launch_files_are_python_and_make_a_description(repository: Path, name: str) -> None:
    path = repository / "launch" / f"{name}.launch.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert any(isinstance(node, ast.FunctionDef) and node.name == "generate_launch_description" for node in tree.body)
    pytest.importorskip("launch_ros", reason="launch is not installed")
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    from launch import LaunchContext, LaunchService

    description = get_launch_description_from_python_launch_file(str(path))
    assert description.get_launch_arguments() and LaunchContext() and LaunchService
