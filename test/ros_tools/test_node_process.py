"""The node as soak, load, fuzz and benchmark start it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from motion4d_ros.ros_tools.node_process import NodeProcess, arguments


def test_arguments_say_what_is_remapped_set_and_reliable() -> None:
    words = arguments(
        {"image": "/a/image"}, {"run.threads": 1}, params_file=Path("p.yaml"), namespace="/r", reliable=["/a/image"],
        depth=7,
    )  # fmt: skip
    text = " ".join(words)
    assert text.startswith("--ros-args -p autostart:=true --params-file p.yaml -r __ns:=/r -r image:=/a/image")
    assert "-p qos_overrides./a/image.subscription.reliability:=reliable" in text
    assert "-p qos_overrides./a/image.subscription.depth:=7" in text and text.endswith("-p run.threads:=1")


def test_a_node_that_ended_is_noticed_with_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = NodeProcess(arguments({}, {"window.length": "many"}), log)
    try:
        deadline = time.monotonic() + 120
        with pytest.raises(RuntimeError, match=r"the node ended with status 2: .*log"):
            while time.monotonic() < deadline:
                process.check()
                time.sleep(0.1)
    finally:
        process.close()
    assert "window.length" in log.read_text()
