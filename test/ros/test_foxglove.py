"""`config/foxglove.json` shows what there is: every topic and every field in it is in the contract."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image

from motion4d_ros.ros.outputs.publishers import TOPICS

KNOWN = {**{f"/motion4d/{name}": kind for name, kind in TOPICS.items()}, "/diagnostics": DiagnosticArray}
IN_THE_BAG = {"semantic_mask", "tracked_points", "camera_pose", "tracked_objects", "markers", "static_points", "status"}
"""Topics of `output.mcap`, which has no others."""
INPUTS = {"/clicked_point"}
SHOWN_IN_3D = {"visualization_msgs.msg", "sensor_msgs.msg", "geometry_msgs.msg"}


@pytest.fixture(scope="module")
def layout(repository: Path) -> dict[str, Any]:
    content = json.loads((repository / "config" / "foxglove.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def leaves(node: Any) -> Iterator[str]:
    """Panels of a mosaic."""
    if isinstance(node, str):
        yield node
        return
    assert node["direction"] in ("row", "column") and 0 < node["splitPercentage"] < 100
    yield from leaves(node["first"])
    yield from leaves(node["second"])


def topics_of(panel: dict[str, Any]) -> Iterator[str]:
    yield from panel.get("topics", {})
    yield from (path["value"] for path in panel.get("paths", ()))
    yield from (panel[key] for key in ("topicPath", "topicToRender") if key in panel)
    if "imageMode" in panel:
        yield panel["imageMode"]["imageTopic"]


def field_type(kind: type, path: str) -> str:
    """The type of a field, `objects[:].twist.twist.linear` deep. Raises `KeyError` where there is none."""
    found = ""
    for step in path.split("."):
        name = re.sub(r"\[.*\]$", "", step)
        found = kind.get_fields_and_field_types()[name]
        inner = re.fullmatch(r"sequence<(.+)>", found)
        assert bool(inner) == step.endswith("]"), f"{path}: {step}"
        found = inner[1] if inner else found
        if "/" in found:
            package, name = found.split("/")
            kind = getattr(importlib.import_module(f"{package}.msg"), name)
    return found


def test_every_panel_is_laid_out_once(layout: dict[str, Any]) -> None:
    panels = layout["configById"]
    placed = list(leaves(layout["layout"]))
    for panel in panels.values():
        placed += [leaf for tab in panel.get("tabs", ()) for leaf in leaves(tab["layout"])]
    assert sorted(placed) == sorted(panels)
    assert {name.split("!")[0] for name in panels} == {"3D", "Image", "Tab", "Plot", "RawMessages", "DiagnosticSummary"}


def test_every_topic_is_in_the_contract(layout: dict[str, Any], repository: Path) -> None:
    contract = (repository / "docs" / "reference" / "interface.md").read_text(encoding="utf-8")
    named = {topic.split(".")[0] for panel in layout["configById"].values() for topic in topics_of(panel)}
    assert named <= set(KNOWN)
    for topic in named:
        short = topic.removeprefix("/motion4d/")
        assert f"`{short}`" in contract, topic
    assert {f"/motion4d/{name}" for name in IN_THE_BAG} <= named, "all of output.mcap is on display"
    text = json.dumps(layout)
    everything = set(re.findall(r'"(/[a-z0-9_/]+)', text))
    assert everything == named | INPUTS, "no topic hides elsewhere in the file"


def test_panels_show_what_their_topics_carry(layout: dict[str, Any]) -> None:
    for name, panel in layout["configById"].items():
        if name.startswith("Image!"):
            assert KNOWN[panel["imageMode"]["imageTopic"]] is Image
        for topic in panel.get("topics", {}):
            assert KNOWN[topic].__module__.rpartition(".")[0] in SHOWN_IN_3D
        for path in panel.get("paths", ()):
            topic, _, field = path["value"].partition(".")
            norm = field.endswith(".@norm")
            kind = field_type(KNOWN[topic], field.removesuffix(".@norm"))
            assert kind == "geometry_msgs/Vector3" if norm else re.fullmatch(r"u?int\d+|float|double", kind), path
    assert KNOWN[layout["configById"]["DiagnosticSummary!health"]["topicToRender"]] is DiagnosticArray


def test_the_bag_of_an_analysis_has_these_topics(repository: Path) -> None:
    source = (repository / "motion4d_ros" / "offline" / "results" / "bag_output.py").read_text(encoding="utf-8")
    assert set(re.findall(r'topics\.write\("([a-z_]+)"', source)) == IN_THE_BAG
