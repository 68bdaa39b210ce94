"""The SROS2 policy grants what the running node publishes, hears and answers, and nothing else."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

from harness import Harness

OPTIONAL = {
    "subscribe": {"/detections", "/tf", "/tf_static", "/clock", "/parameter_events"},  # vision_msgs, tf2_ros, sim time
    "publish": {"/motion4d/label_info", "/tf"},
    "reply": {"/motion4d/get_type_description"},
}
TOPICS = {"image": "/camera/image_raw", "depth": "/camera/depth", "masks": "/masks", "odometry": "/odom"}


def granted(repository: Path, path: str) -> dict[str, set[str]]:
    root = ElementTree.parse(repository / "config" / "security" / "motion4d_policy.xml").getroot()
    assert root.tag == "policy" and root.get("version") == "0.2.0"
    profile = root.find(f"enclaves/enclave[@path='{path}']/profiles/profile")
    assert profile is not None
    found: dict[str, set[str]] = {}
    for group in profile:
        ((kind, verdict),) = group.attrib.items()
        assert verdict == "ALLOW"
        names = [(item.text or "").strip() for item in group]
        assert len(set(names)) == len(names)
        found[kind] = {
            f"/motion4d/{name[2:]}" if name.startswith("~/") else name if name.startswith("/") else f"/{name}"
            for name in names
        }
    return found


def test_the_policy_fits_the_node(harness: Callable[..., Harness], repository: Path) -> None:
    sources = {"depth.source": "topic", "masks.source": "topic", "pose.source": "odometry"}
    h = harness(parameters=sources)
    own, ns = f"{h.ns}/motion4d", h.ns
    remapped = {f"{ns}/camera/image_raw": "/camera/image_raw", f"{ns}/camera/camera_info": "/camera/camera_info",
                f"{ns}/depth": "/camera/depth", f"{ns}/masks": "/masks", f"{ns}/odometry": "/odom"}  # fmt: skip

    def plain(names: list[tuple[str, list[str]]]) -> set[str]:
        return {remapped.get(name, name.removeprefix(ns)) for name, _ in names}

    node = h.tester
    heard: dict[str, set[str]] = {}

    def complete() -> bool:
        heard["subscribe"] = plain(node.get_subscriber_names_and_types_by_node("motion4d", ns))
        heard["publish"] = plain(node.get_publisher_names_and_types_by_node("motion4d", ns))
        heard["reply"] = plain(node.get_service_names_and_types_by_node("motion4d", ns))
        return "/clicked_point" in heard["subscribe"] and "/motion4d/status" in heard["publish"]

    assert h.until(complete) and own
    heard["subscribe"].discard("/camera_info")  # depth's own calibration: here beside the depth topic of the namespace
    policy = granted(repository, "/motion4d")
    for kind, names in heard.items():
        assert names - policy[kind] == set(), f"{kind}: the node needs more than it is granted"
        assert policy[kind] - names <= OPTIONAL[kind], f"{kind}: more is granted than the node uses"


def test_who_only_looks_may_touch_nothing(repository: Path) -> None:
    viewer, node = granted(repository, "/motion4d_viewer"), granted(repository, "/motion4d")
    assert set(viewer) == {"subscribe", "publish"} and viewer["publish"] == {"/rosout", "/parameter_events"}
    outputs = {name for name in node["publish"] if name.startswith("/motion4d/")} - {"/motion4d/transition_event"}
    assert viewer["subscribe"] == outputs | {"/diagnostics", "/tf", "/tf_static"}
