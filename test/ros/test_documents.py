"""What is written about the node is true: generated tables, presets, launch files, RViz."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from engine_double import DoubleEngine
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from motion4d_ros.config import Config
from motion4d_ros.ros.outputs.markers import MarkerMaker
from motion4d_ros.ros.outputs.publishers import TOPICS, output_qos
from motion4d_ros.ros.parameters import NODE_DEFAULTS, node_config, parameter_name
from motion4d_ros.ros_tools.document import contents, default_yaml
from motion4d_ros.types import Camera, Frame


def a_frame() -> Frame:
    """A frame with one object in it."""
    masks = np.zeros((24, 32), np.int32)
    masks[4:12, 6:18] = 3
    image = np.zeros((24, 32, 3), np.uint8)
    return Frame(10**9, image, Camera(30.0, 30.0, 15.5, 11.5, 32, 24), T_map_cam=np.eye(4), masks=masks)


def test_generated_parts_are_up_to_date(repository: Path) -> None:
    for path, text in contents(repository).items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run python -m motion4d_ros.ros_tools.document ."


def test_the_defaults_file_says_what_the_node_does() -> None:
    values = yaml.safe_load(default_yaml(node_config()))["/**"]["ros__parameters"]
    config = Config()
    config.update(values)
    assert config.as_dict() == node_config().as_dict()
    assert {path for path, value in config.as_dict().items() if value != Config().get(path)} == set(NODE_DEFAULTS)


def test_every_topic_and_parameter_is_documented(repository: Path) -> None:
    text = (repository / "docs" / "reference" / "interface.md").read_text(encoding="utf-8")
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
    assert given.pop("preset", "none") == "none", "no network unless it is named"
    for section, values in given.items():
        for leaf, value in values.items():
            assert type(value) is type(config.get(f"{section}.{leaf}")), f"{section}.{leaf}: ROS is strict about types"


def rviz(repository: Path) -> dict[str, Any]:
    """What the RViz file holds."""
    text = (repository / "config" / "motion4d.rviz").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text)["Visualization Manager"])


RVIZ_TYPES = {"MarkerArray": MarkerArray, "PointCloud2": PointCloud2, "Image": Image, "Pose": PoseStamped}


def test_rviz_shows_every_output_with_the_right_type_and_a_qos_that_fits(repository: Path) -> None:
    displays = [display for display in rviz(repository)["Displays"] if "Topic" in display]
    topics = [display["Topic"]["Value"].removeprefix("/motion4d/") for display in displays]
    assert sorted(topics) == sorted(set(TOPICS) - {"tracked_objects", "status"})  # RViz cannot draw those two
    for topic, display in zip(topics, displays, strict=True):
        package, kind = display["Class"].split("/")
        assert package == "rviz_default_plugins" and RVIZ_TYPES[kind] is TOPICS[topic], topic
        asked, offered = display["Topic"], output_qos(topic)
        assert asked["Reliability Policy"] in ("Reliable", "Best Effort") and offered.reliability.name == "RELIABLE"
        latched = offered.durability.name == "TRANSIENT_LOCAL"  # a late RViz wants the map that was published before
        assert asked["Durability Policy"] == ("Transient Local" if latched else "Volatile"), topic
        assert asked["Depth"] >= 1 and asked["History Policy"] == "Keep Last"


def test_rviz_draws_in_the_frame_and_names_the_node_uses(repository: Path) -> None:
    content = rviz(repository)
    assert content["Global Options"]["Fixed Frame"] == "map"
    displays = {display["Name"]: display for display in content["Displays"]}
    estimate = DoubleEngine(Config()).add_frame(a_frame())
    maker = MarkerMaker(trail=5)
    maker.make(estimate, "map")
    namespaces = {marker.ns for marker in maker.make(estimate, "map").markers}
    assert namespaces == set(displays["Objects"]["Namespaces"])
    for display in content["Displays"]:
        if display["Class"].endswith("PointCloud2"):
            assert display["Color Transformer"] == "RGB8"  # the `rgb` field, which both clouds have
    (publish_point,) = (tool for tool in content["Tools"] if tool["Class"].endswith("PublishPoint"))
    assert publish_point["Topic"]["Value"] == "/clicked_point"


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
